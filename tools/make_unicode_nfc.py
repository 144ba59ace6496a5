#!/usr/bin/env python3
"""Writes model/tokenizer/unicode_nfc_data.inc: the tables of Unicode normalisation form C.

The facts come from Python's own unicodedata (Python 3.11: Unicode 14.0). Run from the repository root.
"""
import unicodedata

OUTPUT = "model/tokenizer/unicode_nfc_data.inc"


def canonical_decomposition(code):
    fields = unicodedata.decomposition(chr(code)).split()
    if not fields or fields[0].startswith("<"):
        return None
    return [int(f, 16) for f in fields]


def rows(items, width=108):
    line = ""
    for item in items:
        if len(line) + len(item) + 2 > width:
            yield line.rstrip()
            line = ""
        line += item + ", "
    yield line.rstrip()


def table(comment, declaration, items):
    return [comment, declaration + " = {"] + ["  " + row for row in rows(items)] + ["};", ""]


def main():
    composites, singles = [], []
    for code in range(0x110000):
        parts = canonical_decomposition(code)
        if parts is None:
            continue
        second = parts[1] if len(parts) == 2 else 0
        item = "{%#x, %#x, %#x}" % (code, parts[0], second)
        composes = unicodedata.normalize("NFC", chr(code)) == chr(code)
        (composites if composes else singles).append(item)
    classes = []
    for code in range(0x110000):
        combining = unicodedata.combining(chr(code))
        if not combining:
            continue
        if classes and classes[-1][1] == code - 1 and classes[-1][2] == combining:
            classes[-1][1] = code
        else:
            classes.append([code, code, combining])
    lines = ["// Made by tools/make_unicode_nfc.py from Unicode %s; do not edit." % unicodedata.unidata_version]
    lines += table("// Whole, first, second: taken apart and put together.", "constexpr Decomposition kComposites[]",
                   composites)
    lines += table("// Taken apart only; second 0 when there is none.", "constexpr Decomposition kDecompositions[]",
                   singles)
    lines += table("// First, last, canonical combining class; all other characters are of class 0.",
                   "constexpr CombiningRange kCombiningRanges[]", ["{%#x, %#x, %d}" % tuple(r) for r in classes])
    with open(OUTPUT, "w", encoding="ascii") as out:
        out.write("\n".join(lines))


if __name__ == "__main__":
    main()
