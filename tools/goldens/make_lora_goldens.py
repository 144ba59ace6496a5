"""Makes tests/goldens/lora/*: adapters as PEFT saves them, and the SHA-256 of every tensor of the merged model.

    VENV/bin/python tools/goldens/make_lora_goldens.py

PEFT makes the adapters for checkpoints of tests/goldens/models and fills them with random numbers. merged.json has,
for each tensor of the model, the hash of its values as little-endian fp32: W + scale * (B A), where NumPy adds up the
ranks one after the other in fp32, rounded once to W's type. The script checks that PEFT's own merge is the same
within rounding.
"""

import hashlib
import json
import math
import pathlib
import shutil

import numpy as np
import peft
import torch
import transformers
from safetensors.torch import load_file

import golden_io

MODELS = golden_io.ROOT / "models"
OUT = golden_io.ROOT / "lora"

CASES = {
    "llama-patterns": dict(
        base="llama-old-fp16",
        config=dict(r=4, lora_alpha=6, use_rslora=True, rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 8},
                    alpha_pattern={"layers.[02].self_attn.o_proj": 3, "o_proj": 5},
                    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])),
    "llama-two-layers": dict(
        base="llama-gqa-sharded-bf16",
        config=dict(r=3, lora_alpha=16, layers_to_transform=[0, 2], target_modules=["v_proj", "up_proj", "lm_head"])),
    "llama-vocabulary": dict(
        base="llama-mha", vocab=104, scale=0.5,
        config=dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], modules_to_save=["embed_tokens", "lm_head"])),
    "llama-embedding": dict(
        base="llama-mha", config=dict(r=2, lora_alpha=2, target_modules=["embed_tokens", "down_proj"])),
    "bloom-fused": dict(
        base="bloom-6-heads-bf16",
        config=dict(r=8, lora_alpha=4, target_modules=["query_key_value", "dense"], bias="lora_only")),
}


def weights_of(base: str) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted((MODELS / base).glob("*.safetensors")):
        tensors |= load_file(file)
    return {name: tensor for name, tensor in tensors.items() if "rotary_emb" not in name}


def canonical(name: str) -> str:
    for prefix in ("model.", "transformer."):
        name = name.removeprefix(prefix)
    return name


def make_adapter(case: dict, model: torch.nn.Module) -> peft.PeftModel:
    adapted = peft.get_peft_model(model, peft.LoraConfig(**case["config"]))
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            trained = "lora_" in name or "modules_to_save" in name
            if trained or (case["config"].get("bias") == "lora_only" and name.endswith("bias") and parameter.requires_grad):
                spread = 0.3 if "lora_" in name else 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return adapted


def low_rank(b: np.ndarray, a: np.ndarray) -> np.ndarray:
    total = np.zeros((b.shape[0], a.shape[1]), np.float32)
    for k in range(a.shape[0]):
        total += b[:, k:k + 1] * a[k:k + 1, :]
    return total


def merged_by_numpy(case: dict, adapted: peft.PeftModel, weights: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """By the names of the base model, before rounding."""
    merged = {canonical(name): tensor.float().numpy() for name, tensor in weights.items()}
    for name, module in adapted.base_model.model.named_modules():
        name = canonical(name)
        if isinstance(module, peft.tuners.lora.LoraLayer):
            scale = np.float32(module.scaling["default"] * case.get("scale", 1))
            if module.lora_embedding_A:
                a, b = module.lora_embedding_A["default"], module.lora_embedding_B["default"]
                product = low_rank(a.detach().numpy().T, b.detach().numpy().T)
            else:
                a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
                product = low_rank(b.detach().numpy(), a.detach().numpy())
            merged[f"{name}.weight"] = merged[f"{name}.weight"] + scale * product
            if case["config"].get("bias") == "lora_only":
                merged[f"{name}.bias"] = module.get_base_layer().bias.detach().numpy()
        elif isinstance(module, peft.utils.ModulesToSaveWrapper):
            merged[f"{name}.weight"] = module.modules_to_save["default"].weight.detach().numpy()
    return merged


def check_against_peft(case: dict, adapted: peft.PeftModel, merged: dict[str, np.ndarray]) -> None:
    if case.get("scale", 1) != 1:
        for module in adapted.modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                module.scaling["default"] *= case["scale"]
    theirs = adapted.merge_and_unload().state_dict()
    for name, tensor in theirs.items():
        ours = merged.get(canonical(name))
        if ours is not None:
            assert np.allclose(ours, tensor.numpy(), rtol=1e-5, atol=1e-5), name


def rounded(values: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    return torch.from_numpy(np.ascontiguousarray(values)).to(dtype).float().numpy()


def hashes(merged: dict[str, np.ndarray], dtypes: dict[str, torch.dtype], heads: int) -> dict[str, str]:
    result = {}
    for name, values in merged.items():
        values = rounded(values, dtypes[name])
        parts = {name: values}
        if "query_key_value" in name:
            split = values.reshape(heads, 3, values.shape[0] // (3 * heads), *values.shape[1:])
            parts = {name.replace("query_key_value", part): split[:, i].reshape(-1, *values.shape[1:])
                     for i, part in enumerate(("query", "key", "value"))}
        for part, value in parts.items():
            result[part] = hashlib.sha256(np.ascontiguousarray(value).astype("<f4").tobytes()).hexdigest()
    return dict(sorted(result.items()))


def main() -> None:
    golden_io.exact_torch()
    for name, case in CASES.items():
        weights = weights_of(case["base"])
        dtypes = {canonical(key): tensor.dtype for key, tensor in weights.items()}
        model = transformers.AutoModelForCausalLM.from_pretrained(MODELS / case["base"], dtype=torch.float32)
        heads = model.config.num_attention_heads
        if "vocab" in case:
            model.resize_token_embeddings(case["vocab"])
        adapted = make_adapter(case, model)
        directory = OUT / name
        shutil.rmtree(directory, ignore_errors=True)
        adapted.save_pretrained(directory, save_embedding_layers=False)
        (directory / "README.md").unlink(missing_ok=True)
        config = json.loads((directory / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = case["base"]
        (directory / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        merged = merged_by_numpy(case, adapted, weights)
        text = {"base": case["base"], "scale": case.get("scale", 1), "made_by": f"peft {peft.__version__}, numpy",
                "tensors": hashes(merged, dtypes, heads)}
        check_against_peft(case, adapted, merged)
        (directory / "merged.json").write_text(json.dumps(text, indent=1) + "\n")
        print(name, sum(file.stat().st_size for file in directory.iterdir()), "bytes")


if __name__ == "__main__":
    main()
