"""What a kubelet does for one pod: volumes, variables, containers in their order, probes, restarts with back-off, an orderly end."""

import asyncio
import collections
import os
import signal
import time

import grpc

from tests.deploy import manifests, sandbox

# Kubernetes' own: the first restart is at once, then after 10 s, doubled each time; who ran for ten minutes starts anew.
BACK_OFF, BACK_OFF_MAX, FORGIVEN_AFTER = 10, 300, 600
HEALTH = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"  # HealthCheckResponse { status = SERVING }


async def check_tcp(address, probe):
    _, writer = await asyncio.open_connection(address, probe.target)
    writer.close()


async def check_http(address, probe):
    port, path = probe.target
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}:{port}\r\nUser-Agent: kube-probe\r\nConnection: close\r\n\r\n".encode())
        status = (await reader.readline()).decode(errors="replace")
    finally:
        writer.close()
    if not 200 <= int((status.split() or "00")[1]) < 400:
        raise ConnectionError(status.strip())


async def check_grpc(address, probe):
    def ask():
        # A HealthCheckRequest of a short name: field 1, its length, its bytes.
        request = b"\n" + bytes([len(probe.service)]) + probe.service.encode() if probe.service else b""
        with grpc.insecure_channel(f"{address}:{probe.target}", [("grpc.enable_http_proxy", 0)]) as channel:
            return channel.unary_unary(HEALTH)(request, timeout=probe.timeout)

    try:
        answer = await asyncio.to_thread(ask)
    except grpc.RpcError as error:
        raise ConnectionError(f"{error.code().name}: {error.details()}") from error
    if answer != SERVING:
        raise ConnectionError("NOT_SERVING")


CHECKS = {"tcpSocket": check_tcp, "httpGet": check_http, "grpc": check_grpc}


class Container:
    """One container of a pod, through all its restarts."""

    def __init__(self, pod, spec):
        self.pod, self.spec = pod, spec
        self.log = pod.logs / f"{spec.name}.log"
        self.log.touch()
        self.started = self.ready = False
        self.restarts, self.code = 0, None
        self.number = 0  # of its process, 0 without
        self.asked = collections.Counter()  # by kind of probe
        self._process = None
        self._ended = asyncio.Event()

    def say(self, text):
        self.pod.say(f"{self.spec.name}: {text}")

    async def run(self, restart):
        delay = 0
        while True:
            began = time.monotonic()
            self.code = await self._run_once()
            if self.pod.stopping.is_set() or not restart:
                return
            if time.monotonic() - began > FORGIVEN_AFTER:
                delay = 0
            self.restarts += 1
            self.say(f"ended with {self.code}, restarts in {delay} s")
            if await happens(self.pod.stopping, delay):
                return
            delay = min(max(BACK_OFF, 2 * delay), BACK_OFF_MAX)

    async def _run_once(self):
        self._ended.clear()
        program, environment = self.command()
        self._process, self.number = await self.pod.sandbox.start(
            program, environment, self.spec.user, self.pod.mounts_of(self.spec), self.log)
        self.say(f"started: {' '.join(program)}")
        if self.pod.stopping.is_set():  # it was told before there was anything to stop
            self.signal(signal.SIGKILL)
        probes = asyncio.create_task(self._probe())
        code = await self._process.wait()
        self._ended.set()
        probes.cancel()
        self.number, self.started, self.ready = 0, False, False
        self.pod.changed()
        return code

    def command(self):
        variables = {"PATH": sandbox.PATH, "HOSTNAME": self.pod.name, "HOME": "/"}
        fields = {"metadata.name": self.pod.name, "metadata.uid": self.pod.uid, "status.podIP": self.pod.address}
        variables |= self.pod.owner.variables if self.pod.owner else {}
        for each in self.spec.variables:
            if each.secret is None:
                variables[each.name] = fields[each.field] if each.field else manifests.expand(each.text, variables)
            elif (value := self.pod.secret_value(*each.secret)) is not None:
                variables[each.name] = value.decode()
        return [manifests.expand(each, variables) for each in self.spec.program], variables

    def signal(self, number):
        if self.number:
            try:
                os.kill(self.number, number)
            except ProcessLookupError:
                pass  # it has just ended, and who waits for it hears of that

    async def stop(self, grace):
        """preStop, SIGTERM, and SIGKILL when the grace period is over."""
        end = time.monotonic() + grace
        if self.number and self.spec.pre_stop:
            try:
                code = await asyncio.wait_for(self._execute(self.spec.pre_stop), grace)
                self.say(f"preStop ended with {code}")
            except asyncio.TimeoutError:
                self.say("preStop took longer than the grace period")
        self.say("is told to stop")
        self.signal(signal.SIGTERM)
        if self.number and not await happens(self._ended, max(2, end - time.monotonic())):
            self.say("did not stop within its grace period and is killed")
            self.signal(signal.SIGKILL)
            await self._ended.wait()

    def _execute(self, command):
        _, environment = self.command()
        return self.pod.sandbox.execute(self.number, command, environment, self.spec.user, self.log)

    # -- Probes

    async def _probe(self):
        if not self.number:
            return
        startup = self.spec.probes.get("startup")
        if startup and not await self._watch("startup", startup, until=True):
            return
        self.started = True
        self.ready = "readiness" not in self.spec.probes
        self.pod.changed()
        await asyncio.gather(*(self._watch(kind, self.spec.probes[kind]) for kind in ("readiness", "liveness") if kind in self.spec.probes))

    async def _watch(self, kind, probe, until=False):
        """Asks again and again; with `until`, until the first time that all is well. False: the container is being stopped."""
        failures, said = 0, None
        await asyncio.sleep(probe.delay)
        while True:
            wrong = await self._ask(probe)
            self.asked[kind] += 1
            failures = failures + 1 if wrong else 0
            if wrong != said:
                self.say(f"{kind} probe: {wrong or 'well'}")
                said = wrong
            if kind == "readiness" and (not wrong or failures >= probe.failures) and self.ready == bool(wrong):
                self.ready = not wrong
                self.pod.changed()
            if until and not wrong:
                return True
            if kind != "readiness" and failures >= probe.failures:
                self.say(f"{kind} probe: failed {failures} times, the container is stopped")
                asyncio.create_task(self.stop(self.pod.spec.grace))
                return False
            await asyncio.sleep(probe.period)

    async def _ask(self, probe):
        """What is wrong, or nothing."""
        try:
            if probe.check == "exec":
                code = await asyncio.wait_for(self._execute(probe.target), probe.timeout)
                return f"ended with {code}" if code else ""
            # gRPC keeps its own time, to the end of which its thread lives.
            await asyncio.wait_for(CHECKS[probe.check](self.pod.address, probe), probe.timeout + (probe.check == "grpc"))
            return ""
        except asyncio.TimeoutError:
            return "no answer in time"
        except OSError as error:
            return str(error)


async def happens(event, limit):
    try:
        await asyncio.wait_for(event.wait(), limit)
        return True
    except asyncio.TimeoutError:
        return False


class Pod:
    """A pod on its node, from its first volume to its last breath. `cluster` has what lies outside of it."""

    def __init__(self, cluster, identity, spec, owner=None):
        self.cluster, self.spec, self.owner = cluster, spec, owner
        self.name, self.uid, self.labels = identity["name"], identity["uid"], identity["labels"]
        self.address, self.node, self.template = identity["address"], identity["node"], identity.get("template")
        self.directory, self.logs = cluster.state / self.uid, cluster.state / "logs" / self.uid
        self.logs.mkdir(parents=True)
        self.sandbox = sandbox.Sandbox(self.directory, self.name, self.address)
        self.stopping, self.over = asyncio.Event(), asyncio.Event()
        self.has_address = False
        self.init_containers = [Container(self, each) for each in spec.init_containers]
        self.containers = [Container(self, each) for each in spec.containers]
        self._sources = {}  # of its volumes
        self.life = asyncio.create_task(self._live())

    def say(self, text):
        self.cluster.say(f"{self.name}: {text}")

    def changed(self):
        self.cluster.changed.set()

    @property
    def ready(self):
        return self.has_address and not self.over.is_set() and all(each.ready for each in self.containers)

    @property
    def restarts(self):
        return sum(each.restarts for each in self.containers)

    async def _live(self):
        try:
            await self.sandbox.make(self.cluster.cable(), self.cluster.network.node, {
                "hosts": f"127.0.0.1 localhost\n{self.address} {self.cluster.host_names(self)}\n", "hostname": f"{self.name}\n",
                "resolv.conf": self.cluster.resolver(), "passwd": "root:x:0:0:root:/root:/bin/sh\n"})
            self.has_address = True
            self.changed()
            while wrong := self._make_volumes() or self._missing_keys():  # as a kubelet does: whoever has forgotten a Secret may bring it
                self.say(wrong)
                if await happens(self.stopping, 1):
                    return
            for each in self.init_containers:
                while each.code != 0 and not self.stopping.is_set():
                    await each.run(restart=False)
                    if each.code != 0:
                        self.say(f"{each.spec.name}: ended with {each.code}")
                        if await happens(self.stopping, BACK_OFF):
                            return
            if not self.stopping.is_set():
                await asyncio.gather(*(each.run(self.spec.restart == "Always") for each in self.containers))
        except Exception as error:  # of this kubelet's making: the test has to hear of it
            self.cluster.failed.append(f"{self.name}: {error!r}")
            raise
        finally:
            self.over.set()
            self.changed()

    async def stop(self, grace=None):
        grace = self.spec.grace if grace is None else grace
        self.stopping.set()
        self.changed()
        await asyncio.gather(*(each.stop(grace) for each in self.containers + self.init_containers if each.number))
        await self.over.wait()

    async def lose(self):
        """Its node is gone, from one moment to the next."""
        self.stopping.set()
        await self.sandbox.cut()
        await self.kill()

    async def kill(self):
        self.stopping.set()
        for each in self.containers + self.init_containers:
            each.signal(signal.SIGKILL)
        await self.over.wait()

    async def remove(self):
        await asyncio.gather(self.life, return_exceptions=True)
        if self.directory.exists():
            await self.sandbox.remove()

    # -- Volumes

    def _make_volumes(self):
        """What is missing, or nothing."""
        for name, volume in self.spec.volumes.items():
            path = self.directory / "volumes" / name
            if volume.kind == "hostPath":
                self._sources[name] = volume.source
                if not os.path.isdir(volume.source):
                    return f"volume {name}: the node has no directory {volume.source}"
                continue
            path.mkdir(parents=True, exist_ok=True)
            self._sources[name] = path
            group = self.spec.containers[0].user.volume_group
            os.chown(path, -1, -1 if group is None else group)
            path.chmod(0o2777)
            if volume.kind != "emptyDir":
                data = self.cluster.data_of(volume.kind, volume.source)
                if data is None:
                    return f"volume {name}: there is no {volume.kind} {volume.source}"
                write_projected(path, data, volume.mode, group)
        return ""

    def secret_value(self, name, key):
        return (self.cluster.data_of("secret", name) or {}).get(key)

    def _missing_keys(self):
        """Of the Secrets that variables are from: what is missing, or nothing."""
        return next((f"{container.name}: there is no key {key} of a secret {name}" for container in self.spec.init_containers + self.spec.containers
                     for name, key in (each.secret for each in container.variables if each.secret and not each.optional)
                     if self.secret_value(name, key) is None), "")

    def renew(self, kind, source):
        """Writes the volumes of a Secret or ConfigMap anew that has changed."""
        for name, volume in self.spec.volumes.items():
            if (volume.kind, volume.source) == (kind, source) and name in self._sources:
                write_projected(self._sources[name], self.cluster.data_of(kind, source), volume.mode,
                                self.spec.containers[0].user.volume_group)

    def mounts_of(self, container):
        image = self.cluster.images.get(container.image)
        if image is None:
            raise manifests.Refused(f"{self.name}: there is no image {container.image}")
        mounts = [(source, target, False) for target, source in image.items()]
        for volume, target, writable in container.mounts:
            if volume not in self._sources:
                raise manifests.Refused(f"{self.name}: {container.name}: there is no volume {volume}")
            is_projected = self.spec.volumes[volume].kind in ("secret", "configMap")
            mounts.append((self._sources[volume], target, writable and not is_projected))
        return mounts


def write_projected(path, data, mode, group):
    """A Secret's files as a kubelet writes them: links into a directory that is exchanged in one go."""
    new = path / f"..{time.monotonic_ns()}"
    new.mkdir()
    for name, content in data.items():
        file = new / name
        file.write_bytes(content)
        file.chmod(mode if group is None else mode | 0o440)
        os.chown(file, 0, 0 if group is None else group)
        if not (path / name).is_symlink():
            (path / name).symlink_to(f"..data/{name}")
    if group is not None:
        os.chown(new, 0, group)
    (path / "..tmp").symlink_to(new.name)
    (path / "..tmp").rename(path / "..data")
