#include "model/checkpoint/lora.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/checkpoint/adjustment.h"
#include "model/checkpoint/hugging_face_names.h"
#include "model/checkpoint/lora_config.h"
#include "model/checkpoint/sha256.h"
#include "model/checkpoint/stored_tensor.h"
#include "model/checkpoint/tensor_samples.h"
#include "model/checkpoint/tensor_table_file.h"
#include "model/json_object.h"

namespace bellwether {
namespace {

constexpr char kWrapper[] = "base_model.model.";

// scale * left * right, of which this tensor has the rows that `rows` finds.
class LowRank : public Adjustment {
 public:
  LowRank(StoredTensor left, StoredTensor right, RowMap rows, float scale)
      : left_(std::move(left)), right_(std::move(right)), rows_(std::move(rows)), scale_(scale) {}

  void Apply(const TensorWindow& window, absl::Span<float> values) const override;
  std::vector<const StoredTensor*> inputs() const override { return {&left_, &right_}; }
  std::string Describe() const override { return absl::StrCat("low rank ", scale_); }

 private:
  const StoredTensor left_;   // [rows, rank]
  const StoredTensor right_;  // [rank, columns]
  const RowMap rows_;
  const float scale_;
};

// Ranks in ascending order, the scale last: one answer whatever the window.
void LowRank::Apply(const TensorWindow& window, absl::Span<float> values) const {
  const int64_t rank = right_.info.rows, cols = window.col_end - window.col_begin;
  std::vector<float> right(rank * cols), left(rank), sum(cols);
  DecodeWindow(right_, {0, rank, window.col_begin, window.col_end}, absl::MakeSpan(right));
  for (int64_t row = window.row_begin; row < window.row_end; ++row) {
    const int64_t source = rows_.Source(row);
    DecodeWindow(left_, {source, source + 1, 0, rank}, absl::MakeSpan(left));
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (int64_t k = 0; k < rank; ++k) {
      const float* factors = right.data() + k * cols;
      for (int64_t i = 0; i < cols; ++i) sum[i] += left[k] * factors[i];
    }
    float* out = values.data() + (row - window.row_begin) * cols;
    for (int64_t i = 0; i < cols; ++i) out[i] += scale_ * sum[i];
  }
}

// What a tensor of an adapter is.
enum class Part : uint8_t { kA, kB, kEmbeddingA, kEmbeddingB, kWhole };
struct AdapterName {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  Part part = Part::kWhole;
  bool bias = false;  // of kWhole
};

// Ends of the names in all versions of PEFT: ".lora_A.weight", ".lora_A.NAME.weight", ".lora_embedding_A",
// ".modules_to_save.NAME.weight", ".base_layer.bias".
absl::StatusOr<AdapterName> ParseName(std::string_view name) {
  while (name.starts_with(kWrapper)) name.remove_prefix(sizeof(kWrapper) - 1);
  AdapterName result;
  constexpr std::pair<std::string_view, Part> kMarks[] = {{".lora_embedding_A", Part::kEmbeddingA},
                                                          {".lora_embedding_B", Part::kEmbeddingB},
                                                          {".lora_A", Part::kA},
                                                          {".lora_B", Part::kB},
                                                          {".modules_to_save", Part::kWhole},
                                                          {".base_layer", Part::kWhole}};
  for (const auto& [mark, part] : kMarks) {
    const size_t at = name.find(mark);
    if (at == std::string_view::npos) continue;
    result = {.module = std::string(name.substr(0, at)), .part = part, .bias = name.ends_with(".bias")};
    if (part != Part::kWhole && result.bias)
      return absl::UnimplementedError("is a bias of LoRA's own, which cannot be merged");
    return result;
  }
  if (name.find(".lora_") != std::string_view::npos)
    return absl::UnimplementedError(
        "is part of a LoRA of another kind, such as DoRA, which cannot be merged");
  const std::optional<bool> bias = TakeWeightOrBias(name);
  if (!bias.has_value()) return absl::InvalidArgumentError("is not known in adapters");
  return AdapterName{.module = std::string(name), .part = Part::kWhole, .bias = *bias};
}

// The four matrices that a module may have.
using Parts = std::array<std::optional<StoredTensor>, 4>;

class Merger {
 public:
  Merger(const LoraOption& option, CheckpointContents& contents) : option_(option), contents_(contents) {}
  absl::Status Merge();

 private:
  absl::Status ReadFiles();
  absl::Status CheckModules();
  absl::Status Sort(const FileTensor& tensor, const std::shared_ptr<const FileMapping>& file);
  absl::Status ReplaceAll();
  absl::Status Replace(const TensorKey& key, StoredTensor tensor);
  absl::Status SettleVocabulary();
  absl::Status AddProducts();
  absl::Status AddProduct(const std::string& module, const Parts& parts);
  absl::Status AddTo(const TensorKey& key, const StoredTensor& left, const StoredTensor& right,
                     const RowMap& rows, double scale);
  absl::StatusOr<HuggingFaceName> KeyOf(const std::string& module, bool bias) const;
  // Where the rows of query, key or value lie in BLOOM's fused tensor.
  RowMap FusedRows(int part) const;
  std::string Source(const std::string& module) const { return absl::StrCat(file_, ": ", Quoted(module)); }

  const LoraOption& option_;
  CheckpointContents& contents_;
  std::string file_;
  LoraConfig config_;
  std::map<std::string, Parts> products_;                    // by module
  std::vector<std::pair<AdapterName, StoredTensor>> whole_;  // that take the model's place
  absl::flat_hash_set<TensorKey> replaced_;
  Sha256 digest_;
};

// By SettleInputOrders (input_order.h).
bool IsReordered(const StoredTensor& tensor) {
  return tensor.rows.order != nullptr || tensor.info.input_order != nullptr ||
         (tensor.linear != nullptr && tensor.linear->input_order != nullptr);
}

absl::Status Merger::ReadFiles() {
  const std::string config_path = option_.path + "/adapter_config.json";
  BW_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(config_path, kJsonBytesMax));
  absl::StatusOr<LoraConfig> config = ParseLoraConfig(text);
  if (!config.ok()) return Annotate(config.status(), config_path);
  config_ = *std::move(config);
  digest_.AddLine(Describe(config_));
  file_ = option_.path + "/adapter_model.safetensors";
  if (!FileExists(file_)) file_ = option_.path + "/adapter_model.bin";
  BW_ASSIGN_OR_RETURN(const std::shared_ptr<const FileMapping> file, FileMapping::Open(file_));
  const absl::StatusOr<TensorTableFile> table = ReadTensorTable(file->bytes());
  if (!table.ok()) return Annotate(table.status(), file_);
  if (table->tensors.empty()) return absl::InvalidArgumentError(absl::StrCat(file_, " holds no tensors"));
  for (const FileTensor& tensor : table->tensors) BW_RETURN_IF_ERROR(Sort(tensor, file));
  return CheckModules();
}

bool IsCalled(std::string_view module, const std::string& name) {
  return module == name || module.ends_with("." + name);
}

// What adapter_config.json lists must be in the file: a module that was saved whole and is not there would be
// the base's. PEFT passes over names that the model does not have.
absl::Status Merger::CheckModules() {
  const auto model_has = [&](const std::string& name) {
    return std::any_of(contents_.tensors.begin(), contents_.tensors.end(), [&](const auto& entry) {
      const std::string tensor = HuggingFaceNameOf(contents_.config.architecture, entry.first);
      std::string_view module = tensor;
      return TakeWeightOrBias(module).has_value() && IsCalled(module, name);
    });
  };
  for (const std::string& name : config_.saved) {
    const bool there = std::any_of(whole_.begin(), whole_.end(),
                                   [&](const auto& whole) { return IsCalled(whole.first.module, name); });
    if (there || !(model_has(name) || name == "lm_head")) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(file_, " holds no ", Quoted(name),
                     ", which adapter_config.json says was saved whole ('modules_to_save')"));
  }
  for (const std::string& name : config_.targets) {
    const bool there = std::any_of(products_.begin(), products_.end(),
                                   [&](const auto& product) { return IsCalled(product.first, name); });
    if (there) continue;
    contents_.warnings.push_back(absl::StrCat(file_, " changes no module ", Quoted(name),
                                              ", which adapter_config.json lists ('target_modules')"));
  }
  return absl::OkStatus();
}

absl::Status Merger::Sort(const FileTensor& tensor, const std::shared_ptr<const FileMapping>& file) {
  const std::string source = absl::StrCat(file_, ": tensor ", Quoted(tensor.name));
  const absl::StatusOr<AdapterName> name = ParseName(tensor.name);
  if (!name.ok())
    return absl::Status(name.status().code(), absl::StrCat(source, " ", name.status().message()));
  BW_ASSIGN_OR_RETURN(StoredTensor stored, StoreTensor(tensor, file, source));
  digest_.AddLine(tensor.name);
  AddSamples(stored, digest_);
  if (name->part == Part::kWhole) {
    whole_.emplace_back(*name, std::move(stored));
    return absl::OkStatus();
  }
  std::optional<StoredTensor>& place = products_[name->module][static_cast<int>(name->part)];
  if (place.has_value()) return absl::InvalidArgumentError(absl::StrCat(source, " is there twice"));
  place = std::move(stored);
  return absl::OkStatus();
}

absl::StatusOr<HuggingFaceName> Merger::KeyOf(const std::string& module, bool bias) const {
  const std::string name = absl::StrCat(module, bias ? ".bias" : ".weight");
  const auto parsed = ParseHuggingFaceName(contents_.config.architecture, name);
  if (parsed.has_value() && !parsed->ignored && parsed->part == LinearPart::kNone &&
      parsed->key.layer < contents_.config.layers) {
    return *parsed;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(Source(module), " is no part of ", contents_.path, ": the adapter is of another model"));
}

RowMap Merger::FusedRows(int part) const {
  const int64_t head = contents_.config.head_dim;
  return {.head_rows = head, .head_stride = 3 * head, .first = part * head};
}

absl::Status Merger::Replace(const TensorKey& key, StoredTensor tensor) {
  const auto found = contents_.tensors.find(key);
  if (found == contents_.tensors.end()) {
    if (key == TensorKey{TensorRole::kHead} && contents_.config.tied_head) {
      contents_.config.tied_head = false;  // it has one of its own from now on
      tensor.info.format = contents_.tensors.at(TensorKey{TensorRole::kEmbedding}).info.format;
      tensor.rounded = true;
      contents_.tensors.emplace(key, std::move(tensor));
      replaced_.insert(key);
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(absl::StrCat(tensor.info.source, ": the model has no ", Name(key)));
  }
  StoredTensor& old = found->second;
  const bool vocabulary = key == TensorKey{TensorRole::kEmbedding} || key == TensorKey{TensorRole::kHead};
  if (tensor.info.cols != old.info.cols || (!vocabulary && tensor.info.rows != old.info.rows)) {
    return absl::InvalidArgumentError(absl::StrCat(tensor.info.source, " is ", tensor.info.rows, " x ",
                                                   tensor.info.cols, ", the model's ", Name(key), " ",
                                                   old.info.rows, " x ", old.info.cols));
  }
  if (IsReordered(old)) {
    return absl::UnimplementedError(absl::StrCat(tensor.info.source, " replaces the ", Name(key),
                                                 ", whose rows or columns stand in the order of a quantised "
                                                 "matrix (desc_act): give the model's float weights"));
  }
  if (!replaced_.insert(key).second || absl::StrContains(old.info.source, "/adapter_model.")) {
    return absl::InvalidArgumentError(absl::StrCat(
        tensor.info.source, " replaces what an adapter has replaced already: ", old.info.source));
  }
  // In the model's type, as PEFT loads it.
  if (!IsQuantized(old.info.format.format)) tensor.info.format = old.info.format;
  tensor.rounded = true;
  old = std::move(tensor);
  return absl::OkStatus();
}

absl::Status Merger::ReplaceAll() {
  for (auto& [name, tensor] : whole_) {
    BW_ASSIGN_OR_RETURN(const HuggingFaceName target, KeyOf(name.module, name.bias));
    if (!target.fused_qkv) {
      BW_RETURN_IF_ERROR(Replace(target.key, std::move(tensor)));
      continue;
    }
    for (int part = 0; part < 3; ++part) {
      StoredTensor third = tensor;
      int64_t& length = name.bias ? third.info.cols : third.info.rows;
      if (length % 3 != 0)
        return absl::InvalidArgumentError(absl::StrCat(tensor.info.source, " is not fused"));
      length /= 3;
      third.rows = FusedRows(part);
      third.vector_mapped = name.bias;
      BW_RETURN_IF_ERROR(Replace({kQueryKeyValue[part], target.key.layer, name.bias}, std::move(third)));
    }
  }
  return SettleVocabulary();
}

// Embedding and head may have grown together.
absl::Status Merger::SettleVocabulary() {
  const TensorKey embedding{TensorRole::kEmbedding}, head{TensorRole::kHead};
  if (contents_.config.tied_head && replaced_.contains(embedding)) {
    return absl::UnimplementedError(
        absl::StrCat(file_,
                     " replaces the embedding, of which the model's head is a copy that stays as it was: "
                     "give an adapter that has both"));
  }
  const TensorInfo& info = contents_.tensors.at(embedding).info;
  if (!contents_.config.tied_head && contents_.tensors.at(head).info.rows != info.rows) {
    return absl::InvalidArgumentError(absl::StrCat(file_, ": the embedding has ", info.rows,
                                                   " rows, the head ", contents_.tensors.at(head).info.rows));
  }
  if (info.rows > kVocabMax) return absl::InvalidArgumentError(absl::StrCat(info.source, ": too many rows"));
  if (info.rows == contents_.config.vocab) return absl::OkStatus();
  contents_.config.vocab = static_cast<int32_t>(info.rows);
  const std::string& dir = option_.path;
  if (!FileExists(dir + "/tokenizer.json") && !FileExists(dir + "/tokenizer.model")) return absl::OkStatus();
  LogInfo(dir, " enlarges the vocabulary to ", info.rows, ": its tokenizer is used");
  contents_.tokenizer = {.directory = dir};
  return absl::OkStatus();
}

absl::Status Merger::AddTo(const TensorKey& key, const StoredTensor& left, const StoredTensor& right,
                           const RowMap& rows, double scale) {
  const bool tied = contents_.config.tied_head && key == TensorKey{TensorRole::kHead};
  const auto found = contents_.tensors.find(key);
  if (tied || (contents_.config.tied_head && key.role == TensorRole::kEmbedding)) {
    return absl::UnimplementedError(absl::StrCat(
        left.info.source, " changes one of embedding and head, which are one matrix in this model"));
  }
  if (found == contents_.tensors.end())
    return absl::InvalidArgumentError(absl::StrCat(left.info.source, ": the model has no ", Name(key)));
  StoredTensor& tensor = found->second;
  if (IsQuantized(tensor.info.format.format) || tensor.linear != nullptr || IsReordered(tensor)) {
    return absl::UnimplementedError(
        absl::StrCat(tensor.info.source, ": the ", Name(key), " is quantised, so that ", file_,
                     " cannot be merged into it: give the model's float weights"));
  }
  tensor.adjustments.push_back(std::make_shared<const LowRank>(left, right, rows, static_cast<float>(scale)));
  tensor.rounded = true;
  return absl::OkStatus();
}

// The same matrix the other way round.
StoredTensor Transposed(StoredTensor tensor) {
  const Strides strides = tensor.strides.value_or(Strides{.row = tensor.info.cols, .col = 1});
  tensor.strides = Strides{.row = strides.col, .col = strides.row};
  std::swap(tensor.info.rows, tensor.info.cols);
  return tensor;
}

absl::Status Merger::AddProduct(const std::string& module, const Parts& parts) {
  const auto& [a, b, embedding_a, embedding_b] = parts;
  const bool embedding =
      embedding_a.has_value() && embedding_b.has_value() && !a.has_value() && !b.has_value();
  const bool linear = a.has_value() && b.has_value() && !embedding_a.has_value() && !embedding_b.has_value();
  if (embedding == linear)
    return absl::InvalidArgumentError(absl::StrCat(Source(module), " has not both of its matrices A and B"));
  // Of an embedding A is [rank, vocabulary] and B [hidden, rank]: their product is its transposed.
  const StoredTensor left = embedding ? Transposed(*embedding_a) : *b;
  const StoredTensor right = embedding ? Transposed(*embedding_b) : *a;
  BW_ASSIGN_OR_RETURN(const HuggingFaceName target, KeyOf(module, /*bias=*/false));
  BW_ASSIGN_OR_RETURN(const int64_t rank, LoraRank(config_, module));
  BW_ASSIGN_OR_RETURN(const double scale, LoraScale(config_, module));
  const TensorKey key = target.key;
  if (embedding != (key.role == TensorRole::kEmbedding))
    return absl::InvalidArgumentError(absl::StrCat(Source(module), " has the matrices of another kind"));
  const auto found = contents_.tensors.find(key);
  const TensorInfo whole = found == contents_.tensors.end() ? TensorInfo{} : found->second.info;
  const int64_t rows = whole.rows * (target.fused_qkv ? 3 : 1);
  if (left.info.cols != rank || right.info.rows != rank)
    return absl::InvalidArgumentError(
        absl::StrCat(Source(module), " has the rank ", right.info.rows, ", adapter_config.json says ", rank));
  if (found != contents_.tensors.end() && (left.info.rows != rows || right.info.cols != whole.cols)) {
    return absl::InvalidArgumentError(absl::StrCat(Source(module), " is for a matrix of ", left.info.rows,
                                                   " x ", right.info.cols, ", the model's is ", rows, " x ",
                                                   whole.cols));
  }
  if (!target.fused_qkv) return AddTo(key, left, right, {}, scale * option_.scale);
  for (int part = 0; part < 3; ++part) {
    BW_RETURN_IF_ERROR(
        AddTo({kQueryKeyValue[part], key.layer}, left, right, FusedRows(part), scale * option_.scale));
  }
  return absl::OkStatus();
}

absl::Status Merger::AddProducts() {
  for (const auto& [module, parts] : products_) BW_RETURN_IF_ERROR(AddProduct(module, parts));
  return absl::OkStatus();
}

absl::Status Merger::Merge() {
  BW_RETURN_IF_ERROR(ReadFiles());
  BW_RETURN_IF_ERROR(ReplaceAll());
  BW_RETURN_IF_ERROR(AddProducts());
  BW_ASSIGN_OR_RETURN(const std::string digest, digest_.ShortDigest());
  std::string& reading = contents_.reading["lora"];
  absl::StrAppend(&reading, reading.empty() ? "" : ",", digest, ":", option_.scale);
  return absl::OkStatus();
}

}  // namespace

absl::Status MergeLora(const LoraOption& option, CheckpointContents& contents) {
  return Merger(option, contents).Merge();
}

}  // namespace bellwether
