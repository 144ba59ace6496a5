"""Makes tests/goldens/sampling/filtered.json: distributions after transformers' logits processors and warpers.

Scores are processed in float64, so that the file says what the definitions give and not what float32 rounds them to.
Presence and frequency penalties, which transformers lacks, are added by their formula between its processors.
"""

import json

import torch
import transformers
from transformers.generation import logits_process as hf

import golden_io

# Distances that keep a case from turning on the last bit of somebody's arithmetic.
BORDER = 2e-5


def logit_vectors() -> list[list[float]]:
    generator = torch.Generator().manual_seed(7)
    vectors = []
    for size, scale in ((64, 2.0), (128, 3.0), (200, 1.0), (96, 4.0)):
        vectors.append([round(float(x), 3) for x in torch.randn(size, generator=generator) * scale])
    # Many ties: multiples of 1/2.
    vectors.append([round(float(x) * 2) / 2 for x in torch.randn(80, generator=generator) * 1.5])
    vectors.append([0.25] * 64)
    # Two peaks and a flat floor.
    vectors.append([5.0, 4.875] + [round(-1.0 - 0.01 * i, 2) for i in range(98)])
    return vectors


def process(logits: list[float], case: dict) -> torch.Tensor:
    scores = torch.tensor([logits], dtype=torch.float64)
    ids = torch.tensor([case["tokens"]], dtype=torch.long)
    generated = case["tokens"][case["prompt_length"]:]
    if case.get("repetition_penalty", 1.0) != 1.0:
        scores = hf.RepetitionPenaltyLogitsProcessor(case["repetition_penalty"])(ids, scores)
    if case.get("min_tokens", 0) > 0:
        scores = hf.MinNewTokensLengthLogitsProcessor(
            case["prompt_length"], case["min_tokens"], case["ending_tokens"], device="cpu")(ids, scores)
    for token in set(generated):
        scores[0, token] -= case.get("presence_penalty", 0.0)
        scores[0, token] -= case.get("frequency_penalty", 0.0) * generated.count(token)
    if case.get("logit_bias"):
        bias = {(token,): value for token, value in case["logit_bias"]}
        scores = hf.SequenceBiasLogitsProcessor(bias)(ids, scores)
    return scores


def warp(scores: torch.Tensor, case: dict) -> torch.Tensor:
    if case.get("temperature", 1.0) != 1.0:
        scores = hf.TemperatureLogitsWarper(case["temperature"])(None, scores)
    if case.get("top_k", 0) > 0:
        scores = hf.TopKLogitsWarper(case["top_k"])(None, scores)
    if case.get("top_p", 1.0) < 1.0:
        check_top_p_border(scores, case["top_p"])
        scores = hf.TopPLogitsWarper(case["top_p"])(None, scores)
    if case.get("min_p", 0.0) > 0.0:
        probabilities = scores.softmax(-1)
        assert ((probabilities / (case["min_p"] * probabilities.max()) - 1).abs() > BORDER).all(), case
        scores = hf.MinPLogitsWarper(case["min_p"])(None, scores)
    return scores


def check_top_p_border(scores: torch.Tensor, top_p: float) -> None:
    """No cumulative sum near 1 - top_p, and no tie across the border (torch.sort leaves its order open)."""
    ordered, _ = torch.sort(scores[0])
    cumulative = ordered.softmax(-1).cumsum(-1)
    assert ((cumulative - (1 - top_p)).abs() > BORDER).all(), top_p
    removed = int((cumulative <= 1 - top_p).sum())
    assert removed == 0 or removed == len(ordered) or ordered[removed - 1] != ordered[removed], top_p


def cases(vectors: list[list[float]]) -> list[dict]:
    generator = torch.Generator().manual_seed(11)
    grid = [
        {},
        {"temperature": 0.35},
        {"temperature": 1.7},
        {"top_k": 1},
        {"top_k": 30},
        {"top_k": 1000},
        {"top_p": 0.85},
        {"top_p": 0.3},
        {"top_p": 0.003},
        {"top_p": 0.999},
        {"min_p": 0.05},
        {"min_p": 1.0},
        {"top_k": 7, "top_p": 0.9},
        {"temperature": 0.5, "top_k": 20, "top_p": 0.6, "min_p": 0.11},
        {"repetition_penalty": 1.2},
        {"repetition_penalty": 0.8, "top_k": 12},
        {"presence_penalty": 0.7},
        {"frequency_penalty": 0.45, "top_p": 0.7},
        {"presence_penalty": -0.5, "frequency_penalty": 0.9, "temperature": 0.8},
        {"logit_bias": [[3, 4.5], [17, -100.0], [40, -1.25]], "top_k": 10},
        {"min_tokens": 9, "ending_tokens": [0, 1, 2, 5]},
        {"min_tokens": 6, "ending_tokens": [0, 1, 2, 5]},  # six are generated: nothing is masked
        {"temperature": 0.35, "top_k": 30, "top_p": 0.85, "repetition_penalty": 1.2},
        {"temperature": 0.9, "top_k": 40, "top_p": 0.6, "min_p": 0.02, "repetition_penalty": 1.3,
         "presence_penalty": 0.2, "frequency_penalty": 0.3, "logit_bias": [[4, 1.0], [9, 2.5]], "min_tokens": 20,
         "ending_tokens": [2, 7]},
    ]
    result = []
    for index, vector in enumerate(vectors):
        for options in grid:
            # Unfiltered cases are long lists of numbers: once is enough.
            if index > 0 and not {"top_k", "top_p", "min_p"} & set(options):
                continue
            tokens = golden_io.random_tokens(generator, 12, len(vector)) + golden_io.random_tokens(generator, 3, 20)
            tokens += [tokens[-1], tokens[-2], tokens[-1]]  # six generated, some repeated
            result.append({"logits": index, "tokens": tokens, "prompt_length": 12, **options})
    return result


def main() -> None:
    vectors = logit_vectors()
    lines, left_out = [], 0
    for case in cases(vectors):
        scores = process(vectors[case["logits"]], case)
        case["greedy"] = int(scores[0].argmax())
        try:
            probabilities = warp(scores, case)[0].softmax(-1)
        except AssertionError:
            left_out += 1
            continue
        kept = [i for i, p in enumerate(probabilities.tolist()) if p > 0.0]
        assert min(probabilities[kept]) > 1e-30
        case["kept"] = kept
        case["probabilities"] = [float(f"{probabilities[i]:.6e}") for i in kept]
        lines.append("    " + json.dumps(case, separators=(",", ":")))
    directory = golden_io.ROOT / "sampling"
    directory.mkdir(parents=True, exist_ok=True)
    text = ('{\n  "made_by": ' + json.dumps(f"transformers {transformers.__version__} logits processors in float64") + ',\n  "logits": [\n    '
            + ",\n    ".join(json.dumps(v, separators=(",", ":")) for v in vectors)
            + '\n  ],\n  "cases": [\n' + ",\n".join(lines) + "\n  ]\n}\n")
    (directory / "filtered.json").write_text(text)
    print(f"{len(lines)} cases, {left_out} left out for lying on a border, {len(text)} bytes")


if __name__ == "__main__":
    main()
