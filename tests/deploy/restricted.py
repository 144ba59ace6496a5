"""Runs a program as closed in as a unit of systemd says, without systemd: restricted.py UNIT WRITABLE PROGRAM [ARG ...]. Root, Linux 6.3.

What the unit's own directories are becomes WRITABLE, as user and group USER. A directive that is neither played here nor listed as
without effect on such a user ends it, so that nothing is believed that was not played.
"""

import ctypes
import ctypes.util
import errno
import os
import pathlib
import re
import socket
import subprocess
import sys

USER = 65532  # any that owns nothing
PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_SET_MDWE = 38, 24, 65
ALLOW, REFUSE = 0x7FFF0000, 0x00050000  # of libseccomp; REFUSE | errno
NAMESPACES = 0x7E020080  # every CLONE_NEW flag of clone(2)
CLONE_NEWNS = 0x00020000
EQUAL, MASKED_EQUAL = 4, 7

# Nothing that a user without capabilities could do, or what only systemd itself does.
WITHOUT_EFFECT = {
    "ExecStart", "Type", "NotifyAccess", "WatchdogSec", "Restart", "RestartSec", "TimeoutStartSec", "TimeoutStopSec", "LimitNOFILE",
    "Group", "CacheDirectory", "CacheDirectoryMode", "PrivateMounts", "ProtectClock", "ProtectHostname", "ProtectKernelLogs",
    "ProtectKernelModules", "ProtectKernelTunables", "ProtectControlGroups", "RestrictSUIDSGID", "KeyringMode", "DevicePolicy",
    "SystemCallErrorNumber", "ProtectHome",
}

# The file system as ProtectSystem=strict, PrivateTmp, PrivateDevices and ProtectProc make it. $1: what may be written.
FILES = """
mount --make-rprivate /
writable="$1"
mount -t tmpfs -o mode=755 devices /mnt
for each in null zero full random urandom; do : >/mnt/$each; mount --bind /dev/$each /mnt/$each; done
mkdir -m 1777 /mnt/shm
mount -t tmpfs -o mode=1777 shm /mnt/shm
mount --move /mnt /dev
mount -t proc -o hidepid=invisible proc /proc
mount --bind "$writable" "$writable"
kept="-e ^/dev -e ^/proc -e ^$writable"
findmnt -rno TARGET | grep -v $kept | while read -r target; do mount -n -o remount,bind,ro "$target" 2>/dev/null || true; done
for each in /tmp /var/tmp; do mount -n -t tmpfs -o mode=1777 tmp "$each"; done
"""


class Comparison(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("operation", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


libc = ctypes.CDLL(None, use_errno=True)


def prctl(option, value):
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def settings(unit):
    """Directives of [Service], each with its values in order."""
    found = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", re.split(r"^\[", unit, flags=re.M)[2], re.M):
        found.setdefault(name, []).append(value)
    return found


def calls(group):
    """The system calls of systemd's group, and of those within it."""
    said = subprocess.run(["systemd-analyze", "syscall-filter", group], check=True, capture_output=True, text=True).stdout
    result = set()
    for line in said.splitlines()[1:]:
        word = line.strip()
        result |= calls(word) if word.startswith("@") else {word} if word and not word.startswith("#") else set()
    return result


def filter_calls(directives):
    allowed = set()
    for value in directives.pop("SystemCallFilter"):
        allowed = allowed - calls(value[1:]) if value.startswith("~") else allowed | calls(value)
    families = [getattr(socket, name) for name in directives.pop("RestrictAddressFamilies")[0].split()]
    # Of calls that only some values of an argument make harmless, these: (argument, comparison, value, mask's result).
    some = {"socket": [(0, EQUAL, family, 0) for family in families], "clone": [(0, MASKED_EQUAL, NAMESPACES, 0)],
            "sched_setscheduler": [(1, EQUAL, policy, 0) for policy in (os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE)]}
    for name in ("RestrictNamespaces", "RestrictRealtime", "LockPersonality"):
        assert directives.pop(name) == ["yes"], name
    assert directives.pop("SystemCallArchitectures") == ["native"]
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(REFUSE | errno.EPERM)))

    def add(action, name, *comparisons):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return  # not of this architecture
        array = (Comparison * len(comparisons))(*(Comparison(*comparison) for comparison in comparisons))
        if (failed := seccomp.seccomp_rule_add_array(rules, ctypes.c_uint32(action), number, len(comparisons), array)) != 0:
            raise OSError(-failed, name)

    # clone3 hides its flags from a filter: who asks for it is told that there is none, and takes clone.
    for name in sorted(allowed - {"unshare", "setns", "personality", "clone3"}):
        for comparison in some.get(name, [None]):
            add(ALLOW, name, *([comparison] if comparison else []))
    add(REFUSE | errno.ENOSYS, "clone3")
    if (failed := seccomp.seccomp_load(rules)) != 0:
        raise OSError(-failed, "seccomp_load")


def close_in(unit, writable):
    """From here on this process is what the unit makes of its program."""
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["sh", "-ec", FILES, "sh", writable], check=True)
    directives = settings(unit)
    for name in WITHOUT_EFFECT:
        directives.pop(name, None)
    assert directives.pop("User") == ["bellwether"]
    for name, value in {"ProtectSystem": "strict", "PrivateTmp": "yes", "PrivateDevices": "yes", "ProtectProc": "invisible"}.items():
        assert directives.pop(name) == [value], name  # by FILES
    os.umask(int(directives.pop("UMask")[0], 8))
    for variable in directives.pop("Environment", []):
        os.environ.update([variable.split("=", 1)])
    assert directives.pop("CapabilityBoundingSet") == [""]
    for capability in range(int(pathlib.Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        prctl(PR_CAPBSET_DROP, capability)
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    assert directives.pop("NoNewPrivileges") == ["yes"]
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    assert directives.pop("MemoryDenyWriteExecute") == ["yes"]
    prctl(PR_SET_MDWE, 1)
    filter_calls(directives)
    if directives:
        raise ValueError(f"not played here: {', '.join(directives)}")


if __name__ == "__main__":
    unit_file, writable_folder, *program = sys.argv[1:]
    close_in(pathlib.Path(unit_file).read_text(), writable_folder)
    os.execv(program[0], program)
