#include "model/checkpoint/hugging_face.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/log.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/checkpoint/expected_tensors.h"
#include "model/checkpoint/input_order.h"
#include "model/checkpoint/named_tensor.h"
#include "model/checkpoint/quantization_settings.h"
#include "model/checkpoint/quantized_linear.h"
#include "model/checkpoint/quantized_tensors.h"
#include "model/checkpoint/stored_tensor.h"
#include "model/checkpoint/tensor_table_file.h"
#include "model/checkpoint/weight_files.h"
#include "model/generation_defaults.h"
#include "model/json_object.h"

namespace bellwether {
namespace {

constexpr size_t kNamedFilesMax = 16;  // in a line of the log

// Nothing if there is no such file; one that cannot be read is an error.
absl::StatusOr<std::optional<std::string>> ReadIfThere(const std::string& path) {
  absl::StatusOr<std::string> text = ReadSmallFile(path, kJsonBytesMax);
  if (absl::IsNotFound(text.status())) return std::nullopt;
  BW_RETURN_IF_ERROR(text.status());
  return *std::move(text);
}

void LogPassedOver(const std::string& dir, const WeightFiles& files) {
  if (files.passed_over.empty()) return;
  const size_t named = std::min(files.passed_over.size(), kNamedFilesMax);
  std::string names;
  for (size_t i = 0; i < named; ++i) absl::StrAppend(&names, i > 0 ? ", " : "", Quoted(files.passed_over[i]));
  if (named < files.passed_over.size()) names += " ...";
  LogInfo(dir, ": the weights are in ", Quoted(files.chosen.front()),
          files.chosen.size() > 1 ? absl::StrCat(" and ", files.chosen.size() - 1, " more") : "",
          "; passed over: ", names);
}

// Without what trainers put before the names of a model that they wrap.
std::string_view Unwrapped(std::string_view name) {
  while (name.starts_with("module.")) name.remove_prefix(7);
  for (const std::string_view inner : {"model.model.", "model.transformer.", "model.lm_head."}) {
    if (name.starts_with(inner)) name.remove_prefix(6);
  }
  return name;
}

// What the directory's index says that a file holds is there: a shard that lacks a tensor is another one than
// the index was made for. transformers would begin with a random tensor in its place.
absl::Status CheckHolds(const std::string& path, const std::vector<std::string>& promised,
                        const ModelConfig& config, const std::vector<FileTensor>& tensors) {
  absl::flat_hash_set<std::string_view> names;
  for (const FileTensor& tensor : tensors) names.insert({tensor.name, Unwrapped(tensor.name)});
  for (const std::string& promise : promised) {
    if (names.contains(promise) || names.contains(Unwrapped(promise))) continue;
    const std::optional<HuggingFaceName> name = ParseHuggingFaceName(config.architecture, Unwrapped(promise));
    const bool tied = name.has_value() && config.tied_head && name->key.role == TensorRole::kHead;
    if (name.has_value() && (name->ignored || tied)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(path, " does not hold the tensor ", Quoted(promise), ", which the index says is in it"));
  }
  return absl::OkStatus();
}

// What the files of a directory hold.
struct Collected {
  std::vector<NamedTensor> tensors;
  TensorContainer container = TensorContainer::kSafetensors;
  std::string note;
};

absl::Status CollectTensors(const std::string& path, const ModelConfig& config,
                            const std::vector<std::string>& promised, Collected& out) {
  BW_ASSIGN_OR_RETURN(const std::shared_ptr<const FileMapping> file, FileMapping::Open(path));
  absl::StatusOr<TensorTableFile> table = ReadTensorTable(file->bytes());
  if (!table.ok()) return Annotate(table.status(), path);
  out.container = table->container;
  AddNote(table->note, out.note);
  BW_RETURN_IF_ERROR(CheckHolds(path, promised, config, table->tensors));
  for (FileTensor& entry : table->tensors) {
    const std::string_view own_name =
        out.container == TensorContainer::kTorch ? Unwrapped(entry.name) : entry.name;
    const std::optional<HuggingFaceName> name = ParseHuggingFaceName(config.architecture, own_name);
    const std::string source = absl::StrCat(path, ": tensor '", entry.name, "'");
    if (!name.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(
          source,
          " is not known in this family of models; it may change the maths, so it is not passed over"));
    }
    if (name->ignored) continue;
    if (name->key.layer >= config.layers) {
      return absl::InvalidArgumentError(
          absl::StrCat(source, " lies beyond the ", config.layers, " layers of the config"));
    }
    out.tensors.push_back({*name, std::move(entry), file, source});
  }
  return absl::OkStatus();
}

// Rows (or a bias' elements) of BLOOM's fused tensor come in the order [head][query, key, value][head_dim].
absl::Status AddFused(int32_t layer, bool bias, const StoredTensor& stored, const ModelConfig& config,
                      TensorTable& table) {
  const int64_t each = int64_t{config.heads} * config.head_dim;
  const int64_t length = bias ? stored.info.cols : stored.info.rows;
  if (length != 3 * each) {
    return absl::InvalidArgumentError(
        absl::StrCat(stored.info.source, " has ", length, " rows but the config asks for ", 3 * each));
  }
  for (int part = 0; part < 3; ++part) {
    StoredTensor third = stored;
    (bias ? third.info.cols : third.info.rows) = each;
    third.rows = {.head_rows = config.head_dim,
                  .head_stride = int64_t{3} * config.head_dim,
                  .first = int64_t{part} * config.head_dim};
    third.vector_mapped = bias;
    BW_RETURN_IF_ERROR(table.Add({kQueryKeyValue[part], layer, bias}, third));
  }
  return absl::OkStatus();
}

absl::Status Add(const HuggingFaceName& name, const StoredTensor& stored, const ModelConfig& config,
                 TensorTable& table) {
  if (name.fused_qkv) return AddFused(name.key.layer, name.key.bias, stored, config, table);
  return table.Add(name.key, stored);
}

absl::Status AddTensors(const std::vector<NamedTensor>& tensors, const ModelConfig& config,
                        const QuantizationConfig& quantization, TensorTable& table) {
  for (const NamedTensor& tensor : tensors) {
    if (tensor.name.part != LinearPart::kNone) continue;
    BW_ASSIGN_OR_RETURN(const StoredTensor stored, StoreTensor(tensor.entry, tensor.file, tensor.source));
    BW_RETURN_IF_ERROR(Add(tensor.name, stored, config, table));
  }
  BW_ASSIGN_OR_RETURN(const std::vector<AssembledTensor> assembled,
                      AssembleQuantized(tensors, quantization, table));
  for (const AssembledTensor& matrix : assembled)
    BW_RETURN_IF_ERROR(Add(matrix.name, matrix.tensor, config, table));
  return absl::OkStatus();
}

bool IsQuantized(const std::vector<NamedTensor>& tensors) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const NamedTensor& tensor) { return tensor.name.part != LinearPart::kNone; });
}

const NamedTensor* Find(const std::vector<NamedTensor>& tensors, TensorRole role) {
  const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const NamedTensor& tensor) {
    const bool whole = tensor.name.part == LinearPart::kNone || role == TensorRole::kHead;
    return whole && tensor.name.key == TensorKey{role};
  });
  return found == tensors.end() ? nullptr : &*found;
}

// Not the family's default, but what somebody wrote.
absl::StatusOr<bool> SaysItsHeadIsNotTied(const std::string& dir) {
  BW_ASSIGN_OR_RETURN(const std::optional<std::string> text, ReadIfThere(absl::StrCat(dir, "/config.json")));
  BW_ASSIGN_OR_RETURN(const Json object, ParseJsonObject(text.value_or("{}")));
  return object["tie_word_embeddings"] == Json(false);
}

// A tied model has one matrix, which some writers store under the head's name: it becomes the embedding. A
// tied model ignores the copy that other files hold beside the embedding.
absl::Status SettleTiedHead(const std::string& dir, std::vector<NamedTensor>& tensors, ModelConfig& config) {
  const NamedTensor* head = Find(tensors, TensorRole::kHead);
  if (head == nullptr) {
    BW_ASSIGN_OR_RETURN(const bool not_tied, SaysItsHeadIsNotTied(dir));
    if (not_tied) {
      return absl::InvalidArgumentError(
          absl::StrCat(dir,
                       ": head weight (lm_head.weight) is missing, and config.json says that it is not the "
                       "embedding ('tie_word_embeddings' is false): is a file of weights missing?"));
    }
    config.tied_head = true;
  }
  // Tools untie what they quantise.
  if (head != nullptr && head->name.part != LinearPart::kNone) config.tied_head = false;
  if (!config.tied_head) return absl::OkStatus();
  const bool has_embedding = Find(tensors, TensorRole::kEmbedding) != nullptr;
  const auto is_head = [](const NamedTensor& tensor) { return tensor.name.key.role == TensorRole::kHead; };
  if (has_embedding) tensors.erase(std::remove_if(tensors.begin(), tensors.end(), is_head), tensors.end());
  for (NamedTensor& tensor : tensors) {
    if (is_head(tensor)) tensor.name.key.role = TensorRole::kEmbedding;
  }
  return absl::OkStatus();
}

// The embedding's rows are the vocabulary, whatever the config says.
absl::Status CorrectVocabulary(const std::string& dir, const std::vector<NamedTensor>& tensors,
                               ModelConfig& config) {
  const NamedTensor* embedding = Find(tensors, TensorRole::kEmbedding);
  if (embedding == nullptr)
    return absl::InvalidArgumentError(absl::StrCat(dir, ": embedding weight is missing"));
  if (embedding->entry.shape.size() != 2 || embedding->entry.shape[0] < 1 ||
      embedding->entry.shape[0] > kVocabMax) {
    return absl::InvalidArgumentError(absl::StrCat(embedding->source, " has the shape [",
                                                   absl::StrJoin(embedding->entry.shape, ", "),
                                                   "], which is no vocabulary"));
  }
  config.vocab = static_cast<int32_t>(embedding->entry.shape[0]);
  return absl::OkStatus();
}

// config.json and generation_config.json.
absl::Status ReadConfig(const std::string& dir, CheckpointContents& contents) {
  const std::string path = absl::StrCat(dir, "/config.json");
  BW_ASSIGN_OR_RETURN(const std::optional<std::string> text, ReadIfThere(path));
  if (!text.has_value()) {
    absl::Status other = RefuseOtherContainers(dir);
    if (!absl::IsNotFound(other)) return other;
    return absl::NotFoundError(absl::StrCat(dir, ": no config.json, so this is no Hugging Face checkpoint"));
  }
  absl::StatusOr<ModelConfig> config = ParseHuggingFaceConfig(*text);
  if (!config.ok()) return Annotate(config.status(), path);
  const std::string generation_path = absl::StrCat(dir, "/generation_config.json");
  BW_ASSIGN_OR_RETURN(const std::optional<std::string> generation, ReadIfThere(generation_path));
  if (generation.has_value()) {
    BW_RETURN_IF_ERROR(Annotate(MergeGenerationConfig(*generation, *config), generation_path));
    absl::StatusOr<GenerationOptions> defaults = ParseGenerationDefaults(*generation);
    if (!defaults.ok()) return Annotate(defaults.status(), generation_path);
    contents.generation_defaults = *std::move(defaults);
  }
  contents.config = *std::move(config);
  return absl::OkStatus();
}

// From chat_template.jinja, else tokenizer_config.json, where it is a text or a list of named ones.
absl::StatusOr<std::string> ReadChatTemplate(const std::string& dir) {
  BW_ASSIGN_OR_RETURN(std::optional<std::string> jinja,
                      ReadIfThere(absl::StrCat(dir, "/chat_template.jinja")));
  if (jinja.has_value()) return *std::move(jinja);
  const std::string config_path = absl::StrCat(dir, "/tokenizer_config.json");
  BW_ASSIGN_OR_RETURN(const std::optional<std::string> config, ReadIfThere(config_path));
  if (!config.has_value()) return std::string();
  const absl::StatusOr<Json> object = ParseJsonObject(*config);
  if (!object.ok()) return Annotate(object.status(), config_path);
  const Json& found = (*object)["chat_template"];
  for (const Json& named : found) {
    if (named["name"] == "default" && named["template"].is_string()) return named["template"].text();
  }
  return found.text();
}

// GPTQ's second format stores the zeros themselves. A symmetric model in it, whose settings are lost, would
// be read with every zero 1 too large.
void WarnOfSecondFormat(CheckpointContents& contents) {
  const QuantizedLinear* any = nullptr;
  for (const auto& [key, tensor] : contents.tensors) {
    if (tensor.linear == nullptr) continue;
    any = tensor.linear.get();
    if (any->zero_shift == 0 || !AllZerosAre(*any, 1 << (any->bits - 1))) return;
  }
  if (any == nullptr) return;
  contents.warnings.push_back(absl::StrCat(
      contents.path, ": every stored zero is ", 1 << (any->bits - 1), " and read as ",
      (1 << (any->bits - 1)) + 1,
      ": this looks like GPTQ's second format, symmetric, whose settings are missing; if so, put "
      "\"checkpoint_format\": \"gptq_v2\" into quantize_config.json"));
}

// `contents` has the config of the directory.
absl::StatusOr<CheckpointContents> OpenFiles(const std::string& dir, const WeightFiles& files,
                                             const GptqOptions& gptq, CheckpointContents contents) {
  Collected collected;
  for (const std::string& file : files.chosen) {
    const auto found = files.tensors.find(file);
    const auto promised = found == files.tensors.end() ? std::vector<std::string>() : found->second;
    BW_RETURN_IF_ERROR(CollectTensors(absl::StrCat(dir, "/", file), contents.config, promised, collected));
  }
  std::vector<NamedTensor>& tensors = collected.tensors;
  contents.container = Name(collected.container);
  contents.note = std::move(collected.note);
  if (IsQuantized(tensors)) BW_RETURN_IF_ERROR(RemoveZeroBiases(contents.config, tensors));
  BW_RETURN_IF_ERROR(SettleTiedHead(dir, tensors, contents.config));
  BW_RETURN_IF_ERROR(CorrectVocabulary(dir, tensors, contents.config));
  BW_RETURN_IF_ERROR(Annotate(Validate(contents.config), dir));

  TensorTable table(contents.config);
  BW_ASSIGN_OR_RETURN(const QuantizationSettings settings, ReadQuantizationSettings(dir));
  BW_ASSIGN_OR_RETURN(const QuantizationConfig quantization, MergeQuantization(settings, gptq));
  BW_RETURN_IF_ERROR(AddTensors(tensors, contents.config, quantization, table));
  auto finished = std::move(table).Finish();
  if (!finished.ok()) return Annotate(finished.status(), dir);
  contents.tensors = *std::move(finished);
  WarnOfSecondFormat(contents);
  BW_RETURN_IF_ERROR(SettleInputOrders(contents.config, contents.tensors));
  BW_ASSIGN_OR_RETURN(contents.chat_template_text, ReadChatTemplate(dir));
  contents.config_directory = contents.tokenizer.directory = dir;
  return contents;
}

}  // namespace

absl::StatusOr<CheckpointContents> OpenHuggingFaceDirectory(const std::string& dir, const GptqOptions& gptq) {
  CheckpointContents contents{.path = dir};
  BW_RETURN_IF_ERROR(ReadConfig(dir, contents));
  BW_ASSIGN_OR_RETURN(const WeightFiles files, FindWeightFiles(dir));
  LogPassedOver(dir, files);
  return OpenFiles(dir, files, gptq, std::move(contents));
}

absl::StatusOr<CheckpointContents> OpenHuggingFaceFile(const std::string& path, const GptqOptions& gptq) {
  const size_t slash = path.rfind('/');
  const std::string dir = slash == std::string::npos ? "." : path.substr(0, std::max<size_t>(slash, 1));
  CheckpointContents contents{.path = path};
  BW_RETURN_IF_ERROR(ReadConfig(dir, contents));
  return OpenFiles(dir, {.chosen = {path.substr(slash + 1)}}, gptq, std::move(contents));
}

}  // namespace bellwether
