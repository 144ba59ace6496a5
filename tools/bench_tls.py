#!/usr/bin/env python3
"""What TLS costs between two hosts: decode, and a prompt of 512 tokens, with links under TLS beside links in clear.

    tools/bench_tls.py [--shape llama-1.1b:bf16] [--pairs 7] [--threads 1]

Runs two clusters of real processes with random weights at once, one with certificates for clients and cluster and one without.
Each has two workers that believe to be on different hosts, so that they talk by gRPC over loopback; they are asked in turn. Prints
the medians and their ratio, for two ranks (two all-reduces a layer) and for two stages (one message a step)."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("BELLWETHER_BIN", str(ROOT / "build/release/bin"))
sys.path.insert(0, str(ROOT))
from tests.e2e import processes  # noqa: E402

PROMPT, DECODED = 512, 64


class Served:
    """A cluster of two workers, and the flags by which it is asked."""

    def __init__(self, model, layout, threads, certificates):
        coordinator, worker, self.flags = [], ["--link-listen", "127.0.0.1:0"], []
        if certificates:
            files = lambda flag, name: [f"--{flag}tls-certificate", certificates / f"{name}.pem", f"--{flag}tls-key",
                                        certificates / f"{name}.key"]
            cluster = [*files("cluster-", "flock"), "--cluster-tls-authority", certificates / "authority.pem"]
            coordinator = [*files("", "localhost"), *cluster]
            worker += [*cluster, "--cluster-tls-server-name", "flock"]
            self.flags = ["--tls-authority", certificates / "authority.pem", "--tls-server-name", "localhost"]
        self.cluster = processes.Cluster(model, workers=0, coordinator_flags=[
            "--workers", 2, "--tensor-parallel", layout[0], "--pipeline-parallel", layout[1], *coordinator])
        for host in "ab":
            self.cluster.start_worker("--model", model, "--host-id", host, "--name", host, "--threads", threads, *worker)

    def usage(self, prompt, tokens):
        ids = ",".join(str(1 + i % 1000) for i in range(prompt))
        while True:  # until it serves; errors that stay end the script by the processes' own limits
            done = subprocess.run([processes.BIN / "bellwether", "generate", "--connect", self.cluster.address, "--prompt-ids", ids,
                                   "--max-tokens", str(tokens), "--ignore-eos", "--json", *map(str, self.flags)],
                                  capture_output=True, text=True, timeout=processes.PATIENCE * 10)
            if done.returncode == 0:
                return json.loads(done.stdout)["usage"]
            if "serv" not in done.stderr and "load" not in done.stderr and "wait" not in done.stderr:
                sys.exit(done.stderr)

    def decode_seconds(self):
        usage = self.usage(8, DECODED)
        return (usage["total_seconds"] - usage["time_to_first_token_seconds"]) / (DECODED - 1)

    def prefill_seconds(self):
        return self.usage(PROMPT, 1)["time_to_first_token_seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama-1.1b:bf16")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        certificates = pathlib.Path(directory)
        processes.make_certificates(certificates, "localhost", "flock")
        for layout, name in (((2, 1), "two ranks"), ((1, 2), "two stages")):
            clear, tls = (Served(f"random:{options.shape}", layout, options.threads, files) for files in (None, certificates))
            try:
                for served in (clear, tls):
                    served.usage(8, 2)
                for what, ask in (("decode, a token", Served.decode_seconds), (f"prompt of {PROMPT}", Served.prefill_seconds)):
                    pairs = [(ask(clear), ask(tls)) for _ in range(options.pairs)]
                    ratios = sorted(b / a for a, b in pairs)
                    print(f"{name:10}  {what:16}  clear {1e3 * statistics.median(a for a, _ in pairs):8.2f} ms  "
                          f"TLS {1e3 * statistics.median(b for _, b in pairs):8.2f} ms  ratio {statistics.median(ratios):.3f} "
                          f"({ratios[0]:.3f} to {ratios[-1]:.3f})", flush=True)
            finally:
                clear.cluster.close()
                tls.cluster.close()


if __name__ == "__main__":
    main()
