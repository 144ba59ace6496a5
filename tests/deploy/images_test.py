"""The images of deploy/docker, run as deploy/compose/compose.yaml says: small, closed, and they answer.

Needs what tools/build_images.sh leaves, named by BELLWETHER_IMAGES, and root (tools/check.sh images); skipped without.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

if not os.environ.get("BELLWETHER_IMAGES"):
    print("skipped: BELLWETHER_IMAGES names no images")
    sys.exit(77)

from tests.deploy import compose, containers, sandbox
from tests.e2e import processes

IMAGES = pathlib.Path(os.environ["BELLWETHER_IMAGES"])
TARGETS = sorted(path.stem for path in IMAGES.glob("*.oci"))
COMPRESSED_MAX = 60_000_000  # bytes of an image for CPUs
TOOLS_OF_BUILDERS = ("gcc", "g++", "cc", "c++", "clang", "cpp", "as", "ld", "make", "cmake", "ninja", "python3", "git", "curl", "wget")


def get(url):
    with urllib.request.urlopen(url, timeout=processes.PATIENCE) as answer:
        return answer.read().decode()


class Images(unittest.TestCase):
    def test_they_are_small_and_cannot_build(self):
        self.assertLessEqual({"coordinator", "worker"}, set(TARGETS))
        for target in TARGETS:
            image = containers.Image(IMAGES, target)
            print(f"{target}: {image.compressed_bytes / 1e6:.1f} MB compressed")
            self.assertLessEqual(image.compressed_bytes, COMPRESSED_MAX, target)
            found = [tool for tool in TOOLS_OF_BUILDERS for folder in ("usr/bin", "usr/local/bin") if (image.root / folder / tool).exists()]
            self.assertEqual(found, [], target)
            self.assertFalse(any((image.root / "usr/include").rglob("*.h")), target)
            self.assertTrue((image.root / "usr/share/bellwether/bellwether.spdx.json").exists(), target)

    def test_their_user_is_nobody_who_may_write(self):
        """But for what everybody may: a number, as Kubernetes must see that it is not root."""
        for target in TARGETS:
            image = containers.Image(IMAGES, target)
            self.assertEqual(image.config["User"], "65532:65532")
            self.assertIn("bellwether:x:65532:", (image.root / "etc/passwd").read_text())
            mine = [str(path.relative_to(image.root)) for path in image.root.rglob("*")
                    if not path.is_symlink() and path.stat().st_uid == 65532]
            self.assertEqual(mine, ["var/cache/bellwether"], target)
            for path in image.root.rglob("*"):
                status = path.lstat()
                self.assertFalse(path.is_file() and not path.is_symlink() and status.st_mode & 0o002, path)

    def test_the_gpus_image_names_its_device(self):
        if "worker-cuda" not in TARGETS:
            self.skipTest("the package was built without nvcc")
        variables = containers.Image(IMAGES, "worker-cuda").variables()
        self.assertEqual(variables["BELLWETHER_DEVICE"], "cuda:0")
        self.assertEqual(variables["NVIDIA_DRIVER_CAPABILITIES"], "compute,utility")


class Package(unittest.TestCase):
    def test_a_container_builds_the_package_of_this_machine(self):
        """By package.Dockerfile: the same files of the same libraries, and programs that start."""
        [here], [made] = processes.BIN.parent.glob("bellwether_*.deb"), (IMAGES / "package").glob("bellwether_*.deb")
        said = {package: [subprocess.run(["dpkg-deb", *words], check=True, capture_output=True, text=True).stdout for words in (
            ["--contents", package], ["--field", package, "Package", "Architecture", "Depends", "Conffiles"])] for package in (here, made)}
        files = {package: [(line.split()[0], line.split()[5:]) for line in listed.splitlines()] for package, (listed, _) in said.items()}
        self.assertEqual(files[made], files[here])
        self.assertEqual(said[made][1], said[here][1])
        with tempfile.TemporaryDirectory() as root:
            subprocess.run(["dpkg-deb", "--extract", made, root], check=True)
            for program in ("bellwether", "bellwether-coordinator", "bellwether-worker"):
                subprocess.run([f"{root}/usr/bin/{program}", "--help"], check=True, capture_output=True, timeout=processes.PATIENCE)


class Played(unittest.IsolatedAsyncioTestCase):
    """The services of compose.yaml in containers, and a client beside them."""

    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)  # which unittest turns on, and which tells of every moment of a busy machine
        directory = tempfile.TemporaryDirectory(dir=sandbox.STATE)
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.directory.chmod(0o755)
        model = self.directory / "models" / "tiny"
        model.mkdir(parents=True)
        processes.write_tiny_checkpoint(model, layers=2)
        services = compose.services({"MODELS": str(model.parent), "MODEL": model.name})
        self.ours = {name: service for name, service in services.items() if "build" in service}
        self.network = containers.Network([*self.ours, "client"])
        await sandbox.make_node(self.network.node)
        self.running = {name: await self.start(name, service, self.image(name)) for name, service in self.ours.items()}

    async def start(self, name, service, image):
        container = containers.Container(name, service, image, self.network, self.directory)
        await container.start()
        self.addAsyncCleanup(container.close)
        return container

    def image(self, name):
        return containers.Image(IMAGES, self.ours[name]["image"].removeprefix("bellwether-"))

    def logs(self):
        return "\n".join(f"-- {name}\n{container.log.read_text(errors='replace')}" for name, container in self.running.items())

    async def until(self, what, condition):
        end = time.monotonic() + processes.PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if await asyncio.to_thread(condition):
                    return
            await asyncio.sleep(0.2)
        self.fail(f"not in time: {what}\n{self.logs()}")

    async def test_the_services_answer(self):
        at = self.network.addresses
        await self.until("ready", lambda: get(f"http://{at['coordinator']}:7490/readyz"))

        # Clients: over HTTP from without, over gRPC by the tool of the image from within.
        body = json.dumps({"model": "tiny", "prompt": "Once", "max_tokens": 3, "temperature": 0}).encode()
        request = urllib.request.Request(f"http://{at['coordinator']}:7480/v1/completions", body, {"Content-Type": "application/json"})
        answer = json.loads(get(request))
        self.assertEqual(answer["usage"]["completion_tokens"], 3)
        said = await self.said("coordinator", "bellwether", "generate", "--connect=coordinator:7400", "--insecure", "--prompt=Once",
                               "--max-tokens=3", "--temperature=0", "--json")
        self.assertEqual(json.loads(said)["text"], answer["choices"][0]["text"])

        # Every port that the file publishes is listened to.
        for name, service in self.ours.items():
            for port in service.get("ports", []):
                with socket.create_connection((at[name], int(port.split(":")[-1])), processes.PATIENCE):
                    pass

        # Prometheus finds all by the one address that it is told of, and reaches them.
        found = {target for group in json.loads(get(f"http://{at['coordinator']}:7490/http_sd")) for target in group["targets"]}
        self.assertEqual(found, {f"{at['coordinator']}:7490", f"{at['worker-0']}:7491", f"{at['worker-1']}:7491"})
        for target in found:
            self.assertIn("bellwether_", get(f"http://{target}/metrics"))

        # An engine that stops them is heeded.
        for name in ("coordinator", "worker-0"):
            self.assertEqual(await self.running[name].stop(), 0, self.logs())

    async def test_only_what_is_mounted_may_be_written(self):
        for name in ("coordinator", "worker-0"):
            said = await self.said(name, "sh", "-c", "id -u; touch /etc/x /var/cache/x /models/x 2>&1; touch /tmp/x && echo scratch")
            self.assertEqual(said.splitlines()[0], "65532")
            self.assertEqual(said.count("Read-only file system"), 3, said)
            self.assertIn("scratch", said)
        self.assertIn("cache", await self.said("worker-0", "sh", "-c", "touch /var/cache/bellwether/x && echo cache"))

    async def said(self, name, *command):
        """What a command says that runs to its end in a container like the service's."""
        image = self.image(name)
        image.config["Entrypoint"] = []
        container = containers.Container("client", self.ours[name] | {"command": command}, image, self.network, self.directory)
        await container.start()
        await asyncio.wait_for(container.process.wait(), processes.PATIENCE)
        await container.close()
        return container.log.read_text()


if __name__ == "__main__":
    sandbox.enter("tests.deploy.images_test")
    unittest.main()
