"""The chart in a cluster without Kubernetes: its rendered manifests are played, pod by pod, in Linux namespaces (control_plane.py).

Needs root, iproute2, iptables, and PyPI's helm-python-sdk, PyYAML and grpcio (tools/check.sh cluster); skipped without.
"""

import asyncio
import base64
import contextlib
import copy
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
        "workerGroups": [{"name": "workers", "pods": 1, "ranks": 2, "extraArgs": ["--threads=1"]}]}
FETCH = {"model": {"path": "/models/model", "volume": {}, "fetch": {
    "image": "checkpoint:1", "command": ["sh", "-c"], "args": ["cp -r /checkpoint/. /models/part && mv /models/part /models/model"]}}}
GENERATE = ("generate", "--connect=bell-bellwether:7400", "--insecure", "--prompt-ids=1,2,3", "--ignore-eos", "--temperature=0")
# Over values-tls.yaml.
PIPELINE = {"drainSeconds": 60, "contextTokens": 20000, "quantize": "none",
            "workerGroups": [{"name": "stages", "pods": 2, "ranks": 1, "extraArgs": ["--threads=1"]}]}
LINKS = 7410  # the first port of links between pods
MONITORED = {"metrics": {"podMonitor": {"enabled": True}}}
READ = "import sys, urllib.request; [print(url, urllib.request.urlopen(url, timeout=60).read().decode()) for url in sys.argv[1:]]"
MEANWHILE = 3  # seconds that an answer takes in which something is to happen


def make_certificates(directory):
    subprocess.run([processes.ROOT / "tools/make_certificates.sh", directory, "bellwether"], check=True)


def secret(name, directory):
    """As `kubectl create secret generic` makes it of the files of tools/make_certificates.sh."""
    files = {"tls.crt": "bellwether.pem", "tls.key": "bellwether.key", "ca.crt": "authority.pem"}
    return {"kind": "Secret", "metadata": {"name": name},
            "data": {key: base64.b64encode((directory / file).read_bytes()).decode() for key, file in files.items()}}


def connections(pod, port):
    """Of a pod's TCP connections the other ends of those to and from the port, as hexadecimal numbers and ports."""
    rows = [line.split() for line in pathlib.Path(f"/proc/{pod.containers[0].number}/net/tcp").read_text().splitlines()[1:]]
    return [there for _, here, there, state, *_ in rows if state == "01" and f":{port:04X}" in (here[8:], there[8:])]


class Clusters(unittest.IsolatedAsyncioTestCase):
    certificates = None  # a directory, where there are some

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
            if self.certificates:
                cluster.put_data(secret("bellwether-cluster-tls", self.certificates))
            yield cluster

    async def install(self, *values):
        """A cluster with the chart in it, ready, and the pod of `helm test`, which clients are made of."""
        cluster = await self.enterAsyncContext(self.empty_cluster())
        manifests, tests = self.render(*values)
        cluster.apply(manifests)
        await cluster.until_ready()
        return cluster, *tests

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
        """Its answer, without the line on how long it took."""
        return (await self.answer(cluster, pod)).rpartition("[")[0]

    async def until_it_has_begun(self, cluster, pod):
        await cluster.until(lambda: pod.containers[0].log.stat().st_size, f"{pod.name} streams")

    async def until_served_again(self, cluster, epochs):
        """Once more than `epochs` have been served, and everything is ready."""
        def served():
            return sum(pod.containers[0].log.read_text().count("serving in epoch") for pod in cluster.pods_of("coordinator"))
        await cluster.until(lambda: served() > epochs, "another epoch is served")
        await cluster.until_ready()


class Demo(Clusters):
    """One pod of two ranks, whose model an init container brings, as values-cpu-demo.yaml has it."""

    async def test_install_answers_and_restarts(self):
        cluster, test = await self.install(FETCH, DEMO, MONITORED)
        self.assertEqual(len(json.loads(await self.answer(cluster, self.ask(cluster, test)))["token_ids"]), 1)
        for rank in cluster.pods_of("worker")[0].containers:
            self.assertIn("memfd:bellwether-link", pathlib.Path(f"/proc/{rank.number}/maps").read_text(), "ranks of a pod share memory")
        long, expected = await self.long_answer(cluster, test)
        await self.delete_under_load(cluster, test, long, expected)
        await self.crash_under_load(cluster, test, long, expected)
        await self.scrape(cluster, test, next(each for each in self.render(FETCH, DEMO, MONITORED)[0] if each["kind"] == "PodMonitor"))
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
        """A rank is killed: its streams end with its name, its container alone is restarted, and everything is as before."""
        worker = cluster.pods_of("worker")[0]
        client = self.ask(cluster, test, *long)
        await self.until_it_has_begun(cluster, client)
        worker.containers[1].signal(signal.SIGKILL)
        self.assertIn(f"{worker.name}-1", await self.answer(cluster, client, code=1))
        await self.until_served_again(cluster, epochs=2)
        self.assertEqual([each.restarts for each in worker.containers], [0, 1])
        self.assertEqual(await self.text(cluster, self.ask(cluster, test, *long)), expected)


class Pipeline(Clusters):
    """Two stages in two pods, which encrypt what they say, the model on a volume of the nodes."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.certificates = pathlib.Path(tempfile.mkdtemp(dir=sandbox.STATE))
        cls.addClassCleanup(shutil.rmtree, cls.certificates)
        make_certificates(cls.certificates)
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
        cluster.put_data(secret("bellwether-cluster-tls", self.certificates))
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
        self.assertIn(lost.name, await self.answer(cluster, client, code=1))
        await self.until_served_again(cluster, epochs=1)
        self.assertEqual(await self.text(cluster, self.ask(cluster, test, *long)), expected)

    async def test_an_answer_may_not_hold_up_the_end_of_a_pod(self):
        cluster, test = await self.install(*self.values, {"drainSeconds": 1})
        client = self.ask(cluster, test, *GENERATE, "--max-tokens=19000")
        await self.until_it_has_begun(cluster, client)
        worker = cluster.pods_of("worker")[0]
        await cluster.delete_pod(worker)
        self.assertEqual([each.code for each in worker.containers], [0], "well within its grace period")
        self.assertIn("requests ran on for 1.0 s", await self.answer(cluster, client, code=1))
        await self.until_served_again(cluster, epochs=1)

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


if __name__ == "__main__":
    sandbox.enter("tests.deploy.cluster_test")
    unittest.main()
