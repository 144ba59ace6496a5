#!/usr/bin/env python3
"""Converts a llama2.c checkpoint (version 0) and tokenizer to a Hugging Face directory.

    convert_llama2c.py stories260K.bin tok512.bin OUTPUT_DIR

Writes config.json, model.safetensors and tokenizer.model (sentencepiece). Needs nothing but Python. docs/formats.md
describes the files.
"""

import array
import json
import pathlib
import struct
import sys

UNKNOWN, BOS, EOS = 0, 1, 2
FIRST_BYTE, BYTES = 3, 256


class Floats:
    """Takes float32 tensors off the front of a file."""

    def __init__(self, data, offset):
        self.values = array.array("f")
        self.values.frombytes(data[offset:])
        if sys.byteorder == "big":
            self.values.byteswap()
        self.next = 0

    def take(self, count):
        if count > len(self.values) - self.next:
            raise SystemExit("the checkpoint is cut short")
        self.next += count
        return self.values[self.next - count:self.next]


def rows_in_halves(values, heads, head_dim, cols):
    """llama2.c rotates rows 2 i and 2 i + 1 of a head, Hugging Face rows i and i + head_dim / 2."""
    half = head_dim // 2
    result = array.array("f")
    for head in range(heads):
        for row in range(head_dim):
            source = head * head_dim + 2 * (row % half) + row // half
            result.extend(values[source * cols:(source + 1) * cols])
    return result


def read_checkpoint(path):
    data = path.read_bytes()
    dim, ffn, layers, heads, kv_heads, vocab, positions = struct.unpack_from("<7i", data)
    tied, vocab = vocab > 0, abs(vocab)
    if min(dim, ffn, layers, heads, kv_heads, vocab, positions) < 1 or dim % heads or heads % kv_heads:
        raise SystemExit(f"{path}: not a llama2.c checkpoint of version 0")
    head_dim = dim // heads
    kv_dim = kv_heads * head_dim
    floats = Floats(data, 28)
    tensors = {"model.embed_tokens.weight": ([vocab, dim], floats.take(vocab * dim))}

    def per_layer(name, shape, change=lambda values: values):
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        for layer in range(layers):
            tensors[f"model.layers.{layer}.{name}.weight"] = (shape, change(floats.take(count)))

    per_layer("input_layernorm", [dim])
    per_layer("self_attn.q_proj", [dim, dim], lambda v: rows_in_halves(v, heads, head_dim, dim))
    per_layer("self_attn.k_proj", [kv_dim, dim], lambda v: rows_in_halves(v, kv_heads, head_dim, dim))
    per_layer("self_attn.v_proj", [kv_dim, dim])
    per_layer("self_attn.o_proj", [dim, dim])
    per_layer("post_attention_layernorm", [dim])
    per_layer("mlp.gate_proj", [ffn, dim])
    per_layer("mlp.down_proj", [dim, ffn])
    per_layer("mlp.up_proj", [ffn, dim])
    tensors["model.norm.weight"] = ([dim], floats.take(dim))
    floats.take(positions * head_dim)  # tables of cosines and sines, which follow from the config
    if not tied:
        tensors["lm_head.weight"] = ([vocab, dim], floats.take(vocab * dim))

    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": dim,
        "intermediate_size": ffn, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "vocab_size": vocab, "max_position_embeddings": positions,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": tied, "bos_token_id": BOS,
        "eos_token_id": EOS, "torch_dtype": "float32",
    }
    return config, tensors


def safetensors(tensors):
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        if sys.byteorder == "big":
            values.byteswap()
        begin = len(data)
        data += values.tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field_varint(number, value):
    return varint(number << 3) + varint(value)


def field_bytes(number, value):
    return varint(number << 3 | 2) + varint(len(value)) + value


def sentencepiece(path, vocab):
    """The tokenizer as sentencepiece's ModelProto."""
    data = path.read_bytes()
    offset, pieces = 4, b""  # after the length of the longest piece
    for token in range(vocab):
        score, length = struct.unpack_from("<fi", data, offset)
        text = data[offset + 8:offset + 8 + length]
        offset += 8 + length
        kind = 1  # normal
        if token == UNKNOWN:
            kind = 2
        elif token in (BOS, EOS):
            text, kind = text.strip(b"\n"), 3  # control; llama2.c puts line ends around them
        elif FIRST_BYTE <= token < FIRST_BYTE + BYTES:
            kind = 6
        else:
            text = text.replace(b" ", "\u2581".encode())
        pieces += field_bytes(1, field_bytes(1, text) + b"\x15" + struct.pack("<f", score) + field_varint(3, kind))
    trainer = field_varint(3, 2) + field_varint(4, vocab) + field_varint(35, 1)  # BPE with byte fallback
    trainer += field_varint(40, UNKNOWN) + field_varint(41, BOS) + field_varint(42, EOS)
    normalizer = field_bytes(1, b"identity") + field_varint(3, 1) + field_varint(4, 0) + field_varint(5, 1)
    return pieces + field_bytes(2, trainer) + field_bytes(3, normalizer)


def main():
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    checkpoint, tokenizer, output = map(pathlib.Path, sys.argv[1:])
    config, tensors = read_checkpoint(checkpoint)
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (output / "model.safetensors").write_bytes(safetensors(tensors))
    (output / "tokenizer.model").write_bytes(sentencepiece(tokenizer, config["vocab_size"]))


if __name__ == "__main__":
    main()
