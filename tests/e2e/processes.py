"""A coordinator and workers as real processes, for the tests in Python. Standard library alone."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time

BIN = pathlib.Path(os.environ["BELLWETHER_BIN"])
PATIENCE = 120  # seconds: the longest wait for what must happen but has no time of its own


class Cluster:
    """Serves `model` until closed. `address` is where clients connect; serving begins when a worker is ready."""

    def __init__(self, model, workers=1, coordinator_flags=()):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="bellwether-test."))
        self.processes = []
        ports = self.directory / "ports"
        coordinator = self._start(
            "bellwether-coordinator", "--model", model, "--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0",
            "--port-file", ports, "--workers", workers, "--tensor-parallel", workers, *coordinator_flags)
        addresses = {}
        end = time.monotonic() + PATIENCE
        while not {"client", "worker"} <= addresses.keys():
            if coordinator.poll() is not None or time.monotonic() > end:
                raise RuntimeError("no coordinator:\n" + self.logs())
            if ports.exists():
                addresses = dict(line.split() for line in ports.read_text().splitlines())
        self.address = addresses["client"]
        for i in range(workers):
            self._start("bellwether-worker", "--model", model, "--coordinator", addresses["worker"],
                        "--name", f"sheep-{i}", "--threads", 1)

    def _start(self, program, *arguments):
        log = open(self.directory / f"{program}-{len(self.processes)}.log", "wb")
        process = subprocess.Popen([BIN / program, *map(str, arguments)], stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def logs(self):
        return "\n".join(f"-- {path.name}\n{path.read_text()}" for path in sorted(self.directory.glob("*.log")))

    def close(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        shutil.rmtree(self.directory)
