"""Makes tests/goldens/models/meta-*: LLaMA as Meta publishes it, and its logits from transformers in fp32.

    VENV/bin/python tools/goldens/make_meta_goldens.py

The weights are drawn as for the other models. transformers runs them in its own layout; the files are written by the
inverse of its convert_llama_weights_to_hf.py: rows of queries and keys in interleaved pairs, matrices cut into shards.
"""

import json
import pathlib
import shutil
import tempfile
from dataclasses import dataclass

import torch

import golden_io
import make_model_goldens as plain

NAMES = {"self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
         "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
         "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
         "model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output"}
COLUMNS = ("attention.wo", "feed_forward.w2")


@dataclass
class Case:
    plain: plain.Case
    params: dict
    shards: int
    rows_of_embedding: bool


def cases() -> list[Case]:
    second = plain.llama_config(hidden_size=32, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                                num_key_value_heads=2, vocab_size=96, max_position_embeddings=4096)
    third = plain.llama_config(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        vocab_size=100, rope_theta=500000.0, max_position_embeddings=131072,
        rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 8192})
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "norm_eps": 1e-5}
    return [
        Case(plain.Case("meta-llama-2", second, plain.llama_shapes(32, 96, 2, 4, 2, 8, 96, tied=False),
                        dtype=torch.bfloat16, prompt=60),
             {**sizes, "n_kv_heads": 2, "multiple_of": 32, "vocab_size": -1}, shards=2, rows_of_embedding=False),
        Case(plain.Case("meta-llama-3", third, plain.llama_shapes(32, 64, 2, 4, 4, 8, 100, tied=False), prompt=60),
             {**sizes, "multiple_of": 16, "ffn_dim_multiplier": 0.7, "rope_theta": 500000.0, "use_scaled_rope": True,
              "rope_scaling_factor": 8, "vocab_size": 100}, shards=4, rows_of_embedding=True),
    ]


def meta_name(name: str) -> str:
    module, end = name.rsplit(".", 1)
    if module in NAMES:
        return f"{NAMES[module]}.{end}"
    _, _, layer, inner = module.split(".", 3)
    return f"layers.{layer}.{NAMES[inner]}.{end}"


def interleave(tensor: torch.Tensor, head_dim: int) -> torch.Tensor:
    rows, columns = tensor.shape
    return tensor.view(rows // head_dim, 2, head_dim // 2, columns).transpose(1, 2).reshape(rows, columns)


def write(case: Case, state: dict[str, torch.Tensor], directory: pathlib.Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "params.json").write_text(json.dumps(case.params))
    for shard in range(case.shards):
        part = {}
        for name, tensor in state.items():
            if "q_proj" in name or "k_proj" in name:
                tensor = interleave(tensor, 8)
            name = meta_name(name)
            if tensor.dim() == 2:
                by_columns = any(c in name for c in COLUMNS) or ("tok" in name and not case.rows_of_embedding)
                tensor = tensor.chunk(case.shards, dim=1 if by_columns else 0)[shard]
            part[name] = tensor.clone()
        part["rope.freqs"] = 1.0 / 10000.0 ** (torch.arange(0, 8, 2) / 8)
        torch.save(part, directory / f"consolidated.{shard:02d}.pth")


def make(case: Case) -> None:
    directory = plain.MODELS / case.plain.name
    for seed in range(1, 200):
        state = plain.random_state(case.plain, seed)
        with tempfile.TemporaryDirectory() as scratch:
            plain.write_checkpoint(case.plain, state, pathlib.Path(scratch) / "hf")
            model = plain.load_with_transformers(case.plain, pathlib.Path(scratch) / "hf")
        tokens = golden_io.random_tokens(torch.Generator().manual_seed(1000 + seed), case.plain.prompt,
                                         case.plain.config["vocab_size"])
        golden, logits = golden_io.golden_of(model, tokens)
        varied = len(set(golden["greedy_token_ids"])) >= 8
        if varied and min(golden["greedy_margins"]) >= golden_io.GREEDY_MARGIN:
            write(case, state, directory)
            golden_io.write_golden(directory, golden, logits)
            return
    raise RuntimeError(f"{case.plain.name}: no seed gave a clear and varied greedy continuation")


if __name__ == "__main__":
    golden_io.exact_torch()
    for each in cases():
        make(each)
