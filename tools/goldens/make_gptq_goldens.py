"""Makes tests/goldens/models/gptq-*: tiny checkpoints in the layouts of GPTQ's tools, and logits for their weights.

    VENV/bin/python tools/goldens/make_gptq_goldens.py [NAME ...]

Integers, zeros and scales are drawn at random, packed by NumPy as the tools' sources describe it, and multiplied out
by NumPy alone: scale * (integer - zero), one rounding to fp32. golden.json has the SHA-256 of every matrix that
comes of it, and the logits are transformers' for these weights.
"""

import collections
import hashlib
import json
import shutil
import sys
from dataclasses import dataclass, field

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

import golden_io
import make_model_goldens as plain

MODELS = golden_io.ROOT / "models"
VOCAB = 96


@dataclass
class Case:
    name: str
    family: str  # llama or bloom
    bits: int
    group: int  # -1: one for a whole column
    symmetric: bool = False
    zero_shift: int = 1  # what readers add to stored zeros
    scales: type = np.float16
    bias: bool = False  # a bias even where the model has none
    group_index: bool = True  # g_idx is stored
    awq: bool = False  # packed along the outputs
    act_order: bool = False  # groups are of inputs all over
    largest_zeros: bool = False  # some true zeros of 2^bits, as BELLE's files have where a zero of 0 underflowed
    quantized_head: bool = False
    rules: dict = field(default_factory=dict)  # part of a name -> bits of its own, or None for a plain matrix
    settings: dict = field(default_factory=dict)  # `quantization_config` of config.json
    file: str = "model.safetensors"
    metadata: dict = field(default_factory=dict)  # file name -> contents
    ffn: int = 96
    hidden: int = 64


def pack(fields: np.ndarray, bits: int) -> np.ndarray:
    """[n * 32 / bits, m] integers -> int32 [n, m]: each column is one stream of bits, the lowest first."""
    streams = (fields[:, None, :] >> np.arange(bits)[None, :, None] & 1).astype(np.uint64)
    streams = streams.reshape(-1, 32, fields.shape[1])
    words = (streams << np.arange(32, dtype=np.uint64)[None, :, None]).sum(axis=1, dtype=np.uint64)
    return words.astype(np.uint32).view(np.int32)


def pack_awq(fields: np.ndarray) -> np.ndarray:
    """[n, m] integers of 4 bits -> int32 [n, m / 8], the eight of a word in AWQ's order."""
    ordered = fields.reshape(fields.shape[0], -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]].astype(np.uint64)
    words = (ordered << np.arange(0, 32, 4, dtype=np.uint64)).sum(axis=2, dtype=np.uint64)
    return words.astype(np.uint32).view(np.int32)


@dataclass
class Matrix:
    parts: dict  # suffix -> array, as the file has it
    values: np.ndarray  # fp32 [outputs, inputs]
    index: np.ndarray  # group of each input


def random_index(case: Case, inputs: int, rng: np.random.Generator) -> np.ndarray:
    """Groups of inputs that follow each other, or of those that a random order of activations gives."""
    index = np.arange(inputs) // (inputs if case.group == -1 else case.group)
    return index[np.argsort(rng.permutation(inputs))] if case.act_order else index


def random_matrix(case: Case, bits: int, shape: tuple, deviation: float, index: np.ndarray,
                  rng: np.random.Generator) -> Matrix:
    outputs, inputs = shape
    levels = 1 << bits
    groups = index.max() + 1
    integers = rng.integers(0, levels, (inputs, outputs))
    if case.symmetric:
        zeros = np.full((groups, outputs), levels // 2)
    else:
        zeros = np.clip(rng.integers(levels // 2 - 1 - levels // 8, levels // 2 + 2 + levels // 8, (groups, outputs)),
                        1, levels)
        if case.largest_zeros:
            zeros[rng.random((groups, outputs)) < 0.02] = levels
    spread = np.sqrt((levels ** 2 - 1) / 12)
    scales = (deviation / spread * rng.uniform(0.7, 1.3, (groups, outputs))).astype(case.scales)
    values = scales.astype(np.float32)[index] * (integers - zeros[index]).astype(np.float32)
    parts = {"qweight": pack(integers, bits), "qzeros": pack((zeros - case.zero_shift).T, bits).T,
             "scales": scales}
    if case.awq:
        parts |= {"qweight": pack_awq(integers), "qzeros": pack_awq(zeros)}
    if case.group_index:
        parts["g_idx"] = index.astype(np.int32)
    return Matrix({name: np.ascontiguousarray(part) for name, part in parts.items()},
                  np.ascontiguousarray(values.T), index)


def config_of(case: Case) -> dict:
    config = model_config(case)
    return config | {"quantization_config": case.settings} if case.settings else config


def model_config(case: Case) -> dict:
    if case.family == "llama":
        return plain.llama_config(hidden_size=case.hidden, intermediate_size=case.ffn, num_hidden_layers=1,
                                  num_attention_heads=4, num_key_value_heads=2, vocab_size=VOCAB,
                                  rope_theta=10000.0, torch_dtype="float16")
    return {"model_type": "bloom", "architectures": ["BloomForCausalLM"], "hidden_size": case.hidden,
            "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": VOCAB, "layer_norm_epsilon": 1e-5,
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
            "apply_residual_connection_post_layernorm": False, "torch_dtype": "float32"}


def shapes_of(case: Case) -> dict:
    if case.family == "llama":
        return plain.llama_shapes(case.hidden, case.ffn, 1, 4, 2, case.hidden // 4, VOCAB, tied=False)
    return plain.bloom_shapes(case.hidden, 1, VOCAB, "transformer.")


def bits_of(case: Case, name: str, shape: tuple) -> int | None:
    """None if the tensor is stored as it is."""
    if len(shape) != 2 or "embed" in name or (name == "lm_head.weight" and not case.quantized_head):
        return None
    for part, bits in case.rules.items():
        if part in name:
            return bits
    return case.bits


def make_state(case: Case, seed: int) -> tuple[dict, dict, dict]:
    """Tensors as stored, their values in fp32, and the quantised matrices among those."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    stored, values, matrices, indices = collections.OrderedDict(), {}, {}, {}
    float_type = torch.float32 if case.family == "bloom" else torch.float16
    for name, shape in shapes_of(case).items():
        reference = plain.random_tensor(name, shape, False, generator)
        bits = bits_of(case, name, shape)
        if bits is None:
            stored[name] = reference.to(torch.float32 if name.endswith("bias") else float_type).contiguous()
            values[name] = stored[name].float()
            continue
        shared = SAME_INPUT.get(name.removesuffix(".weight").split(".")[-1], name)
        if shared not in indices:
            indices[shared] = random_index(case, shape[1], rng)
        matrix = random_matrix(case, bits, shape, float(reference.std()), indices[shared], rng)
        stem = name.removesuffix("weight")
        for suffix, part in matrix.parts.items():
            stored[stem + suffix] = torch.from_numpy(part)
        if case.bias and case.family == "llama":
            stored[stem + "bias"] = torch.zeros(shape[0])
        values[name] = torch.from_numpy(matrix.values)
        matrices[name] = matrix
    return stored, values, matrices


# Matrices with the same input have the same order.
SAME_INPUT = {"k_proj": "q", "v_proj": "q", "q_proj": "q", "gate_proj": "up", "up_proj": "up"}

LLAMA_ROLES = {"self_attn.q_proj": "query", "self_attn.k_proj": "key", "self_attn.v_proj": "value",
               "self_attn.o_proj": "attention output", "mlp.gate_proj": "gate", "mlp.up_proj": "up",
               "mlp.down_proj": "down"}
BLOOM_ROLES = {"self_attention.dense": "attention output", "mlp.dense_h_to_4h": "up", "mlp.dense_4h_to_h": "down"}


def role_of(case: Case, name: str) -> str:
    roles = LLAMA_ROLES if case.family == "llama" else BLOOM_ROLES
    return next((role for part, role in roles.items() if part in name), "head" if "lm_head" in name else "fused")


def as_read(case: Case, matrices: dict) -> dict:
    """The values of each matrix in the order in which Bellwether has rows and columns (docs/formats.md)."""
    by_role = {role_of(case, name): matrix for name, matrix in matrices.items()}
    orders = {role: np.argsort(matrix.index, kind="stable") for role, matrix in by_role.items()}
    values = {}
    for role, matrix in by_role.items():
        rows = matrix.values
        if role in ("gate", "up") and "down" in orders:
            rows = rows[orders["down"]]
        values[role] = rows if role == "attention output" else rows[:, orders[role]]
    if "fused" in values:
        thirds = values.pop("fused").reshape(4, 3, -1, case.hidden)
        for i, role in enumerate(("query", "key", "value")):
            values[role] = thirds[:, i].reshape(-1, case.hidden)
    return values


def hashes_of(case: Case, matrices: dict) -> dict:
    """SHA-256 of each matrix under the name that Bellwether's messages give it."""
    named = {("" if role == "head" else "layer 0 ") + role + " weight": values
             for role, values in as_read(case, matrices).items()}
    return {name: hashlib.sha256(np.ascontiguousarray(values, "<f4").tobytes()).hexdigest()
            for name, values in named.items()}


def write_checkpoint(case: Case, stored: dict, directory) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config_of(case), indent=2, sort_keys=True) + "\n")
    for name, contents in case.metadata.items():
        (directory / name).write_text(json.dumps(contents, indent=2) + "\n")
    if case.file.endswith(".pt"):
        if case.family == "bloom":
            stored["lm_head.weight"] = stored["transformer.word_embeddings.weight"]
        torch.save(stored, directory / case.file)
    else:
        save_file(stored, directory / case.file, metadata={"format": "pt"})


def load_with_transformers(case: Case, values: dict):
    config = transformers.AutoConfig.for_model(**model_config(case))
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    missing, unexpected = model.load_state_dict(values, strict=False)
    assert not unexpected and missing in ([], ["lm_head.weight"]), (missing, unexpected)
    model.tie_weights()
    return model.eval()


def make(case: Case) -> None:
    directory = MODELS / case.name
    for seed in range(1, 200):
        stored, values, matrices = make_state(case, seed)
        model = load_with_transformers(case, values)
        token_ids = golden_io.random_tokens(torch.Generator().manual_seed(1000 + seed), 45, VOCAB)
        golden, logits = golden_io.golden_of(model, token_ids)
        # Small BLOOMs, whose head is the embedding, mostly repeat themselves.
        varied = case.family == "bloom" or len(set(golden["greedy_token_ids"])) >= 8
        if not varied or min(golden["greedy_margins"]) < golden_io.GREEDY_MARGIN:
            continue
        golden["dequantized"] = hashes_of(case, matrices)
        write_checkpoint(case, stored, directory)
        golden_io.write_golden(directory, golden, logits)
        return
    raise RuntimeError(f"{case.name}: no seed gave a clear and varied greedy continuation")


ABSENT_SHARDS = {"pytorch_model.bin.index.json": {
    "metadata": {"total_size": 1}, "weight_map": {"lm_head.weight": "pytorch_model-00001-of-00002.bin"}}}


def belle_cases() -> list[Case]:
    """The files of BELLE's models/gptq: torch, fp32 scales, a bias everywhere, no g_idx, nothing about the bits."""
    belle = dict(scales=np.float32, bias=True, group_index=False)
    return [
        Case("gptq-belle-bloom-4bit", "bloom", 4, 32, file="bloom7b-4bit-128g.pt", largest_zeros=True,
             metadata=ABSENT_SHARDS, **belle),
        Case("gptq-belle-llama-8bit", "llama", 8, 32, file="llama7b-8bit-128g.pt", **belle),
        Case("gptq-belle-llama-3bit", "llama", 3, -1, file="llama7b-3bit.pt", **belle),
        Case("gptq-belle-llama-2bit", "llama", 2, 16, file="llama7b-2bit-16g.pt", **belle),
    ]


def autogptq_cases() -> list[Case]:
    """Directories of AutoGPTQ (v1) and GPTQModel (v2), none of them in the order of activations."""
    v1 = {"bits": 4, "group_size": 32, "damp_percent": 0.01, "desc_act": False, "sym": False,
          "true_sequential": True, "model_name_or_path": None, "model_file_base_name": "model"}
    v2 = {"bits": 4, "group_size": 64, "desc_act": False, "sym": True, "quant_method": "gptq",
          "checkpoint_format": "gptq_v2", "pack_dtype": "int32", "lm_head": False, "true_sequential": True,
          "dynamic": {"-:.*mlp\\.up_proj.*": {}, "+:.*self_attn\\.k_proj.*": {"bits": 8}}}
    whole = {"bits": 8, "group_size": -1, "desc_act": False, "sym": False, "quant_method": "gptq",
             "checkpoint_format": "gptq", "lm_head": True}
    three = {"bits": 3, "group_size": 32, "desc_act": False, "sym": False, "quant_method": "gptq",
             "checkpoint_format": "gptq_v2"}
    return [
        Case("gptq-v1-llama-4bit", "llama", 4, 32, largest_zeros=True, file="gptq_model-4bit-32g.safetensors",
             metadata={"quantize_config.json": v1}),
        Case("gptq-v2-llama-symmetric-rules", "llama", 4, 64, symmetric=True, zero_shift=0, settings=v2,
             rules={"mlp.up_proj": None, "self_attn.k_proj": 8}, ffn=160),
        Case("gptq-v1-llama-8bit-head", "llama", 8, -1, quantized_head=True, settings=whole),
        Case("gptq-v2-llama-3bit", "llama", 3, 32, zero_shift=0, settings=three),
    ]


def act_order_cases() -> list[Case]:
    """desc_act: groups of inputs all over, as the tools have them where they quantise by falling activation."""
    settings = {"bits": 4, "group_size": 16, "desc_act": True, "sym": False, "quant_method": "gptq",
                "checkpoint_format": "gptq", "true_sequential": True}
    return [
        Case("gptq-act-order-llama", "llama", 4, 16, act_order=True, settings=settings),
        Case("gptq-act-order-bloom", "bloom", 4, 32, act_order=True, symmetric=True, zero_shift=0, bias=True,
             settings=settings | {"group_size": 32, "sym": True, "checkpoint_format": "gptq_v2"}),
        Case("gptq-act-order-llama-3bit", "llama", 3, 32, act_order=True, ffn=160,
             settings=settings | {"bits": 3, "group_size": 32}),
    ]


def awq_cases() -> list[Case]:
    config = {"bits": 4, "group_size": 32, "quant_method": "awq", "version": "gemm", "zero_point": True,
              "modules_to_not_convert": None}
    return [
        Case("awq-llama", "llama", 4, 32, zero_shift=0, awq=True, group_index=False, settings=config),
        Case("awq-bloom", "bloom", 4, 64, zero_shift=0, awq=True, group_index=False, bias=True,
             metadata={"quant_config.json": {"zero_point": True, "q_group_size": 64, "w_bit": 4, "version": "GEMM"}}),
    ]


def main() -> None:
    golden_io.exact_torch()
    wanted = sys.argv[1:]
    for case in belle_cases() + autogptq_cases() + act_order_cases() + awq_cases():
        if not wanted or case.name in wanted:
            make(case)


if __name__ == "__main__":
    main()
