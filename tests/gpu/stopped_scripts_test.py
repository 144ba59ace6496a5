#!/usr/bin/env python3
"""tools/gpu_check.sh and tools/bench_gpu.sh, with programs that stand in for those of a card, are told to stop: whoever pressed Ctrl-C
waited until the check had ended by itself, and what a script that was killed had started went on without it.

Run in the project's root.
"""

import os
import pathlib
import signal
import subprocess
import tempfile
import unittest

# Hangs, with a child in a group of its own, as `timeout` makes it, that does not care for SIGTERM; both say who they are.
HANGS = """
echo $$ >>"$PIDS"
timeout 600 bash -c 'trap "" TERM; echo $$ >>"$PIDS"; echo all here >"$READY"; while :; do sleep 600; done' &
wait
"""


def is_there(pid):
    try:
        stat = pathlib.Path("/proc", str(pid), "stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rsplit(") ", 1)[1][0] != "Z"


class StoppedScriptsTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.bin = pathlib.Path(scratch.name)
        os.mkfifo(self.bin / "ready")

    def program(self, name, text):
        path = self.bin / name
        path.write_text("#!/usr/bin/env bash\n" + text)
        path.chmod(0o755)

    def stopped(self, number, *command):
        """What the script says whom all its processes get this signal, as from a terminal, once a program hangs."""
        environment = {**os.environ, "PIDS": str(self.bin / "pids"), "READY": str(self.bin / "ready"), "MATMUL_TFLOPS": "1",
                       "TMPDIR": str(self.bin)}
        script = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
                                  start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        self.assertEqual((self.bin / "ready").read_text(), "all here\n")
        os.killpg(script.pid, number)
        out, _ = script.communicate()
        self.assertEqual(script.returncode, 128 + number, out)
        pids = (self.bin / "pids").read_text().split()
        self.assertEqual(len(pids), 2)
        self.assertFalse([pid for pid in pids if is_there(pid)], "processes of a check that was stopped")
        (self.bin / "pids").unlink()
        return out

    def test_checks_end_with_the_table(self):
        self.program("gpu_check", "echo 'all bits are equal'")
        self.program("kernels_gpu_tensor_core_test", "echo '[==========] 0 tests from 0 test suites ran.'")
        self.program("kernels_gpu_products_test", HANGS)
        for number in (signal.SIGINT, signal.SIGTERM):
            out = self.stopped(number, "tools/gpu_check.sh", str(self.bin), str(self.bin))
            self.assertIn("all bits are equal", out)
            table = out[out.rfind("\n\n") + 2 :].splitlines()
            self.assertEqual([line.split("  ")[0] for line in table],
                             ["bits: tensor cores, whole steps, NCCL alone", "bits: kernels of tensor_core_test", "bits: kernels of products_test"])
            for line, word in zip(table, ("ok", "FAILED", "stopped")):
                self.assertIn(f" {word} ", line)

    def test_all_checks_are_still_told_apart(self):
        """That they run in sessions of their own changes nothing where nobody stops them."""
        self.program("gpu_check", "exit 3")
        self.program("kernels_gpu_rows_test", "echo '[==========] 5 tests from 1 test suite ran.'")
        ran = subprocess.run(["tools/gpu_check.sh", self.bin, self.bin, "--only", "bits: "], capture_output=True, text=True)
        self.assertEqual(ran.returncode, 1, ran.stderr)
        self.assertRegex(ran.stdout, r"whole steps, NCCL alone +FAILED ")
        self.assertRegex(ran.stdout, r"kernels of attention_test +FAILED ")
        self.assertRegex(ran.stdout, r"kernels of rows_test +ok ")
        none = subprocess.run(["tools/gpu_check.sh", self.bin, self.bin, "--only", "bats"], capture_output=True, text=True)
        self.assertEqual(none.returncode, 2, none.stderr)

    def test_a_bench_shows_its_table(self):
        # gpu_bench prints what it has, which gpu_bench_test holds.
        self.program("gpu_bench", "trap 'echo a table of \"$*\"; exit' TERM\n" + HANGS)
        for number in (signal.SIGINT, signal.SIGTERM):
            out = self.stopped(number, "tools/bench_gpu.sh", str(self.bin), "--only", "load")
            self.assertRegex(out, r"a table of --matmul-tflops 1 --transformers \S+ .*--only load\n$")
            self.assertFalse(list(self.bin.glob("tmp.*")), "what the script had made")


if __name__ == "__main__":
    unittest.main()
