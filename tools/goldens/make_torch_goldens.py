"""Writes tests/goldens/torch: files of torch.save, and what they hold.

Run with requirements_torch1.txt, from the repository's root; with requirements.txt it writes the old format as a
newer torch does. The weights of a model are those of a golden checkpoint beside it, so that both containers can be
compared.
"""

import collections
import json
import pathlib
import struct

import torch

GOLDENS = pathlib.Path("tests/goldens")
OUT = GOLDENS / "torch"
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    tensors = collections.OrderedDict()
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        flat = torch.frombuffer(bytearray(data[begin:end]), dtype=DTYPES[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"]).clone()
    return tensors


def write_models():
    llama = read_safetensors(GOLDENS / "models/llama-mqa-tied/model.safetensors")
    llama["lm_head.weight"] = llama["model.embed_tokens.weight"]  # one storage under two names
    torch.save(llama, OUT / "llama-mqa-tied.bin")
    bloom = read_safetensors(GOLDENS / "models/bloom-6-heads-bf16/model.safetensors")
    # Parameters within a trainer's dict, their matrices stored transposed.
    wrapped = {"module." + name: torch.nn.Parameter(t.t().contiguous().t() if t.dim() == 2 else t)
               for name, t in bloom.items()}
    torch.save({"epoch": 3, "loss": 0.5, "state_dict": wrapped}, OUT / "bloom-6-heads-bf16-wrapped.bin")


def write_legacy_model():
    llama = read_safetensors(GOLDENS / "models/llama-rope-v4-type/model.safetensors")
    llama["lm_head.weight"] = llama["model.embed_tokens.weight"]
    torch.save(llama, OUT / "llama-rope-v4-type-legacy.bin", _use_new_zipfile_serialization=False)


def views():
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    views = collections.OrderedDict(
        whole=base, transposed=base.t(), rows=base[1:3], columns=base[:, 2:5], every_second=base[::2, ::3],
        column=base[:, 1], expanded=base[0, :1].expand(3, 2), scalar=base[2, 3], empty=base[:0],
        cube=base.reshape(2, 2, 6).permute(2, 0, 1))
    for name in ("float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"):
        views[name] = torch.tensor([0, 1, 1, 0, 1], dtype=getattr(torch, name))
    return views


def write_views():
    torch.save(views(), OUT / "views.bin")
    torch.save(views(), OUT / "views-legacy.bin", _use_new_zipfile_serialization=False)
    described = {name: {"dtype": str(t.dtype), "shape": list(t.shape), "values": t.double().flatten().tolist()}
                 for name, t in views().items()}
    (OUT / "views.json").write_text(json.dumps(described) + "\n")


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    if torch.__version__.startswith("1."):
        write_models()
        write_views()
    else:
        write_legacy_model()
        torch.save(views(), OUT / "views-legacy-torch2.bin", _use_new_zipfile_serialization=False)
