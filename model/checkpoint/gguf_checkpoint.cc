#include "model/checkpoint/gguf_checkpoint.h"

#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "model/checkpoint/expected_tensors.h"
#include "model/checkpoint/foreign_file.h"
#include "model/checkpoint/hugging_face_names.h"
#include "model/checkpoint/stored_tensor.h"

namespace bellwether {
namespace {

struct NamedRole {
  std::string_view name;
  TensorRole role;
};
constexpr NamedRole kOutside[] = {
    {"token_embd", TensorRole::kEmbedding},
    {"token_embd_norm", TensorRole::kEmbeddingNorm},
    {"output_norm", TensorRole::kFinalNorm},
    {"output", TensorRole::kHead},
};
constexpr std::string_view kFused = "attn_qkv";
constexpr NamedRole kLayer[] = {
    {"attn_norm", TensorRole::kAttentionNorm},
    {"attn_q", TensorRole::kQuery},
    {"attn_k", TensorRole::kKey},
    {"attn_v", TensorRole::kValue},
    {"attn_q_norm", TensorRole::kQueryNorm},
    {"attn_k_norm", TensorRole::kKeyNorm},
    {kFused, TensorRole::kQuery},
    {"attn_output", TensorRole::kAttentionOutput},
    {"ffn_norm", TensorRole::kMlpNorm},
    {"ffn_gate", TensorRole::kGate},
    {"ffn_up", TensorRole::kUp},
    {"ffn_down", TensorRole::kDown},
};

// Tables that the config already holds, or that can be computed.
bool IsIgnored(std::string_view name) {
  return name == "rope_freqs.weight" || name.ends_with(".attn_rot_embd") ||
         name.ends_with(".attn_rot_embd.weight") || name.ends_with(".rot_embd.inv_freq");
}

struct GgufName {
  TensorKey key;
  bool fused_qkv = false;
};

std::optional<GgufName> ParseName(std::string_view name) {
  const std::optional<int32_t> layer = TakeLayer("blk.", name);
  const std::optional<bool> bias = TakeWeightOrBias(name);
  if (!bias.has_value()) return std::nullopt;
  const absl::Span<const NamedRole> table =
      layer.has_value() ? absl::Span<const NamedRole>(kLayer) : absl::Span<const NamedRole>(kOutside);
  for (const NamedRole& entry : table) {
    if (entry.name != name) continue;
    return GgufName{{entry.role, layer.value_or(0), *bias}, entry.name == kFused};
  }
  return std::nullopt;
}

// The fused tensor of BLOOM as llama.cpp's converter writes it: all query rows, all key rows, all value rows.
absl::Status AddFused(const StoredTensor& stored, const TensorKey& key, const ModelConfig& config,
                      TensorTable& table) {
  const int64_t each = int64_t{config.heads} * config.head_dim;
  const int64_t length = key.bias ? stored.info.cols : stored.info.rows;
  if (length != 3 * each) {
    return absl::InvalidArgumentError(
        absl::StrCat(stored.info.source, " has ", length, " rows but the config asks for ", 3 * each));
  }
  for (int part = 0; part < 3; ++part) {
    StoredTensor third = stored;
    (key.bias ? third.info.cols : third.info.rows) = each;
    third.rows.first = part * each;
    third.vector_mapped = key.bias;
    BW_RETURN_IF_ERROR(table.Add({kQueryKeyValue[part], key.layer, key.bias}, third));
  }
  return absl::OkStatus();
}

absl::Status AddTensor(const BlockTensor& tensor, const std::shared_ptr<const FileMapping>& file,
                       const ModelConfig& config, TensorTable& table) {
  const std::optional<GgufName> name = ParseName(tensor.name);
  const std::string source = absl::StrCat(file->path(), ": tensor '", tensor.name, "'");
  if (!name.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(
        source, " is not known in this family of models; it may change the maths, so it is not passed over"));
  }
  if (name->key.layer >= config.layers) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, " lies beyond the ", config.layers, " layers of the config"));
  }
  BW_ASSIGN_OR_RETURN(StoredTensor stored, StoreTensor(tensor, file, source));
  if (name->fused_qkv) return AddFused(stored, name->key, config, table);
  // LLaMA's query and key rows are stored with the two halves of each head interleaved; Qwen's are not.
  const bool rotated = name->key.role == TensorRole::kQuery || name->key.role == TensorRole::kKey;
  if (rotated && config.architecture == Architecture::kLlama) {
    stored.rows = {.head_rows = config.head_dim, .head_stride = config.head_dim, .interleaved = true};
    stored.vector_mapped = name->key.bias;
  }
  return table.Add(name->key, stored);
}

// What a file is that is not GGUF, by its first bytes.
absl::Status RefuseOtherFiles(const FileMapping& file) {
  const std::string& path = file.path();
  if (IsGguf(file.bytes())) return absl::OkStatus();
  if (absl::EndsWith(path, ".enc")) {
    return absl::InvalidArgumentError(
        absl::StrCat(path,
                     ": encrypted as BELLE does it: run bellwether convert xor --base consolidated.00.pth "
                     "(of Meta's LLaMA) on its directory"));
  }
  if (absl::EndsWith(path, ".json")) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": give the directory it lies in"));
  }
  if (const std::string other = DescribeForeignFile(file.bytes()); !other.empty())
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", other));
  return absl::InvalidArgumentError(absl::StrCat(
      path,
      ": neither GGUF nor GGML nor safetensors nor a file of torch; such files and directories can "
      "be read"));
}

}  // namespace

absl::StatusOr<CheckpointContents> OpenGgufCheckpoint(const std::string& path) {
  BW_ASSIGN_OR_RETURN(const std::shared_ptr<const FileMapping> file, FileMapping::Open(path));
  BW_RETURN_IF_ERROR(RefuseOtherFiles(*file));
  absl::StatusOr<GgufFile> parsed = GgufFile::Parse(file->bytes());
  if (!parsed.ok()) return Annotate(parsed.status(), path);
  const auto gguf = std::make_shared<const GgufFile>(*std::move(parsed));

  CheckpointContents contents;
  contents.path = path;
  contents.container = "gguf";
  absl::StatusOr<ModelConfig> config = ReadGgufConfig(*gguf, file->bytes());
  if (!config.ok()) return Annotate(config.status(), path);
  contents.config = *std::move(config);

  TensorTable table(contents.config);
  for (const BlockTensor& tensor : gguf->tensors()) {
    if (IsIgnored(tensor.name)) continue;
    BW_RETURN_IF_ERROR(AddTensor(tensor, file, contents.config, table));
  }
  auto finished = std::move(table).Finish();
  if (!finished.ok()) return Annotate(finished.status(), path);
  contents.tensors = *std::move(finished);

  absl::StatusOr<std::string> chat_template = gguf->Text("tokenizer.chat_template");
  if (!chat_template.ok()) return Annotate(chat_template.status(), path);
  contents.chat_template_text = *std::move(chat_template);
  absl::StatusOr<std::string> name = gguf->Text("general.name");
  if (!name.ok()) return Annotate(name.status(), path);
  contents.model_name = *std::move(name);
  // The metadata points into the mapping.
  contents.tokenizer.vocabulary = [file, gguf] { return ReadGgufVocabulary(*gguf); };
  return contents;
}

}  // namespace bellwether
