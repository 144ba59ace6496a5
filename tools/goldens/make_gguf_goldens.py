"""Makes tests/goldens/models/gguf-*: tiny GGUF files of every tensor type, and transformers' logits for their weights.

The golden is computed from the weights as gguf.quants reads them back, so quantisation itself is no part of the
difference. Block types that gguf cannot write (Q4_K, Q5_K, Q6_K) are filled with random codes and scales, which also
reaches every bit of them.
"""

import pathlib
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Q

import golden_io

MODELS = golden_io.ROOT / "models"
VOCAB = 96


def k_quant_blocks(kind: Q, count: int, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """[count, bytes of a block] of random codes whose values have about the given standard deviation."""
    def random_bytes(n):
        return rng.integers(0, 256, (count, n), dtype=np.uint8)

    def half(value):
        varied = value * rng.uniform(0.8, 1.2, (count, 1))
        return varied.astype(np.float16).view(np.uint8).reshape(count, 2)

    if kind == Q.Q6_K:  # low bits, high bits, 16 signed scales, d; value = d * scale * (q - 32)
        return np.hstack([random_bytes(128), random_bytes(64), random_bytes(16), half(deviation / 1369)])
    # d, dmin, 8 scales and 8 minima of 6 bits, [high bits,] low bits; value = d * scale * q - dmin * minimum
    if kind == Q.Q4_K:
        d = deviation / 257
        return np.hstack([half(d), half(7.5 * d), random_bytes(12), random_bytes(128)])
    d = deviation / 520
    return np.hstack([half(d), half(15.5 * d), random_bytes(12), random_bytes(32), random_bytes(128)])


@dataclass
class Tensor:
    kind: Q
    stored: np.ndarray  # as the file has it
    values: np.ndarray  # fp32 [rows, columns] or [n]


def make_tensor(kind: Q, shape: tuple, deviation: float, rng: np.random.Generator, mean: float = 0.0) -> Tensor:
    if kind in (Q.Q4_K, Q.Q5_K, Q.Q6_K):
        blocks = k_quant_blocks(kind, shape[0] * shape[1] // 256, deviation, rng)
        stored = blocks.reshape(shape[0], -1)
        return Tensor(kind, stored, gguf.quants.dequantize(stored, kind))
    values = (mean + deviation * rng.standard_normal(shape)).astype(np.float32)
    if kind == Q.F32:
        return Tensor(kind, values, values)
    stored = gguf.quants.quantize(values, kind)
    return Tensor(kind, stored, gguf.quants.dequantize(stored, kind).reshape(shape).astype(np.float32))


def unpermute(values: np.ndarray, heads: int) -> np.ndarray:
    """From the file's rows (interleaved pairs, as Meta has them) to Hugging Face's (first and second halves)."""
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


@dataclass
class LlamaCase:
    name: str
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    kinds: list[dict]  # a layer: tensor kinds of q k v o gate up down
    embedding: Q
    output: Q | None  # None: tied
    prompt: int = 70
    rope_scaling: dict | None = None
    rope_theta: float = 10000.0
    architecture: str = "llama"

    @property
    def permuted(self) -> bool:
        return self.architecture == "llama"


LLAMA_CASES = [
    LlamaCase("gguf-llama-mixed", 64, 8, 2, 8, 64, [
        dict(q=Q.Q8_0, k=Q.Q4_0, v=Q.Q4_1, o=Q.Q5_0, gate=Q.Q5_1, up=Q.F16, down=Q.BF16),
        dict(q=Q.Q4_1, k=Q.Q5_1, v=Q.Q8_0, o=Q.Q4_0, gate=Q.Q4_0, up=Q.Q5_0, down=Q.Q4_1)], Q.Q8_0, Q.F16),
    LlamaCase("gguf-llama-k-wide", 256, 4, 2, 8, 32, [
        dict(q=Q.Q4_K, k=Q.Q5_K, v=Q.Q6_K, o=Q.Q8_0, gate=Q.Q5_K, up=Q.Q4_K, down=Q.Q5_1)], Q.Q6_K, None, 45),
    LlamaCase("gguf-llama-k-inner", 32, 8, 2, 32, 256, [
        dict(q=Q.Q8_0, k=Q.Q8_0, v=Q.F16, o=Q.Q4_K, gate=Q.Q5_0, up=Q.Q4_1, down=Q.Q6_K),
        dict(q=Q.Q4_0, k=Q.BF16, v=Q.Q8_0, o=Q.Q6_K, gate=Q.Q5_1, up=Q.Q4_0, down=Q.Q5_K)], Q.F16, Q.Q8_0, 66),
    LlamaCase("gguf-llama-rope-freqs", 32, 4, 2, 8, 44, [
        dict(q=Q.F32, k=Q.F16, v=Q.BF16, o=Q.F16, gate=Q.F16, up=Q.BF16, down=Q.F16)], Q.BF16, None, 100,
        dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
             original_max_position_embeddings=256), 500000.0),
    LlamaCase("gguf-qwen2-mixed", 64, 4, 2, 16, 64, [
        dict(q=Q.Q8_0, k=Q.Q5_1, v=Q.Q8_0, o=Q.Q4_1, gate=Q.Q5_0, up=Q.Q4_0, down=Q.Q8_0)], Q.Q8_0, Q.Q8_0, 60,
        rope_theta=1000000.0, architecture="qwen2"),
    LlamaCase("gguf-qwen3-mixed", 32, 4, 2, 16, 64, [
        dict(q=Q.Q5_0, k=Q.Q8_0, v=Q.F16, o=Q.Q8_0, gate=Q.Q4_1, up=Q.Q5_1, down=Q.Q4_0)], Q.Q8_0, Q.Q8_0, 60,
        rope_theta=1000000.0, architecture="qwen3"),
]


def llama_tensors(case: LlamaCase, rng: np.random.Generator) -> dict[str, Tensor]:
    tied_gain = 1.7 if case.output is None else 1.0
    embedding_deviation = 3.0 / case.hidden ** 0.5 if case.output is None else 1.0
    tensors = {"token_embd.weight": make_tensor(case.embedding, (VOCAB, case.hidden), embedding_deviation, rng)}
    q_rows, kv_rows = case.heads * case.head_dim, case.kv_heads * case.head_dim
    shapes = {"q": ("attn_q", q_rows, case.hidden, 1.5), "k": ("attn_k", kv_rows, case.hidden, 1.5),
              "v": ("attn_v", kv_rows, case.hidden, 1.0), "o": ("attn_output", case.hidden, q_rows, tied_gain),
              "gate": ("ffn_gate", case.ffn, case.hidden, 1.0), "up": ("ffn_up", case.ffn, case.hidden, 1.0),
              "down": ("ffn_down", case.hidden, case.ffn, tied_gain)}
    for i, kinds in enumerate(case.kinds):
        for norm in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{i}.{norm}.weight"] = make_tensor(Q.F32, (case.hidden,), 0.2, rng, mean=1.0)
        for key, (name, rows, columns, gain) in shapes.items():
            tensors[f"blk.{i}.{name}.weight"] = make_tensor(kinds[key], (rows, columns), gain / columns ** 0.5, rng)
            if case.architecture == "qwen2" and key in "qkv":
                tensors[f"blk.{i}.{name}.bias"] = make_tensor(Q.F32, (rows,), 0.3, rng)
            if case.architecture == "qwen3" and key in "qk":
                tensors[f"blk.{i}.{name}_norm.weight"] = make_tensor(Q.F32, (case.head_dim,), 0.2, rng, mean=1.0)
    tensors["output_norm.weight"] = make_tensor(Q.F32, (case.hidden,), 0.2, rng, mean=1.0)
    if case.output is not None:
        tensors["output.weight"] = make_tensor(case.output, (VOCAB, case.hidden), 3.0 / case.hidden ** 0.5, rng)
    return tensors


def llama_model(case: LlamaCase, tensors: dict[str, Tensor]):
    rope = {"rope_theta": case.rope_theta, **(case.rope_scaling or {"rope_type": "default"})}
    config = transformers.AutoConfig.for_model(
        case.architecture,
        vocab_size=VOCAB, hidden_size=case.hidden, intermediate_size=case.ffn, num_hidden_layers=len(case.kinds),
        num_attention_heads=case.heads, num_key_value_heads=case.kv_heads, head_dim=case.head_dim,
        max_position_embeddings=512, rms_norm_eps=1e-5, rope_parameters=rope,
        tie_word_embeddings=case.output is None, attn_implementation="eager")
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
             "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
             "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    state = {}
    for name, tensor in tensors.items():
        values = tensor.values
        if case.permuted and "attn_q." in name:
            values = unpermute(values, case.heads)
        if case.permuted and "attn_k." in name:
            values = unpermute(values, case.kv_heads)
        parts = name.split(".")
        full = names[parts[0]] if parts[0] != "blk" else f"model.layers.{parts[1]}.{names[parts[2]]}"
        state[f"{full}.{parts[-1]}"] = torch.from_numpy(values.copy())
    if case.output is None:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    model.load_state_dict(state, strict=True)
    return model


def write_llama(case: LlamaCase, tensors: dict[str, Tensor], model, path: pathlib.Path) -> None:
    writer = gguf.GGUFWriter(path, case.architecture)
    writer.add_name(case.name)
    writer.add_context_length(512)
    writer.add_embedding_length(case.hidden)
    writer.add_block_count(len(case.kinds))
    writer.add_feed_forward_length(case.ffn)
    writer.add_head_count(case.heads)
    writer.add_head_count_kv(case.kv_heads)
    if case.head_dim * case.heads != case.hidden:
        writer.add_key_length(case.head_dim)
        writer.add_value_length(case.head_dim)
    if case.architecture == "llama":
        writer.add_rope_dimension_count(case.head_dim)
    writer.add_rope_freq_base(case.rope_theta)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    if case.rope_scaling is not None:
        # A factor for each frequency, by which it is divided: this is how converters store the llama3 scaling.
        plain = 1.0 / case.rope_theta ** (np.arange(0, case.head_dim, 2, dtype=np.float64) / case.head_dim)
        factors = (plain / model.model.rotary_emb.inv_freq.double().numpy()).astype(np.float32)
        tensors = {"rope_freqs.weight": Tensor(Q.F32, factors, factors), **tensors}
    finish(writer, tensors)


def finish(writer: gguf.GGUFWriter, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.stored, raw_dtype=tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


BLOOM_HIDDEN, BLOOM_HEADS = 64, 4


def bloom_tensors(rng: np.random.Generator) -> dict[str, Tensor]:
    h = BLOOM_HIDDEN
    tensors = {"token_embd.weight": make_tensor(Q.F16, (VOCAB, h), 0.5, rng)}

    def norm(name, mean, deviation):
        tensors[f"{name}.weight"] = make_tensor(Q.F32, (h,), deviation, rng, mean=mean)
        tensors[f"{name}.bias"] = make_tensor(Q.F32, (h,), 0.2, rng)

    norm("token_embd_norm", 0.3, 0.1)
    norm("blk.0.attn_norm", 1.0, 0.2)
    norm("blk.0.ffn_norm", 1.0, 0.2)
    for name, kind, rows, columns, gain in (
        ("attn_qkv", Q.Q8_0, 3 * h, h, 1.5), ("attn_output", Q.Q5_1, h, h, 3.0),
        ("ffn_up", Q.Q4_0, 4 * h, h, 3.0), ("ffn_down", Q.Q6_K, h, 4 * h, 3.0),
    ):
        tensors[f"blk.0.{name}.weight"] = make_tensor(kind, (rows, columns), gain / columns ** 0.5, rng)
        tensors[f"blk.0.{name}.bias"] = make_tensor(Q.F32, (rows,), 0.3, rng)
    norm("output_norm", 1.0, 0.2)
    return tensors


def interleave_qkv(values: np.ndarray) -> np.ndarray:
    """From the file's rows (all q, all k, all v) to Hugging Face's (q, k, v of head 0, of head 1, ...)."""
    split = values.reshape(3, BLOOM_HEADS, BLOOM_HIDDEN // BLOOM_HEADS, *values.shape[1:])
    return split.swapaxes(0, 1).reshape(values.shape)


def bloom_model(tensors: dict[str, Tensor]):
    config = transformers.BloomConfig(vocab_size=VOCAB, hidden_size=BLOOM_HIDDEN, n_head=BLOOM_HEADS, n_layer=1,
                                      attn_implementation="eager")
    names = {"token_embd": "word_embeddings", "token_embd_norm": "word_embeddings_layernorm", "output_norm": "ln_f",
             "blk.0.attn_norm": "h.0.input_layernorm", "blk.0.ffn_norm": "h.0.post_attention_layernorm",
             "blk.0.attn_qkv": "h.0.self_attention.query_key_value", "blk.0.attn_output": "h.0.self_attention.dense",
             "blk.0.ffn_up": "h.0.mlp.dense_h_to_4h", "blk.0.ffn_down": "h.0.mlp.dense_4h_to_h"}
    state = {}
    for name, tensor in tensors.items():
        stem, suffix = name.rsplit(".", 1)
        values = interleave_qkv(tensor.values) if "attn_qkv" in name else tensor.values
        state[f"transformer.{names[stem]}.{suffix}"] = torch.from_numpy(values.copy())
    state["lm_head.weight"] = state["transformer.word_embeddings.weight"]
    model = transformers.BloomForCausalLM(config).float().eval()
    model.load_state_dict(state, strict=True)
    return model


def write_bloom(tensors: dict[str, Tensor], _model, path: pathlib.Path) -> None:
    writer = gguf.GGUFWriter(path, "bloom")
    writer.add_name("gguf-bloom-mixed")
    writer.add_context_length(512)
    writer.add_embedding_length(BLOOM_HIDDEN)
    writer.add_feed_forward_length(4 * BLOOM_HIDDEN)
    writer.add_block_count(1)
    writer.add_head_count(BLOOM_HEADS)
    writer.add_head_count_kv(BLOOM_HEADS)
    writer.add_layer_norm_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    finish(writer, tensors)


def check_against_transformers_reader(directory: pathlib.Path, head_dim: int | None, token_ids: list[int],
                                      logits: np.ndarray) -> None:
    """transformers reads GGUF too: an independent word on the row orders (it knows no rope_freqs, though)."""
    config = transformers.AutoConfig.from_pretrained(directory, gguf_file="model.gguf")
    config.vocab_size = VOCAB
    if head_dim is not None:
        config.head_dim = head_dim  # it passes over Qwen 3's attention.key_length
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, config=config, gguf_file="model.gguf", dtype=torch.float32, attn_implementation="eager").eval()
    again = golden_io.logits_of(model, token_ids)[golden_io.positions_to_keep(len(token_ids))].numpy()
    print(f"{directory.name}: transformers' own reader differs by {np.abs(again - logits).max():.2e}")


@dataclass
class Maker:
    name: str
    prompt: int
    tensors: Callable  # of a random generator
    model: Callable  # of the tensors
    write: Callable  # tensors, model, path
    transformers_reads_it: bool = True
    head_dim: int | None = None


def makers() -> list[Maker]:
    llama = [Maker(case.name, case.prompt, partial(llama_tensors, case), partial(llama_model, case),
                   partial(write_llama, case), case.rope_scaling is None, case.head_dim) for case in LLAMA_CASES]
    return llama + [Maker("gguf-bloom-mixed", 70, bloom_tensors, bloom_model, write_bloom)]


def make(maker: Maker) -> None:
    for seed in range(1, 200):
        tensors = maker.tensors(np.random.default_rng(seed))
        model = maker.model(tensors)
        token_ids = golden_io.random_tokens(torch.Generator().manual_seed(2000 + seed), maker.prompt, VOCAB)
        golden, logits = golden_io.golden_of(model, token_ids)
        if len(set(golden["greedy_token_ids"])) < 8 or min(golden["greedy_margins"]) < golden_io.GREEDY_MARGIN:
            continue
        directory = MODELS / maker.name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        maker.write(tensors, model, directory / "model.gguf")
        golden_io.write_golden(directory, golden, logits)
        if maker.transformers_reads_it:
            check_against_transformers_reader(directory, maker.head_dim, token_ids, logits)
        return
    raise RuntimeError(f"{maker.name}: no seed gave a clear and varied greedy continuation")


def main() -> None:
    golden_io.exact_torch()
    wanted = sys.argv[1:]
    for maker in makers():
        if not wanted or maker.name in wanted:
            make(maker)


if __name__ == "__main__":
    main()
