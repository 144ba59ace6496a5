#!/usr/bin/env python3
"""Makes tests/corpora: for each fuzzer a few small inputs that its parser reads, from which libFuzzer sets out.

make_fuzz_corpora.py, without arguments and with the standard library alone. The same files come out each time. What a fuzzer
found is kept as a test, not here.
"""

import collections
import io
import json
import pathlib
import pickle
import shutil
import struct
import sys
import types
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CORPORA = ROOT / "tests/corpora"
GOLDENS = ROOT / "tests/goldens"


def write(fuzzer, name, data):
    path = CORPORA / fuzzer / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def golden(path):
    return (GOLDENS / path).read_bytes()


# Pickles of torch without torch: classes and functions of its names, whose pickles name them and nothing else.

def fake_module(name, **members):
    module = types.ModuleType(name)
    for member_name, member in members.items():
        member.__module__, member.__qualname__, member.__name__ = name, member_name, member_name
        setattr(module, member_name, member)
    sys.modules[name] = module
    return module


torch = fake_module("torch", FloatStorage=type("FloatStorage", (), {}), HalfStorage=type("HalfStorage", (), {}))
torch_utils = fake_module("torch._utils", _rebuild_tensor_v2=lambda *_: None, _rebuild_parameter=lambda *_: None)


class Tensor:
    def __init__(self, storage_type, key, shape, strides, offset=0, parameter=False):
        self.persistent = (storage_type, key)
        self.view = (offset, shape, strides)
        self.parameter = parameter

    def __reduce__(self):
        if self.parameter:
            inner = Tensor(*self.persistent, *self.view[1:], offset=self.view[0])
            return torch_utils._rebuild_parameter, (inner, False, collections.OrderedDict())
        storage = Storage(*self.persistent)
        return torch_utils._rebuild_tensor_v2, (storage, *self.view, False, collections.OrderedDict())


class Storage:
    def __init__(self, storage_type, key):
        self.type, self.key = storage_type, key


def dump(value, legacy=False):
    class Pickler(pickle.Pickler):
        def persistent_id(self, found):
            if not isinstance(found, Storage):
                return None
            parts = ("storage", found.type, found.key, "cpu", 8)
            return parts + (None,) if legacy else parts

    out = io.BytesIO()
    Pickler(out, protocol=2).dump(value)
    return out.getvalue()


def state_dict():
    float_storage, half_storage = torch.FloatStorage, torch.HalfStorage
    return collections.OrderedDict([
        ("model.embed_tokens.weight", Tensor(float_storage, "0", (2, 4), (4, 1))),
        ("lm_head.weight", Tensor(float_storage, "0", (4, 2), (1, 4))),
        ("model.norm.weight", Tensor(half_storage, "1", (4,), (1,), offset=2, parameter=True))])


def torch_zip(pickled):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (("data.pkl", pickled), ("byteorder", b"little"), ("data/0", bytes(range(32))), ("data/1", bytes(16)),
                           ("version", b"3\n")):
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)
    return out.getvalue()


def torch_legacy():
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    heads = b"".join(pickle.dumps(value, 2) for value in (0x1950a86a20f9469cfc6c, 1001, system))
    storages = struct.pack("<q", 8) + bytes(range(32)) + struct.pack("<q", 8) + bytes(16)
    return heads + dump(state_dict(), legacy=True) + pickle.dumps(["0", "1"], 2) + storages


def make_torch():
    fuzzer = "model/checkpoint/torch_archive_fuzz"
    wrapped = {"state_dict": state_dict(), "epoch": 3, "lr": 0.5, "args": ("x", None, True, [1, -2])}
    write(fuzzer, "archive", torch_zip(dump(state_dict())))
    write(fuzzer, "wrapped", torch_zip(dump(wrapped)))
    write(fuzzer, "legacy", torch_legacy())
    write(fuzzer, "pickle", dump(wrapped))  # which the fuzzer also reads by itself


def safetensors(tensors, metadata=None):
    header, body = {"__metadata__": metadata} if metadata else {}, b""
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def make_safetensors():
    tensors = {"a.weight": ("F32", [2, 2], bytes(16)), "b": ("BF16", [3], bytes(6)), "c": ("I32", [], bytes(4)),
               "d": ("F16", [0, 4], b"")}
    write("model/checkpoint/safetensors_fuzz", "four", safetensors(tensors, {"format": "pt"}))
    write("model/checkpoint/safetensors_fuzz", "none", safetensors({}))


def text(value):
    return struct.pack("<I", len(value)) + value


def ggml(magic, version, scores):
    """LLaMA of one layer and width 32, of Q4_0."""
    aligned, block = magic == b"tjgg", 18 if version == 3 else 20
    out = magic + (struct.pack("<I", version) if version is not None else b"") + struct.pack("<7I", 4, 32, 32, 1, 1, 32, 2)
    for number, piece in enumerate((b"", b"<s>", b"</s>", b" a")):
        out += text(piece) + (struct.pack("<f", -number) if scores else b"")
    layer = "layers.0."
    sizes = {"tok_embeddings": (32, 4), "norm": (32,), "output": (32, 4), layer + "attention_norm": (32,), layer + "ffn_norm": (32,)}
    sizes |= {layer + f"attention.{name}": (32, 32) for name in ("wq", "wk", "wv", "wo")}
    sizes |= {layer + f"feed_forward.{name}": (32, 32) for name in ("w1", "w2", "w3")}
    for name, size in sizes.items():
        kind, data = (2, bytes(size[1] * block)) if len(size) == 2 else (0, bytes(4 * size[0]))
        full = f"{name}.weight".encode()
        out += struct.pack("<3I", len(size), len(full), kind) + struct.pack(f"<{len(size)}I", *size) + full
        if aligned:
            out += bytes(-len(out) % 32)
        out += data
    return out


def make_ggml():
    for name, magic, version, scores in (("ggml", b"lmgg", None, False), ("ggmf", b"fmgg", 1, True), ("ggjt-v3", b"tjgg", 3, True)):
        write("model/checkpoint/ggml_fuzz", name, ggml(magic, version, scores))


def gguf_text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def gguf():
    """A LLaMA's metadata, a vocabulary of three pieces and two tensors."""
    array = lambda kind, items: struct.pack("<IIQ", 9, kind, len(items)) + b"".join(items)
    number = lambda value: struct.pack("<II", 4, value)
    metadata = {
        "general.architecture": struct.pack("<I", 8) + gguf_text("llama"),
        "llama.embedding_length": number(32), "llama.block_count": number(1), "llama.feed_forward_length": number(32),
        "llama.attention.head_count": number(1), "llama.context_length": number(64),
        "llama.attention.layer_norm_rms_epsilon": struct.pack("<If", 6, 1e-5),
        "tokenizer.ggml.model": struct.pack("<I", 8) + gguf_text("llama"),
        "tokenizer.ggml.tokens": array(8, [gguf_text(piece) for piece in ("<unk>", "<s>", "a")]),
        "tokenizer.ggml.scores": array(6, [struct.pack("<f", score) for score in (0, 0, -1)]),
        "tokenizer.ggml.token_type": array(5, [struct.pack("<i", kind) for kind in (2, 3, 1)]),
        "tokenizer.ggml.add_bos_token": struct.pack("<I?", 7, True)}
    tensors = [("token_embd.weight", (32, 3), 8, 102), ("output_norm.weight", (32,), 0, 128)]
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    out += b"".join(gguf_text(name) + value for name, value in metadata.items())
    place = 0
    for name, sizes, kind, count in tensors:
        out += gguf_text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, place)
        place += count + -count % 32
    return out + bytes(-len(out) % 32) + bytes(place)


def varint(value):
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7f | 0x80]), value >> 7
    return out + bytes([value])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def sentencepiece(byte_fallback):
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("\u2581", -1.0, 1), ("a", -2.0, 1), ("aa", -1.0, 1),
              ("\u2581a", -1.0, 5), ("<x>", 0.0, 4)]
    if byte_fallback:
        pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    out = b"".join(field(1, field(1, piece.encode()) + field(2, score) + field(3, kind)) for piece, score, kind in pieces)
    out += field(2, field(3, 2) + field(35, int(byte_fallback)) + field(46, b"<s>"))
    return out + field(3, field(1, b"identity") + field(3, 1) + field(4, 0) + field(5, 1))


def byte_level():
    """tokenizer.json as SmolLM has it, of a few pieces."""
    vocabulary = {piece: number for number, piece in enumerate(["<s>", "a", "b", "\u0120", "ab", "\u0120a"])}
    return {"version": "1.0", "normalizer": None, "added_tokens": [{"id": 0, "content": "<s>", "special": True}],
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": False},
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]},
            "post_processor": {"type": "TemplateProcessing",
                               "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                               "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
            "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": vocabulary, "merges": ["a b", ["\u0120", "a"]], "ignore_merges": True}}


def llama_fast():
    pieces = ["<unk>", "<s>", "\u2581", "a", "\u2581a"] + [f"<0x{byte:02X}>" for byte in range(256)]
    return {"added_tokens": [{"id": 1, "content": "<s>", "special": True, "lstrip": True}],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
                {"type": "NFC"}]},
            "pre_tokenizer": None, "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
                      "vocab": {piece: number for number, piece in enumerate(pieces)}, "merges": ["\u2581 a"]}}


def make_tokenizers():
    fuzzer = "model/tokenizer/sentencepiece_model_fuzz"
    write(fuzzer, "plain", sentencepiece(False))
    write(fuzzer, "bytes", sentencepiece(True))
    for name, file in (("byte_level", byte_level()), ("llama_fast", llama_fast())):
        write("model/tokenizer/tokenizer_json_fuzz", name, json.dumps(file, ensure_ascii=False))
    for name, value in (("words", "abba ab  ba\n\n12345 it's 你好 \u2581"), ("broken", b"a\xff\xe4\xbd b \xf0\x9f"),
                        ("special", "<s>ab</s> <|x|>")):
        write("model/tokenizer/tokenizer_fuzz", name, value)


def make_configs():
    for model in ("llama-mha", "llama-rope-v4", "llama-rope-v5-bf16", "bloom-5-heads-aliases",
                  "gptq-v2-llama-symmetric-rules", "mistral-window", "qwen2-tied", "qwen3-wide-heads"):
        write("model/config_fuzz", model, golden(f"models/{model}/config.json"))
    fuzzer = "model/quantization_config_fuzz"
    write(fuzzer, "gptq", '{"bits": 4, "group_size": 128, "desc_act": false, "sym": true, "quant_method": "gptq"}')
    write(fuzzer, "gptq_v2", '{"bits": 8, "group_size": -1, "checkpoint_format": "gptq_v2", "pack_dtype": "int32", '
                             '"dynamic": {"-:.*mlp.*": {}, "+:.*q_proj.*": {"bits": 4, "sym": false}}}')
    write(fuzzer, "awq", '{"zero_point": true, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}')
    write(fuzzer, "others", '{"quant_method": "bitsandbytes", "load_in_4bit": true, "is_marlin_format": true}')
    fuzzer = "model/checkpoint/side_files_fuzz"
    for model in ("meta-llama-2", "meta-llama-3"):
        write(fuzzer, model, golden(f"models/{model}/params.json"))
    for adapter in ("llama-vocabulary", "bloom-fused"):
        write(fuzzer, f"lora-{adapter}", golden(f"lora/{adapter}/adapter_config.json"))
    write(fuzzer, "lora-flag", "/adapters/chinese-alpaca:0.5")
    write(fuzzer, "encrypted-name", "config.json." + "0123456789abcdef" * 4 + ".enc")
    write("common/json_fuzz", "values", '{"a": [1, -2.5e3, true, null, NaN, "\\u4f60\\ud83d\\ude00\\n"], "b": {"": {}}}')
    write("common/json_fuzz", "broken", '\ufeff[1, 2,, {"a" 3}] x')


def make_quantized_tensors():
    """Bytes that the fuzzer takes its choices from: what fits, with and without settings and group indices."""
    def linear(kind, groups, tail=(1,)):  # of consistent shapes; the tail says whether there are group indices
        return bytes([kind, groups] + [0] * 9 + list(tail))

    fuzzer = "model/checkpoint/quantized_tensors_fuzz"
    write(fuzzer, "shapes", bytes([1, 2]) + linear(1, 1) * 4 + bytes(range(256)))
    write(fuzzer, "settings", bytes([0, 0, 2, 0, 1, 1, 1]) + linear(0, 1, (0, 0, 0)) + linear(0, 1) * 3)
    write(fuzzer, "awq", bytes([0, 1, 2, 0, 1, 0, 1]) + linear(0, 0) * 4)


def make_messages():
    """The fields of a small Step behind each of the first bytes, which choose what the rest is read as."""
    step = field(1, 7) + field(2, 1) + field(3, field(1, 3) + field(2, field(1, 5)))
    for number, name in enumerate(("step", "result", "assignment")):
        write("proto/cluster_codec_fuzz", name, bytes([number]) + step)
    row_range = field(1, 0) + field(2, 9)
    rank = field(1, row_range) + field(2, row_range) + field(3, row_range)
    layout = field(1, field(1, field(1, 0) + field(2, 2)) + field(2, rank))
    streamed = field(17, 1) + field(19, 1) + field(20, 1)
    write("proto/cluster_codec_fuzz", "streamed", bytes([2]) + field(1, 7) + field(3, layout) + streamed)


def make_requests():
    fuzzer = "coordinator/openai_request_fuzz"
    write(fuzzer, "chat", '{"model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": '
                          '[{"type": "text", "text": "hi"}]}], "max_tokens": 5, "stream": true, "stop": ["a", "b"], "n": 2}')
    write(fuzzer, "completion", '{"prompt": [[1, 2], [3]], "temperature": 0.5, "logprobs": 3, "logit_bias": {"7": -100}, "echo": true}')
    write("http/message_fuzz", "path", "/v1/models/a%20b?after=x&limit=3")
    write("http/message_fuzz", "absolute", "http://host:80/healthz")


def make_layers():
    """Of a layer file of two pages, its description; the hash before it is right in none but the tool's own files."""
    info = json.dumps({"key": "packed 1\nmodel m\nlayer 3\n", "image_bytes": 8192, "checksums": ["0123456789abcdef"],
                       "hashes": [["layer 3 query weight, rows 0-7", "fedcba9876543210"]]}, separators=(",", ":"))
    write("worker/weights/layer_file_fuzz", "description", info)
    write("worker/weights/layer_file_fuzz", "header", f"bellwether layer 1\n{len(info):016x}{0:016x}\n{info}")


def main():
    shutil.rmtree(CORPORA, ignore_errors=True)
    make_torch()
    make_safetensors()
    make_ggml()
    write("model/checkpoint/gguf_fuzz", "llama", gguf())
    make_tokenizers()
    make_configs()
    make_quantized_tensors()
    make_messages()
    make_requests()
    make_layers()


if __name__ == "__main__":
    main()
