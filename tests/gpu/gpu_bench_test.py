#!/usr/bin/env python3
"""gpu_bench on the emulator: every kind of row is measured and stands in the table at the end, beside transformers'.

Usage: gpu_bench_test.py GPU_BENCH.
"""

import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest


def bench(*flags):
    ran = subprocess.run([GPU_BENCH, "--emulated", *flags], capture_output=True, text=True)
    return ran.returncode, ran.stdout, ran.stdout[ran.stdout.rfind("host ms") :], ran.stderr


class GpuBenchTest(unittest.TestCase):
    def test_rows_come_and_stand_in_the_table(self):
        with tempfile.TemporaryDirectory() as scratch:
            model = pathlib.Path(scratch, "model")
            rates = pathlib.Path(scratch, "transformers")
            rates.write_text("tiny bf16, decode, batch 1: 20.0\n")
            code, out, table, err = bench("--load", str(model), "--transformers", str(rates), "--matmul-tflops", "1")
        self.assertEqual(code, 0, out + err)
        for row in ("tiny bf16, decode, batch 1", "tiny int8 g32, decode, batch 2", "tiny int4 g32, decode, batch 1",
                    "tiny int4 g128, prefill 9", "tiny fp16, decode, batch 2", "tiny bf16, first token, 9", "load 0.0 GB"):
            self.assertIn(row, out[: out.rfind("host ms")])
            self.assertIn(row, table)
        self.assertRegex(table, r"tiny bf16, decode, batch 1 .* 20\.0 \([\d.]+ times\)")

    def test_only_takes_a_part_and_says_what_was_skipped(self):
        with tempfile.NamedTemporaryFile("w") as rates:
            rates.write("transformers: skipped, no PyTorch with CUDA here\n")
            rates.flush()
            code, out, table, err = bench("--only", "int8", "--transformers", rates.name)
        self.assertEqual(code, 0, out + err)
        self.assertNotIn("tiny bf16", out)
        self.assertIn("tiny int8 g32, decode, batch 1", table)
        self.assertIn("transformers: skipped, no PyTorch with CUDA here", table)

    def test_only_streams_where_that_is_said(self):
        code, out, table, err = bench("--only", "tiny bf16")
        self.assertEqual(code, 0, out + err)
        self.assertIn("tiny bf16, decode, batch 1", table)
        self.assertNotIn("streamed", table)
        code, out, table, err = bench("--only", "streamed")
        self.assertEqual(code, 0, out + err)
        self.assertIn("tiny bf16 streamed, decode, batch 1", table)
        self.assertNotIn("tiny bf16, decode", table)

    def test_one_that_is_stopped_shows_what_it_has(self):
        with subprocess.Popen([GPU_BENCH, "--emulated"], stdout=subprocess.PIPE, text=True) as bench_process:
            first = next(line for line in bench_process.stdout if "tiny bf16, decode, batch 1" in line)
            bench_process.terminate()
            out = first + bench_process.stdout.read()
            self.assertEqual(bench_process.wait(), 128 + signal.SIGTERM)
        self.assertIn("tiny bf16, decode, batch 1", out[out.rfind("host ms") :])
        self.assertNotIn("tiny fp16", out)

    def test_only_something_that_there_is_not_is_an_error(self):
        code, _, _, err = bench("--only", "decode")
        self.assertEqual(code, 1)
        self.assertIn("nothing is called \"decode\"", err)


if __name__ == "__main__":
    GPU_BENCH = sys.argv.pop(1)
    unittest.main()
