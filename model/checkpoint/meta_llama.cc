#include "model/checkpoint/meta_llama.h"

#include <cstring>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/checkpoint/expected_tensors.h"
#include "model/checkpoint/file_mapping.h"
#include "model/checkpoint/meta_names.h"
#include "model/checkpoint/meta_params.h"
#include "model/checkpoint/stored_tensor.h"
#include "model/checkpoint/tensor_table_file.h"
#include "model/json_object.h"

namespace bellwether {
namespace {

constexpr int kShardsMax = 64;

constexpr std::string_view kRopeTable = "rope.freqs";  // is computed anew

std::string ShardPath(const std::string& dir, int index) {
  return absl::StrCat(dir, absl::StrFormat("/consolidated.%02d.pth", index));
}

// One file, with its tensors by what they are.
struct Shard {
  std::string path;
  absl::flat_hash_map<TensorKey, StoredTensor> tensors;
  bool rope_in_layers = false;
};

absl::StatusOr<Shard> ReadShard(const std::string& path) {
  Shard shard{.path = path};
  BW_ASSIGN_OR_RETURN(const std::shared_ptr<const FileMapping> file, FileMapping::Open(path));
  const absl::StatusOr<TensorTableFile> table = ReadTensorTable(file->bytes());
  if (!table.ok()) return Annotate(table.status(), path);
  for (const FileTensor& tensor : table->tensors) {
    if (tensor.name.ends_with(kRopeTable)) {
      shard.rope_in_layers |= tensor.name.starts_with("layers.");
      continue;
    }
    const std::string source = absl::StrCat(path, ": tensor ", Quoted(tensor.name));
    const std::optional<TensorKey> key = ParseMetaName(tensor.name);
    if (!key.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(
          source, " is not known in Meta's LLaMA; it may change the maths, so it is not passed over"));
    }
    BW_ASSIGN_OR_RETURN(StoredTensor stored, StoreTensor(tensor, file, source));
    if (!shard.tensors.emplace(*key, std::move(stored)).second)
      return absl::InvalidArgumentError(absl::StrCat(source, " is there twice"));
  }
  return shard;
}

absl::StatusOr<std::vector<Shard>> ReadShards(const std::string& dir) {
  std::vector<Shard> shards;
  for (int i = 0; i < kShardsMax; ++i) {
    const std::string path = ShardPath(dir, i);
    if (!FileExists(path)) {
      for (int later = i + 1; later < kShardsMax; ++later) {
        if (FileExists(ShardPath(dir, later)))
          return absl::NotFoundError(absl::StrCat(path, " is missing, where later shards are there"));
      }
      break;
    }
    BW_ASSIGN_OR_RETURN(Shard shard, ReadShard(path));
    shards.push_back(std::move(shard));
  }
  for (const Shard& shard : shards) {
    if (shard.tensors.size() == shards[0].tensors.size()) continue;
    return absl::InvalidArgumentError(absl::StrCat(shard.path, " holds ", shard.tensors.size(), " tensors, ",
                                                   shards[0].path, " ", shards[0].tensors.size()));
  }
  return shards;
}

// The parts of a tensor in all shards.
absl::StatusOr<std::vector<const StoredTensor*>> PartsOf(const TensorKey& key,
                                                         const std::vector<Shard>& shards) {
  std::vector<const StoredTensor*> parts;
  for (const Shard& shard : shards) {
    const auto found = shard.tensors.find(key);
    if (found == shard.tensors.end())
      return absl::InvalidArgumentError(absl::StrCat(shard.path, ": ", Name(key), " is missing"));
    const StoredTensor& part = found->second;
    const StoredTensor& first = parts.empty() ? part : *parts[0];
    if (part.info.rows != first.info.rows || part.info.cols != first.info.cols ||
        part.storage != first.storage) {
      return absl::InvalidArgumentError(
          absl::StrCat(part.info.source, " is ", part.info.rows, " x ", part.info.cols, " of type ",
                       std::string(Name(part.storage)), ", unlike ", first.info.source));
    }
    parts.push_back(&part);
  }
  return parts;
}

// Every shard has all of a norm: shards in which they differ are of different models.
absl::Status CheckSameValues(const std::vector<const StoredTensor*>& parts) {
  const TensorInfo& info = parts[0]->info;
  std::vector<float> first(info.cols), other(info.cols);
  const TensorWindow whole = {0, 1, 0, info.cols};
  DecodeWindow(*parts[0], whole, absl::MakeSpan(first));
  for (const StoredTensor* part : parts) {
    DecodeWindow(*part, whole, absl::MakeSpan(other));
    if (std::memcmp(first.data(), other.data(), first.size() * sizeof(float)) == 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(part->info.source, " has other values than ", info.source,
                                                   ": these are shards of different models"));
  }
  return absl::OkStatus();
}

// Joins the parts to the tensor that the config asks for.
absl::StatusOr<StoredTensor> Join(const ExpectedTensor& expected,
                                  const std::vector<const StoredTensor*>& parts) {
  const TensorInfo& part = parts[0]->info;
  const auto count = static_cast<int64_t>(parts.size());
  if (part.rows == expected.rows && part.cols == expected.cols) {
    if (count == 1 || expected.rows == 1) return *parts[0];
  }
  StoredTensor whole = *parts[0];
  whole.file.reset();
  whole.strides.reset();
  for (const StoredTensor* each : parts) whole.parts.push_back(*each);
  whole.info.rows = expected.rows;
  whole.info.cols = expected.cols;
  whole.parts_are_columns = part.rows == expected.rows;
  if (part.rows * count == expected.rows && part.cols == expected.cols) return whole;
  if (part.rows == expected.rows && part.cols * count == expected.cols) return whole;
  return absl::InvalidArgumentError(absl::StrCat(
      part.source, " is ", part.rows, " x ", part.cols, "; ", count,
      count == 1 ? " such shard" : " such shards", " cannot be joined to the ", Name(expected.key), " of ",
      expected.rows, " x ", expected.cols, " that params.json asks for: is a shard missing?"));
}

absl::StatusOr<int32_t> VocabularyOf(const std::vector<Shard>& shards, int32_t hidden) {
  const TensorKey key{TensorRole::kEmbedding};
  BW_ASSIGN_OR_RETURN(const std::vector<const StoredTensor*> parts, PartsOf(key, shards));
  const TensorInfo& part = parts[0]->info;
  // Llama 3 joins rows, its ancestors columns.
  const int64_t rows = part.cols == hidden ? part.rows * static_cast<int64_t>(parts.size()) : part.rows;
  if (rows < 1 || rows > kVocabMax)
    return absl::InvalidArgumentError(
        absl::StrCat(part.source, " is ", rows, " rows, which is no vocabulary"));
  return static_cast<int32_t>(rows);
}

absl::StatusOr<ModelConfig> ReadConfig(const std::string& dir, const std::vector<Shard>& shards) {
  const std::string path = dir + "/params.json";
  BW_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kJsonBytesMax));
  const absl::StatusOr<MetaParams> params = ParseMetaParams(text);
  if (!params.ok()) return Annotate(params.status(), path);
  BW_ASSIGN_OR_RETURN(const int32_t vocab, VocabularyOf(shards, params->config.hidden));
  ModelConfig config = CompleteMetaConfig(*params, vocab, shards[0].rope_in_layers);
  // Meta stores it in every model, also where its values are the embedding's.
  if (!shards[0].tensors.contains(TensorKey{TensorRole::kHead}))
    return absl::InvalidArgumentError(
        absl::StrCat(shards[0].path, ": head weight (output.weight) is missing"));
  BW_RETURN_IF_ERROR(Annotate(Validate(config), path));
  return config;
}

// Beside the weights, or one directory up, where LLaMA 1 and 2 have it.
std::string TokenizerDirectory(const std::string& dir) {
  const auto holds_one = [](const std::string& place) {
    return FileExists(place + "/tokenizer.json") || FileExists(place + "/tokenizer.model");
  };
  const std::string above = dir + "/..";
  return !holds_one(dir) && holds_one(above) ? above : dir;
}

}  // namespace

bool IsMetaLlama(const std::string& dir) {
  return !FileExists(dir + "/config.json") && FileExists(dir + "/params.json") &&
         FileExists(ShardPath(dir, 0));
}

absl::StatusOr<CheckpointContents> OpenMetaLlama(const std::string& dir) {
  CheckpointContents contents{.path = dir, .container = "meta"};
  BW_ASSIGN_OR_RETURN(const std::vector<Shard> shards, ReadShards(dir));
  BW_ASSIGN_OR_RETURN(contents.config, ReadConfig(dir, shards));
  TensorTable table(contents.config);
  for (const ExpectedTensor& expected : ExpectedTensors(contents.config)) {
    BW_ASSIGN_OR_RETURN(const std::vector<const StoredTensor*> parts, PartsOf(expected.key, shards));
    BW_ASSIGN_OR_RETURN(StoredTensor whole, Join(expected, parts));
    if (expected.rows == 1) BW_RETURN_IF_ERROR(CheckSameValues(parts));
    // The rows of each head lie in interleaved pairs.
    if (expected.key.role == TensorRole::kQuery || expected.key.role == TensorRole::kKey) {
      const int64_t head = contents.config.head_dim;
      whole.rows = {.head_rows = head, .head_stride = head, .interleaved = true};
    }
    BW_RETURN_IF_ERROR(table.Add(expected.key, whole));
  }
  auto finished = std::move(table).Finish();
  if (!finished.ok()) return Annotate(finished.status(), dir);
  contents.tensors = *std::move(finished);
  if (shards[0].tensors.size() != contents.tensors.size()) {
    return absl::InvalidArgumentError(absl::StrCat(dir, " holds ", shards[0].tensors.size(),
                                                   " tensors, params.json asks for ",
                                                   contents.tensors.size()));
  }
  contents.tokenizer.directory = TokenizerDirectory(dir);
  return contents;
}

}  // namespace bellwether
