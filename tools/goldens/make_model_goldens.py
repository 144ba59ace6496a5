"""Makes tests/goldens/models/{llama,bloom,mistral,qwen}*-*: small random checkpoints and their logits from transformers in fp32.

    python3 -m venv VENV && VENV/bin/pip install -r tools/goldens/requirements.txt
    VENV/bin/python tools/goldens/make_model_goldens.py [NAME ...]

The weights are scaled so that attention is far from flat and logits are of order 1 to 10; a checkpoint with a
wrong head, rotation, bias or slope then misses by far more than the tolerance.
"""

import json
import pathlib
import shutil
import sys
from dataclasses import dataclass, field

import torch
import transformers
from safetensors.torch import save_file

import golden_io

MODELS = golden_io.ROOT / "models"


@dataclass
class Case:
    name: str
    config: dict  # config.json as it is written
    shapes: dict  # tensor name -> shape
    dtype: torch.dtype = torch.float32
    prompt: int = 45
    extra: dict = field(default_factory=dict)  # tensors that a reader must ignore
    shards: int = 1
    vocab_rows: int | None = None  # where it differs from config.json's vocab_size


def llama_shapes(hidden, ffn, layers, heads, kv_heads, head_dim, vocab, tied, attention_bias=False, mlp_bias=False,
                 qkv_bias=False, head_norm=False):
    shapes = {"model.embed_tokens.weight": (vocab, hidden)}
    for i in range(layers):
        p = f"model.layers.{i}."
        linear = {
            "self_attn.q_proj": (heads * head_dim, hidden),
            "self_attn.k_proj": (kv_heads * head_dim, hidden),
            "self_attn.v_proj": (kv_heads * head_dim, hidden),
            "self_attn.o_proj": (hidden, heads * head_dim),
            "mlp.gate_proj": (ffn, hidden),
            "mlp.up_proj": (ffn, hidden),
            "mlp.down_proj": (hidden, ffn),
        }
        for name, shape in linear.items():
            shapes[p + name + ".weight"] = shape
            qkv = name.startswith("self_attn") and not name.endswith("o_proj")
            if (qkv and qkv_bias) or (attention_bias if name.startswith("self_attn") else mlp_bias):
                shapes[p + name + ".bias"] = shape[:1]
        if head_norm:
            shapes[p + "self_attn.q_norm.weight"] = shapes[p + "self_attn.k_norm.weight"] = (head_dim,)
        shapes[p + "input_layernorm.weight"] = (hidden,)
        shapes[p + "post_attention_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    if not tied:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def bloom_shapes(hidden, layers, vocab, prefix):
    shapes = {"word_embeddings.weight": (vocab, hidden)}
    for norm in ("word_embeddings_layernorm", "ln_f"):
        shapes[norm + ".weight"] = shapes[norm + ".bias"] = (hidden,)
    for i in range(layers):
        p = f"h.{i}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[p + norm + ".weight"] = shapes[p + norm + ".bias"] = (hidden,)
        for name, rows, columns in (
            ("self_attention.query_key_value", 3 * hidden, hidden),
            ("self_attention.dense", hidden, hidden),
            ("mlp.dense_h_to_4h", 4 * hidden, hidden),
            ("mlp.dense_4h_to_h", hidden, 4 * hidden),
        ):
            shapes[p + name + ".weight"] = (rows, columns)
            shapes[p + name + ".bias"] = (rows,)
    return {prefix + name: shape for name, shape in shapes.items()}


def random_tensor(name: str, shape: tuple, tied: bool, generator: torch.Generator) -> torch.Tensor:
    values = torch.randn(shape, generator=generator)
    if name.endswith("word_embeddings_layernorm.weight"):
        return 0.3 + 0.1 * values  # keeps the token's own embedding from drowning what the layers add
    if "norm" in name or "ln_f" in name:
        return 1.0 + 0.2 * values if name.endswith("weight") else 0.2 * values
    if name.endswith("bias"):
        return 0.3 * values
    if "embed" in name:
        return (0.5 if tied else 1.0) * values
    gain = 1.0
    if "q_proj" in name or "k_proj" in name or "query_key_value" in name:
        gain = 1.5
    elif "lm_head" in name:
        gain = 3.0
    elif "dense" in name:
        gain = 3.0
    elif tied and ("o_proj" in name or "down_proj" in name):
        gain = 1.7  # outweighs the token's own embedding, which a tied head would only repeat
    return gain * values / shape[1] ** 0.5


def random_state(case: Case, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tied = "lm_head.weight" not in case.shapes
    state = {}
    for name, shape in case.shapes.items():
        state[name] = random_tensor(name, shape, tied, generator).to(case.dtype).contiguous()
    for name, tensor in case.extra.items():
        state[name] = tensor
    return state


def write_checkpoint(case: Case, state: dict[str, torch.Tensor], directory: pathlib.Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(case.config, indent=2, sort_keys=True) + "\n")
    if case.shards == 1:
        save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(state)
    weight_map, per_shard = {}, -(-len(names) // case.shards)
    for shard in range(case.shards):
        file = f"model-{shard + 1:05d}-of-{case.shards:05d}.safetensors"
        part = {name: state[name] for name in names[shard * per_shard:(shard + 1) * per_shard]}
        save_file(part, directory / file, metadata={"format": "pt"})
        weight_map |= {name: file for name in part}
    total = sum(t.numel() * t.element_size() for t in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def load_with_transformers(case: Case, directory: pathlib.Path):
    config = transformers.AutoConfig.from_pretrained(directory)
    if case.vocab_rows is not None:
        config.vocab_size = case.vocab_rows
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        directory, config=config, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"], report
    unexpected = [k for k in report["unexpected_keys"] if k not in case.extra]
    assert not unexpected, unexpected
    return model.eval()


def make(case: Case) -> None:
    directory = MODELS / case.name
    vocab = case.vocab_rows or case.config["vocab_size"]
    for seed in range(1, 200):
        write_checkpoint(case, random_state(case, seed), directory)
        model = load_with_transformers(case, directory)
        token_ids = golden_io.random_tokens(torch.Generator().manual_seed(1000 + seed), case.prompt, vocab)
        golden, logits = golden_io.golden_of(model, token_ids)
        varied = len(set(golden["greedy_token_ids"])) >= 8
        if varied and min(golden["greedy_margins"]) >= golden_io.GREEDY_MARGIN:
            golden_io.write_golden(directory, golden, logits)
            return
    raise RuntimeError(f"{case.name}: no seed gave a clear and varied greedy continuation")


def llama_config(**fields) -> dict:
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "bos_token_id": 1,
            "eos_token_id": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
            **fields}


def llama_plain_cases() -> list[Case]:
    # transformers wants hidden_size to be a multiple of the heads even where head_dim is explicit.
    mha = llama_config(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                       num_key_value_heads=4, vocab_size=96, rope_theta=10000.0, torch_dtype="float32")
    gqa = llama_config(hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=8,
                       num_key_value_heads=2, head_dim=8, vocab_size=96, rope_theta=10000.0, rms_norm_eps=1e-6,
                       torch_dtype="bfloat16")
    mqa = llama_config(hidden_size=32, intermediate_size=77, num_hidden_layers=2, num_attention_heads=4,
                       num_key_value_heads=1, vocab_size=97, tie_word_embeddings=True, torch_dtype="float32")
    biased = llama_config(hidden_size=20, intermediate_size=45, num_hidden_layers=2, num_attention_heads=5,
                          num_key_value_heads=5, head_dim=8, vocab_size=96, tie_word_embeddings=True,
                          attention_bias=True, mlp_bias=True, dtype="float32")
    # As the converters of early 2023 wrote it: no max_position_embeddings, num_key_value_heads or rope_theta.
    old = {"architectures": ["LLaMAForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
           "hidden_size": 24, "initializer_range": 0.02, "intermediate_size": 40, "model_type": "llama",
           "num_attention_heads": 3, "num_hidden_layers": 3, "pad_token_id": 0, "rms_norm_eps": 1e-06,
           "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.28.0.dev0",
           "use_cache": True, "vocab_size": 96}
    inv_freq = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": 1.0 / 10000.0 ** (torch.arange(0, 8, 2) / 8)
                for i in range(3)}
    return [
        Case("llama-mha", mha, llama_shapes(32, 48, 2, 4, 4, 8, 96, tied=False), prompt=70),
        Case("llama-gqa-sharded-bf16", gqa, llama_shapes(32, 40, 3, 8, 2, 8, 96, tied=False),
             dtype=torch.bfloat16, prompt=70, shards=2),
        Case("llama-mqa-tied", mqa, llama_shapes(32, 77, 2, 4, 1, 8, 97, tied=True), prompt=45),
        Case("llama-biased", biased, llama_shapes(20, 45, 2, 5, 5, 8, 96, True, attention_bias=True, mlp_bias=True),
             prompt=50),
        Case("llama-old-fp16", old, llama_shapes(24, 40, 3, 3, 3, 8, 96, tied=False), dtype=torch.float16,
             prompt=40, extra=inv_freq),
    ]


def llama_rope_cases() -> list[Case]:
    # The original length is chosen so that kept, interpolated and scaled wavelengths all occur.
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 256}
    v4 = llama_config(hidden_size=18, intermediate_size=44, num_hidden_layers=2, num_attention_heads=9,
                      num_key_value_heads=3, head_dim=8, vocab_size=96, tie_word_embeddings=True,
                      rope_theta=500000.0, rope_scaling={**scaling, "rope_type": "llama3"}, torch_dtype="float32",
                      max_position_embeddings=2048, transformers_version="4.43.0.dev0")
    v5 = llama_config(hidden_size=32, intermediate_size=172, num_hidden_layers=1, num_attention_heads=4,
                      num_key_value_heads=2, head_dim=16, vocab_size=96, dtype="bfloat16",
                      rope_parameters={**scaling, "rope_theta": 500000.0, "rope_type": "llama3"},
                      max_position_embeddings=2048, transformers_version="5.0.0")
    # The shortest-lived spelling: "type" for "rope_type".
    typed = llama_config(hidden_size=16, intermediate_size=36, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=1, vocab_size=96, tie_word_embeddings=True, rope_theta=500000.0,
                         rope_scaling={**scaling, "type": "llama3"}, torch_dtype="float32",
                         max_position_embeddings=2048)
    return [
        Case("llama-rope-v4", v4, llama_shapes(18, 44, 2, 9, 3, 8, 96, tied=True), prompt=150),
        Case("llama-rope-v5-bf16", v5, llama_shapes(32, 172, 1, 4, 2, 16, 96, tied=False), dtype=torch.bfloat16,
             prompt=60),
        Case("llama-rope-v4-type", typed, llama_shapes(16, 36, 1, 2, 1, 8, 96, tied=True), prompt=60),
    ]


def relative_config(family: str, **fields) -> dict:
    """As the family's published files have it."""
    return {"architectures": [f"{family.capitalize()}ForCausalLM"], "model_type": family, "hidden_act": "silu",
            "attention_dropout": 0.0, "initializer_range": 0.02, "rms_norm_eps": 1e-6, "use_cache": True,
            "vocab_size": 96, **fields}


def relative_cases() -> list[Case]:
    # The prompt and the answer together are as long as the window, to the last position.
    mistral = relative_config("mistral", bos_token_id=1, eos_token_id=2, hidden_size=32, intermediate_size=56,
                              num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                              max_position_embeddings=512, sliding_window=64, rope_theta=10000.0,
                              tie_word_embeddings=False, rms_norm_eps=1e-5, torch_dtype="float32")
    qwen2 = relative_config("qwen2", bos_token_id=94, eos_token_id=95, hidden_size=24, intermediate_size=44,
                            num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, rope_theta=1000000.0,
                            max_position_embeddings=512, sliding_window=64, max_window_layers=1,
                            use_sliding_window=False, tie_word_embeddings=True, torch_dtype="float32")
    qwen3 = relative_config("qwen3", bos_token_id=94, eos_token_id=95, hidden_size=32, intermediate_size=40,
                            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                            attention_bias=False, rope_theta=1000000.0, rope_scaling=None,
                            max_position_embeddings=512, sliding_window=None, max_window_layers=2,
                            use_sliding_window=False, tie_word_embeddings=False, torch_dtype="float32")
    biased = {**qwen3, "attention_bias": True, "torch_dtype": "bfloat16", "num_hidden_layers": 1, "head_dim": 10}
    return [
        Case("mistral-window", mistral, llama_shapes(32, 56, 2, 4, 2, 8, 96, tied=False), prompt=48),
        Case("qwen2-tied", qwen2, llama_shapes(24, 44, 2, 6, 2, 4, 96, tied=True, qkv_bias=True), prompt=80),
        Case("qwen3-wide-heads", qwen3, llama_shapes(32, 40, 2, 4, 2, 16, 96, tied=False, head_norm=True), prompt=70),
        Case("qwen3-biased-bf16", biased, llama_shapes(32, 40, 1, 4, 2, 10, 96, tied=False, attention_bias=True,
                                                       head_norm=True), dtype=torch.bfloat16, prompt=45),
    ]


def bloom_cases() -> list[Case]:
    common = {"model_type": "bloom", "attention_softmax_in_fp32": True, "masked_softmax_fusion": True,
              "bias_dropout_fusion": True, "layer_norm_epsilon": 1e-5, "offset_alibi": 100, "pretraining_tp": 1,
              "skip_bias_add": True, "skip_bias_add_qkv": False, "bos_token_id": 1, "eos_token_id": 2,
              "pad_token_id": 3, "unk_token_id": 0, "apply_residual_connection_post_layernorm": False}
    heads4 = {**common, "architectures": ["BloomForCausalLM"], "hidden_size": 32, "num_attention_heads": 4,
              "num_hidden_layers": 2, "vocab_size": 96, "seq_length": 2048, "torch_dtype": "float32"}
    # The original files: no prefix, short key names; and a vocabulary cut by resize_token_embeddings.
    heads5 = {**common, "architectures": ["BloomModel"], "n_embed": 40, "n_head": 5, "n_layer": 1, "vocab_size": 100,
              "seq_length": 2048}
    heads3 = {**common, "architectures": ["BloomForCausalLM"], "hidden_size": 24, "n_head": 3, "n_layer": 2,
              "vocab_size": 96, "apply_residual_connection_post_layernorm": True, "torch_dtype": "float32"}
    heads6 = {**common, "architectures": ["BloomForCausalLM"], "hidden_size": 48, "num_attention_heads": 6,
              "num_hidden_layers": 1, "vocab_size": 96, "torch_dtype": "bfloat16"}
    return [
        Case("bloom-4-heads", heads4, bloom_shapes(32, 2, 96, "transformer."), prompt=70),
        Case("bloom-5-heads-aliases", heads5, bloom_shapes(40, 1, 93, ""), prompt=66, vocab_rows=93),
        Case("bloom-3-heads-residual", heads3, bloom_shapes(24, 2, 96, "transformer."), prompt=45),
        Case("bloom-6-heads-bf16", heads6, bloom_shapes(48, 1, 96, ""), dtype=torch.bfloat16, prompt=45),
    ]


def main() -> None:
    golden_io.exact_torch()
    wanted = sys.argv[1:]
    for case in llama_plain_cases() + llama_rope_cases() + relative_cases() + bloom_cases():
        if not wanted or case.name in wanted:
            make(case)


if __name__ == "__main__":
    main()
