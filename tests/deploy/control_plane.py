"""A cluster without Kubernetes: what the API server, the controllers and the scheduler do, for the kinds that the chart makes.

Kubelets are tests/deploy/kubelet.py, the network is cluster_network.py. Coroutines of one event loop, and no threads.
"""

import asyncio
import base64
import itertools
import shutil
import time
import uuid

from tests.deploy import cluster_network, kubelet, manifests, sandbox
from tests.e2e import processes

READERS = {"Deployment": manifests.read_workload, "StatefulSet": manifests.read_workload, "Service": manifests.read_service,
           "LeaderWorkerSet": lambda document: manifests.read_replicas(document, cluster_network.NAMESPACE),
           "NetworkPolicy": manifests.read_policy, "PodDisruptionBudget": manifests.read_budget}


class Cluster:
    """`images` are names and what lies in them: {path in the container: directory of this machine}."""

    def __init__(self, images, nodes=3):
        self.images, self.network = images, cluster_network.Network()
        self.nodes = {f"node-{i}": {"kubernetes.io/hostname": f"node-{i}"} for i in range(nodes)}
        self.state = sandbox.STATE / "cluster"
        self.objects = {kind: {} for kind in READERS}  # as read, by name
        self.data = {"secret": {}, "configMap": {}}
        self.service_accounts = {"default"}
        self.pods = []
        self.events, self.failed = [], []
        self.changed = asyncio.Event()
        self._names, self._cables, self._began = {}, itertools.count(), time.monotonic()
        self._tasks, self._rules = set(), ""

    async def __aenter__(self):
        await self.network.make()
        self.state.mkdir()
        loop = asyncio.get_running_loop()
        self._dns, self.names = await loop.create_datagram_endpoint(
            lambda: cluster_network.Names(self._look_up), local_addr=(self.network.dns, 53))
        self._loop = asyncio.create_task(self._control())
        return self

    async def __aexit__(self, *_):
        self._loop.cancel()
        await asyncio.gather(self._loop, *self._tasks, return_exceptions=True)
        await asyncio.gather(*(pod.kill() for pod in self.pods))
        await asyncio.gather(*(pod.remove() for pod in self.pods))
        self._dns.close()
        await sandbox.run("ip", "link", "delete", "dev", "services")
        shutil.rmtree(self.state)

    # -- What a person does

    def apply(self, documents):
        """As `helm install` and `helm upgrade` do: what a release had and has no more is deleted."""
        objects = {kind: {} for kind in READERS}
        for each in documents:
            kind = each["kind"]
            if kind in READERS:
                objects[kind][each["metadata"]["name"]] = READERS[kind](each)
            elif kind == "ServiceAccount":
                self.service_accounts.add(each["metadata"]["name"])
            elif kind in ("ConfigMap", "Secret"):
                self.put_data(each)
            elif kind not in manifests.READ_BY_OTHERS:
                raise manifests.Refused(f"this cluster has no {kind}")
        for each in objects["LeaderWorkerSet"].values():
            objects["Service"].setdefault(each.name, each.service())  # unless one is called so already
        self.objects = objects
        self.changed.set()

    def put_data(self, document):
        kind, name = {"Secret": "secret", "ConfigMap": "configMap"}[document["kind"]], document["metadata"]["name"]
        data = document["data"]
        self.data[kind][name] = {key: base64.b64decode(text) if kind == "secret" else text.encode() for key, text in data.items()}
        for pod in self.pods:
            pod.renew(kind, name)

    def run_pod(self, document):
        """A pod that nobody leads, such as that of `helm test`."""
        metadata, spec = manifests.read_single_pod(document)
        return self._start_pod(metadata.name, metadata.labels, spec, None)

    def delete_pod(self, pod, grace=None):
        """Begins the pod's orderly end; the task ends with it."""
        pod.stopping.set()
        self.changed.set()
        return self._spawn(self._end_pod(pod, grace))

    def evict(self, pod):
        """As `kubectl drain` asks for it: None where a PodDisruptionBudget forbids it now."""
        for budget in self.objects["PodDisruptionBudget"].values():
            if manifests.selects(budget.selector, pod.labels):
                wanted = sum(each.replicas for each in self._workloads() if manifests.selects(budget.selector, each.labels))
                healthy = sum(each.ready and not each.stopping.is_set() for each in self.pods
                              if manifests.selects(budget.selector, each.labels))
                if healthy - 1 < wanted - budget.unavailable:
                    return None
        return self.delete_pod(pod)

    async def lose_node(self, node):
        """A node is gone without a word, and an administrator has said that it will not come back."""
        lost = [pod for pod in self.pods if pod.node == node]
        del self.nodes[node]
        await asyncio.gather(*(pod.lose() for pod in lost))
        for pod in lost:
            await self._forget(pod)
        return lost

    # -- What a person sees

    def pods_of(self, component):
        return [pod for pod in self.pods if pod.labels.get("app.kubernetes.io/component") == component]

    def story(self):
        logs = [f"-- {path.parent.name} {path.name}\n{path.read_text(errors='replace')}" for path in sorted(self.state.glob("logs/*/*.log"))]
        return "\n".join(["-- events", *self.events, *logs])

    def say(self, text):
        self.events.append(f"{time.monotonic() - self._began:7.2f} {text}")

    async def until(self, happened, what):
        """Looks again and again, but neither for ever nor where this cluster itself has failed."""
        end = time.monotonic() + processes.PATIENCE
        while not (result := happened()):
            if self.failed or time.monotonic() > end:
                raise AssertionError(f"{what}: it has not happened. {' '.join(self.failed)}\n{self.story()}")
            await asyncio.sleep(0.02)
        return result

    def is_ready(self):
        wanted = sum(each.replicas for each in self._workloads())
        led = [pod for pod in self.pods if pod.owner]
        return wanted and len(led) == wanted and all(pod.ready and not pod.stopping.is_set() for pod in led)

    async def until_ready(self):
        """As `kubectl rollout status` of everything."""
        await self.until(self.is_ready, "all pods are ready")

    # -- What pods ask

    def cable(self):
        return f"pod-{next(self._cables)}"

    def resolver(self):
        return self.network.resolver()

    def host_names(self, pod):
        service = pod.owner.service if pod.owner else ""
        return f"{pod.name}.{service}.{cluster_network.DOMAIN} {pod.name}" if service else pod.name

    def data_of(self, kind, name):
        return self.data[kind].get(name)

    def _look_up(self, name):
        return self._names.get(name)

    # -- Controllers

    def _workloads(self):
        groups = [workload for each in self.objects["LeaderWorkerSet"].values() for group in each.groups for workload in group]
        return [*self.objects["Deployment"].values(), *self.objects["StatefulSet"].values(), *groups]

    def _spawn(self, coroutine):
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _control(self):
        try:
            while True:
                await self.changed.wait()
                self.changed.clear()
                await self._reconcile()
                await self._refresh_network()
        except Exception as error:
            self.failed.append(repr(error))
            raise

    async def _reconcile(self):
        workloads = {(each.kind, each.name): each for each in self._workloads()}
        for pod in list(self.pods):
            if pod.over.is_set() and pod.stopping.is_set() and pod.owner:
                await self._forget(pod)
            elif pod.owner and (pod.owner.kind, pod.owner.name) not in workloads and not pod.stopping.is_set():
                self.delete_pod(pod)
        for each in self.objects["Deployment"].values():
            self._lead_deployment(each)
        for each in self.objects["StatefulSet"].values():
            self._lead_stateful_set(each)
        for each in self.objects["LeaderWorkerSet"].values():
            self._lead_replicas(each.groups)

    def _led_by(self, workload):
        return [pod for pod in self.pods if pod.owner and (pod.owner.kind, pod.owner.name) == (workload.kind, workload.name)]

    def _lead_deployment(self, deployment):
        """Recreate: another template comes only when the pods of the old one are gone. A pod that was deleted is replaced at once."""
        pods = self._led_by(deployment)
        old = [pod for pod in pods if pod.template != deployment.template]
        for pod in old:
            if not pod.stopping.is_set():
                self.delete_pod(pod)
        if not old:
            for _ in range(deployment.replicas - sum(not pod.stopping.is_set() for pod in pods)):
                self._start_pod(f"{deployment.name}-{uuid.uuid4().hex[:5]}", deployment.labels, deployment.pod, deployment)

    def _lead_stateful_set(self, stateful_set):
        """OnDelete, Parallel: a pod keeps its template until it is deleted, and its name is free when it is gone."""
        pods = {pod.name: pod for pod in self._led_by(stateful_set)}
        wanted = stateful_set.names()
        for name in wanted:
            if name not in pods:
                self._start_pod(name, stateful_set.labels | {"statefulset.kubernetes.io/pod-name": name}, stateful_set.pod, stateful_set)
        for name, pod in pods.items():
            if name not in wanted and not pod.stopping.is_set():
                self.delete_pod(pod)

    def _lead_replicas(self, groups):
        """RollingUpdate of one group at a time, the last first: a leader takes its workers with it, and a new one comes when all are gone."""
        for leader, workers in reversed(groups):
            pods = {pod.name: pod for each in (leader, workers) for pod in self._led_by(each)}
            leads = leader.name in pods and not pods[leader.name].stopping.is_set()
            is_old = any(pod.template != each.template for each in (leader, workers) for pod in self._led_by(each))
            if not pods:
                self._start_pod(leader.name, leader.labels, leader.pod, leader)
            elif not leads or (is_old and all(self._is_whole(other) for other in groups if other[0] is not leader)):
                for pod in pods.values():
                    if not pod.stopping.is_set():
                        self.delete_pod(pod)
            elif not is_old:
                for name in workers.names():
                    if name not in pods:
                        self._start_pod(name, workers.labels, workers.pod, workers)

    def _is_whole(self, group):
        """Whether all pods of a replica are there, and as they should be."""
        pods = [pod for each in group for pod in self._led_by(each) if pod.ready and not pod.stopping.is_set()]
        return len(pods) == sum(each.replicas for each in group)

    def _start_pod(self, name, labels, spec, owner):
        if spec.service_account not in self.service_accounts:
            raise manifests.Refused(f"{name}: there is no ServiceAccount {spec.service_account}")
        identity = {"name": name, "uid": str(uuid.uuid4()), "labels": labels, "address": self.network.pod_address(),
                    "node": self._schedule(name, spec), "template": owner.template if owner else None}
        pod = kubelet.Pod(self, identity, spec, owner)
        self.pods.append(pod)
        pod.say(f"on {pod.node}, {pod.address}, {pod.uid}")
        return pod

    def _schedule(self, name, spec):
        """The node with the fewest of the pods from which this one wants to be away, then with the fewest pods."""
        nodes = [node for node, labels in self.nodes.items() if manifests.selects(spec.node_selector, labels)]
        if not nodes:
            raise manifests.Refused(f"{name}: no node has the labels {spec.node_selector}")

        def crowd(node):
            there = [pod for pod in self.pods if pod.node == node]
            apart = [sum(manifests.selects(selector, pod.labels) for pod in there)
                     for key, selector in spec.spread if key in self.nodes[node]]
            return sum(apart), len(there)
        return min(nodes, key=crowd)

    async def _end_pod(self, pod, grace):
        pod.say("is deleted")
        await pod.stop(grace)
        await self._forget(pod)

    async def _forget(self, pod):
        if pod in self.pods:
            self.pods.remove(pod)
            await pod.remove()
            self.changed.set()

    async def _refresh_network(self):
        services, policies = list(self.objects["Service"].values()), list(self.objects["NetworkPolicy"].values())
        self._names = cluster_network.names_of(services, self.pods, self.network.service_address)
        rules = cluster_network.filter_rules(services, policies, self.pods, self.network.service_address)
        if rules != self._rules:
            self._rules = rules
            await sandbox.run("iptables-restore", text=rules)
