#!/usr/bin/env python3
"""Weights that are streamed from a drive, measured: how near a step comes to what the drive allows.

    tools/bench_offload.py [--shape llama-1.1b:bf16] [--drive-mb-s 400] [--cache DIR] [--limit-memory]

Runs clusters of real processes with random weights. Each worker is in a control group of its own (version 1, so root and
the controllers blkio and memory are needed) that may read so many bytes a second from the drive of --cache; without them it
says so, and nothing is held back. Prints, each as a share of the limit in the same run:

    a step of one sequence   to the bytes that it streams at the drive's rate
    16 sequences at once     to one alone
    a second start           to the reading of all layers, which fit in memory
    two ranks                to one, all layers streamed, each rank with a drive of its own
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
BIN = ROOT / "build/release/bin"
GROUPS = pathlib.Path("/sys/fs/cgroup")
PATIENCE = 3600


class Group:
    """A control group; `enter` is what a program does first to be in it."""

    def __init__(self, name, device, drive_bytes, memory_bytes):
        self.paths = []
        limits = {"blkio": {"blkio.throttle.read_bps_device": f"{device} {drive_bytes}"} if drive_bytes else {},
                  "memory": {"memory.limit_in_bytes": str(memory_bytes)} if memory_bytes else {}}
        for controller, files in limits.items():
            if not files:
                continue
            path = GROUPS / controller / f"bellwether-bench-{os.getpid()}-{name}"
            path.mkdir()
            self.paths.append(path)
            for file, value in files.items():
                (path / file).write_text(value)

    def enter(self):
        for path in self.paths:
            (path / "tasks").write_text(str(os.getpid()))

    def peak_bytes(self):
        for path in self.paths:
            if (path / "memory.max_usage_in_bytes").exists():
                return int((path / "memory.max_usage_in_bytes").read_text())
        return None

    def close(self):
        for path in self.paths:
            with contextlib.suppress(OSError):
                path.rmdir()


def device_of(directory):
    """The whole drive's "major:minor"."""
    number = os.stat(directory).st_dev
    block = pathlib.Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    while (block / "partition").exists():
        block = block.parent
    return (block / "dev").read_text().strip()


class Cluster:
    """A coordinator and its workers, each in its group and with a cache of its own."""

    def __init__(self, options, memory_mib, ranks, limit_memory=False):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="bellwether-bench."))
        self.processes, self.groups = [], []
        model = options.model
        ports = self.directory / "ports"
        self.start(None, "bellwether-coordinator", "--model", model, "--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0",
                   "--metrics-listen", "127.0.0.1:0", "--port-file", ports, "--workers", ranks, "--tensor-parallel", ranks,
                   "--context-tokens", options.context, "--plan-for-batch", options.batch, "--step-tokens", 256)
        self.wait(ports.exists, "no coordinator")
        self.addresses = dict(line.split() for line in ports.read_text().splitlines())
        cores = sorted(os.sched_getaffinity(0))
        for rank in range(ranks):
            cache = pathlib.Path(options.cache) / f"rank-{rank}-of-{ranks}"
            cache.mkdir(parents=True, exist_ok=True)
            rate = cache / "drive-bytes-per-second"
            rate.unlink(missing_ok=True)
            if options.throttled:
                rate.write_text(f"{options.drive_mb_s * 1e6}\n")
            group = Group(str(rank), options.device, options.throttled and int(options.drive_mb_s * 1e6),
                          limit_memory and (memory_mib << 20))
            self.groups.append(group)
            mine = cores[rank * len(cores) // ranks:(rank + 1) * len(cores) // ranks] or cores
            self.start(group, "bellwether-worker", "--model", model, "--coordinator", self.addresses["worker"], "--name",
                       f"rank-{rank}", "--metrics-listen", "127.0.0.1:0", "--memory-mib", memory_mib, "--shard-cache", cache,
                       "--cpus", ",".join(map(str, mine)), *(["--host-id", f"host-{rank}"] if ranks > 1 else []),
                       *(["--link-listen", "127.0.0.1:0"] if ranks > 1 else []))
        self.wait(lambda: self.load(1, 1, 2) is not None, "not served")
        # Layers in memory are written to the cache behind what is served: the drive is to be left alone.
        self.wait(lambda: sum(self.counter("bellwether_shard_cache_waiting")) == 0, "layers are not written")

    def start(self, group, program, *arguments):
        log = open(self.directory / f"{len(self.processes)}.log", "wb")
        self.processes.append(subprocess.Popen([BIN / program, *map(str, arguments)], stdout=log, stderr=log,
                                               preexec_fn=group.enter if group else None))

    def wait(self, done, what):
        end = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > end or any(process.poll() is not None for process in self.processes):
                raise SystemExit(what + "\n" + "\n".join(path.read_text() for path in sorted(self.directory.glob("*.log"))))
            time.sleep(0.1)

    def load(self, concurrency, requests, tokens):
        """Tokens a second of all and between the tokens of one; None while it does not serve."""
        done = subprocess.run([BIN / "bellwether", "load", "--connect", self.addresses["client"], "--concurrency", str(concurrency),
                               "--requests", str(requests), "--warm-up", "0", "--prompt-tokens", "8", "--output-tokens", str(tokens),
                               "--json"], capture_output=True, text=True)
        return json.loads(done.stdout)["loads"][0] if done.returncode == 0 else None

    def counter(self, name):
        with urllib.request.urlopen(f"http://{self.addresses['metrics']}/http_sd") as answer:
            targets = [target for group in json.load(answer) for target in group["targets"]]
        total = []
        for target in targets:
            with urllib.request.urlopen(f"http://{target}/metrics") as answer:
                total += [float(line.split()[-1]) for line in answer.read().decode().splitlines() if line.startswith(name + "{")]
        return total

    def plan(self):
        text = (self.directory / "0.log").read_text()
        return re.findall(r"^.* streams .*$", text, re.M)[-1:], re.findall(r"^decode: .*$", text, re.M)[-1:]

    def close(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        for group in self.groups:
            group.close()
        shutil.rmtree(self.directory)


COUNTERS = {"streamed": "bellwether_weights_streamed_bytes_total", "steps": "bellwether_worker_steps_total",
            "reading": "bellwether_weights_read_seconds_total", "busy": "bellwether_step_busy_seconds_total",
            "planned": "bellwether_step_planned_seconds_total"}


class Steps:
    """Of one sequence: what a step took, streamed and kept the slowest drive busy, and what the plan had said of it."""

    def __init__(self, cluster, tokens):
        before = {name: cluster.counter(metric) for name, metric in COUNTERS.items()}
        start = time.monotonic()
        cluster.load(1, 1, tokens)
        seconds = time.monotonic() - start
        after = {name: cluster.counter(metric) for name, metric in COUNTERS.items()}
        grown = {name: [b - a for a, b in zip(before[name], after[name])] for name in COUNTERS}
        steps = grown["steps"][0]
        self.seconds = seconds / steps
        self.streamed = max(grown["streamed"]) / steps
        self.reading = min(1, min(grown["reading"]) / seconds)
        self.to_plan = grown["busy"][0] / grown["planned"][0]

    def text(self, rate):
        return (f"{self.seconds:.3f} s a step, {self.streamed / 1e6:.0f} MB streamed, {self.streamed / self.seconds / 1e6:.0f} MB/s"
                + (f": {self.seconds * rate / self.streamed:.3f} of what the drive takes" if rate else "")
                + f"; a read under way for {100 * self.reading:.1f} % of it; {self.to_plan:.3f} of what the plan says")


def rate_of(options):
    return options.drive_mb_s * 1e6 if options.throttled else None


def measure_one(options, memory, rate):
    """One worker with a part of the layers in memory."""
    cluster = Cluster(options, memory, 1, options.limit_memory)
    try:
        print("\n".join(line.strip() for lines in cluster.plan() for line in lines))
        steps = Steps(cluster, options.tokens)
        print(f"one sequence: {steps.text(rate)}")
        many = cluster.load(16, 16, options.tokens)
        together = many["inter_token_seconds"]["mean"]
        print(f"16 sequences: {together:.3f} s a step, {16 * steps.seconds / together:.1f} x the tokens/s of one")
        if options.limit_memory:
            print(f"memory: {cluster.groups[0].peak_bytes() / 2**20:.0f} of {memory} MiB at most")
    finally:
        cluster.close()


def least_memory(options, ranks):
    """MiB of each of so many machines with which all layers are streamed, the plan says."""
    for mib in range(64, 1 << 20, 16):
        done = subprocess.run([BIN / "bellwether", "plan", "--model", f"random:{options.shape}", "--context-tokens",
                               str(options.context), "--json", "--tensor-parallel", str(ranks),
                               *[word for i in range(ranks) for word in ("--worker", f"host={i},memory={mib}MiB,drive=1GB/s")]],
                              capture_output=True, text=True)
        if done.returncode == 0:
            return mib
    raise SystemExit("no plan")


def measure_all_streamed(options, memory, ranks, rate):
    cluster = Cluster(options, memory, ranks)
    try:
        steps = Steps(cluster, options.tokens)
        print(f"{ranks} rank{'s' * (ranks > 1)} with {memory} MiB: {steps.text(rate)}")
        return steps.seconds
    finally:
        cluster.close()


def measure_second_start(options, rate):
    """From the start of a worker that has all layers in files to the first token, where all of them fit in memory."""
    memory, cache = 1 << 20, pathlib.Path(options.cache) / "rank-0-of-1"
    cluster = Cluster(options, memory, 1)
    try:
        layers = int(re.search(r"layers 0-(\d+)", (cluster.directory / "0.log").read_text()).group(1)) + 1
        cluster.wait(lambda: len(list(cache.glob("*.layer"))) == layers + 1, "layers are not written")
    finally:
        cluster.close()
    start = time.monotonic()
    cluster = Cluster(options, memory, 1)
    try:
        seconds = time.monotonic() - start
        read = sum(path.stat().st_size for path in cache.glob("*.layer"))
        print(f"second start: {seconds:.2f} s to the end of an answer of 2 tokens, {read / 1e6:.0f} MB read"
              + (f": {seconds * rate / read:.2f} of what the drive takes" if rate else ""))
    finally:
        cluster.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama-1.1b:bf16")
    parser.add_argument("--memory-mib", type=int, help="of one worker; default: half of the weights, by the plan")
    parser.add_argument("--drive-mb-s", type=float, default=400, help="0: as fast as it is")
    parser.add_argument("--cache", default=str(ROOT / "build/bench-shards"))
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--limit-memory", action="store_true", help="hold workers to their memory by a control group too")
    parser.add_argument("--only-one", action="store_true", help="leave out the two ranks")
    options = parser.parse_args()
    pathlib.Path(options.cache).mkdir(parents=True, exist_ok=True)
    options.model, options.batch = f"random:{options.shape}", 16
    options.device = device_of(options.cache)
    options.throttled = options.drive_mb_s > 0 and (GROUPS / "blkio").is_dir() and os.geteuid() == 0
    if options.drive_mb_s > 0 and not options.throttled:
        print("no control groups of version 1, or not root: the drive is not held back", file=sys.stderr)
    weights = json.loads(subprocess.run([BIN / "bellwether", "plan", "--model", f"random:{options.shape}", "--worker", "memory=1TB",
                                         "--context-tokens", str(options.context), "--json"], capture_output=True, text=True,
                                        check=True).stdout)["loaded_bytes"]
    memory = options.memory_mib or int(weights / 2 / 0.9) >> 20

    held = rate_of(options)
    measure_one(options, memory, held)
    measure_second_start(options, held)
    if options.only_one:
        return
    least = least_memory(options, 1), least_memory(options, 2)
    one = measure_all_streamed(options, least[0], 1, held)
    two = measure_all_streamed(options, least[1], 2, held)
    print(f"two ranks, all layers streamed: {one / two:.2f} x one ({two:.3f} s a step to {one:.3f} s)")


if __name__ == "__main__":
    main()
