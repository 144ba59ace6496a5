"""Makes tests/goldens/demo/smollm2_llama_cpp.json: greedy answers of the demo model by llama.cpp, to the same prompts.

    VENV/bin/python tools/goldens/make_demo_llama_cpp_golden.py SmolLM2-135M-Instruct.Q4_1.gguf

llama.cpp computes with the file's own blocks and rounds activations to int8 in groups of 32, as Bellwether does, where
transformers multiplies in fp32. Its KV cache is fp32 here; `same_with_fp16_cache` says for how many tokens it answers
the same with its default one, as a measure of what rounding alone does to this small model.
"""

import hashlib
import json
import pathlib
import sys

import llama_cpp
import numpy as np

DEMO = pathlib.Path(__file__).resolve().parents[2] / "tests" / "goldens" / "demo"
GGML_TYPE_F32, GGML_TYPE_F16 = 0, 1


def load(path: pathlib.Path, cache_type: int) -> llama_cpp.Llama:
    return llama_cpp.Llama(str(path), n_ctx=512, n_threads=1, logits_all=True, verbose=False,
                           type_k=cache_type, type_v=cache_type)


def answer(model: llama_cpp.Llama, prompt_ids: list[int], steps: int) -> tuple[list[int], list[float]]:
    """Greedy tokens, end-of-sequence ignored, and the margin of each over the runner-up."""
    ids, margins = [], []
    model.reset()
    model.eval(prompt_ids)
    for _ in range(steps):
        logits = model.scores[model.n_tokens - 1]
        second, best = np.argsort(logits)[-2:]
        ids.append(int(best))
        margins.append(round(float(logits[best] - logits[second]), 4))
        model.eval(ids[-1:])
    return ids, margins


def main() -> None:
    path = pathlib.Path(sys.argv[1]).resolve()
    transformers = json.loads((DEMO / "smollm2.json").read_text())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == transformers["sha256"]
    model, default = load(path, GGML_TYPE_F32), load(path, GGML_TYPE_F16)
    entries = []
    for asked in transformers["answers"]:
        steps = len(asked["token_ids"])
        ids, margins = answer(model, asked["prompt_token_ids"], steps)
        other, _ = answer(default, asked["prompt_token_ids"], steps)
        same = next((i for i in range(steps) if ids[i] != other[i]), steps)
        entries.append({"text": model.detokenize(ids).decode(errors="replace"),
                        "prompt_token_ids": asked["prompt_token_ids"], "token_ids": ids, "margins": margins,
                        "same_with_fp16_cache": same})
    golden = {"made_by": f"llama-cpp-python {llama_cpp.__version__}, CPU, fp32 KV cache", "file": transformers["file"],
              "sha256": transformers["sha256"]}
    lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in golden.items()]
    body = ",\n".join("    {\n" + ",\n".join(f"      {json.dumps(k)}: {json.dumps(v)}" for k, v in e.items())
                      + "\n    }" for e in entries)
    (DEMO / "smollm2_llama_cpp.json").write_text(
        "{\n" + ",\n".join(lines) + ',\n  "answers": [\n' + body + "\n  ]\n}\n")


if __name__ == "__main__":
    main()
