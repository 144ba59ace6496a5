"""The chart in a cluster without Kubernetes: its rendered manifests are played, pod by pod, in Linux namespaces (control_plane.py).

Needs root, iproute2, iptables, and PyPI's helm-python-sdk, PyYAML and grpcio (tools/check.sh cluster); skipped without.
"""

import asyncio
import base64
import contextlib
import copy
import hashlib
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

from tests.deploy import sandbox
from tests.e2e import processes

try:
    import grpc  # of the kubelet's probes
    import yaml

    from tests.deploy import chart
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)
if sandbox.missing():
    print(f"skipped: {sandbox.missing()}")
    sys.exit(77)

from tests.deploy import control_plane  # noqa: E402
from tests.deploy.manifests import selects  # noqa: E402

DEMO = {"drainSeconds": 60, "contextTokens": 20000,
        "workerGroups": [{"name": "workers", "pods": 1, "ranks": 2, "extraArgs": ["--threads=1"], "sharedMemory": "1Gi",
                          "shardCache": {"emptyDir": {}}}]}
FETCH = {"model": {"path": "/models/model", "volume": {}, "fetch": {
    "image": "checkpoint:1", "command": ["sh", "-c"], "args": ["cp -r /checkpoint/. /models/part && mv /models/part /models/model"]}}}
GENERATE = ("generate", "--connect=bell-bellwether:7400", "--insecure", "--prompt-ids=1,2,3", "--ignore-eos", "--temperature=0")
# Over values-tls.yaml.
PIPELINE = {"drainSeconds": 60, "contextTokens": 20000, "quantize": "none",
            "workerGroups": [{"name": "stages", "pods": 2, "ranks": 1, "extraArgs": ["--threads=1"]}]}
LINKS = 7410  # the first port of links between pods
MONITORED = {"metrics": {"podMonitor": {"enabled": True}}}
ROUTE = {"enabled": True, "parentRefs": [{"name": "public"}]}
DOORS = {"gateway": {"grpcRoute": ROUTE, "httpRoute": ROUTE}, "ingress": {"enabled": True, "hosts": ["chat.example"]}}
ROUTED = ((DOORS,), (DOORS, {"gateway": {"inferencePool": {"enabled": True}}}))
READ = "import sys, urllib.request; [print(url, urllib.request.urlopen(url, timeout=60).read().decode()) for url in sys.argv[1:]]"
MEANWHILE = 3  # seconds that an answer takes in which something is to happen


# Over DEMO: every door of the chart closed but to those who show and say what they should; cert-manager makes the certificates.
GUARDED = {"tls": {"clusterSecret": "cluster-tls", "clientSecret": "client-tls", "requireClients": True,
                   "certManager": {"clusterIssuer": {"name": "cluster"}, "clientIssuer": {"name": "client"}}},
           "apiKeysSecret": "keys", "joinSecret": "join",
           "workerGroups": [{"name": "workers", "pods": 1, "ranks": 1, "extraArgs": ["--threads=1"],
                             "env": [{"name": "OF_A_SECRET", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "test"}}}]}]}
# Asks the HTTP door. Arguments: shown, where a certificate is to be shown, and what else the request's head is to say.
HTTPS = """
import socket, ssl, sys
tls = "/etc/bellwether/client-tls/"
context = ssl.create_default_context(cafile=tls + "ca.crt")
if sys.argv[1] == "shown":
    context.load_cert_chain(tls + "tls.crt", tls + "tls.key")
with context.wrap_socket(socket.create_connection(("bell-bellwether", 80)), server_hostname="bell-bellwether") as door:
    head = ["GET /v1/models HTTP/1.1", "Host: bell-bellwether", "Connection: close", *sys.argv[2:], "", ""]
    door.sendall("\\r\\n".join(head).encode())
    print(door.recv(64).decode())
"""


def make_certificates(directory, name="bellwether"):
    subprocess.run([processes.ROOT / "tools/make_certificates.sh", directory, name], check=True)


def secret(name, **data):
    """As `kubectl create secret generic` makes it."""
    return {"kind": "Secret", "metadata": {"name": name}, "data": {key: base64.b64encode(each).decode() for key, each in data.items()}}


def tls_secret(name, directory, host="bellwether"):
    """Of the files of tools/make_certificates.sh."""
    files = {"tls.crt": f"{host}.pem", "tls.key": f"{host}.key", "ca.crt": "authority.pem"}
    return secret(name, **{key: (directory / file).read_bytes() for key, file in files.items()})


def connections(pod, port):
    """Of a pod's TCP connections the other ends of those to and from the port, as hexadecimal numbers and ports."""
    rows = [line.split() for line in pathlib.Path(f"/proc/{pod.containers[0].number}/net/tcp").read_text().splitlines()[1:]]
    return [there for _, here, there, state, *_ in rows if state == "01" and f":{port:04X}" in (here[8:], there[8:])]


class Clusters(unittest.IsolatedAsyncioTestCase):
    secrets = ()  # that the cluster has before the chart comes

    @classmethod
    def setUpClass(cls):
        cls.checkpoint = pathlib.Path(tempfile.mkdtemp(dir=sandbox.STATE))
        cls.addClassCleanup(shutil.rmtree, cls.checkpoint)
        cls.checkpoint.chmod(0o755)
        processes.write_tiny_checkpoint(cls.checkpoint, layers=4, positions=20000)
        cls.defaults = chart.values_of(chart.CHART / "values.yaml")

    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)  # which unittest turns on, and which tells of every moment of a busy machine

    @contextlib.asynccontextmanager
    async def empty_cluster(self):
        images = {"bellwether:0.1.0": {"/usr/local/bin": processes.BIN}, "checkpoint:1": {"/checkpoint": self.checkpoint}}
        async with control_plane.Cluster(images) as cluster:
            for each in self.secrets:
                cluster.put_data(each)
            yield cluster

    async def install(self, *values):
        """A cluster with the chart in it, ready, and the pod of `helm test`, which clients are made of."""
        cluster = await self.enterAsyncContext(self.empty_cluster())
        manifests, tests = self.render(*values)
        self.issue(cluster, manifests)
        cluster.apply(manifests)
        await cluster.until_ready()
        return cluster, *tests

    def issue(self, cluster, manifests):
        """As cert-manager does, but for the first name alone: a Secret for every Certificate, by an authority for each issuer."""
        for each in (manifest["spec"] for manifest in manifests if manifest["kind"] == "Certificate"):
            authority, name = sandbox.STATE / f"issuer-{each['issuerRef']['name']}", each["dnsNames"][0]
            make_certificates(authority, name)
            cluster.put_data(tls_secret(each["secretName"], authority, name))

    def render(self, *values, path=chart.CHART):
        """The release's manifests, and those of its test."""
        merged = self.defaults
        for each in values:
            merged = chart.merged(merged, each)
        manifests, _ = chart.render(merged, path)
        is_test = ["helm.sh/hook" in each["metadata"].get("annotations", {}) for each in manifests]
        return [each for each, test in zip(manifests, is_test) if not test], [each for each, test in zip(manifests, is_test) if test]

    def ask(self, cluster, test, *arguments, command=("bellwether",)):
        """A client's pod, begun."""
        document = copy.deepcopy(test)
        if arguments:
            document["metadata"]["name"] = f"client-{len(cluster.events)}"
            document["spec"]["containers"][0] |= {"command": list(command), "args": list(arguments)}
        return cluster.run_pod(document)

    async def scrape(self, cluster, test, monitor):
        """What Prometheus reads where a PodMonitor sends it: pages of every program, each with its address."""
        wanted = {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]}
        pages = [f"http://{pod.address}:{port}/metrics" for pod in cluster.pods
                 if pod.owner and selects(monitor["spec"]["selector"]["matchLabels"], pod.labels)
                 for container in pod.spec.containers for name, port in container.ports.items() if name in wanted]
        text = await self.answer(cluster, self.ask(cluster, test, READ, *pages, command=("python3", "-c")))
        self.assertEqual(text.count("bellwether_build_info{"), sum(len(pod.containers) for pod in cluster.pods if pod.owner), text)

    async def follow_routes(self, cluster, test, release):
        """An answer from every backend to which a gateway would lead clients, asked where the network policy lets clients in."""
        ports = {each["metadata"]["name"]: {port["name"]: port["port"] for port in each["spec"]["ports"]}
                 for each in release if each["kind"] == "Service"}
        for each in release:
            spec = each["spec"] if each["kind"] in ("GRPCRoute", "HTTPRoute", "InferencePool", "Ingress") else {}
            backends = [(backend["name"], backend["port"]) for rule in spec.get("rules", []) for backend in rule.get("backendRefs", [])
                        if backend.get("kind") != "InferencePool"]
            services = [path["backend"]["service"] for rule in spec.get("rules", []) for path in rule.get("http", {}).get("paths", [])]
            backends += [(service["name"], ports[service["name"]].get(service["port"]["name"])) for service in services]
            if each["kind"] == "InferencePool":
                backends += [(pod.address, spec["targetPorts"][0]["number"]) for pod in cluster.pods
                             if selects(spec["selector"]["matchLabels"], pod.labels)]
            for name, port in backends:
                if each["kind"] == "GRPCRoute":
                    client = self.ask(cluster, test, "generate", f"--connect={name}:{port}", "--insecure", "--prompt-ids=1", "--max-tokens=1")
                else:
                    client = self.ask(cluster, test, READ, f"http://{name}:{port}/v1/models", command=("python3", "-c"))
                await self.answer(cluster, client)

    async def answer(self, cluster, pod, code=0):
        """What it wrote until its end."""
        await cluster.until(pod.over.is_set, f"{pod.name} ends")
        self.assertEqual([each.code for each in pod.containers], [code], cluster.story())
        return pod.containers[0].log.read_text()

    async def long_answer(self, cluster, test):
        """Arguments of a client that has to wait, on this machine as busy as it is, and the answer."""
        short = json.loads(await self.answer(cluster, self.ask(cluster, test, *GENERATE, "--max-tokens=64", "--json")))
        tokens = int(MEANWHILE * 64 / short["usage"]["total_seconds"])
        arguments = (*GENERATE, f"--max-tokens={min(max(tokens, 64), 15000)}")
        return arguments, await self.text(cluster, self.ask(cluster, test, *arguments))

    async def text(self, cluster, pod):
        """Its answer, without the lines on what it lived through and how long it took."""
        return re.sub(r"\n\[.*service is back\]\n", "", await self.answer(cluster, pod)).rpartition("[")[0]

    async def until_it_has_begun(self, cluster, pod):
        await cluster.until(lambda: pod.containers[0].log.stat().st_size, f"{pod.name} streams")

    async def until_served_again(self, cluster, epochs):
        """Once more than `epochs` have been served, and everything is ready."""
        def served():
            return sum(pod.containers[0].log.read_text().count("serving in epoch") for pod in cluster.pods_of("coordinator"))
        await cluster.until(lambda: served() > epochs, "another epoch is served")
        await cluster.until_ready()

    def another_build(self):
        """The same programs under the name of another build."""
        directory = pathlib.Path(tempfile.mkdtemp(dir=sandbox.STATE))
        directory.chmod(0o755)
        self.addCleanup(shutil.rmtree, directory)
        for name in ("bellwether", "bellwether-coordinator", "bellwether-worker"):
            program = (processes.BIN / name).read_bytes()
            other, places = re.subn(rb"(\d+\.\d+\.\d+-)[0-9a-f]([0-9a-f]{9})", rb"\1x\2", program)
            self.assertEqual(places, 1, "where a program has the name of its build")
            (directory / name).write_bytes(other)
            (directory / name).chmod(0o755)
        return directory


class Demo(Clusters):
    """One pod of two ranks, whose model an init container brings, as values-cpu-demo.yaml has it."""

    async def test_install_answers_and_restarts(self):
        cluster, test = await self.install(FETCH, DEMO, MONITORED)
        self.assertEqual(len(json.loads(await self.answer(cluster, self.ask(cluster, test)))["token_ids"]), 1)
        for rank in cluster.pods_of("worker")[0].containers:
            self.assertIn("memfd:bellwether-link", pathlib.Path(f"/proc/{rank.number}/maps").read_text(), "ranks of a pod share memory")
            volumes = rank.pod.directory / "volumes"
            self.assertTrue(pathlib.Path(f"/proc/{rank.number}/root/dev/shm").samefile(volumes / "shared-memory"))
            self.assertTrue([each for each in (volumes / "shard-cache").rglob("*") if each.is_file()], "packed layers are kept")
        long, expected = await self.long_answer(cluster, test)
        await self.delete_under_load(cluster, test, long, expected)
        await self.crash_under_load(cluster, test, long, expected)
        await self.scrape(cluster, test, next(each for each in self.render(FETCH, DEMO, MONITORED)[0] if each["kind"] == "PodMonitor"))
        for doors in ROUTED:
            await self.follow_routes(cluster, test, self.render(FETCH, DEMO, *doors)[0])
        await self.uninstall(cluster)

    async def uninstall(self, cluster):
        """`helm uninstall`: every program ends by itself."""
        led = [pod for pod in cluster.pods if pod.owner]
        cluster.apply([])
        await cluster.until(lambda: not set(led) & set(cluster.pods), "the release's pods are gone")
        self.assertEqual([container.code for pod in led for container in pod.containers], [0, 0, 0])
        self.assertNotIn("is killed", cluster.story())

    async def delete_under_load(self, cluster, test, long, expected):
        """`kubectl delete pod`: an answer that has begun comes to its end, then the pod is replaced."""
        worker = cluster.pods_of("worker")[0]
        client = self.ask(cluster, test, *long)
        await self.until_it_has_begun(cluster, client)
        cluster.delete_pod(worker)
        self.assertFalse(client.over.is_set(), "nothing was under way")
        self.assertEqual(await self.text(cluster, client), expected)
        await cluster.until(worker.over.is_set, "the worker's pod ends")
        self.assertEqual([each.code for each in worker.containers], [0, 0])
        await self.until_served_again(cluster, epochs=1)
        [replaced] = cluster.pods_of("worker")
        self.assertEqual((replaced.name, replaced.uid == worker.uid), (worker.name, False))
        self.assertEqual(await self.text(cluster, self.ask(cluster, test, *long)), expected)

    async def crash_under_load(self, cluster, test, long, expected):
        """A rank is killed: its container alone is restarted, and the answer that had begun is the same."""
        worker = cluster.pods_of("worker")[0]
        client = self.ask(cluster, test, *long)
        await self.until_it_has_begun(cluster, client)
        worker.containers[1].signal(signal.SIGKILL)
        await self.until_served_again(cluster, epochs=2)
        self.assertEqual(await self.text(cluster, client), expected)
        self.assertIn(f"[worker {worker.name}-1 (stage ", client.containers[0].log.read_text())
        self.assertEqual([each.restarts for each in worker.containers], [0, 1])
        self.assertEqual(await self.text(cluster, self.ask(cluster, test, *long)), expected)


class Guarded(Clusters):
    """Clients show a certificate and say a key, workers show one of another authority and know a secret."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        record = json.dumps({"name": "team-a", "sha256": hashlib.sha256(b"sheep").hexdigest()})
        cls.secrets = [*cls.secrets, secret("keys", keys=record.encode(), test=b"sheep"), secret("join", secret=b"as long as it has to be")]
        cls.guarded = (FETCH, DEMO, GUARDED)

    def strangers(self, test):
        """Clients that have not all that is asked for: what they are, their arguments and program, and what they hear."""
        own = test["spec"]["containers"][0]["args"]
        no_certificate = [each for each in own if not each.startswith(("--tls-certificate", "--tls-key"))]
        plain = [each for each in no_certificate if not each.startswith("--tls")] + ["--insecure"]
        keyless, web = ("env", "--unset=BELLWETHER_API_KEY", "bellwether"), ("python3", "-c", HTTPS)
        return (("in clear", plain, ("bellwether",), "no coordinator answers"),
                ("without a certificate", no_certificate, ("bellwether",), "no coordinator answers"),
                ("without a key", own, keyless, "an API key is needed"),
                ("with another key", [*own, "--api-key=goat"], ("bellwether",), "nobody has this API key"),
                ("over HTTP without a certificate", ["none", "Authorization: Bearer sheep"], web, "(?i)certificate.required|reset|EOF"))

    async def test_who_has_all_that_is_asked_for_is_answered_and_nobody_else(self):
        cluster, test = await self.install(*self.guarded)
        self.assertEqual(len(json.loads(await self.answer(cluster, self.ask(cluster, test)))["token_ids"]), 1)
        worker = cluster.pods_of("worker")[0].containers[0]
        self.assertIn(b"OF_A_SECRET=sheep", pathlib.Path(f"/proc/{worker.number}/environ").read_bytes().split(b"\0"))
        for name, arguments, program, heard in self.strangers(test):
            with self.subTest(name):
                self.assertRegex(await self.answer(cluster, self.ask(cluster, test, *arguments, command=program), code=1), heard)
        for said, status in (["Authorization: Bearer sheep"], "200"), (["Authorization: Bearer goat"], "401"), ([], "401"):
            page = self.ask(cluster, test, "shown", *said, command=("python3", "-c", HTTPS))
            self.assertIn(f"HTTP/1.1 {status}", await self.answer(cluster, page))
        await self.see_workers_refused(cluster)

    async def see_workers_refused(self, cluster):
        """Workers that nobody leads, on the coordinator's doorstep: a label is all that the network policy asks for."""
        led = next(each for each in self.render(*self.guarded)[0] if each["kind"] == "StatefulSet")["spec"]["template"]
        for name, drop, add, shown, seen in (("ignorant", "--join-secret", [], "cluster-tls", "its join secret is missing"),
                                             ("in-clear", "--cluster-tls", ["--insecure"], "cluster-tls", "no coordinator at .*: "),
                                             ("a-client", "none", [], "client-tls", "no coordinator at .*: ")):
            document = copy.deepcopy(led) | {"kind": "Pod", "apiVersion": "v1"}
            document["metadata"]["name"], document["spec"]["restartPolicy"] = name, "Never"
            next(each for each in document["spec"]["volumes"] if each["name"] == "cluster-tls")["secret"]["secretName"] = shown
            [container] = document["spec"]["containers"]
            container["args"] = [each for each in container["args"] if not each.startswith(drop)] + add
            worker = cluster.run_pod(document)
            await cluster.until(lambda: re.search(seen, worker.containers[0].log.read_text()), f"a worker {name} is refused")
            await worker.kill()
        self.assertTrue(cluster.is_ready())


class Replicas(Clusters):
    """Two whole clusters behind one Service, as values-lws.yaml has it, but for how many there are."""
    few = {"model": {"path": "/models/model", "volume": {"persistentVolumeClaim": None}}, "quantize": "none",
           "leaderWorkerSet": {"enabled": True, "replicas": 2, "autoscaling": {"enabled": False}},
           "workerGroups": [{"name": "stages", "pods": 2, "ranks": 1, "extraArgs": ["--threads=1"]}]}

    def replicas(self, *more):
        return (chart.values_of(chart.CHART / "values-lws.yaml"), FETCH, self.few, *more)

    def joined(self, cluster):
        """By coordinator, the workers that it told of."""
        return {pod.name: set(re.findall(r"has joined \[worker=(\S+)-0\]", pod.containers[0].log.read_text()))
                for pod in cluster.pods_of("coordinator")}

    async def test_every_replica_is_a_cluster_and_is_replaced_as_one(self):
        cluster, test = await self.install(*self.replicas())
        name = "bell-bellwether-replica"
        self.assertEqual(sorted(pod.name for pod in cluster.pods), [f"{name}-{i}{j}" for i in (0, 1) for j in ("", "-1", "-2")])
        self.assertEqual(self.joined(cluster), {f"{name}-{i}": {f"{name}-{i}-1", f"{name}-{i}-2"} for i in (0, 1)})
        await self.answer(cluster, self.ask(cluster, test))
        cluster.images["bellwether:0.2.0"] = {"/usr/local/bin": self.another_build()}
        old = {pod for pod in cluster.pods if pod.owner}
        cluster.apply(self.render(*self.replicas({"image": {"tag": "0.2.0"}}))[0])
        renewed = asyncio.create_task(cluster.until(lambda: not old & set(cluster.pods) and cluster.is_ready(), "all pods are of the new build"))
        while not renewed.done():  # somebody answers all the time
            await self.answer(cluster, self.ask(cluster, test, *GENERATE, "--max-tokens=1"))
        await renewed
        self.assertEqual(sum(pod.restarts for pod in old | set(cluster.pods)), 0)
        cluster.apply(self.render(*self.replicas({"image": {"tag": "0.2.0"}, "leaderWorkerSet": {"replicas": 1}}))[0])
        await cluster.until(lambda: len(cluster.pods_of("coordinator")) == 1 and len(cluster.pods_of("worker")) == 2, "one replica is left")
        await self.answer(cluster, self.ask(cluster, test))


class Pipeline(Clusters):
    """Two stages in two pods, which encrypt what they say, the model on a volume of the nodes."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.certificates = pathlib.Path(tempfile.mkdtemp(dir=sandbox.STATE))
        cls.addClassCleanup(shutil.rmtree, cls.certificates)
        make_certificates(cls.certificates)
        cls.secrets = [*cls.secrets, tls_secret("bellwether-cluster-tls", cls.certificates)]
        volume = {"hostPath": {"path": str(cls.checkpoint), "type": "Directory"}, "persistentVolumeClaim": None}
        cls.values = (chart.values_of(chart.CHART / "values-tls.yaml"), PIPELINE, {"model": {"path": "/models", "volume": volume}})

    async def begin(self):
        cluster, test = await self.install(*self.values)
        long, expected = await self.long_answer(cluster, test)
        return cluster, test, long, expected

    async def test_stages_of_two_pods_talk_encrypted_and_renewal_ends_no_stream(self):
        cluster, test, long, expected = await self.begin()
        first, second = cluster.pods_of("worker")
        self.assertNotEqual(first.node, second.node, "the stages are spread over the nodes")
        self.assertTrue(connections(first, LINKS) + connections(second, LINKS), "a link between the pods")
        for pod in (first, second):
            self.assertNotIn("memfd:bellwether-link", pathlib.Path(f"/proc/{pod.containers[0].number}/maps").read_text())
        stranger = self.ask(cluster, test, "score", "--connect=bell-bellwether-cluster:7401", "--insecure", "--token-ids=1")
        self.assertIn("no coordinator answers", await self.answer(cluster, stranger, code=1))  # the network policy
        client = self.ask(cluster, test, *long)
        await self.until_it_has_begun(cluster, client)
        make_certificates(self.certificates)
        cluster.put_data(tls_secret("bellwether-cluster-tls", self.certificates))
        self.assertEqual(await self.text(cluster, client), expected)
        self.assertTrue(cluster.evict(second))
        self.assertIsNone(cluster.evict(first), "one at a time may go")
        await self.until_served_again(cluster, epochs=1)
        self.assertEqual(await self.text(cluster, self.ask(cluster, test, *long)), expected)

    async def test_a_coordinator_crashes_and_another_takes_its_place(self):
        cluster, test, long, expected = await self.begin()
        [coordinator] = cluster.pods_of("coordinator")
        client = self.ask(cluster, test, *long)
        await self.until_it_has_begun(cluster, client)
        coordinator.containers[0].signal(signal.SIGKILL)
        await self.answer(cluster, client, code=1)
        await self.until_served_again(cluster, epochs=1)
        self.assertEqual(coordinator.restarts, 1)
        client = self.ask(cluster, test, *long)
        await self.until_it_has_begun(cluster, client)
        deleted = cluster.delete_pod(coordinator)  # answers what it has begun, while another pod, of another address, waits for workers
        self.assertEqual(await self.text(cluster, client), expected)
        await deleted
        await cluster.until_ready()
        self.assertEqual(await self.text(cluster, self.ask(cluster, test, *long)), expected)
        self.assertEqual([pod.restarts for pod in cluster.pods], [0] * len(cluster.pods))

    async def test_a_node_is_lost(self):
        cluster, test, long, expected = await self.begin()
        lost = cluster.pods_of("worker")[1]
        client = self.ask(cluster, test, *long)
        await self.until_it_has_begun(cluster, client)
        while client.node == lost.node:  # a client that is gone hears nothing
            client = self.ask(cluster, test, *long)
            await self.until_it_has_begun(cluster, client)
        await cluster.lose_node(lost.node)
        await self.until_served_again(cluster, epochs=1)
        self.assertEqual(await self.text(cluster, client), expected)
        self.assertIn(f"[worker {lost.name}-0 (stage ", client.containers[0].log.read_text())
        self.assertEqual(await self.text(cluster, self.ask(cluster, test, *long)), expected)

    async def test_an_answer_may_not_hold_up_the_end_of_a_pod(self):
        cluster, test = await self.install(*self.values, {"drainSeconds": 1})
        client = self.ask(cluster, test, *GENERATE, "--max-tokens=19000")
        await self.until_it_has_begun(cluster, client)
        worker = cluster.pods_of("worker")[0]
        await cluster.delete_pod(worker)
        self.assertEqual([each.code for each in worker.containers], [0], "well within its grace period")
        await self.until_served_again(cluster, epochs=1)
        self.assertFalse(client.over.is_set(), "it goes on with the pod's successor")
        self.assertIn("requests ran on for 1.0 s; the answer goes on", client.containers[0].log.read_text())

    async def test_an_upgrade_to_another_build(self):
        cluster, test, long, expected = await self.begin()
        cluster.images["bellwether:0.2.0"] = {"/usr/local/bin": self.another_build()}
        client = self.ask(cluster, test, *long)
        await self.until_it_has_begun(cluster, client)
        old = cluster.pods_of("worker")
        cluster.apply(self.render(*self.values, {"image": {"tag": "0.2.0"}})[0])
        self.assertEqual(await self.text(cluster, client), expected)
        for worker in old:
            await cluster.until(lambda: "install the same one on both" in worker.containers[0].log.read_text(), "an old worker is refused")
        self.assertEqual([worker.restarts for worker in old], [0, 0], "they ask again and again")
        for worker in old:
            cluster.delete_pod(worker)
        await self.until_served_again(cluster, epochs=0)
        self.assertFalse(set(old) & set(cluster.pods))
        self.assertEqual(await self.text(cluster, self.ask(cluster, test, *long)), expected)


if __name__ == "__main__":
    sandbox.enter("tests.deploy.cluster_test")
    unittest.main()
