"""The Debian package and its units: what they name is there, what they set the programs take, how closed they are."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

from tests.e2e import processes

UNITS = processes.ROOT / "deploy" / "systemd"
EXAMPLES = processes.ROOT / "deploy" / "etc"
PROGRAMS = ("bellwether", "bellwether-coordinator", "bellwether-worker")
RESTRICTED = processes.ROOT / "tests/deploy/restricted.py"
EXPOSURE_MAX, EXPOSURE_MAX_GPU = 1.5, 2.0  # of systemd-analyze security


def directives(unit, name):
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.M)


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        made = subprocess.run(["cpack", "-B", directory.name, "--config", processes.BIN.parent / "CPackConfig.cmake"], cwd=directory.name,
                              capture_output=True, text=True, timeout=processes.PATIENCE)
        if made.returncode != 0:
            raise RuntimeError(made.stdout + made.stderr)
        (cls.package,) = pathlib.Path(directory.name).glob("bellwether_*.deb")
        cls.root = pathlib.Path(directory.name) / "root"
        subprocess.run(["dpkg-deb", "-x", cls.package, cls.root], check=True)
        cls.depends = subprocess.run(["dpkg-deb", "-f", cls.package, "Depends"], check=True, capture_output=True, text=True).stdout

    def test_the_package_has_everything_that_its_units_name(self):
        self.assertIn("libgrpc++", self.depends)
        for unit in UNITS.glob("*.service"):
            self.assertTrue((self.root / "lib/systemd/system" / unit.name).exists() or
                            (self.root / "usr/lib/systemd/system" / unit.name).exists(), unit.name)
            (command,) = directives(unit, "ExecStart")
            program = self.root / command.split()[0].lstrip("/")
            self.assertTrue(os.access(program, os.X_OK), program)
            version = subprocess.run([program, "--help"], capture_output=True, text=True)
            self.assertEqual(version.returncode, 0)
        for example in (*EXAMPLES.iterdir(), UNITS / "gpu.conf"):
            self.assertTrue((self.root / "usr/share/doc/bellwether/examples" / example.name).exists())
        self.assertLess(self.package.stat().st_size, 60 << 20)

    def test_the_package_has_what_its_guides_name(self):
        guides = self.root / "usr/share/doc/bellwether"
        self.assertTrue((guides / "deploy.md").exists())
        for guide in guides.glob("*.md"):
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", guide.read_text()):
                self.assertTrue((guides / link).exists(), f"{guide.name}: {link}")
        for name in ("tools/make_certificates.sh", "monitoring/prometheus.yml", "monitoring/rules", "monitoring/grafana/dashboards"):
            self.assertTrue((self.root / "usr/share/bellwether" / name).exists(), name)
        self.assertTrue(os.access(self.root / "usr/share/bellwether/tools/make_certificates.sh", os.X_OK))
        recommended = subprocess.run(["dpkg-deb", "-f", self.package, "Recommends"], check=True, capture_output=True, text=True).stdout
        self.assertEqual(recommended.strip(), "openssl", "by which it makes certificates")

    def test_each_commit_is_a_version_of_its_own(self):
        """apt passes over a package of the version that is there, and a cluster takes one build."""
        git = ["git", "-C", processes.ROOT, "rev-parse", "--short=7", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True)
        if commit.returncode != 0:
            self.skipTest("no git here")
        version = subprocess.run(["dpkg-deb", "-f", self.package, "Version"], check=True, capture_output=True, text=True).stdout.strip()
        self.assertRegex(version, rf"^[\d.]+\+git\d+\.{commit.stdout.strip()}$")

    def test_programs_are_hardened(self):
        """Of the packaged programs, not of flags: docs/supply-chain.md says what each is against."""
        for name in PROGRAMS:
            program = self.root / "usr/bin" / name
            said = subprocess.run(["readelf", "--wide", "--file-header", "--program-headers", "--dynamic", program], check=True,
                                  capture_output=True, text=True).stdout
            self.assertRegex(said, r"Type:\s+DYN \(Position-Independent Executable", name)
            self.assertRegex(said, r"FLAGS\)\s+BIND_NOW", name)
            self.assertRegex(said, r"GNU_RELRO", name)
            self.assertRegex(said, r"GNU_STACK(\s+0x\w+){5}\s+RW\s", name)
            self.assertNotRegex(said, r"LOAD(\s+0x\w+){5}\s+RWE", name)
            self.assertNotRegex(said, r"RPATH|RUNPATH|TEXTREL", name)
            if processes.has_sanitizers():
                continue  # which watch the same, and are not for packages
            called = subprocess.run(["nm", "--dynamic", "--undefined-only", program], check=True, capture_output=True, text=True).stdout
            self.assertIn("__stack_chk_fail@", called, name)
            self.assertRegex(called, r"__(mem|str|read|v?s?n?printf|vfprintf|fprintf|fread)\w*_chk@", name)

    def test_the_list_of_what_it_is_made_of(self):
        listed = json.loads((self.root / "usr/share/bellwether/bellwether.spdx.json").read_text())
        self.assertEqual(listed["spdxVersion"], "SPDX-2.3")
        packages = {package["name"]: package for package in listed["packages"]}
        # All that the package depends on, as dpkg found by itself, and all that the build declares: linked, or compiled in.
        linked = [field.split()[0] for field in self.depends.split(",") if "systemd" not in field]
        self.assertGreater(len(linked), 8)
        for name in linked:
            self.assertIn(name.split("-fmt")[0], packages)
        sources = {package.get("sourceInfo", "").split()[-1] for package in listed["packages"] if "sourceInfo" in package}
        declared = subprocess.run([processes.ROOT / "tools/setup.sh", "--libraries"], check=True, capture_output=True, text=True).stdout
        for name in declared.split():
            source = subprocess.run(["dpkg-query", "-W", "-f", "${source:Package}", name], check=True, capture_output=True, text=True).stdout
            self.assertIn(source.replace("boost-defaults", "boost1.74"), sources, name)
        related = {relation["relatedSpdxElement"]: relation["relationshipType"] for relation in listed["relationships"]}
        for name, package in packages.items():
            self.assertIn(package["SPDXID"], related)
            self.assertNotEqual(package["licenseDeclared"], "NOASSERTION", f"{name}: tools/make_sbom.py knows no licence of it")
            self.assertTrue(package["versionInfo"], name)
        self.assertEqual(related["SPDXRef-nlohmann-json3-dev"], "STATIC_LINK")
        self.assertEqual(related["SPDXRef-libgrpc--1.51"], "DYNAMIC_LINK")

    def test_every_example_is_taken_by_its_program(self):
        for name, command in (("up", ["bellwether", "up"]), ("coordinator", ["bellwether-coordinator"]),
                              ("worker", ["bellwether-worker"])):
            done = subprocess.run([processes.BIN / command[0], *command[1:], "--config", EXAMPLES / f"{name}.conf.example",
                                   "--print-config"], capture_output=True, text=True, timeout=processes.PATIENCE)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("/srv/models/", done.stdout)

    def test_units_are_closed(self):
        if shutil.which("systemd-analyze") is None:
            self.skipTest("systemd-analyze is not there")
        drop_in = (UNITS / "gpu.conf").read_text()
        for unit in UNITS.glob("*.service"):
            with tempfile.TemporaryDirectory() as directory:
                on_gpus = pathlib.Path(directory) / unit.name  # what a drop-in says comes last
                on_gpus.write_text(unit.read_text() + drop_in)
                for path, limit in ((unit, EXPOSURE_MAX), (on_gpus, EXPOSURE_MAX_GPU)):
                    said = subprocess.run(["systemd-analyze", "security", "--offline=true", path], capture_output=True, text=True)
                    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", said.stdout)
                    self.assertIsNotNone(exposure, said.stdout + said.stderr)
                    self.assertLessEqual(float(exposure.group(1)), limit, path)

    def test_all_units_are_one_user(self):
        """Workers of one machine share memory, and refuse that to other users."""
        users = {tuple(directives(unit, "User") + directives(unit, "DynamicUser")) for unit in UNITS.glob("*.service")}
        self.assertEqual(users, {("bellwether",)})
        self.assertIn("u bellwether ", (UNITS / "bellwether.sysusers").read_text())
        self.assertEqual(directives(UNITS / "bellwether.service", "TimeoutStartSec"), ["infinity"], "loading takes minutes")

    def test_the_service_manager_is_told(self):
        for program, *arguments in self.services():
            with self.manager() as manager, self.started(program, *arguments, NOTIFY_SOCKET=manager.getsockname()) as service:
                self.assertEqual(manager.recv(100), b"READY=1")
                service.terminate()
                self.assertEqual(manager.recv(100), b"STOPPING=1")
                self.assertEqual(service.wait(processes.PATIENCE), 0)
                manager.settimeout(0)
                with self.assertRaises(BlockingIOError, msg="the children of up keep quiet"):
                    manager.recv(100)

    def test_a_manager_that_watches_hears_that_they_live(self):
        """While the coordinator waits for a worker, a worker for its coordinator, a worker has joined, and `up` serves."""
        for unit in UNITS.glob("*.service"):
            self.assertEqual(directives(unit, "WatchdogSec"), ["120"], unit.name)
        cluster = processes.Cluster(self.model(), workers=0)
        self.addCleanup(cluster.close)
        workers = [["bellwether-worker", "--model", self.model(), "--threads", "1", "--coordinator", address, "--metrics-listen", ""]
                   for address in ("127.0.0.1:1", cluster.worker_address)]
        for program, *arguments in (*self.services(), *workers):
            with self.manager() as manager, self.started(program, *arguments, NOTIFY_SOCKET=manager.getsockname(),
                                                         WATCHDOG_USEC="200000") as service:
                heard = [manager.recv(100) for _ in range(5)]
                self.assertEqual(sorted(set(heard)), [b"READY=1", b"WATCHDOG=1"], program)
            with self.manager() as manager, self.started(program, *arguments, NOTIFY_SOCKET=manager.getsockname(),
                                                         WATCHDOG_USEC="200000", WATCHDOG_PID="1") as service:
                self.assertEqual(manager.recv(100), b"READY=1")
                service.terminate()
                self.assertEqual(manager.recv(100), b"STOPPING=1", "it is another that the manager asks")

    def model(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        processes.write_tiny_checkpoint(directory.name)
        return directory.name

    def services(self):
        listen = [f"--{port}=127.0.0.1:0" for port in ("listen", "worker-listen", "http-listen")]
        model = self.model()
        return (["bellwether-coordinator", "--model", model, *listen], ["bellwether", "up", "--model", model, "--threads", "1", *listen])

    @contextlib.contextmanager
    def manager(self):
        with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(f"{directory}/notify")
            manager.settimeout(processes.PATIENCE)
            yield manager

    @contextlib.contextmanager
    def started(self, program, *arguments, **environment):
        with subprocess.Popen([processes.BIN / program, *arguments], stderr=subprocess.DEVNULL, env=os.environ | environment) as service:
            try:
                yield service
            finally:
                service.terminate()
                service.wait(processes.PATIENCE)

    def test_programs_work_as_closed_in_as_their_units(self):
        """`up` with two ranks in shared memory, and a coordinator with a worker over mutual TLS, by the units' own command lines."""
        if os.geteuid() != 0 or shutil.which("systemd-analyze") is None:
            self.skipTest("needs root, for file systems of its own, and systemd-analyze, for what its groups of system calls hold")
        if processes.has_sanitizers():
            self.skipTest("sanitizers do what units refuse: they trace their own process")
        with tempfile.TemporaryDirectory(prefix="bellwether-test.", dir="/run") as name:
            home = pathlib.Path(name)
            home.chmod(0o755)
            shutil.copytree(self.root / "usr/bin", home / "bin")
            (home / "model").mkdir()
            processes.write_tiny_checkpoint(home / "model")
            processes.make_certificates(home / "tls", "flock")
            for file in (home / "tls", *(home / "tls").iterdir()):
                file.chmod(0o755)  # the units' user is nobody's
            tls = "".join(f"cluster-tls-{what} = {home}/tls/{name}\n" for what, name in (
                ("certificate", "flock.pem"), ("key", "flock.key"), ("authority", "authority.pem")))
            cases = ({"bellwether": "up.conf"}, {"bellwether-coordinator": "coordinator.conf", "bellwether-worker@": "worker-a.conf"})
            for units in cases:
                client, http, workers, metrics = (f"127.0.0.1:{processes.free_port()}" for _ in range(4))
                own = f"listen = {client}\nhttp-listen = {http}\nworker-listen = {workers}\nmetrics-listen = {metrics}\n"
                texts = {"up.conf": own + "tensor-parallel = 2\nthreads = 1\n", "coordinator.conf": own + "workers = 1\n" + tls,
                         "worker-a.conf": f"coordinator = {workers}\nthreads = 1\nmetrics-listen =\ncluster-tls-server-name = flock\n" + tls}
                with contextlib.ExitStack() as stack:
                    logs = {unit: stack.enter_context(open(home / f"{unit}.log", "w+")) for unit in units}
                    for unit, config in units.items():
                        (home / config).write_text(f"model = {home}/model\n" + texts[config])
                        stack.enter_context(self.closed_in(UNITS / f"{unit}.service", home, logs[unit]))
                    try:
                        self.assertEqual(answer_of(http)["usage"]["completion_tokens"], 3)
                    except OSError:
                        self.fail("\n".join((home / f"{unit}.log").read_text() for unit in units))

    def test_the_cage_is_one(self):
        """What the test before believes in: a program that tries is refused."""
        if os.geteuid() != 0 or shutil.which("systemd-analyze") is None:
            self.skipTest("needs root and systemd-analyze")
        probe = """
import ctypes, mmap, os, socket
def refused(call):
    try: call()
    except OSError: return
    print("not refused:", call.__doc__ or call.__code__.co_names)
refused(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC))
refused(lambda: socket.socket(socket.AF_PACKET))
refused(lambda: open("/run/x", "w"))
refused(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
if ctypes.CDLL(None).unshare(0x10000000) == 0: print("a namespace")
print("user", os.getuid(), sorted(os.listdir("/dev")), os.listdir("/tmp"))
"""
        for unit in UNITS.glob("*.service"):
            with tempfile.TemporaryDirectory(dir="/run") as writable:
                said = subprocess.run([sys.executable, "-B", RESTRICTED, unit, writable, sys.executable, "-c", probe], capture_output=True,
                                      text=True, timeout=processes.PATIENCE)
                self.assertEqual(said.stdout, "user 65532 ['full', 'null', 'random', 'shm', 'urandom', 'zero'] []\n", said.stderr)

    @contextlib.contextmanager
    def closed_in(self, unit, home, log):
        """A unit's command line, with `home` for /usr and /etc/bellwether."""
        (command,) = directives(unit, "ExecStart")
        words = command.replace("/usr/bin", f"{home}/bin").replace("/etc/bellwether", str(home)).replace("%i", "a").split()
        (home / "cache").mkdir(exist_ok=True)
        with subprocess.Popen([sys.executable, "-B", RESTRICTED, unit, home / "cache", *words], stdout=log, stderr=log) as service:
            try:
                yield
            finally:
                service.terminate()
                service.wait(processes.PATIENCE)


def answer_of(http):
    """Three tokens; asks until there is somebody who answers."""
    body = json.dumps({"model": "model", "prompt": "Once upon", "max_tokens": 3}).encode()
    end = time.monotonic() + processes.PATIENCE
    while True:
        try:
            request = urllib.request.Request(f"http://{http}/v1/completions", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=processes.PATIENCE) as answer:
                return json.load(answer)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    unittest.main()
