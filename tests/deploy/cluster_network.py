"""The network of a cluster: names as CoreDNS gives them, Services and network policies as rules of the node's packet filter.

A Service is an address from which the filter leads connections on to a pod that is ready, and keeps those that are there with
their pod; a policy looks at connections when they are opened. Pods see each other's own addresses.
"""

import asyncio
import struct

from tests.deploy import manifests, sandbox

NAMESPACE = "test"
DOMAIN = f"{NAMESPACE}.svc.cluster.local"
A, ANY_CLASS_IN = 1, 1
NAME_ERROR = 3


class Network:
    """Addresses of a cluster: 10.100.0.0/16 for pods, 10.200.0.0/16 for Services."""
    node, dns, services = "10.100.0.1", "10.200.0.10", "10.200.0.0/16"

    def __init__(self):
        self._pods, self._services = 1, {}

    def pod_address(self):
        self._pods += 1
        return f"10.100.{self._pods // 256}.{self._pods % 256}"

    def service_address(self, name):
        return self._services.setdefault(name, f"10.200.1.{len(self._services) + 1}")

    async def make(self):
        await sandbox.make_node(self.node)
        # Services have a route, so that what nobody answers there is forwarded, and refused on the way.
        await sandbox.run("ip", "-batch", "-", text=f"""
            address replace {self.dns}/32 dev lo
            link add name services type veth peer name nowhere
            link set dev services up
            link set dev nowhere up
            route add {self.services} dev services src {self.node}""")

    @staticmethod
    def resolver():
        return f"nameserver {Network.dns}\nsearch {DOMAIN} svc.cluster.local cluster.local\noptions ndots:5\n"


# -- Names


class Names(asyncio.DatagramProtocol):
    """A name server. `look_up` gives the addresses of a name, or None where there is no such name."""

    def __init__(self, look_up):
        self._look_up = look_up
        self.asked = set()

    def connection_made(self, transport):
        self._transport = transport

    def datagram_received(self, data, address):
        answer = self._answer(data)
        if answer:
            self._transport.sendto(answer, address)

    def _answer(self, query):
        try:
            number, flags, questions = struct.unpack_from("!HHH", query)
            end, labels = 12, []
            while length := query[end]:
                labels.append(query[end + 1:end + 1 + length].decode().lower())
                end += 1 + length
            kind, _ = struct.unpack_from("!HH", query, end + 1)
        except (struct.error, IndexError, UnicodeDecodeError):
            return None
        name = ".".join(labels)
        self.asked.add(name)
        addresses = self._look_up(name) if questions == 1 else None
        code = NAME_ERROR if addresses is None else 0
        records = [b"\xc0\x0c" + struct.pack("!HHIH4s", A, ANY_CLASS_IN, 5, 4, bytes(map(int, each.split("."))))
                   for each in addresses or [] if kind == A]
        head = struct.pack("!HHHHHH", number, 0x8480 | flags & 0x0100 | code, 1, len(records), 0, 0)
        return head + query[12:end + 5] + b"".join(records)


def names_of(services, pods, service_address):
    """Every name of the cluster and its addresses, and so the names of Services without any."""
    names = {}
    for service in services:
        name = f"{service.name}.{DOMAIN}"
        if not service.headless:
            names[name] = [service_address(service.name)]
            continue
        names[name] = []
        for pod in endpoints(service, pods):
            names[name].append(pod.address)
            if pod.owner and pod.owner.service == service.name:
                names[f"{pod.name}.{name}"] = [pod.address]
    return names


def endpoints(service, pods):
    """The pods behind a Service, as Kubernetes' EndpointSlices have them."""
    return [pod for pod in pods if manifests.selects(service.selector, pod.labels) and pod.has_address and not pod.over.is_set()
            and (service.unready_too or (pod.ready and not pod.stopping.is_set()))]


# -- The packet filter


def filter_rules(services, policies, pods, service_address):
    """What iptables-restore takes."""
    lead, pass_on = [], []
    for service in services:
        if service.headless:
            continue
        behind = endpoints(service, pods)
        for port, target in service.ports:
            to = f"-d {service_address(service.name)} -p tcp --dport {port}"
            targets = [f"{pod.address}:{number}" for pod in behind if (number := port_of(pod, target))]
            for index, each in enumerate(targets):
                share = f"-m statistic --mode random --probability {1 / (len(targets) - index):.6f}"
                lead.append(f"-A SERVICES {to} {share} -j DNAT --to-destination {each}")
            if not targets:
                pass_on.append(f"-A PASS {to} -j REJECT --reject-with tcp-reset")
    for pod in pods:
        if pod.has_address and not pod.over.is_set():
            pass_on += [rule for way in ("egress", "ingress") for rule in rules_of(pod, way, policies, pods)]
    chains = sorted({line.split()[1] for line in pass_on} - {"PASS"})
    return "\n".join([
        "*nat", ":PREROUTING ACCEPT", ":INPUT ACCEPT", ":OUTPUT ACCEPT", ":POSTROUTING ACCEPT", ":SERVICES -",
        "-A PREROUTING -j SERVICES", *lead, "COMMIT",
        "*filter", ":INPUT ACCEPT", ":FORWARD ACCEPT", ":OUTPUT ACCEPT", ":PASS -", *(f":{chain} -" for chain in chains),
        "-A FORWARD -j PASS", "-A INPUT -j PASS", "-A PASS -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN", *pass_on, "COMMIT", ""])


def port_of(pod, target):
    if isinstance(target, int):
        return target
    return next((each.ports[target] for each in pod.spec.containers if target in each.ports), None)


def rules_of(pod, way, policies, pods):
    """A pod that a policy selects is cut off but for what one of its policies allows."""
    mine = [policy for policy in policies if way in policy.rules and manifests.selects(policy.selector, pod.labels)]
    if not mine:
        return
    chain = f"{way}-{pod.address}"
    self_flag, other_flag = ("-s", "-d") if way == "egress" else ("-d", "-s")
    # What a kubelet asks of its pods is allowed always: it comes from the node and is not forwarded.
    yield f"-A PASS {self_flag} {pod.address} -j {chain}"
    for policy in mine:
        for selectors, ports in policy.rules[way]:
            others = [""] if selectors is None else [
                f"{other_flag} {other.address}" for other in pods if other.has_address and not other.over.is_set()
                and any(manifests.selects(each, other.labels) for each in selectors)]
            for other in others:
                for protocol, first, last in ports:
                    yield f"-A {chain} {other} -p {protocol} --dport {first}:{last} -j RETURN"
    yield f"-A {chain} -j REJECT --reject-with icmp-admin-prohibited"
