"""What the processes of a pod, or of a service of compose.yaml, live in: Linux namespaces, as a container runtime makes them, by util-linux
and iproute2 alone.

Everything lies in a network, a mount and a process namespace of the test's own (`enter`): whatever becomes of the test, the
kernel removes it all with the last process, and the machine's own network and mounts are never touched.
"""

import asyncio
import os
import pathlib
import shutil
import signal
import subprocess
import sys

STATE = pathlib.Path("/run")  # covered by a file system of the test's own, for the locks and files of tools too
GATEWAY = "169.254.1.1"  # of every pod: the node's end of its cable
INSIDE = "BELLWETHER_INSIDE_CLUSTER"
TOOLS = ("ip", "iptables-restore", "mount", "nsenter", "pivot_root", "setpriv", "unshare")
# Of the image, for which the machine's own /usr stands.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CAPABILITIES = ("--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")


def missing():
    """Why there can be no namespaces here, or nothing."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    tools = [tool for tool in TOOLS if not shutil.which(tool)]
    if tools:
        return f"needs {', '.join(tools)} (tools/setup.sh --check)"
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True)
    return f"there can be no namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


def enter(module):
    """Runs the module again in namespaces of its own, unless that is where it runs."""
    if INSIDE not in os.environ or os.getpid() != 1:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
                              sys.executable, "-B", "-m", module, *sys.argv[1:]])
    subprocess.run(["mount", "-t", "tmpfs", "state", STATE], check=True)


async def run(*command, text=""):
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                                                   stderr=asyncio.subprocess.STDOUT)
    output, _ = await process.communicate(text.encode())
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {output.decode()}\n{text}")
    return output.decode()


async def make_node(address):
    """The network that sandboxes are plugged into: it forwards, and knows nobody beyond."""
    pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    await run("ip", "-batch", "-", text=f"""
        link set dev lo up
        address replace {address}/32 dev lo""")


# What a container's files are: a shell text that puts them at $1. The machine's own /usr stands for the image of a pod.
MACHINE = """
mount -t tmpfs -o mode=755 image "$1"
cd "$1"
mkdir usr proc sys dev etc mnt tmp
mount --bind /usr usr
mount -o remount,bind,ro usr
for each in bin sbin lib lib64; do ln -s usr/$each $each; done
"""

# Prepares the root of a container and becomes its program. Arguments: the root; a shell text that puts the image there; what lies in /etc
# beside what the image has; the shared memory; a shell text that mounts volumes; whether the root may be written (rw or ro); then the
# program as env takes it. Standard input is a pipe that hears the process's number, as it is known outside, once all is ready.
CONTAINER = """
read -r pid rest </proc/self/stat
eval "$2"
cd "$1"
mount -t proc proc proc
mount --rbind /sys sys
mount -o remount,bind,ro sys
mount -t tmpfs -o mode=755 dev dev
mkdir dev/shm
for each in null zero full random urandom; do : >dev/$each; mount --bind /dev/$each dev/$each; done
mount --bind "$4" dev/shm
for each in "$3"/*; do : >>"etc/${each##*/}"; mount --bind "$each" "etc/${each##*/}"; done
eval "$5"
pivot_root . mnt
cd /
umount -l mnt
mount -o remount,bind,"$6" /
shift 6
echo "$pid" >&0
exec </dev/null
exec env -i "$@"
"""


class Sandbox:
    """The namespaces that the containers of a pod share: a network with one address, a host name, and memory by name. `image`: what their
    files are."""

    def __init__(self, directory, name, address, image=MACHINE):
        self.directory, self.name, self.address, self.image = directory, name, address, image
        self.cable = None
        self._pause = None

    async def make(self, cable, node_address, files):
        """Plugs it in. `files` lie in /etc: texts by name."""
        etc = self.directory / "etc"
        etc.mkdir(parents=True)
        for name, text in files.items():
            (etc / name).write_text(text)
        (self.directory / "shm").mkdir(mode=0o1777)
        (self.directory / "shm").chmod(0o1777)
        self._pause = await asyncio.create_subprocess_exec(
            "unshare", "--net", "--uts", "--ipc", "sh", "-ec", 'echo "$1" >/proc/sys/kernel/hostname; echo; exec sleep infinity', "sh",
            self.name, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE)
        if not await self._pause.stdout.readline():
            raise RuntimeError(f"no namespaces for {self.name}")
        await run("ip", "-batch", "-", text=f"""
            link add name {cable} type veth peer name eth0 netns {self._pause.pid}
            address add {GATEWAY}/32 dev {cable}
            link set dev {cable} up
            route add {self.address}/32 dev {cable} src {node_address}""")
        self.cable = cable
        await run("nsenter", "--target", str(self._pause.pid), "--net", "ip", "-batch", "-", text=f"""
            address add {self.address}/32 dev eth0
            link set dev eth0 up
            link set dev lo up
            route add {GATEWAY}/32 dev eth0
            route add default via {GATEWAY} dev eth0""")

    async def start(self, program, environment, user, mounts, log):
        """The process of a container, and its number: `mounts` are (source, target, whether it may be written)."""
        volumes = "".join(f'mkdir -p ".{target}"; mount --bind "{source}" ".{target}"; mount -o remount,bind,{"rw" if writable else "ro"} '
                          f'".{target}"\n' for source, target, writable in mounts)
        rights = "ro" if user.root_is_read_only else "rw"
        root = self.directory / "root"
        root.mkdir(exist_ok=True)
        ready, told = os.pipe()
        with open(log, "ab") as output:
            process = await asyncio.create_subprocess_exec(
                "nsenter", "--target", str(self._pause.pid), "--net", "--uts", "--ipc", "--",
                "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--",
                "sh", "-ec", CONTAINER, "sh", root, self.image, self.directory / "etc", self.directory / "shm", volumes, rights,
                *as_process(program, environment, user), stdin=told, stdout=output, stderr=output)
        os.close(told)
        with open(ready) as pipe:
            number = await asyncio.to_thread(pipe.readline)
        return process, int(number or 0)

    async def execute(self, inside, program, environment, user, log):
        """Runs one more program where the process `inside` is, as `kubectl exec` does, and says how it ended."""
        with open(log, "ab") as output:
            process = await asyncio.create_subprocess_exec(
                "nsenter", "--target", str(inside), "--mount", "--net", "--uts", "--ipc", "--pid", "--root", "--wd", "--", "env", "-i",
                *as_process(program, environment, user), stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()

    async def cut(self):
        """Pulls the cable: nobody hears a farewell."""
        await run("ip", "link", "set", "dev", self.cable, "down")

    async def remove(self):
        if self.cable:
            await run("ip", "link", "delete", "dev", self.cable)
        if self._pause:
            self._pause.send_signal(signal.SIGKILL)
            await self._pause.wait()
        shutil.rmtree(self.directory)


def as_process(program, environment, user):
    """What env -i takes: variables, then the program as the user, with no more rights than the pod's spec leaves."""
    variables = [f"{name}={value}" for name, value in environment.items()]
    groups = [f"--groups={user.volume_group}"] if user.volume_group is not None else ["--clear-groups"]
    rights = (["--no-new-privs"] if user.no_new_privileges else []) + (list(CAPABILITIES) if user.no_capabilities else [])
    return [*variables, "setpriv", f"--reuid={user.number}", f"--regid={user.group}", *groups, *rights, "--", *program]
