"""What tools/gpu_bundle.sh makes runs where there is nothing but libc (and a driver, which is not asked for here): in a bare root, all
programs together no more than 60 MB.

Needs root, for a root of its own; else skipped (77). Run by tools/check.sh bundle.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

BIN = pathlib.Path(os.environ["BELLWETHER_BIN"])
PROGRAMS = ("bellwether", "bellwether-coordinator", "bellwether-worker")
BYTES_MAX = 60_000_000
GLIBC = (2, 36)
# glibc's own, which every such Linux has.
LIBC = ("ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0", "libresolv.so.2")
MODEL = "random:llama?hidden=64,layers=2,heads=4,kv_heads=2,head_dim=16,ffn=96,vocab=160:bf16"


def bare_root(scratch, bundle):
    root = scratch / "root"
    for directory in ("lib64", "lib/x86_64-linux-gnu", "proc", "dev", "tmp"):
        (root / directory).mkdir(parents=True)
    for library in LIBC:
        shutil.copy(f"/lib/x86_64-linux-gnu/{library}", root / "lib/x86_64-linux-gnu")
    shutil.copy("/lib64/ld-linux-x86-64.so.2", root / "lib64")
    shutil.copytree(bundle, root / "bundle")
    return root


def run(root, *command):
    script = 'mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && exec chroot "$0" "$@"'
    outside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, str(root)]
    ran = subprocess.run([*outside, *command], capture_output=True, text=True, env={"PATH": os.environ["PATH"], "TMPDIR": "/tmp"})
    assert ran.returncode == 0, f"{' '.join(command)}: {ran.stdout}{ran.stderr}"
    return ran.stdout


def newest_glibc(file):
    """The newest version of glibc that a program or library asks for."""
    symbols = subprocess.run(["objdump", "-T", file], check=True, capture_output=True, text=True).stdout
    versions = re.findall(r"\(GLIBC_([\d.]+)\)", symbols)
    return max((tuple(map(int, version.split("."))) for version in versions), default=(0,))


def rpath(file):
    said = subprocess.run(["readelf", "--dynamic", file], check=True, capture_output=True, text=True).stdout
    return re.findall(r"Library (?:rpath|runpath): \[(.*)\]", said)


def main():
    if os.geteuid() != 0:
        print("bundle: needs root, for a root of its own: skipped")
        return 77
    with tempfile.TemporaryDirectory() as directory:
        scratch = pathlib.Path(directory)
        bundle = scratch / "bundle"
        subprocess.run(["tools/gpu_bundle.sh", bundle, *(BIN / program for program in PROGRAMS)], check=True)
        files = [file for file in bundle.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
        assert size <= BYTES_MAX, f"{size} bytes, {BYTES_MAX} at most"
        for file in files:
            assert newest_glibc(file) <= GLIBC, f"{file.name} needs glibc {newest_glibc(file)}"
        for program in PROGRAMS:
            assert rpath(bundle / program) == ["$ORIGIN/lib"], f"{program}: {rpath(bundle / program)}"  # and never the current directory
        root = bare_root(scratch, bundle)
        for program in PROGRAMS:
            assert "Usage: " in run(root, f"/bundle/{program}", "--help")
        assert "cpu " in run(root, "/bundle/bellwether", "devices")
        answer = run(root, "/bundle/bellwether", "score", "--model", MODEL, "--token-ids", "1,2,3", "--json")
        assert '"logprobs"' in answer, answer
    print(f"bundle: {size / 1e6:.1f} MB, runs in a bare root")
    return 0


if __name__ == "__main__":
    sys.exit(main())
