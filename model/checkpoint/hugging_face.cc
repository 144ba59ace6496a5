#include "model/checkpoint/hugging_face.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status.h"
#include "model/checkpoint/expected_tensors.h"
#include "model/checkpoint/hugging_face_names.h"
#include "model/checkpoint/safetensors.h"
#include "model/json_object.h"

namespace bellwether {
namespace {

constexpr size_t kDirectoryEntriesMax = 100'000;
constexpr size_t kShardsMax = 4096;

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

// Names of the files in a directory, sorted.
std::vector<std::string> ListFiles(const std::string& dir) {
  std::vector<std::string> names;
  DIR* stream = opendir(dir.c_str());
  if (stream == nullptr) return names;
  while (const dirent* entry = readdir(stream)) {
    if (names.size() < kDirectoryEntriesMax) names.push_back(entry->d_name);
  }
  closedir(stream);
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<Json> ReadJson(const std::string& path) {
  BW_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kJsonBytesMax));
  absl::StatusOr<Json> object = ParseJsonObject(text);
  if (!object.ok()) return Annotate(object.status(), path);
  return object;
}

// What a directory without .safetensors files holds, and what to do about it.
absl::Status RefuseOtherContainers(const std::string& dir, const std::vector<std::string>& files) {
  struct Kind {
    const char* suffix;
    const char* means;
  };
  // Other containers will be read here; until then each is named.
  constexpr Kind kKinds[] = {
      {".enc",
       "encrypted BELLE weights: decrypt them with the original LLaMA weights and save as safetensors"},
      {".gguf", "a GGUF file: give its path instead of the directory's"},
      {".bin", "PyTorch weights: convert them with transformers' save_pretrained(safe_serialization=True)"},
      {".pt", "PyTorch weights: convert them to safetensors"},
      {".pth", "Meta's LLaMA weights: convert them with transformers' convert_llama_weights_to_hf"},
      {".ckpt", "PyTorch weights: convert them to safetensors"},
      {".h5", "TensorFlow weights: convert them to safetensors"},
      {".msgpack", "Flax weights: convert them to safetensors"},
      {".onnx", "an ONNX graph: take the checkpoint it was made from"},
  };
  for (const Kind& kind : kKinds) {
    for (const std::string& file : files) {
      if (!absl::EndsWith(file, kind.suffix)) continue;
      return absl::UnimplementedError(absl::StrCat(
          dir, " holds ", file, ", ", kind.means, ". Readable are .safetensors directories and .gguf files"));
    }
  }
  return absl::NotFoundError(
      absl::StrCat(dir, ": no weights; readable are directories with .safetensors files, and .gguf files"));
}

// Files that an index names: in the same directory, all of them there.
absl::StatusOr<std::vector<std::string>> ShardsOfIndex(const std::string& dir,
                                                       const std::string& index_name) {
  const std::string path = absl::StrCat(dir, "/", index_name);
  BW_ASSIGN_OR_RETURN(const Json index, ReadJson(path));
  const Json& map = index["weight_map"];
  if (!map.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": no 'weight_map'"));
  }
  std::set<std::string> names;
  for (const auto& [tensor, file] : map.items()) {
    if (!file.is_string())
      return absl::InvalidArgumentError(absl::StrCat(path, ": no file for '", tensor, "'"));
    const std::string name = file.get<std::string>();
    if (name.empty() || name[0] == '.' || name.find('/') != std::string::npos ||
        name.find('\0') != std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": '", name, "' is not a file of this directory"));
    }
    names.insert(name);
    if (names.size() > kShardsMax) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": more than ", kShardsMax, " files"));
    }
  }
  for (const std::string& name : names) {
    if (!Exists(absl::StrCat(dir, "/", name))) {
      return absl::NotFoundError(absl::StrCat(path, " names ", name, ", which is not there"));
    }
  }
  return std::vector<std::string>(names.begin(), names.end());
}

// The .safetensors files of the checkpoint.
absl::StatusOr<std::vector<std::string>> FindShards(const std::string& dir) {
  const std::vector<std::string> files = ListFiles(dir);
  const auto has = [&](const char* name) { return std::binary_search(files.begin(), files.end(), name); };
  if (has("model.safetensors.index.json")) return ShardsOfIndex(dir, "model.safetensors.index.json");
  if (has("model.safetensors")) return std::vector<std::string>{"model.safetensors"};
  std::vector<std::string> shards;
  for (const std::string& file : files) {
    if (absl::EndsWith(file, ".safetensors")) shards.push_back(file);
  }
  if (shards.empty()) return RefuseOtherContainers(dir, files);
  if (shards.size() > kShardsMax) return absl::InvalidArgumentError(absl::StrCat(dir, ": too many files"));
  return shards;
}

// One tensor of one file, with what its name says.
struct NamedTensor {
  HuggingFaceName name;
  SafetensorsEntry entry;
  std::shared_ptr<const FileMapping> file;
  std::string source;  // "dir/model.safetensors: tensor 'lm_head.weight'"
};

absl::Status CollectTensors(const std::string& path, const ModelConfig& config,
                            std::vector<NamedTensor>& out) {
  BW_ASSIGN_OR_RETURN(const std::shared_ptr<const FileMapping> file, FileMapping::Open(path));
  absl::StatusOr<std::vector<SafetensorsEntry>> entries = ParseSafetensors(file->bytes());
  if (!entries.ok()) return Annotate(entries.status(), path);
  for (SafetensorsEntry& entry : *entries) {
    const std::optional<HuggingFaceName> name = ParseHuggingFaceName(config.architecture, entry.name);
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
    out.push_back({*name, std::move(entry), file, source});
  }
  return absl::OkStatus();
}

absl::StatusOr<StorageType> StorageOf(const NamedTensor& tensor) {
  if (tensor.entry.dtype == "F32") return StorageType::kF32;
  if (tensor.entry.dtype == "F16") return StorageType::kF16;
  if (tensor.entry.dtype == "BF16") return StorageType::kBF16;
  return absl::UnimplementedError(
      absl::StrCat(tensor.source, " has type ", tensor.entry.dtype, "; F32, F16 and BF16 can be read"));
}

absl::Status AddTensor(const NamedTensor& tensor, const ModelConfig& config, TensorTable& table) {
  StoredTensor stored;
  BW_ASSIGN_OR_RETURN(stored.storage, StorageOf(tensor));
  const std::vector<int64_t>& shape = tensor.entry.shape;
  if (shape.empty() || shape.size() > 2) {
    return absl::InvalidArgumentError(absl::StrCat(tensor.source, " has ", shape.size(), " dimensions"));
  }
  stored.info.source = tensor.source;
  stored.info.format = FormatOf(stored.storage);
  stored.info.rows = shape.size() == 2 ? shape[0] : 1;
  stored.info.cols = shape.back();
  stored.file = tensor.file;
  stored.offset = tensor.entry.offset;
  stored.bytes = tensor.entry.bytes;
  if (!tensor.name.fused_qkv) return table.Add(tensor.name.key, stored);

  // BLOOM: rows (or a bias' elements) in the order [head][query, key, value][head_dim].
  const bool bias = tensor.name.key.bias;
  const int64_t each = int64_t{config.heads} * config.head_dim;
  const int64_t length = bias ? stored.info.cols : stored.info.rows;
  if (length != 3 * each) {
    return absl::InvalidArgumentError(
        absl::StrCat(tensor.source, " has ", length, " rows but the config asks for ", 3 * each));
  }
  constexpr TensorRole kParts[] = {TensorRole::kQuery, TensorRole::kKey, TensorRole::kValue};
  for (int part = 0; part < 3; ++part) {
    StoredTensor third = stored;
    (bias ? third.info.cols : third.info.rows) = each;
    third.rows = {.head_rows = config.head_dim,
                  .head_stride = int64_t{3} * config.head_dim,
                  .first = int64_t{part} * config.head_dim};
    third.vector_mapped = bias;
    BW_RETURN_IF_ERROR(table.Add({kParts[part], tensor.name.key.layer, bias}, third));
  }
  return absl::OkStatus();
}

// The embedding's rows are the vocabulary, whatever the config says; no head means a tied one.
absl::Status CorrectConfig(const std::string& dir, const std::vector<NamedTensor>& tensors,
                           ModelConfig& config) {
  bool head = false;
  const NamedTensor* embedding = nullptr;
  for (const NamedTensor& tensor : tensors) {
    head |= tensor.name.key == TensorKey{TensorRole::kHead};
    if (tensor.name.key == TensorKey{TensorRole::kEmbedding}) embedding = &tensor;
  }
  if (!head) config.tied_head = true;
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

absl::StatusOr<ModelConfig> ReadConfig(const std::string& dir) {
  const std::string path = absl::StrCat(dir, "/config.json");
  if (!Exists(path)) {
    const absl::Status other = RefuseOtherContainers(dir, ListFiles(dir));
    if (absl::IsUnimplemented(other)) return other;
    return absl::NotFoundError(absl::StrCat(dir, ": no config.json, so this is no Hugging Face checkpoint"));
  }
  BW_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kJsonBytesMax));
  absl::StatusOr<ModelConfig> config = ParseHuggingFaceConfig(text);
  if (!config.ok()) return Annotate(config.status(), path);
  const std::string generation_path = absl::StrCat(dir, "/generation_config.json");
  if (Exists(generation_path)) {
    BW_ASSIGN_OR_RETURN(const std::string generation, ReadSmallFile(generation_path, kJsonBytesMax));
    BW_RETURN_IF_ERROR(Annotate(MergeGenerationConfig(generation, *config), generation_path));
  }
  return config;
}

// From chat_template.jinja, else tokenizer_config.json, where it is a text or a list of named ones.
absl::StatusOr<std::string> ReadChatTemplate(const std::string& dir) {
  const std::string template_path = absl::StrCat(dir, "/chat_template.jinja");
  if (Exists(template_path)) return ReadSmallFile(template_path, kJsonBytesMax);
  const std::string config_path = absl::StrCat(dir, "/tokenizer_config.json");
  if (!Exists(config_path)) return std::string();
  BW_ASSIGN_OR_RETURN(const Json object, ReadJson(config_path));
  const Json& found = object["chat_template"];
  for (const Json& named : found) {
    if (named["name"] == "default" && named["template"].is_string()) return named["template"].text();
  }
  return found.text();
}

}  // namespace

absl::StatusOr<CheckpointContents> OpenHuggingFaceDirectory(const std::string& dir) {
  CheckpointContents contents;
  contents.path = dir;
  contents.container = "safetensors";
  BW_ASSIGN_OR_RETURN(contents.config, ReadConfig(dir));
  BW_ASSIGN_OR_RETURN(const std::vector<std::string> shards, FindShards(dir));
  std::vector<NamedTensor> tensors;
  for (const std::string& shard : shards) {
    BW_RETURN_IF_ERROR(CollectTensors(absl::StrCat(dir, "/", shard), contents.config, tensors));
  }
  BW_RETURN_IF_ERROR(CorrectConfig(dir, tensors, contents.config));
  BW_RETURN_IF_ERROR(Annotate(Validate(contents.config), dir));

  TensorTable table(contents.config);
  for (const NamedTensor& tensor : tensors) {
    // A tied model ignores the copy of the embedding that some files hold.
    if (contents.config.tied_head && tensor.name.key.role == TensorRole::kHead) continue;
    BW_RETURN_IF_ERROR(AddTensor(tensor, contents.config, table));
  }
  auto finished = std::move(table).Finish();
  if (!finished.ok()) return Annotate(finished.status(), dir);
  contents.tensors = *std::move(finished);
  BW_ASSIGN_OR_RETURN(contents.chat_template_text, ReadChatTemplate(dir));
  contents.load_tokenizer = [dir] { return LoadTokenizerFromDirectory(dir); };
  return contents;
}

}  // namespace bellwether
