#!/usr/bin/env python3
"""Writes tests/goldens/gpu/mma_bf16_cases.bin: every tenth of the 8,000 steps of a tensor core in CASES.

Usage: make_tensor_core_goldens.py CASES. tests/goldens/README.md says what a record holds and where they come from.
"""

import pathlib
import sys

RECORD_BYTES = 16 * 2 + 16 * 2 + 4 + 4 + 4

cases = pathlib.Path(sys.argv[1]).read_bytes()
records = [cases[at:at + RECORD_BYTES] for at in range(0, len(cases), RECORD_BYTES)]
target = pathlib.Path(__file__).resolve().parents[2] / "tests/goldens/gpu/mma_bf16_cases.bin"
target.write_bytes(b"".join(records[::10]))
