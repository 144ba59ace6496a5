#!/usr/bin/env python3
"""How fast transformers runs the shapes of gpu_bench, for its table: bench_transformers.py > FILE. Lines "ROW: TOKENS PER SECOND",
or one that says why there are none. Random weights, bf16, batch 1, as transformers does it unasked (sdpa, a cache that grows).
"""

import statistics
import sys
import time

try:
    import torch
    import transformers
except ImportError as problem:
    print(f"transformers: skipped, {problem} here")
    sys.exit(0)
if not torch.cuda.is_available():
    print("transformers: skipped, no PyTorch with CUDA here")
    sys.exit(0)

SHAPES = {
    "1.1B": dict(hidden_size=2048, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4, intermediate_size=5632),
    "7B": dict(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32, intermediate_size=11008),
}


def make(shape):
    config = transformers.LlamaConfig(vocab_size=32000, max_position_embeddings=4096, **shape)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = transformers.LlamaForCausalLM(config)
    return model.eval()


def timed(run):
    torch.cuda.synchronize()
    began = time.perf_counter()
    result = run()
    torch.cuda.synchronize()
    return time.perf_counter() - began, result


@torch.inference_mode()
def main():
    for name, shape in SHAPES.items():
        model = make(shape)
        for tokens in (512, 2048):
            prompt = torch.randint(32000, (1, tokens), device="cuda")
            times = [timed(lambda: model(prompt, use_cache=True, logits_to_keep=1))[0] for _ in range(4)]
            print(f"{name} bf16, prefill {tokens}: {tokens / statistics.median(times[1:]):.1f}", flush=True)
        state = model(torch.randint(32000, (1, 128), device="cuda"), use_cache=True, logits_to_keep=1)
        times = []
        for step in range(24):
            token = state.logits[:, -1:].argmax(-1)
            seconds, state = timed(lambda: model(token, past_key_values=state.past_key_values, use_cache=True))
            if step >= 4:
                times.append(seconds)
        print(f"{name} bf16, decode, batch 1: {1 / statistics.median(times):.1f}", flush=True)
        del model, state
        torch.cuda.empty_cache()


try:
    main()
except Exception as problem:  # of another version, or for want of memory: a row that is missing is no failure
    print(f"transformers: stopped, {type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}")
