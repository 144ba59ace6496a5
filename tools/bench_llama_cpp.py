#!/usr/bin/env python3
"""A model that does not fit in memory: tokens a second of one sequence, beside llama.cpp's mmap under the same limit.

    tools/bench_llama_cpp.py [--shape 7b] [--shares 0.6,0.3] [--rounds 3] [--directory DIR] [--llama-python PYTHON]

Writes one GGUF of random bf16 weights, which both serve, and takes it away at the end; it needs the drive for that file and as much
again for packed layers. Both run in turn, each in a memory control group (version 1, so root is needed) that holds a share of the
weights, with as many threads as this process has CPUs; what the file has in the system's cache is given up before. Where there are no
such groups, memory that nobody may have is taken away and locked instead. Beside each round stands what the drive reads past the cache.

PYTHON has PyPI's llama-cpp-python, which pip builds: python3 -m venv V && V/bin/pip install llama-cpp-python
"""

import argparse
import concurrent.futures
import contextlib
import ctypes
import json
import mmap
import os
import pathlib
import shutil
import statistics
import struct
import subprocess
import sys
import time
import types

import bench_offload

# hidden, layers, heads, KV heads, ffn, vocabulary
SHAPES = {"1.1b": (2048, 22, 32, 4, 5632, 32000), "7b": (4096, 32, 32, 32, 11008, 32000)}
ALIGNMENT, F32, BF16 = 32, 0, 30
CONTEXT = 64
POOL = 64 << 20

# What runs inside the group: reads the file by mmap and decodes token after token.
LLAMA = """
import json, sys, time
import llama_cpp as llama
path, threads, tokens, context = sys.argv[1], *map(int, sys.argv[2:])
quiet = llama.llama_log_callback(lambda *_: None)  # C has its address, as that of the token below
llama.llama_log_set(quiet, None)
llama.llama_backend_init()
model_params = llama.llama_model_default_params()
model_params.use_mmap, model_params.use_mlock, model_params.n_gpu_layers = True, False, 0
model = llama.llama_model_load_from_file(path.encode(), model_params)
assert model, "llama.cpp cannot load the file"
params = llama.llama_context_default_params()
params.n_ctx, params.n_threads, params.n_threads_batch = context, threads, threads
context = llama.llama_init_from_model(model, params)
def step(token):
    tokens = (llama.llama_token * 1)(token)
    assert llama.llama_decode(context, llama.llama_batch_get_one(tokens, 1)) == 0
step(5)
start = time.monotonic()
for i in range(tokens):
    step(6 + i)
print(json.dumps(tokens / (time.monotonic() - start)))
"""


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def metadata(shape):
    hidden, layers, heads, kv_heads, ffn, vocabulary = SHAPES[shape]
    numbers = {"context_length": 2048, "embedding_length": hidden, "block_count": layers, "feed_forward_length": ffn,
               "attention.head_count": heads, "attention.head_count_kv": kv_heads, "rope.dimension_count": hidden // heads,
               "vocab_size": vocabulary}
    strings = {"general.architecture": "llama", "general.name": f"random {shape}", "tokenizer.ggml.model": "none"}
    pairs = [text(name) + struct.pack("<I", 8) + text(value) for name, value in strings.items()]
    pairs += [text(f"llama.{name}") + struct.pack("<II", 4, value) for name, value in numbers.items()]
    pairs.append(text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5))
    return pairs


def tensors(shape):
    """Name, dimensions (the rows' length first) and type."""
    hidden, layers, heads, kv_heads, ffn, vocabulary = SHAPES[shape]
    kv = hidden // heads * kv_heads
    yield "token_embd.weight", (hidden, vocabulary), BF16
    for i in range(layers):
        yield f"blk.{i}.attn_norm.weight", (hidden,), F32
        for name, rows in ("q", hidden), ("k", kv), ("v", kv), ("output", hidden):
            yield f"blk.{i}.attn_{name}.weight", (hidden, rows), BF16
        yield f"blk.{i}.ffn_norm.weight", (hidden,), F32
        yield f"blk.{i}.ffn_gate.weight", (hidden, ffn), BF16
        yield f"blk.{i}.ffn_up.weight", (hidden, ffn), BF16
        yield f"blk.{i}.ffn_down.weight", (ffn, hidden), BF16
    yield "output_norm.weight", (hidden,), F32
    yield "output.weight", (hidden, vocabulary), BF16


def size_of(dimensions, kind):
    count = 1
    for dimension in dimensions:
        count *= dimension
    return count * (4 if kind == F32 else 2)


def padded(size):
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def write_gguf(path, shape):
    """Weights of 0.008 to 0.03, of either sign; norms of 1."""
    pool = bytearray(POOL)
    pool[0::2] = os.urandom(POOL // 2)
    pool[1::2] = os.urandom(POOL // 2).translate(bytes([0x3C] * 128 + [0xBC] * 128))
    listed = list(tensors(shape))
    with open(path, "wb") as file:
        pairs = metadata(shape)
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(pairs)) + b"".join(pairs))
        offset = 0
        for name, dimensions, kind in listed:
            file.write(text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset))
            offset += padded(size_of(dimensions, kind))
        file.write(bytes(padded(file.tell()) - file.tell()))
        for _, dimensions, kind in listed:
            size = size_of(dimensions, kind)
            if kind == F32:
                file.write(struct.pack("<f", 1) * (size // 4))
            for begin in range(0, size if kind == BF16 else 0, POOL // 2):
                start = int.from_bytes(os.urandom(4), "little") % (POOL // 4) * 2
                file.write(pool[start:start + min(POOL // 2, size - begin)])
            file.write(bytes(padded(size) - size))
        file.flush()
        os.fsync(file.fileno())


def drop(path):
    """What the system's cache has of the file, which else would count for nobody's limit."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def drive_rate(path, seconds=2, threads=4, block=8 << 20):
    """Bytes a second of the file past the system's cache."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    blocks = os.fstat(fd).st_size // block
    end = time.monotonic() + seconds

    def read(first):
        buffer, done = mmap.mmap(-1, block), 0
        for i in range(first, blocks, threads):
            if time.monotonic() > end:
                break
            done += os.preadv(fd, [buffer], i * block)
        return done

    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(read, range(threads)))
    rate = done / (time.monotonic() - start)
    os.close(fd)
    return rate


class Balloon:
    """Takes memory away until so much is left, where no control group can hold programs to a limit."""

    def __init__(self, left):
        available = int(next(line.split()[1] for line in open("/proc/meminfo") if line.startswith("MemAvailable"))) << 10
        self.memory = mmap.mmap(-1, max(mmap.PAGESIZE, available - left))
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        if ctypes.CDLL(None, use_errno=True).mlock(ctypes.c_void_p(address), ctypes.c_size_t(len(self.memory))) != 0:
            raise SystemExit(f"mlock of {len(self.memory) >> 20} MiB: {os.strerror(ctypes.get_errno())}")

    def close(self):
        ctypes.CDLL(None).munlockall()
        del self.memory


def measure_llama(options, limit):
    drop(options.file)
    group = bench_offload.Group("llama", None, 0, limit if options.grouped else 0)
    balloon = None if options.grouped else Balloon(limit)
    try:
        done = subprocess.run([options.llama_python, "-c", LLAMA, options.file, str(len(os.sched_getaffinity(0))), str(options.tokens),
                               str(CONTEXT)], capture_output=True, text=True, preexec_fn=group.enter)
        if done.returncode != 0:
            raise SystemExit(f"llama.cpp ended with {done.returncode}\n{done.stderr[-2000:]}")
        return float(done.stdout)
    finally:
        group.close()
        if balloon:
            balloon.close()


def measure_ours(options, limit):
    """Tokens a second, and the most memory that the worker had, with what the system cached for it."""
    drop(options.file)
    settings = types.SimpleNamespace(model=str(options.file), context=CONTEXT, cache=options.cache, device=None, throttled=False,
                                     drive_mb_s=0, batch=1)
    balloon = None if options.grouped else Balloon(limit)
    cluster = bench_offload.Cluster(settings, limit >> 20, 1, limit_memory=options.grouped)
    try:
        answer = cluster.load(1, 1, options.tokens + 1)
        return 1 / answer["inter_token_seconds"]["mean"], cluster.groups[0].peak_bytes()
    finally:
        cluster.close()
        if balloon:
            balloon.close()


def measure(options, share, weights):
    limit = int(share * weights) >> 20 << 20
    print(f"{share:.0%} of {weights / 1e9:.2f} GB: {limit / 2**30:.2f} GiB", flush=True)
    measure_ours(options, limit)  # packs, so that layers are in the cache
    ratios = []
    for _ in range(options.rounds):
        drive = drive_rate(options.file)
        llama = measure_llama(options, limit)
        ours, peak = measure_ours(options, limit)
        ratios.append(ours / llama)
        print(f"  drive {drive / 1e9:.2f} GB/s; llama.cpp {llama:.3f} tokens/s, Bellwether {ours:.3f}: {ours / llama:.2f} x"
              + (f"; its memory at most {peak / 2**30:.2f} GiB" if peak else ""), flush=True)
    print(f"  median {statistics.median(ratios):.2f} x", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="7b", choices=SHAPES)
    parser.add_argument("--shares", default="0.6,0.3", help="of the weights, that memory holds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=6)
    parser.add_argument("--directory", default=str(bench_offload.ROOT / "build/bench-llama-cpp"), help="for file and layers; it goes")
    parser.add_argument("--llama-python", default=sys.executable)
    options = parser.parse_args()
    weights = sum(size_of(dimensions, kind) for _, dimensions, kind in tensors(options.shape))
    directory = pathlib.Path(options.directory)
    directory.mkdir(parents=True)  # which must not be there: it is taken away
    try:
        # A worker leaves a tenth of the drive free.
        drive = shutil.disk_usage(directory)
        needed = 2.1 * weights + drive.total / 10
        if drive.free < needed:
            raise SystemExit(f"{directory}: {drive.free / 1e9:.0f} GB are free, {needed / 1e9:.0f} are needed")
        options.grouped = os.geteuid() == 0 and (bench_offload.GROUPS / "memory").is_dir()
        if not options.grouped:
            print("no control groups of version 1, or not root: memory is taken away instead", file=sys.stderr)
        options.file, options.cache = directory / "model.gguf", directory / "shards"
        write_gguf(options.file, options.shape)
        for share in map(float, options.shares.split(",")):
            measure(options, share, weights)
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory)


if __name__ == "__main__":
    main()
