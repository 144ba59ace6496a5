#!/usr/bin/env python3
"""What nvcc made of kernels/gpu/kernels.cu: the kernels of kernel_list.h and no others, and none that spills registers.

Usage: cuda_object_test.py ROOT OBJECT. Skipped (77) where OBJECT was not built. OBJECT.log holds what ptxas -v said of
every kernel and target.
"""

import pathlib
import re
import subprocess
import sys

# The target that spills are counted for: the one whose cards have been measured. Others have registers as many, and are only
# told of.
TARGET = "sm_90a"
# Bytes of spilled stores and loads together that are known; every other kernel must have none.
SPILLS_ALLOWED = {
    # 240 registers hold 128 rows of sums and dot products, or two sums, but not all addresses beside them.
    "tile_bf16_128_2": 792,
    "tile_int8_128_1": 976,
    "tile_int4_128_1": 800,
    # Once a segment; three blocks a multiprocessor (80 registers) are worth more.
    "stream_int4_halves_1x1": 92,
    "stream_int4_units_1x1": 76,
    "stream_int4_units_2x1": 88,
    "stream_int4_each_1x1": 44,
    "stream_int8_units_1x1": 36,
    # Once a tile of 64 positions.
    "attend_block_8": 16,
    "attend_tile_8": 80,
    "attend_tile_16": 260,
    "attend_warp_8": 332,
    "attend_warp_16": 612,
}

FUNCTION = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
PROPERTIES = re.compile(r"Function properties for (\w+)")
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


def check_spills(root, log):
    seen = {}
    for kernel, target, stored, loaded in spills(log):
        seen.setdefault(target, set()).add(kernel)
        allowed = SPILLS_ALLOWED.get(kernel, 0)
        what = f"{kernel} for {target} spills: {stored} bytes stored, {loaded} loaded, {allowed} allowed"
        if stored + loaded > allowed:
            if target == TARGET:
                yield what
            else:
                print(what)
    listed = set(listed_kernels(root))
    if not seen:
        yield "the log of ptxas names no kernel: what it says was not understood"
    for target, kernels in sorted(seen.items()):
        for kernel in sorted(listed - kernels):
            yield f"{kernel} for {target}: the log of ptxas does not say whether it spills"
    for kernel in sorted(SPILLS_ALLOWED.keys() - listed):
        yield f"{kernel}: may spill, but is no kernel (SPILLS_ALLOWED)"


def main():
    root, built = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    if not built.exists():
        print("skipped: built without nvcc")
        return 77
    log = built.with_name(built.name + ".log").read_text()
    failures = [*check_names(root, built), *check_spills(root, log)]
    print("\n".join(failures) or f"{len(listed_kernels(root))} kernels")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
