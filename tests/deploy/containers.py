"""Containers without a container engine, for tests: namespaces of Linux in which a program runs as an image and a service of
compose.yaml say. Linux alone, as root, and in network and mount namespaces of the caller's own (tools/check.sh images).

It refuses what it does not know, so that nothing is believed that was not played.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess

# What a service may say. The second: without effect here (what is restarted, limited or built is not seen).
HONOURED = {"command", "environment", "read_only", "tmpfs", "volumes", "cap_drop", "security_opt", "ports", "image"}
WITHOUT_EFFECT = {"restart", "stop_grace_period", "build", "mem_limit", "cpus"}

# Waits until the network is there ($1: the root, $2: user:group, $3: the host's name; then "KIND SOURCE TARGET" lines up to "--").
ENTER = r"""
echo entered
read -r go
hostname "$3"
root="$1" user="$2"
shift 3
mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
for device in null zero random urandom; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
while [ "$1" != "--" ]; do
  case "$1" in
    tmpfs) mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmpfs "$root$3" ;;
    ro|rw) mount --bind "$2" "$root$3"; mount -o "remount,bind,nosuid,nodev,$1" "$root$3" ;;
  esac
  shift 3
done
shift
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" "$@"
"""


def run(*command):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, timeout=60).stdout


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
    """A bridge to which containers are tied, each with an address and a name that the others know. This process has 10.77.0.1."""

    def __init__(self, names, directory):
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "flock", "type", "bridge")
        run("ip", "address", "add", "10.77.0.1/24", "dev", "flock")
        run("ip", "link", "set", "flock", "up")
        self.addresses = {name: f"10.77.0.{i}" for i, name in enumerate(names, 2)}
        self.hosts = pathlib.Path(directory, "hosts")
        self.hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in self.addresses.items()))

    def tie(self, name, pid):
        address = self.addresses[name]
        outside = "at-" + address.split(".")[-1]
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", pid)
        run("ip", "link", "set", outside, "master", "flock", "up")
        for words in (("address", "add", f"{address}/24", "dev", "eth0"), ("link", "set", "eth0", "up"), ("link", "set", "lo", "up")):
            run("nsenter", "--net", f"--target={pid}", "ip", *words)

    def close(self):
        run("ip", "link", "delete", "flock")


class Container:
    """A service of compose.yaml from an image; killed with its namespaces by close()."""

    def __init__(self, name, service, image, network, directory):
        unknown = service.keys() - HONOURED - WITHOUT_EFFECT
        if unknown or service.get("cap_drop") != ["ALL"] or service.get("security_opt") != ["no-new-privileges:true"] or \
                not service.get("read_only"):
            raise ValueError(f"{name}: these containers have no capabilities and a root that is read-only, and know no {unknown}")
        self.log = pathlib.Path(directory, f"{name}.log")
        mounts = [("tmpfs", "-", target) for target in service.get("tmpfs", [])] + [("ro", network.hosts, "/etc/hosts")]
        for volume in service.get("volumes", []):
            source, target, *rest = volume.split(":")
            mounts.append((rest[0] if rest else "rw", self.source(source, image.root / target[1:], directory), target))
        for _, source, target in mounts:  # as an engine does, before the root is closed
            inside = image.root / target[1:]
            if not inside.exists():
                inside.mkdir(parents=True) if source == "-" or pathlib.Path(source).is_dir() else inside.touch()
        variables = image.variables() | {"HOSTNAME": name} | service.get("environment", {})
        command = [*image.config.get("Entrypoint", []), *(service.get("command") or image.config.get("Cmd", []))]
        words = [image.root, image.config["User"], name, *(word for mount in mounts for word in mount), "--",
                 "env", "-i", *(f"{key}={value}" for key, value in variables.items()), *command]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child", "sh", "-ec", ENTER, "sh",
                 *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        if self.process.stdout.readline() != "entered\n":
            raise RuntimeError(f"{name}: {self.log.read_text()}")
        network.tie(name, self.process.pid)
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    @staticmethod
    def source(source, inside, directory):
        """A named volume begins as what the image has there, owner and all."""
        if source.startswith(("/", ".")):
            return source
        volume = pathlib.Path(directory, "volumes", source)
        if not volume.exists():
            shutil.copytree(inside, volume)
            owner = inside.stat()
            os.chown(volume, owner.st_uid, owner.st_gid)
        return volume

    def program(self):
        """The process id, as seen from here, of what runs inside as number 1; None once it has ended."""
        pids = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(pids[0]) if pids else None

    def stop(self):
        """As an engine stops it; its exit status."""
        os.kill(self.program(), signal.SIGTERM)
        return self.process.wait(60)

    def close(self):
        if self.process.poll() is None and (pid := self.program()):
            os.kill(pid, signal.SIGKILL)  # with it goes all that is in its namespaces
        self.process.communicate()
