#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/format_bytes.h"
#include "common/status.h"
#include "model/checkpoint/safetensors_writer.h"
#include "model/config.h"

namespace bellwether {

// A LLaMA of random weights in bf16 as a Hugging Face directory, one file. ResourceExhausted where the drive
// has no room for it.
inline absl::Status WriteRandomCheckpoint(const ModelConfig& config, const std::string& directory) {
  std::vector<std::byte> block(size_t{1} << 20);
  uint64_t state = 1;
  for (size_t i = 0; i < block.size(); i += 2) {  // +-2^-6 or so
    state = state * 6364136223846793005u + 1442695040888963407u;
    block[i] = static_cast<std::byte>(state >> 56);
    block[i + 1] = static_cast<std::byte>(0x3c | (state >> 48 & 0x80));
  }
  std::vector<OutputTensor> tensors;
  int64_t all = 0;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    int64_t bytes = 2;
    for (const int64_t size : shape) bytes *= size;
    all += bytes;
    tensors.push_back({.name = name,
                       .dtype = "BF16",
                       .shape = std::move(shape),
                       .bytes = bytes,
                       .write = [&block, bytes](const ByteSink& sink) {
                         for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(block.size())) {
                           const auto count =
                               std::min<int64_t>(bytes - at, static_cast<int64_t>(block.size()));
                           BW_RETURN_IF_ERROR(sink(absl::MakeSpan(block).first(count)));
                         }
                         return absl::OkStatus();
                       }});
  };
  const int64_t hidden = config.hidden, ffn = config.ffn, query = int64_t{config.heads} * config.head_dim,
                key = int64_t{config.kv_heads} * config.head_dim;
  add("model.embed_tokens.weight", {config.vocab, hidden});
  for (int32_t i = 0; i < config.layers; ++i) {
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    add(layer + "input_layernorm.weight", {hidden});
    add(layer + "self_attn.q_proj.weight", {query, hidden});
    add(layer + "self_attn.k_proj.weight", {key, hidden});
    add(layer + "self_attn.v_proj.weight", {key, hidden});
    add(layer + "self_attn.o_proj.weight", {hidden, query});
    add(layer + "post_attention_layernorm.weight", {hidden});
    add(layer + "mlp.gate_proj.weight", {ffn, hidden});
    add(layer + "mlp.up_proj.weight", {ffn, hidden});
    add(layer + "mlp.down_proj.weight", {hidden, ffn});
  }
  add("model.norm.weight", {hidden});
  add("lm_head.weight", {config.vocab, hidden});
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  const auto space = std::filesystem::space(directory, error);
  if (error || static_cast<int64_t>(space.available) < all + all / 4) {
    return absl::ResourceExhaustedError(absl::StrCat(
        directory, ": a file of ", FormatBytes(static_cast<double>(all)), " and a quarter do not fit there"));
  }
  BW_RETURN_IF_ERROR(WriteNewText(
      directory + "/config.json",
      absl::StrCat(
          R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",)",
          R"( "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "max_position_embeddings": )",
          config.max_positions, R"(, "vocab_size": )", config.vocab, R"(, "hidden_size": )", hidden,
          R"(, "num_hidden_layers": )", config.layers, R"(, "num_attention_heads": )", config.heads,
          R"(, "num_key_value_heads": )", config.kv_heads, R"(, "head_dim": )", config.head_dim,
          R"(, "intermediate_size": )", ffn, "}")));
  return WriteSafetensors(tensors, {.directory = directory, .note = "random weights"});
}

}  // namespace bellwether
