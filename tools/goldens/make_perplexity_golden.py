#!/usr/bin/env python3
"""Makes tests/goldens/perplexity.json: perplexities of the tiny checkpoint of the end-to-end tests, by transformers.

Windows and strides as in https://huggingface.co/docs/transformers/perplexity; the mean is over the scored tokens.
"""

import json
import math
import os
import pathlib
import sys
import tempfile

import torch
import transformers

import golden_io

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("BELLWETHER_BIN", "unused")
from tests.e2e import processes  # noqa: E402

TEXTS = ["The quick brown fox jumps over the lazy dog. " * 12, "请你写出一个可以生成五个不同随机数的程序。\n" * 5, "a"]
SETTINGS = [(64, 64), (64, 32), (100, 7), (2048, 512)]


def log_probabilities(model, ids, window, stride):
    """Sum of the log-probabilities of the tokens that the windows score, and how many they are."""
    total, count, previous_end = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        targets = end - previous_end
        labels = torch.tensor([ids[begin:end]])
        labels[:, :-targets] = -100
        scored = int((labels[:, 1:] != -100).sum())
        if scored:
            with torch.no_grad():
                loss = model(torch.tensor([ids[begin:end]]), labels=labels).loss
            total -= float(loss) * scored
            count += scored
        previous_end = end
        if end == len(ids):
            break
    return total, count


def main():
    golden_io.exact_torch()
    with tempfile.TemporaryDirectory() as directory:
        processes.write_tiny_checkpoint(directory)
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    runs = []
    for window, stride in SETTINGS:
        parts = [log_probabilities(model, each, window, stride) for each in ids]
        total, count = sum(part[0] for part in parts), sum(part[1] for part in parts)
        runs.append({"window": window, "stride": stride, "scored": [part[1] for part in parts],
                     "documents": [math.exp(-part[0] / part[1]) if part[1] else None for part in parts],
                     "perplexity": math.exp(-total / count)})
    out = ROOT / "tests" / "goldens" / "perplexity.json"
    golden = {"made_by": golden_io.made_by(), "texts": TEXTS, "tokens": [len(each) for each in ids], "runs": runs}
    out.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
