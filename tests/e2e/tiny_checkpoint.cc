#include "tests/e2e/tiny_checkpoint.h"

#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/random.h"
#include "nlohmann/json.hpp"

namespace bellwether {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kHidden = 64, kLayers = 2, kHeads = 4, kKvHeads = 2, kHeadDim = 16, kFfn = 172;

// safetensors: the header's length as 8 bytes, a JSON header, the tensors.
class SafetensorsWriter {
 public:
  // Uniform around `center`.
  void Add(const std::string& name, std::vector<int64_t> shape, float center, float width) {
    int64_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    const size_t begin = values_.size() * sizeof(float);
    for (int64_t i = 0; i < count; ++i) {
      const double uniform =
          UniformFromCounter(/*seed=*/7, /*choice=*/static_cast<int32_t>(header_.size()), i);
      values_.push_back(center + width * static_cast<float>(2 * uniform - 1));
    }
    header_[name] = {{"dtype", "F32"},
                     {"shape", std::move(shape)},
                     {"data_offsets", {begin, values_.size() * sizeof(float)}}};
  }
  void Write(const std::string& path) const {
    const std::string header = header_.dump();
    const uint64_t length = header.size();
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), sizeof(length));
    file.write(header.data(), static_cast<std::streamsize>(header.size()));
    file.write(reinterpret_cast<const char*>(values_.data()),
               static_cast<std::streamsize>(values_.size() * sizeof(float)));
    BW_CHECK(file.good());
  }

 private:
  Json header_ = Json::object();
  std::vector<float> values_;
};

void WriteWeights(const std::string& path) {
  constexpr float kWidth = 0.2f;
  SafetensorsWriter writer;
  writer.Add("model.embed_tokens.weight", {TinyCheckpoint::kVocab, kHidden}, 0, 1);
  for (int layer = 0; layer < kLayers; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    writer.Add(prefix + "input_layernorm.weight", {kHidden}, 1, 0.1f);
    writer.Add(prefix + "self_attn.q_proj.weight", {kHeads * kHeadDim, kHidden}, 0, kWidth);
    writer.Add(prefix + "self_attn.k_proj.weight", {kKvHeads * kHeadDim, kHidden}, 0, kWidth);
    writer.Add(prefix + "self_attn.v_proj.weight", {kKvHeads * kHeadDim, kHidden}, 0, kWidth);
    writer.Add(prefix + "self_attn.o_proj.weight", {kHidden, kHeads * kHeadDim}, 0, kWidth);
    writer.Add(prefix + "post_attention_layernorm.weight", {kHidden}, 1, 0.1f);
    writer.Add(prefix + "mlp.gate_proj.weight", {kFfn, kHidden}, 0, kWidth);
    writer.Add(prefix + "mlp.up_proj.weight", {kFfn, kHidden}, 0, kWidth);
    writer.Add(prefix + "mlp.down_proj.weight", {kHidden, kFfn}, 0, kWidth);
  }
  writer.Add("model.norm.weight", {kHidden}, 1, 0.1f);
  writer.Add("lm_head.weight", {TinyCheckpoint::kVocab, kHidden}, 0, 0.5f);
  writer.Write(path);
}

void WriteConfig(const std::string& path) {
  const Json config = {{"architectures", {"LlamaForCausalLM"}},
                       {"model_type", "llama"},
                       {"hidden_act", "silu"},
                       {"hidden_size", kHidden},
                       {"intermediate_size", kFfn},
                       {"num_hidden_layers", kLayers},
                       {"num_attention_heads", kHeads},
                       {"num_key_value_heads", kKvHeads},
                       {"max_position_embeddings", TinyCheckpoint::kContext},
                       {"rms_norm_eps", 1e-5},
                       {"tie_word_embeddings", false},
                       {"torch_dtype", "float32"},
                       {"bos_token_id", 1},
                       {"eos_token_id", 2},
                       {"vocab_size", TinyCheckpoint::kVocab}};
  std::ofstream(path) << config.dump(2);
}

}  // namespace

TinyCheckpoint::TinyCheckpoint(const std::string& tokenizer, const std::string& chat_template) {
  namespace fs = std::filesystem;
  path_ = (fs::temp_directory_path() / "bellwether-tiny.XXXXXX").string();
  BW_CHECK(mkdtemp(path_.data()) != nullptr);
  const fs::path golden = fs::path("tests/goldens/tokenizer") / tokenizer;
  for (const char* file : {"tokenizer.json", "tokenizer.model", "generation_config.json"}) {
    if (fs::exists(golden / file)) fs::copy_file(golden / file, fs::path(path_) / file);
  }
  std::ifstream source(golden / "tokenizer_config.json");
  Json config = Json::parse(source);
  if (!chat_template.empty()) config["chat_template"] = chat_template;
  std::ofstream(path_ + "/tokenizer_config.json") << config.dump(2);
  WriteConfig(path_ + "/config.json");
  WriteWeights(path_ + "/model.safetensors");
}

void TinyCheckpoint::DamageEmbedding(int token) {
  std::fstream file(path_ + "/model.safetensors", std::ios::binary | std::ios::in | std::ios::out);
  uint64_t header = 0;
  file.read(reinterpret_cast<char*>(&header), sizeof(header));
  // The embedding is the first tensor.
  file.seekp(static_cast<std::streamoff>(sizeof(header) + header + sizeof(float) * kHidden * token));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  file.write(reinterpret_cast<const char*>(&nan), sizeof(nan));
  BW_CHECK(file.good());
}

TinyCheckpoint::~TinyCheckpoint() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace bellwether
