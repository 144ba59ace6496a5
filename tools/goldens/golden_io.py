"""What the golden scripts share: running a transformers model in fp32 and writing golden.json and logits.bin."""

import json
import pathlib

import numpy as np
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "goldens"
GREEDY_TOKENS = 16
# A greedy choice closer than this to the runner-up could flip by rounding alone; such a seed is not used.
GREEDY_MARGIN = 0.02


def exact_torch() -> None:
    """One thread and fp32 throughout, so that a rerun gives the same files."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.backends.mkldnn.enabled = False


def made_by() -> str:
    return f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, float32, eager, CPU"


def logits_of(model, token_ids: list[int]) -> torch.Tensor:
    """[len(token_ids), vocab] fp32."""
    with torch.no_grad():
        return model(torch.tensor([token_ids]), use_cache=False).logits[0].float()


def greedy(model, token_ids: list[int]) -> tuple[list[int], list[float]]:
    """Greedy continuation, end-of-sequence ignored, and the logit margin of each choice over the runner-up."""
    ids, margins = list(token_ids), []
    for _ in range(GREEDY_TOKENS):
        top = torch.topk(logits_of(model, ids)[-1], 2)
        margins.append(float(top.values[0] - top.values[1]))
        ids.append(int(top.indices[0]))
    return ids[len(token_ids):], margins


def positions_to_keep(count: int) -> list[int]:
    """The first ones, both sides of every KV block border, some between, and the last."""
    keep = {0, 1, 2, count - 1}
    for border in range(32, count, 32):
        keep |= {border - 1, border}
    keep |= set(range(5, count, 17))
    return sorted(p for p in keep if p < count)


def golden_of(model, token_ids: list[int]) -> tuple[dict, np.ndarray]:
    logits = logits_of(model, token_ids)
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    positions = positions_to_keep(len(token_ids))
    continuation, margins = greedy(model, token_ids)
    golden = {
        "made_by": made_by(),
        "token_ids": token_ids,
        "token_logprobs": [None] + [round(float(logprobs[i, token_ids[i + 1]]), 7) for i in range(len(token_ids) - 1)],
        "vocab_size": logits.shape[1],
        "logit_positions": positions,
        "greedy_token_ids": continuation,
        "greedy_margins": [round(m, 4) for m in margins],
    }
    return golden, logits[positions].numpy().astype("<f4")


def write_golden(directory: pathlib.Path, golden: dict, logits: np.ndarray) -> None:
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
    (directory / "golden.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    logits.tofile(directory / "logits.bin")
    size = sum(f.stat().st_size for f in directory.iterdir())
    print(f"{directory.name}: {size} bytes, logits std {logits.std():.2f} max {np.abs(logits).max():.2f}, "
          f"least margin {min(golden['greedy_margins'])}")


def random_tokens(generator: torch.Generator, count: int, vocab: int) -> list[int]:
    return torch.randint(0, vocab, (count,), generator=generator).tolist()
