#!/usr/bin/env python3
"""What cuda_object_test.py says of a log of ptxas: a spill that is not allowed fails, for any target, with kernel, target and bytes."""

import unittest

from tests.gpu import cuda_object_test

LISTED = [*cuda_object_test.SPILLS_ALLOWED, "norm"]


def log(spilled=(), left_out=()):
    """Every kernel for every target without spills, but for (kernel, target): (stored, loaded)."""
    spilled = dict(spilled)
    lines = ["ptxas info    : 0 bytes gmem"]
    for target in cuda_object_test.TARGETS:
        for kernel in LISTED:
            if (kernel, target) in left_out:
                continue
            symbol = f"_ZN10bellwether3gpu{len(kernel) + 7}{kernel}_kernelENS0_8NormArgsE"
            stored, loaded = spilled.get((kernel, target), (0, 0))
            lines += [
                f"ptxas info    : Compiling entry function '{symbol}' for '{target}'",
                f"ptxas info    : Function properties for {symbol}",
                f"    64 bytes stack frame, {stored} bytes spill stores, {loaded} bytes spill loads",
                "ptxas info    : Used 80 registers, used 1 barriers",
            ]
    return "\n".join(lines)


def failures(text):
    return list(cuda_object_test.check_spills(LISTED, text))


class SpillsTest(unittest.TestCase):
    def test_none_is_right(self):
        self.assertEqual(failures(log()), [])

    def test_one_that_nobody_allowed_fails_for_every_target(self):
        for target in cuda_object_test.TARGETS:
            self.assertEqual(
                failures(log({("norm", target): (16, 20)})),
                [f"norm for {target} spills: 16 bytes stored, 20 loaded, 0 allowed"],
            )

    def test_what_is_allowed_is_so_for_its_target(self):
        kernel, target = "attend_block_8", "sm_90a"
        allowed = cuda_object_test.SPILLS_ALLOWED[kernel][target]
        self.assertEqual(failures(log({(kernel, target): (allowed - 4, 4)})), [])
        self.assertEqual(
            failures(log({(kernel, target): (allowed, 4)})),
            [f"{kernel} for {target} spills: {allowed} bytes stored, 4 loaded, {allowed} allowed"],
        )

    def test_a_kernel_of_which_the_log_is_silent_fails(self):
        self.assertEqual(
            failures(log(left_out={("norm", "sm_100")})),
            ["norm for sm_100: the log of ptxas does not say whether it spills"],
        )
        self.assertEqual(len(failures("")), len(cuda_object_test.TARGETS))

    def test_warnings_fail_once_each_and_remarks_do_not(self):
        warning = "stream_matmul.h(283): warning #186-D: pointless comparison of unsigned integer with zero"
        slow = "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to ..."
        remark = "ptxas info    : (C7519) warpgroup.arrive is injected in around line 9 by compiler"
        self.assertEqual(list(cuda_object_test.check_warnings("\n".join([warning, remark, slow, warning]))), [slow, warning])
        self.assertEqual(list(cuda_object_test.check_warnings(log())), [])


if __name__ == "__main__":
    unittest.main()
