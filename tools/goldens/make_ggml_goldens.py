"""Makes tests/goldens/models/gg*: tiny LLaMA files of llama.cpp's formats before GGUF, and transformers' logits for them.

Written from the formats' description (docs/formats.md); blocks are filled with random integers and scales and widened by
numpy, so that quantisation itself is no part of the difference.
"""

import pathlib
import shutil
import struct
from dataclasses import dataclass

import numpy as np
import torch
import transformers

import golden_io

VOCAB, HIDDEN, HEADS, KV_HEADS, FFN, LAYERS, PROMPT = 288, 64, 4, 2, 96, 2, 66
F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 = 0, 1, 2, 3, 6, 7, 8


@dataclass
class Case:
    name: str
    magic: bytes
    version: int | None
    generation: int
    kinds: list[int]  # taken in turn by the matrices


CASES = [
    Case("ggml-q4_0", b"lmgg", None, 1, [Q4_0]),
    Case("ggmf-mixed", b"fmgg", 1, 1, [Q4_1, F16, Q4_0]),
    Case("ggjt-v1-mixed", b"tjgg", 1, 1, [Q4_0, Q4_1, F16]),
    Case("ggjt-v2-mixed", b"tjgg", 2, 2, [Q4_0, Q8_0, Q4_1, Q5_0, Q5_1]),
    Case("ggjt-v3-mixed", b"tjgg", 3, 3, [Q4_1, Q5_1, Q4_0, Q8_0, Q5_0]),
]


def split_nibbles(q: np.ndarray, generation: int) -> np.ndarray:
    """[blocks, 32] integers of 4 bits as 16 bytes: pairs of neighbours at first, later the halves of a block."""
    low, high = (q[:, 0::2], q[:, 1::2]) if generation == 1 else (q[:, :16], q[:, 16:])
    return (low | high << 4).astype(np.uint8)


def make_matrix(kind: int, shape: tuple, deviation: float, generation: int, rng) -> tuple[bytes, np.ndarray]:
    """The bytes of a matrix, and its values in fp32."""
    if kind in (F32, F16):
        values = (deviation * rng.standard_normal(shape)).astype(np.float32 if kind == F32 else np.float16)
        return values.tobytes(), values.astype(np.float32)
    count = shape[0] * shape[1] // 32
    bits = {Q4_0: 4, Q4_1: 4, Q5_0: 5, Q5_1: 5, Q8_0: 8}[kind]
    q = rng.integers(0, 2 ** bits, (count, 32))
    middle = 2 ** (bits - 1)
    # Before v3 only Q5 has scales of 16 bits.
    half = generation == 3 or bits == 5
    scale = (deviation / (2 ** bits / 12 ** 0.5) * rng.uniform(0.8, 1.2, (count, 1))).astype(np.float16 if half else np.float32)
    minimum = (-(middle - 0.5) * scale.astype(np.float64)).astype(scale.dtype)
    has_minimum = kind in (Q4_1, Q5_1)
    parts = [scale.view(np.uint8)] + ([minimum.view(np.uint8)] if has_minimum else [])
    if kind == Q8_0:
        parts.append((q - middle).astype(np.int8).view(np.uint8))
    else:
        if bits == 5:
            parts.append((((q >> 4) << np.arange(32)).sum(axis=1, dtype=np.uint64).astype(np.uint32)).view(np.uint8).reshape(-1, 4))
        parts.append(split_nibbles(q & 15, generation))
    exact = scale.astype(np.float32)
    values = exact * q.astype(np.float32) + minimum.astype(np.float32) if has_minimum else exact * (q - middle).astype(np.float32)
    return np.hstack(parts).tobytes(), values.astype(np.float32).reshape(shape)


def to_halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q and k from Meta's order (interleaved pairs) to Hugging Face's (first and second halves)."""
    return values.reshape(heads, values.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)


def make_tensors(case: Case, rng) -> dict[str, tuple[int, bytes, np.ndarray]]:
    kv = KV_HEADS * HIDDEN // HEADS
    matrices = {"tok_embeddings": (VOCAB, HIDDEN, 1.0)}
    for i in range(LAYERS):
        matrices |= {f"layers.{i}.attention.wq": (HIDDEN, HIDDEN, 0.2), f"layers.{i}.attention.wk": (kv, HIDDEN, 0.2),
                     f"layers.{i}.attention.wv": (kv, HIDDEN, 0.15), f"layers.{i}.attention.wo": (HIDDEN, HIDDEN, 0.15),
                     f"layers.{i}.feed_forward.w1": (FFN, HIDDEN, 0.15), f"layers.{i}.feed_forward.w2": (HIDDEN, FFN, 0.15),
                     f"layers.{i}.feed_forward.w3": (FFN, HIDDEN, 0.15)}
    matrices["output"] = (VOCAB, HIDDEN, 0.35)
    tensors = {}
    for number, (name, (rows, columns, deviation)) in enumerate(matrices.items()):
        kind = case.kinds[number % len(case.kinds)]
        data, values = make_matrix(kind, (rows, columns), deviation, case.generation, rng)
        tensors[f"{name}.weight"] = (kind, data, values)
    norms = ["norm"] + [f"layers.{i}.{kind}_norm" for i in range(LAYERS) for kind in ("attention", "ffn")]
    for name in norms:
        values = (1 + 0.2 * rng.standard_normal(HIDDEN)).astype(np.float32)
        tensors[f"{name}.weight"] = (F32, values.tobytes(), values)
    return tensors


def make_model(tensors):
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, max_position_embeddings=2048, rms_norm_eps=1e-6, attn_implementation="eager")
    names = {"tok_embeddings": "embed_tokens", "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
             "attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj", "attention.wv": "self_attn.v_proj",
             "attention.wo": "self_attn.o_proj", "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj",
             "feed_forward.w3": "mlp.up_proj", "norm": "norm"}
    state = {}
    for name, (_, _, values) in tensors.items():
        stem = name.removesuffix(".weight")
        if stem.endswith("wq") or stem.endswith("wk"):
            values = to_halves(values, HEADS if stem.endswith("wq") else KV_HEADS)
        if stem == "output":
            full = "lm_head"
        elif stem.startswith("layers."):
            _, layer, rest = stem.split(".", 2)
            full = f"model.layers.{layer}.{names[rest]}"
        else:
            full = f"model.{names[stem]}"
        state[f"{full}.weight"] = torch.from_numpy(values.copy())
    model = transformers.LlamaForCausalLM(config).float().eval()
    model.load_state_dict(state, strict=True)
    return model


def piece(number: int) -> bytes:
    if number < 3:
        return [b" \xe2\x81\x87 ", b"", b""][number]
    return bytes([number - 3]) if number < 259 else b" " + f"p{number}".encode()


def write_file(case: Case, tensors, path: pathlib.Path) -> None:
    out = bytearray(case.magic)
    if case.version is not None:
        out += struct.pack("<I", case.version)
    most = max(case.kinds)
    out += struct.pack("<7I", VOCAB, HIDDEN, 32, HEADS, LAYERS, HIDDEN // HEADS, most)
    for number in range(VOCAB):
        text = piece(number)
        out += struct.pack("<I", len(text)) + text
        if case.version is not None:
            out += struct.pack("<f", 0.0 if number < 259 else 258.0 - number)
    for name, (kind, data, values) in tensors.items():
        dims = values.shape[::-1]
        out += struct.pack("<3I", len(dims), len(name), kind) + struct.pack(f"<{len(dims)}I", *dims) + name.encode()
        if case.magic == b"tjgg":
            out += bytes(-len(out) % 32)
        out += data
    path.write_bytes(out)


def main() -> None:
    golden_io.exact_torch()
    for case in CASES:
        for seed in range(100):
            rng = np.random.default_rng(seed)
            tensors = make_tensors(case, rng)
            model = make_model(tensors)
            tokens = golden_io.random_tokens(torch.Generator().manual_seed(seed), PROMPT, VOCAB)
            golden, logits = golden_io.golden_of(model, tokens)
            if min(golden["greedy_margins"]) >= golden_io.GREEDY_MARGIN:
                break
        directory = golden_io.ROOT / "models" / case.name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        write_file(case, tensors, directory / "ggml-model.bin")
        golden_io.write_golden(directory, golden, logits)


if __name__ == "__main__":
    main()
