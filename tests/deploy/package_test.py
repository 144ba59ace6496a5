"""The Debian package and its units: what they name is there, what they set the programs take, how closed they are."""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import unittest

from tests.e2e import processes

UNITS = processes.ROOT / "deploy" / "systemd"
EXAMPLES = processes.ROOT / "deploy" / "etc"
EXPOSURE_MAX = 1.5  # of systemd-analyze security


def directives(unit, name):
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.M)


class Package(unittest.TestCase):
    def test_the_package_has_everything_that_its_units_name(self):
        build = processes.BIN.parent
        with tempfile.TemporaryDirectory() as directory:
            made = subprocess.run(["cpack", "-B", directory, "--config", build / "CPackConfig.cmake"], cwd=directory,
                                  capture_output=True, text=True, timeout=processes.PATIENCE)
            self.assertEqual(made.returncode, 0, made.stdout + made.stderr)
            (package,) = pathlib.Path(directory).glob("bellwether_*.deb")
            root = pathlib.Path(directory) / "root"
            subprocess.run(["dpkg-deb", "-x", package, root], check=True)
            fields = subprocess.run(["dpkg-deb", "-f", package, "Depends"], check=True, capture_output=True, text=True).stdout
            self.assertIn("libgrpc++", fields)
            for unit in UNITS.glob("*.service"):
                self.assertTrue((root / "lib/systemd/system" / unit.name).exists() or
                                (root / "usr/lib/systemd/system" / unit.name).exists(), unit.name)
                (command,) = directives(unit, "ExecStart")
                program = root / command.split()[0].lstrip("/")
                self.assertTrue(os.access(program, os.X_OK), program)
                version = subprocess.run([program, "--help"], capture_output=True, text=True)
                self.assertEqual(version.returncode, 0)
            for example in EXAMPLES.iterdir():
                self.assertTrue((root / "usr/share/doc/bellwether/examples" / example.name).exists())
            self.assertTrue((root / "usr/share/doc/bellwether/deploy.md").exists())
            self.assertLess(package.stat().st_size, 60 << 20)

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
        for unit in UNITS.glob("*.service"):
            said = subprocess.run(["systemd-analyze", "security", "--offline=true", unit], capture_output=True, text=True)
            exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", said.stdout)
            self.assertIsNotNone(exposure, said.stdout + said.stderr)
            self.assertLessEqual(float(exposure.group(1)), EXPOSURE_MAX, unit.name)

    def test_all_units_are_one_user(self):
        """Workers of one machine share memory, and refuse that to other users."""
        users = {tuple(directives(unit, "User") + directives(unit, "DynamicUser")) for unit in UNITS.glob("*.service")}
        self.assertEqual(users, {("bellwether",)})
        self.assertIn("u bellwether ", (UNITS / "bellwether.sysusers").read_text())
        self.assertEqual(directives(UNITS / "bellwether.service", "TimeoutStartSec"), ["infinity"], "loading takes minutes")

    def test_the_service_manager_is_told(self):
        with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            model = pathlib.Path(directory) / "model"
            model.mkdir()
            processes.write_tiny_checkpoint(model)
            path = f"{directory}/notify"
            manager.bind(path)
            manager.settimeout(processes.PATIENCE)
            listen = [f"--{port}=127.0.0.1:0" for port in ("listen", "worker-listen", "http-listen")]
            commands = (["bellwether-coordinator", "--model", model, *listen],
                        ["bellwether", "up", "--model", model, "--threads", "1", *listen])
            for program, *arguments in commands:
                with subprocess.Popen([processes.BIN / program, *arguments], stderr=subprocess.DEVNULL,
                                      env=os.environ | {"NOTIFY_SOCKET": path}) as service:
                    self.addCleanup(lambda service=service: service.poll() is None and service.kill())
                    self.assertEqual(manager.recv(100), b"READY=1")
                    service.terminate()
                    self.assertEqual(manager.recv(100), b"STOPPING=1")
                    self.assertEqual(service.wait(processes.PATIENCE), 0)
            manager.settimeout(0)
            with self.assertRaises(BlockingIOError, msg="the children of up keep quiet"):
                manager.recv(100)


if __name__ == "__main__":
    unittest.main()
