#!/usr/bin/env python3
"""gpu_check on the emulator: it finds nothing, and a card that computes otherwise is said to, with the least that shows it.

Usage: gpu_check_test.py GPU_CHECK NCCL, a double of it. Run in the project's root.
"""

import os
import re
import subprocess
import sys
import unittest


def check(mode):
    ran = subprocess.run([PROGRAM, mode], capture_output=True, text=True, env={**os.environ, "BELLWETHER_NCCL_LIBRARY": NCCL})
    return ran.returncode, ran.stdout, ran.stderr


class GpuCheckTest(unittest.TestCase):
    def test_the_emulator_passes(self):
        code, out, err = check("emulated")
        self.assertEqual(code, 0, out + err)
        self.assertNotIn("FAILED", out)
        for row in ("mma.sync, cancelling", "wgmma, any bits", "card against emulator, LLaMA, bf16"):
            self.assertIn(row, out)
        self.assertRegex(out, r"LLaMA, bf16 +ok .* 0 answers differ, [1-9]\d* graphs run")
        self.assertRegex(out, r"NCCL with one rank +ok +version 2\.28\.9, a group of copies takes the host [\d.]+ us")

    def test_a_card_of_other_bits_is_shown_by_its_smallest_case(self):
        code, out, err = check("planted")
        self.assertEqual(code, 1, out + err)
        self.assertRegex(out, r"mma\.sync, ordinary +FAILED +512 outputs, \d+ differ")
        cases = re.findall(r"the smallest that differs by (\S+): c (\S+?)(, a\[.*)?: gave (\w{8}), wanted (\w{8})", out)
        self.assertGreaterEqual(len(cases), 8, out)
        for instruction, _, products, gave, wanted in cases:
            self.assertIn(instruction, ("mma.sync", "wgmma"))
            self.assertNotEqual(gave, wanted)
            # What two steps of eight and a bit less make other than one step of sixteen needs few terms.
            self.assertLess(products.count("a["), 8, products)
        self.assertIn("TensorCoreClass{25, -133, 16} would be right for mma.sync", out)


if __name__ == "__main__":
    PROGRAM, NCCL = sys.argv.pop(1), sys.argv.pop(1)
    unittest.main()
