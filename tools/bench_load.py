#!/usr/bin/env python3
"""How long torch's files take to load, and how much memory, beside the same weights as safetensors.

    tools/bench_load.py [--pairs 5] [--directory DIR]

A LLaMA of 1.3 billion values in fp16, random, as four shards `pytorch_model-*.bin` and, converted by `bellwether convert
safetensors`, again. Each is served by one coordinator and one worker, in turn, warm (read just before) and cold (dropped from
the system's cache): seconds from the start of the programs to the first token, and the worker's peak of resident memory without
what it maps from files. Needs 6 GB of disk.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("BELLWETHER_BIN", str(ROOT / "build/release/bin"))
sys.path.insert(0, str(ROOT))

from tests.e2e import processes, published_test  # noqa: E402  (they read the environment)

LAYERS, HIDDEN, FFN, VOCAB = 24, 2048, 5120, 32000
PATIENCE = 600


def fill(path):
    """Random fp16 values, small and never infinite, where the file has holes."""
    noise = bytearray(random.Random(1).randbytes(1 << 22))
    for place in range(1, len(noise), 2):
        noise[place] = noise[place] & 0x80 | 0x20 | noise[place] & 0x07
    with zipfile.ZipFile(path) as archive, open(path, "r+b") as file:
        for entry in archive.infolist():
            if "/data/" not in entry.filename:
                continue
            file.seek(entry.header_offset + 26)
            lengths = file.read(4)
            file.seek(entry.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"))
            for begin in range(0, entry.file_size, len(noise)):
                file.write(noise[:entry.file_size - begin])


def make(directory):
    torch, tensors = directory / "torch", directory / "safetensors"
    torch.mkdir()
    config = published_test.LLAMA_7B | {"hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": LAYERS,
                                        "num_attention_heads": 16, "vocab_size": VOCAB, "max_position_embeddings": 512}
    (torch / "config.json").write_text(json.dumps(config))

    def linear(name, inputs, outputs):
        return published_test.plain(name, inputs, outputs, "Half", False)

    listing = published_test.llama(LAYERS, HIDDEN, FFN, VOCAB, "Half", linear)
    shards = published_test.write_shards(torch, listing, 680 * 10 ** 6)
    for path in torch.glob("*.bin"):
        fill(path)
    subprocess.run([processes.BIN / "bellwether", "convert", "safetensors", "--model", torch, "--output", tensors], check=True,
                   capture_output=True)
    print(f"{sum(path.stat().st_size for path in torch.glob('*.bin')) / 1e9:.2f} GB in {shards} shards", flush=True)
    return {"torch": torch, "safetensors": tensors}


def settle(directory, cold):
    os.sync()
    for path in directory.iterdir():
        with open(path, "rb") as file:
            if cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(1 << 24):
                    pass


def load(model):
    """Seconds to the first token, and the peak of the worker's own memory in MB."""
    begin = time.monotonic()
    cluster = processes.Cluster(model, worker_flags=("--threads", len(os.sched_getaffinity(0))))
    try:
        worker = pathlib.Path(f"/proc/{cluster.processes[1].pid}/status")
        peak, ask = 0, None
        while ask is None or ask.poll() != 0:
            if time.monotonic() > begin + PATIENCE or any(process.poll() is not None for process in cluster.processes):
                raise SystemExit(f"{model} is not served:\n" + cluster.logs())
            if ask is None or ask.poll() is not None:  # not yet serving
                ask = subprocess.Popen([processes.BIN / "bellwether", "generate", "--connect", cluster.address, "--prompt-ids",
                                        "1,2,3", "--max-tokens", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            lines = dict(line.split(":", 1) for line in worker.read_text().splitlines() if ":" in line)
            peak = max(peak, int(lines["RssAnon"].split()[0]) + int(lines["RssShmem"].split()[0]))
            time.sleep(0.05)
        seconds = time.monotonic() - begin
        return seconds, peak * 1024 / 1e6
    finally:
        cluster.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--directory", help="where the checkpoints are made (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="bellwether-bench.") as scratch:
        models = make(pathlib.Path(scratch))
        for cold in (False, True):
            rows = {name: [] for name in models}
            for _ in range(options.pairs):
                for name, directory in models.items():
                    settle(directory, cold)
                    rows[name].append(load(directory))
            seconds = {name: statistics.median(row[0] for row in measured) for name, measured in rows.items()}
            memory = {name: max(row[1] for row in measured) for name, measured in rows.items()}
            ratios = sorted(torch[0] / other[0] for torch, other in zip(rows["torch"], rows["safetensors"]))
            print(f"{'cold' if cold else 'warm'}: torch {seconds['torch']:.2f} s, safetensors {seconds['safetensors']:.2f} s, ratio "
                  f"{seconds['torch'] / seconds['safetensors']:.2f} (pairs: {', '.join(f'{ratio:.2f}' for ratio in ratios)}); peak "
                  f"{memory['torch']:.0f} and {memory['safetensors']:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
