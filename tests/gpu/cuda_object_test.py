#!/usr/bin/env python3
"""What nvcc made of kernels/gpu/kernels.cu: the kernels of kernel_list.h and no others, none that spills registers, and no warnings.

Usage: cuda_object_test.py ROOT OBJECT TARGET... Skipped (77) where OBJECT was not built. OBJECT.log holds what ptxas -v said of
every kernel and target.
"""

import pathlib
import re
import subprocess
import sys

# Bytes of spilled stores and loads together that are known, by target; every other kernel must have none. Cards of sm_90a have
# been measured; the others have as many registers, and are held to what they are.
SPILLS_ALLOWED = {
    # 240 registers hold 128 rows of sums and dot products, or two sums, but not all addresses and scales beside them.
    "tile_bf16_128_2": {"sm_90a": 792},
    "tile_int8_128_1": {"sm_90a": 1068},
    "tile_int4_128_1": {"sm_90a": 880},
    # Once a block.
    "mma_tile_int8_1": {"sm_90a": 20},
    # Once a tile of 64 positions.
    "attend_block_8": {"sm_80": 80, "sm_90a": 16, "sm_100": 280},
    "attend_tile_8": {"sm_90a": 80},
    "attend_tile_16": {"sm_90a": 260},
    "attend_warp_8": {"sm_80": 228, "sm_90a": 332, "sm_100": 504},
    "attend_warp_16": {"sm_80": 588, "sm_90a": 612, "sm_100": 216},
}
# What cmake/cuda.cmake compiles for; compute_80 is for the driver to compile.
TARGETS = ("sm_80", "sm_90a", "sm_100")

FUNCTION = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
PROPERTIES = re.compile(r"Function properties for (\w+)")
ELAPSED = re.compile(r"Elapsed time: ([\d.]+) s")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def kernel_of(symbol):
    """The NAME of _ZN10bellwether3gpu<length>NAME_kernelE..."""
    match = re.match(r"_ZN10bellwether3gpu\d+(\w+?)_kernelE", symbol)
    return match.group(1) if match else None


def listed_kernels(root):
    text = (root / "kernels/gpu/kernel_list.h").read_text()
    return re.findall(r"^  KERNEL\((\w+),", text, flags=re.M)


def check_names(root, built):
    """Host stubs, one a __global__ function, are the object's text symbols."""
    symbols = subprocess.run(["nm", "--defined-only", built], check=True, capture_output=True, text=True).stdout
    stubs = [line.split()[-1] for line in symbols.splitlines() if line.split()[-2] in "TtWw"]
    seen = {kernel_of(symbol) for symbol in stubs} - {None}
    listed = listed_kernels(root)
    for name in sorted(set(listed) - seen):
        yield f"{name}: in kernel_list.h, but not in {built.name}"
    for name in sorted(seen - set(listed)):
        yield f"{name}: a __global__ function that kernel_list.h does not have, so that no test runs it"
    if not listed or len(listed) != len(set(listed)):
        yield "kernel_list.h: no kernels found, or one twice"


def spills(log):
    """(kernel, target, bytes stored, bytes loaded) of everything that ptxas compiled."""
    targets, kernel = {}, None
    for line in log.splitlines():
        if match := FUNCTION.search(line):
            targets[kernel_of(match.group(1))] = match.group(2)
        elif match := PROPERTIES.search(line):
            kernel = kernel_of(match.group(1))
        elif (match := SPILLS.search(line)) and kernel in targets:
            yield kernel, targets[kernel], int(match.group(2)), int(match.group(3))
            kernel = None


def check_spills(listed, log, targets=TARGETS):
    seen = {}
    for kernel, target, stored, loaded in spills(log):
        seen.setdefault(target, set()).add(kernel)
        allowed = SPILLS_ALLOWED.get(kernel, {}).get(target, 0)
        if stored + loaded > allowed:
            yield f"{kernel} for {target} spills: {stored} bytes stored, {loaded} loaded, {allowed} allowed"
    for target in targets:
        if target not in seen:
            yield f"the log of ptxas has no kernel for {target}: what it says was not understood"
            continue
        for kernel in sorted(set(listed) - seen[target]):
            yield f"{kernel} for {target}: the log of ptxas does not say whether it spills"
    for kernel in sorted(SPILLS_ALLOWED.keys() - set(listed)):
        yield f"{kernel}: may spill, but is no kernel (SPILLS_ALLOWED)"


def check_warnings(log):
    """Of the compiler, and of ptxas where wgmma waits after every step (C7510)."""
    yield from sorted({line.strip() for line in log.splitlines() if "warning #" in line or "warning :" in line or "(C7510)" in line})


def main():
    root, built = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    if not built.exists():
        print("skipped: built without nvcc")
        return 77
    log = built.with_name(built.name + ".log").read_text()
    listed = listed_kernels(root)
    chosen = [target for target in TARGETS if target in sys.argv[3:]]  # who builds for others has chosen them
    failures = [*check_names(root, built), *check_spills(listed, log, chosen), *check_warnings(log)]
    elapsed = ELAPSED.search(log)
    seconds = f", compiled in {float(elapsed.group(1)):.0f} s" if elapsed else ""
    print("\n".join(failures) or f"{len(listed)} kernels for {', '.join(chosen)}{seconds}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
