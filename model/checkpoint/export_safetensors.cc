#include "model/checkpoint/export_safetensors.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/json.h"
#include "common/new_file.h"
#include "common/status.h"
#include "model/checkpoint/file_mapping.h"
#include "model/checkpoint/hub_cache.h"
#include "model/checkpoint/hugging_face_names.h"
#include "model/json_object.h"
#include "model/layer_tensors.h"

namespace bellwether {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kValuesPerRead = int64_t{1} << 20;
constexpr const char* kTokenizerFiles[] = {"tokenizer.json",        "tokenizer.model",
                                           "tokenizer_config.json", "special_tokens_map.json",
                                           "added_tokens.json",     "chat_template.jinja"};

// A tensor to write: one of ours, or BLOOM's query, key and value as one, head by head.
struct Output {
  std::string name;
  std::vector<TensorKey> keys;
  int64_t rows = 0, cols = 0;  // 1 row for vectors
  WeightFormat format = WeightFormat::kF32;

  bool vector() const { return keys[0].bias || IsNorm(keys[0].role); }
  int64_t element_bytes() const { return format == WeightFormat::kF32 ? 4 : 2; }
  int64_t bytes() const { return rows * cols * element_bytes(); }
};

std::string DTypeText(WeightFormat format) {
  return format == WeightFormat::kF32 ? "F32" : format == WeightFormat::kBF16 ? "BF16" : "F16";
}

absl::StatusOr<std::vector<Output>> OutputsOf(const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  const bool fused = config.architecture == Architecture::kBloom;
  std::vector<Output> outputs;
  for (const TensorKey& key : checkpoint.Keys()) {
    const TensorInfo& info = *checkpoint.Find(key);
    if (IsQuantized(info.format.format)) {
      return absl::UnimplementedError(
          absl::StrCat(info.source, " is quantised; models of floats can be written as safetensors"));
    }
    if (fused && (key.role == TensorRole::kKey || key.role == TensorRole::kValue)) continue;
    Output output{.name = HuggingFaceNameOf(config.architecture, key),
                  .keys = {key},
                  .rows = info.rows,
                  .cols = info.cols,
                  .format = info.format.format};
    if (fused && key.role == TensorRole::kQuery) {
      output.keys = {key, {TensorRole::kKey, key.layer, key.bias}, {TensorRole::kValue, key.layer, key.bias}};
      (key.bias ? output.cols : output.rows) *= 3;
    }
    outputs.push_back(std::move(output));
  }
  return outputs;
}

std::vector<std::vector<Output>> Shards(const std::vector<Output>& outputs, int64_t shard_bytes) {
  std::vector<std::vector<Output>> shards(1);
  int64_t bytes = 0;
  for (const Output& output : outputs) {
    if (bytes > 0 && bytes + output.bytes() > shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += output.bytes();
    shards.back().push_back(output);
  }
  return shards;
}

std::string Header(const std::vector<Output>& outputs, const std::string& note) {
  Json header = Json::object();
  header["__metadata__"] = Json::object({{"format", "pt"}});
  if (!note.empty()) header["__metadata__"]["bellwether"] = note;
  int64_t at = 0;
  for (const Output& output : outputs) {
    Json shape = output.vector() ? Json::array({output.cols}) : Json::array({output.rows, output.cols});
    header[output.name] = Json::object({{"dtype", DTypeText(output.format)},
                                        {"shape", std::move(shape)},
                                        {"data_offsets", Json::array({at, at + output.bytes()})}});
    at += output.bytes();
  }
  std::string text = WriteJson(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const auto length = static_cast<uint64_t>(text.size());
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + text;
}

absl::Status Append(NewFile& file, const std::string& text) {
  return file.Append({reinterpret_cast<const std::byte*>(text.data()), text.size()});
}

class Writer {
 public:
  Writer(const Checkpoint& checkpoint, const ExportOptions& options, int64_t all)
      : checkpoint_(checkpoint), options_(options), all_(all) {}

  absl::Status WriteFile(const std::string& name, const std::vector<Output>& outputs);

 private:
  absl::Status WriteTensor(const Output& output, NewFile& file);
  // Rows [begin, end) of one of our tensors, or all of a vector's columns [begin, end).
  absl::Status WriteRows(const TensorKey& key, const TensorWindow& window, WeightFormat format,
                         NewFile& file);

  const Checkpoint& checkpoint_;
  const ExportOptions& options_;
  const int64_t all_;
  int64_t done_ = 0;
  std::vector<float> values_;
  std::vector<std::byte> bytes_;
};

void Encode(WeightFormat format, absl::Span<const float> values, std::vector<std::byte>& bytes) {
  if (format == WeightFormat::kF32) {
    bytes.resize(values.size() * 4);
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return;
  }
  bytes.resize(values.size() * 2);
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits = format == WeightFormat::kBF16 ? BF16FromF32(values[i]) : F16FromF32(values[i]);
    std::memcpy(bytes.data() + 2 * i, &bits, sizeof(bits));
  }
}

absl::Status Writer::WriteRows(const TensorKey& key, const TensorWindow& window, WeightFormat format,
                               NewFile& file) {
  values_.resize((window.row_end - window.row_begin) * (window.col_end - window.col_begin));
  BW_RETURN_IF_ERROR(checkpoint_.ReadFloats(key, window, absl::MakeSpan(values_)));
  Encode(format, values_, bytes_);
  BW_RETURN_IF_ERROR(file.Append(bytes_));
  done_ += static_cast<int64_t>(bytes_.size());
  if (options_.progress && !options_.progress(done_, all_)) return absl::CancelledError("stopped");
  return absl::OkStatus();
}

absl::Status Writer::WriteTensor(const Output& output, NewFile& file) {
  const bool vector = output.vector();
  const int64_t head = checkpoint_.config().head_dim;
  const int64_t length = (vector ? output.cols : output.rows) / static_cast<int64_t>(output.keys.size());
  const int64_t step = output.keys.size() > 1 ? head
                       : vector               ? length
                                              : std::max<int64_t>(1, kValuesPerRead / output.cols);
  for (int64_t begin = 0; begin < length; begin += step) {
    const int64_t end = std::min(begin + step, length);
    const TensorWindow window =
        vector ? TensorWindow{0, 1, begin, end} : TensorWindow{begin, end, 0, output.cols};
    for (const TensorKey& key : output.keys) BW_RETURN_IF_ERROR(WriteRows(key, window, output.format, file));
  }
  for (const TensorKey& key : output.keys) checkpoint_.DropPages(key);
  return absl::OkStatus();
}

absl::Status Writer::WriteFile(const std::string& name, const std::vector<Output>& outputs) {
  BW_ASSIGN_OR_RETURN(NewFile file, NewFile::Create(absl::StrCat(options_.directory, "/", name)));
  BW_RETURN_IF_ERROR(Append(file, Header(outputs, options_.note)));
  for (const Output& output : outputs) BW_RETURN_IF_ERROR(WriteTensor(output, file));
  return file.Finish();
}

absl::Status WriteText(const std::string& path, const std::string& text) {
  BW_ASSIGN_OR_RETURN(NewFile file, NewFile::Create(path));
  BW_RETURN_IF_ERROR(Append(file, text));
  return file.Finish();
}

std::string SourceDirectory(const Checkpoint& checkpoint) {
  std::error_code error;
  const fs::path path = checkpoint.path();
  return fs::is_directory(path, error) ? path.string()
         : path.has_parent_path()      ? path.parent_path().string()
                                       : ".";
}

// What config.json says where the model has none of Hugging Face's.
Json MadeConfig(const ModelConfig& config) {
  Json json = Json::object({{"architectures", Json::array({"LlamaForCausalLM"})},
                            {"model_type", "llama"},
                            {"hidden_act", "silu"},
                            {"hidden_size", config.hidden},
                            {"intermediate_size", config.ffn},
                            {"num_hidden_layers", config.layers},
                            {"num_attention_heads", config.heads},
                            {"num_key_value_heads", config.kv_heads},
                            {"head_dim", config.head_dim},
                            {"max_position_embeddings", config.max_positions},
                            {"rms_norm_eps", config.norm_epsilon},
                            {"rope_theta", config.rope_theta},
                            {"tie_word_embeddings", config.tied_head},
                            {"eos_token_id", config.eos}});
  if (config.bos.has_value()) json["bos_token_id"] = *config.bos;
  if (const auto& scaling = config.rope_scaling) {
    json["rope_scaling"] = Json::object(
        {{"rope_type", "llama3"},
         {"factor", scaling->factor},
         {"low_freq_factor", scaling->low_frequency_factor},
         {"high_freq_factor", scaling->high_frequency_factor},
         {"original_max_position_embeddings", static_cast<int64_t>(scaling->original_max_positions)}});
  }
  return json;
}

absl::StatusOr<std::string> ConfigText(const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  const std::string path = SourceDirectory(checkpoint) + "/config.json";
  const absl::StatusOr<std::string> text = ReadSmallFile(path, kJsonBytesMax);
  Json json;
  if (text.ok()) {
    BW_ASSIGN_OR_RETURN(json, ParseJsonObject(*text));
  } else if (absl::IsNotFound(text.status())) {
    json = MadeConfig(config);
  } else {
    return text.status();
  }
  const WeightFormat format = checkpoint.Find(TensorKey{TensorRole::kQuery})->format.format;
  json["torch_dtype"] = format == WeightFormat::kF32    ? "float32"
                        : format == WeightFormat::kBF16 ? "bfloat16"
                                                        : "float16";
  json["vocab_size"] = config.vocab;
  json["tie_word_embeddings"] = config.tied_head;
  return WriteJson(json, /*indent=*/2) + "\n";
}

absl::Status CopyIfThere(const std::string& from, const std::string& to) {
  std::error_code error;
  if (!fs::exists(from, error)) return absl::OkStatus();
  fs::copy_file(from, to, fs::copy_options::none, error);
  if (!error) return absl::OkStatus();
  return absl::UnknownError(absl::StrCat("cannot copy ", from, " to ", to, ": ", error.message()));
}

// Those of an adapter with a tokenizer of its own come first; Meta's may lie one directory up.
absl::Status CopyTokenizer(const Checkpoint& checkpoint, const ExportOptions& options) {
  std::vector<std::string> places;
  for (const LoraOption& lora : options.read.lora) {
    BW_ASSIGN_OR_RETURN(const std::string place, ResolveModel(lora.path));
    places.insert(places.begin(), place);
  }
  const std::string source = SourceDirectory(checkpoint);
  places.push_back(source);
  if (checkpoint.container() == "meta") places.push_back(source + "/..");
  std::error_code error;
  for (const std::string& place : places) {
    if (!fs::exists(place + "/tokenizer.json", error) && !fs::exists(place + "/tokenizer.model", error))
      continue;
    for (const char* name : kTokenizerFiles) {
      BW_RETURN_IF_ERROR(
          CopyIfThere(absl::StrCat(place, "/", name), absl::StrCat(options.directory, "/", name)));
    }
    break;
  }
  return CopyIfThere(source + "/generation_config.json", options.directory + "/generation_config.json");
}

}  // namespace

absl::Status ExportSafetensors(const Checkpoint& checkpoint, const ExportOptions& options) {
  const std::string& container = checkpoint.container();
  if (container != "safetensors" && container != "torch" && container != "meta") {
    return absl::UnimplementedError(absl::StrCat(checkpoint.path(), " is ", container,
                                                 "; files of safetensors, torch and Meta can be written"));
  }
  BW_ASSIGN_OR_RETURN(const std::vector<Output> outputs, OutputsOf(checkpoint));
  std::error_code error;
  fs::create_directories(options.directory, error);
  if (error)
    return absl::UnknownError(absl::StrCat("cannot make ", options.directory, ": ", error.message()));
  BW_ASSIGN_OR_RETURN(const std::string config, ConfigText(checkpoint));
  BW_RETURN_IF_ERROR(WriteText(options.directory + "/config.json", config));
  BW_RETURN_IF_ERROR(CopyTokenizer(checkpoint, options));

  int64_t all = 0;
  for (const Output& output : outputs) all += output.bytes();
  Writer writer(checkpoint, options, all);
  const std::vector<std::vector<Output>> shards = Shards(outputs, options.shard_bytes);
  if (shards.size() == 1) return writer.WriteFile("model.safetensors", shards[0]);
  Json index = Json::object({{"metadata", Json::object({{"total_size", all}})}});
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, shards.size());
    for (const Output& output : shards[i]) index["weight_map"][output.name] = name;
    BW_RETURN_IF_ERROR(writer.WriteFile(name, shards[i]));
  }
  return WriteText(options.directory + "/model.safetensors.index.json",
                   WriteJson(index, /*indent=*/2) + "\n");
}

}  // namespace bellwether
