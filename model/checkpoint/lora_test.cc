#include "model/checkpoint/lora.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/json.h"
#include "common/round_floats.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/file_mapping.h"
#include "model/checkpoint/hugging_face_names.h"
#include "model/checkpoint/lora_config.h"
#include "model/checkpoint/open_contents.h"
#include "model/checkpoint/sha256.h"
#include "model/checkpoint/testing_files.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing_files::Bytes;
using testing_files::SafetensorsWriter;
using testing_files::TemporaryDirectory;
namespace fs = std::filesystem;

constexpr char kModels[] = "tests/goldens/models/";
const std::string kBase = absl::StrCat(kModels, "llama-mha");

std::vector<float> Values(const Checkpoint& checkpoint, const TensorKey& key) {
  const TensorInfo& info = *checkpoint.Find(key);
  std::vector<float> values(info.rows * info.cols);
  const absl::Status read = checkpoint.ReadFloats(key, {0, info.rows, 0, info.cols}, absl::MakeSpan(values));
  EXPECT_TRUE(read.ok()) << read;
  return values;
}

// Of a name in merged.json, where BLOOM's fused tensor stands as three.
TensorKey KeyOf(const ModelConfig& config, const std::string& name) {
  constexpr std::pair<const char*, TensorRole> kFused[] = {{"self_attention.query.", TensorRole::kQuery},
                                                           {"self_attention.key.", TensorRole::kKey},
                                                           {"self_attention.value.", TensorRole::kValue}};
  for (const auto& [part, role] : kFused) {
    if (!absl::StrContains(name, part)) continue;
    const std::string fused = absl::StrReplaceAll(name, {{part, "self_attention.query_key_value."}});
    TensorKey key = ParseHuggingFaceName(config.architecture, fused)->key;
    key.role = role;
    return key;
  }
  return ParseHuggingFaceName(config.architecture, name)->key;
}

// PEFT made these adapters, and NumPy merged them (tests/goldens/README.md).
class LoraGoldenTest : public ::testing::TestWithParam<std::string> {};

TEST_P(LoraGoldenTest, EveryTensorIsTheReferencesToTheBit) {
  const std::string dir = absl::StrCat("tests/goldens/lora/", GetParam());
  const auto text = ReadSmallFile(dir + "/merged.json", 1 << 20);
  ASSERT_TRUE(text.ok()) << text.status();
  const Json golden = *ParseJson(*text);
  const auto checkpoint = Checkpoint::Open(absl::StrCat(kModels, golden["base"].text()),
                                           {.lora = {{dir, golden["scale"].get<double>()}}});
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(golden["tensors"].size(), (*checkpoint)->Keys().size());
  for (const auto& [name, hash] : golden["tensors"].items()) {
    const std::vector<float> values = Values(**checkpoint, KeyOf((*checkpoint)->config(), name));
    Sha256 sum;
    sum.Add(values.data(), values.size() * sizeof(float));
    EXPECT_EQ(*sum.HexDigest(), hash.text()) << name;
  }
}

std::vector<std::string> GoldenNames() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator("tests/goldens/lora"))
    names.push_back(entry.path().filename());
  return names;
}
INSTANTIATE_TEST_SUITE_P(, LoraGoldenTest, ::testing::ValuesIn(GoldenNames()), [](const auto& info) {
  return absl::StrReplaceAll(info.param, {{"-", "_"}});
});

std::string Floats(const std::vector<float>& values) { return Bytes(values); }

// An adapter of rank 1 for one module of llama-mha, whose matrices are 32 x 32.
class LoraTest : public ::testing::Test {
 protected:
  static constexpr char kConfig[] = R"({"peft_type": "LORA", "r": 1, "lora_alpha": 2})";

  void Write(const std::string& config, const std::string& module, int64_t rows = 32, int64_t cols = 32) {
    SafetensorsWriter writer;
    const std::string name = "base_model.model." + module;
    writer.Add(name + ".lora_A.weight", "F32", {1, cols}, Floats(std::vector<float>(cols, 0.5f)));
    writer.Add(name + ".lora_B.weight", "F32", {rows, 1}, Floats(std::vector<float>(rows, 0.25f)));
    Write(config, writer);
  }
  void Write(const std::string& config, const SafetensorsWriter& writer) {
    dir_.Write("adapter_config.json", config);
    dir_.Write("adapter_model.safetensors", writer.file());
  }
  absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& base = kBase, double scale = 1) {
    return Checkpoint::Open(base, {.lora = {{dir_.path(), scale}}});
  }
  std::string ErrorOf(const std::string& base = kBase) {
    const auto opened = Open(base);
    return opened.ok() ? "opens" : std::string(opened.status().message());
  }

  TemporaryDirectory dir_;
};

constexpr char kQuery0[] = "model.layers.0.self_attn.q_proj";
const TensorKey kQuery{TensorRole::kQuery, 0};

TEST_F(LoraTest, AProductIsAddedAndChangesTheId) {
  Write(kConfig, kQuery0);
  const auto plain = Checkpoint::Open(kBase);
  const auto merged = Open(kBase, 3), other = Open(kBase, 4);
  ASSERT_TRUE(merged.ok()) << merged.status();
  std::vector<float> expected = Values(**plain, kQuery);
  for (float& value : expected) value += 6 * 0.125f;
  EXPECT_EQ(Values(**merged, kQuery), expected);
  EXPECT_EQ(Values(**merged, {TensorRole::kKey, 0}), Values(**plain, {TensorRole::kKey, 0}));
  EXPECT_NE(*(*merged)->ModelId(), *(*plain)->ModelId());
  EXPECT_NE(*(*merged)->ModelId(), *(*other)->ModelId());
  EXPECT_THAT(DifferenceOf((*merged)->reading(), (*other)->reading(), "we"), HasSubstr("with --lora"));
}

TEST_F(LoraTest, SeveralAreAddedInOrderAndRoundedOnce) {
  Write(kConfig, kQuery0);
  const auto twice = Checkpoint::Open(
      kBase, {.dtype = DType::kF16, .lora = {{dir_.path(), 1e-4}, {dir_.path(), 1e-4}, {dir_.path(), -1}}});
  ASSERT_TRUE(twice.ok()) << twice.status();
  std::vector<float> expected = Values(**Checkpoint::Open(kBase), kQuery);
  for (float& value : expected) {
    for (const float scale : {2e-4f, 2e-4f, -2.0f}) value += scale * 0.125f;
  }
  RoundFloats(WeightFormat::kF16, absl::MakeSpan(expected));
  EXPECT_EQ(Values(**twice, kQuery), expected);
}

TEST_F(LoraTest, NamesOfOlderVersionsAndTorchFiles) {
  SafetensorsWriter writer;
  const std::string name = absl::StrCat("base_model.model.", kQuery0);
  writer.Add(name + ".lora_A.default.weight", "F32", {1, 32}, Floats(std::vector<float>(32, 0.5f)));
  writer.Add(name + ".lora_B.default.weight", "F32", {32, 1}, Floats(std::vector<float>(32, 0.25f)));
  writer.Add("base_model.model.model.norm.modules_to_save.default.weight", "F32", {32},
             Floats(std::vector<float>(32, 7)));
  Write(kConfig, writer);
  fs::rename(dir_.path() + "/adapter_model.safetensors", dir_.path() + "/adapter_model.bin");  // by content
  const auto opened = Open();
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(Values(**opened, {TensorRole::kFinalNorm}), std::vector<float>(32, 7));
}

TEST_F(LoraTest, WhatItIsNotForIsRefused) {
  Write(kConfig, "model.layers.9.self_attn.q_proj");
  EXPECT_THAT(ErrorOf(), HasSubstr("is no part of tests/goldens/models/llama-mha"));
  Write(kConfig, "transformer.h.0.self_attention.query_key_value");
  EXPECT_THAT(ErrorOf(), HasSubstr("the adapter is of another model"));
  Write(kConfig, kQuery0, 64, 32);
  EXPECT_THAT(ErrorOf(), HasSubstr("is for a matrix of 64 x 32, the model's is 32 x 32"));
  Write(R"({"peft_type": "LORA", "r": 2})", kQuery0);
  EXPECT_THAT(ErrorOf(), HasSubstr("has the rank 1, adapter_config.json says 2"));
  Write(kConfig, kQuery0);
  EXPECT_THAT(ErrorOf("random:llama?hidden=32,layers=2,heads=4,ffn=48,vocab=96:int8"),
              HasSubstr("layer 0 query weight is quantised"));
  EXPECT_EQ(Checkpoint::Open(kBase, {.lora = {{"/nowhere", 1}}}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(LoraTest, HalfOfAProductIsRefused) {
  SafetensorsWriter writer;
  writer.Add(absl::StrCat("base_model.model.", kQuery0, ".lora_A.weight"), "F32", {1, 32},
             Floats(std::vector<float>(32)));
  Write(kConfig, writer);
  EXPECT_THAT(ErrorOf(), HasSubstr("has not both of its matrices A and B"));
  Write(kConfig, SafetensorsWriter());
  EXPECT_THAT(ErrorOf(), HasSubstr("holds no tensors"));
}

TEST_F(LoraTest, DoraIsRefusedByItsTensorsToo) {
  SafetensorsWriter writer;
  writer.Add(absl::StrCat("base_model.model.", kQuery0, ".lora_magnitude_vector"), "F32", {32},
             Floats(std::vector<float>(32)));
  Write(kConfig, writer);
  EXPECT_THAT(ErrorOf(), HasSubstr("such as DoRA"));
}

// Their digest is what names the flag when two programs were given different ones.
TEST_F(LoraTest, AdaptersOfEqualTensorsAndAnotherScaleDiffer) {
  Write(kConfig, kQuery0);
  const auto one = Open();
  Write(R"({"peft_type": "LORA", "r": 1, "lora_alpha": 4})", kQuery0);
  const auto other = Open();
  Write(R"({"peft_type": "LORA", "lora_alpha": 2, "r": 1, "base_model_name_or_path": "elsewhere"})", kQuery0);
  const auto same = Open();
  ASSERT_TRUE(one.ok() && other.ok() && same.ok());
  EXPECT_THAT(DifferenceOf((*one)->reading(), (*other)->reading(), "we"), HasSubstr("with --lora"));
  EXPECT_EQ(DifferenceOf((*one)->reading(), (*same)->reading(), "we"), "");
}

TEST_F(LoraTest, ModulesThatWereSavedWholeAreThere) {
  const auto config = [](const char* saved) {
    return absl::StrCat(R"({"peft_type": "LORA", "r": 1, "modules_to_save": [)", saved, "]}");
  };
  SafetensorsWriter writer;
  writer.Add("base_model.model.model.norm.weight", "F32", {32}, Floats(std::vector<float>(32, 7)));
  // PEFT passes over modules that the model does not have.
  Write(config(R"("norm", "classifier")"), writer);
  EXPECT_EQ(ErrorOf(), "opens");
  Write(config(R"("norm", "embed_tokens")"), writer);
  EXPECT_THAT(ErrorOf(), HasSubstr("holds no \"embed_tokens\", which adapter_config.json says was saved"));
  Write(config(R"("lm_head")"), writer);
  EXPECT_THAT(ErrorOf(), HasSubstr("holds no \"lm_head\""));
}

TEST_F(LoraTest, ModulesThatItShouldChangeAreMissed) {
  const auto warnings = [&](const char* targets) {
    Write(absl::StrCat(R"({"peft_type": "LORA", "r": 1, "target_modules": )", targets, "}"), kQuery0);
    auto contents = OpenContents(kBase, {.lora = {{dir_.path(), 1}}});
    EXPECT_TRUE(contents.ok()) << contents.status();
    return contents.ok() ? contents->warnings : std::vector<std::string>();
  };
  EXPECT_THAT(warnings(R"(["q_proj"])"), IsEmpty());
  EXPECT_THAT(warnings(R"(["q_proj", "v_proj"])"), ElementsAre(HasSubstr("changes no module \"v_proj\"")));
  EXPECT_THAT(warnings(R"("all-linear")"), IsEmpty());
  EXPECT_THAT(warnings(R"(".*[kv]_proj")"), IsEmpty());
  EXPECT_THAT(warnings("null"), IsEmpty());
}

TEST_F(LoraTest, ATiedEmbeddingIsNotTornApart) {
  const std::string tied = absl::StrCat(kModels, "llama-mqa-tied");
  const TensorInfo info = *(*Checkpoint::Open(tied))->Find({TensorRole::kEmbedding});
  SafetensorsWriter embedding, both;
  const std::string values = Floats(std::vector<float>((info.rows + 3) * info.cols, 0.5f));
  embedding.Add("base_model.model.model.embed_tokens.weight", "F32", {info.rows + 3, info.cols}, values);
  Write(kConfig, embedding);
  EXPECT_THAT(ErrorOf(tied), HasSubstr("give an adapter that has both"));
  both.Add("base_model.model.model.embed_tokens.weight", "F32", {info.rows + 3, info.cols}, values);
  both.Add("base_model.model.lm_head.weight", "F32", {info.rows + 3, info.cols}, values);
  Write(kConfig, both);
  const auto opened = Open(tied);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ((*opened)->config().vocab, info.rows + 3);
  EXPECT_FALSE((*opened)->config().tied_head);
  EXPECT_EQ((*opened)->Keys().back(), TensorKey{TensorRole::kHead});
}

std::string ConfigError(const std::string& more) {
  const auto config = ParseLoraConfig(R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8)" + more + "}");
  return config.ok() ? "read" : std::string(config.status().message());
}

TEST(LoraConfigTest, ScalesAndPatterns) {
  const auto config = ParseLoraConfig(
      R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "rank_pattern": {"q_proj": 2, "layers.1.self_attn.v_proj": 16},
          "alpha_pattern": {"layers.[02].mlp.up_proj": 1, "up_proj": 6}})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(*LoraScale(*config, "model.layers.0.self_attn.q_proj"), 4);
  EXPECT_EQ(*LoraScale(*config, "model.layers.0.self_attn.v_proj"), 2);
  EXPECT_EQ(*LoraScale(*config, "model.layers.1.self_attn.v_proj"), 0.5);
  EXPECT_EQ(*LoraScale(*config, "model.layers.11.self_attn.v_proj"), 2);
  EXPECT_EQ(*LoraScale(*config, "model.layers.2.mlp.up_proj"), 0.25);
  EXPECT_EQ(*LoraScale(*config, "model.layers.1.mlp.up_proj"), 1.5);
  const auto stabilised =
      ParseLoraConfig(R"({"peft_type": "LORA", "r": 16, "lora_alpha": 8, "use_rslora": true})");
  EXPECT_EQ(*LoraScale(*stabilised, "x"), 2);
}

TEST(LoraConfigTest, WhatChangesTheMathsIsRefusedByName) {
  for (const std::string key :
       {"use_dora", "lora_bias", "use_qalora", "layer_replication", "megatron_config", "something_new"}) {
    EXPECT_THAT(ConfigError(absl::StrCat(", \"", key, "\": true")), HasSubstr(key));
    EXPECT_EQ(ConfigError(absl::StrCat(", \"", key, "\": null")), "read");
  }
  EXPECT_THAT(ConfigError(R"(, "trainable_token_indices": [1])"), HasSubstr("trainable_token_indices"));
  EXPECT_THAT(ConfigError(R"(, "init_lora_weights": "pissa_niter_4")"), HasSubstr("pissa"));
  EXPECT_EQ(ConfigError(R"(, "init_lora_weights": "gaussian", "fan_in_fan_out": true, "bias": "all")"),
            "read");
  EXPECT_THAT(ConfigError(R"(, "rank_pattern": {"q_proj": 0})"), HasSubstr("q_proj"));
  const auto no_alpha = ParseLoraConfig(R"({"peft_type": "LORA", "r": 4, "lora_alpha": null})");
  EXPECT_THAT(std::string(no_alpha.status().message()), HasSubstr("lora_alpha"));
  EXPECT_THAT(std::string(ParseLoraConfig(R"({"peft_type": "IA3"})").status().message()), HasSubstr("IA3"));
}

}  // namespace
}  // namespace bellwether
