"""Containers without a container engine, for tests: sandboxes (sandbox.py) in which a program runs as an image and a service of
compose.yaml say.

It refuses what it does not know, so that nothing is believed that was not played.
"""

import asyncio
import json
import os
import pathlib
import shlex
import shutil
import signal

from tests.deploy import manifests, sandbox

# What a service may say. The second: without effect here (what is restarted, limited or built is not seen).
HONOURED = {"command", "environment", "read_only", "tmpfs", "volumes", "cap_drop", "security_opt", "ports", "image"}
WITHOUT_EFFECT = {"restart", "stop_grace_period", "build", "mem_limit", "cpus"}

class Image:
    """What tools/build_images.sh has left of a target: settings, layers as a registry keeps them, the file system of a container."""

    def __init__(self, directory, target):
        self.root = pathlib.Path(directory, f"{target}.root").resolve(strict=True)
        blobs = pathlib.Path(directory, f"{target}.oci")
        index = json.loads((blobs / "index.json").read_text())
        read = lambda descriptor: json.loads((blobs / "blobs" / descriptor["digest"].replace(":", "/")).read_text())
        manifest = read(index["manifests"][0])
        self.compressed_bytes = sum(layer["size"] for layer in manifest["layers"])
        self.config = read(manifest["config"])["config"]

    def variables(self):
        return dict(variable.split("=", 1) for variable in self.config["Env"])


class Network:
    """By which containers reach each other, each at an address and by a name that the others know. This process has 10.77.0.1."""
    node = "10.77.0.1"

    def __init__(self, names):
        self.addresses = {name: f"10.77.0.{i}" for i, name in enumerate(names, 2)}

    def hosts(self):
        return "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in self.addresses.items())


class Container:
    """A service of compose.yaml, run as `name` of the network from an image; close() ends it."""

    def __init__(self, name, service, image, network, directory):
        unknown = service.keys() - HONOURED - WITHOUT_EFFECT
        if unknown or service.get("cap_drop") != ["ALL"] or service.get("security_opt") != ["no-new-privileges:true"] or \
                not service.get("read_only"):
            raise ValueError(f"{name}: these containers have no capabilities and a root that is read-only, and know no {unknown}")
        self.name, self.service, self.image, self.network = name, service, image, network
        self.directory, self.log = pathlib.Path(directory), pathlib.Path(directory, f"{name}.log")
        self.sandbox = sandbox.Sandbox(self.directory / "containers" / name, name, network.addresses[name],
                                       f'mount --bind {shlex.quote(str(image.root))} "$1"')

    async def start(self):
        await self.sandbox.make(f"to-{self.name}", self.network.node, {
            "hosts": self.network.hosts(), "hostname": f"{self.name}\n", "resolv.conf": "nameserver 127.0.0.1\n"})  # where nobody answers
        mounts = [(self.volume(f"scratch-{self.name}", None), target, True) for target in self.service.get("tmpfs", [])]
        for volume in self.service.get("volumes", []):
            source, target, *rest = volume.split(":")
            mounts.append((source if source.startswith(("/", ".")) else self.volume(source, target), target, rest != ["ro"]))
        config, user = self.image.config, [int(number) for number in self.image.config["User"].split(":")]
        rights = manifests.User(number=user[0], group=user[1], volume_group=None, no_new_privileges=True, no_capabilities=True,
                                root_is_read_only=True)
        program = [*config.get("Entrypoint", []), *(self.service.get("command") or config.get("Cmd", []))]
        variables = self.image.variables() | {"HOSTNAME": self.name} | self.service.get("environment", {})
        self.log.unlink(missing_ok=True)  # of an earlier one of this name
        self.process, self.number = await self.sandbox.start(program, variables, rights, mounts, self.log)

    def volume(self, name, inside):
        """A named volume, which begins as what the image has there, owner and all; without `inside` a place where everybody may write."""
        volume = self.directory / "volumes" / name
        if not volume.exists() and inside:
            shutil.copytree(self.image.root / inside[1:], volume)
            owner = (self.image.root / inside[1:]).stat()
            os.chown(volume, owner.st_uid, owner.st_gid)
        elif not volume.exists():
            volume.mkdir(parents=True)
            volume.chmod(0o1777)
        return volume

    async def stop(self):
        """As an engine stops it; its exit status."""
        os.kill(self.number, signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 60)

    async def close(self):
        if self.process.returncode is None:
            os.kill(self.number, signal.SIGKILL)
            await self.process.wait()
        await self.sandbox.remove()
