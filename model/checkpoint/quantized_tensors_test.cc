#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/open_contents.h"
#include "model/checkpoint/testing_files.h"

// Quantised matrices whose parts do not fit each other, or that no model of this family has.

namespace bellwether {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing_files::Bytes;
using testing_files::SafetensorsWriter;
using testing_files::TemporaryDirectory;

constexpr int kHidden = 64, kFfn = 96, kVocab = 8;

struct Tensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string data;
};
using Tensors = std::map<std::string, Tensor>;

std::string Halves(int64_t count, uint16_t bits) { return Bytes(std::vector<uint16_t>(count, bits)); }

// 4 bits, groups of 32, every zero stored as 7.
void AddLinear(const std::string& name, int64_t outputs, int64_t inputs, Tensors& tensors) {
  const auto words = [](int64_t count, uint32_t word) { return Bytes(std::vector<uint32_t>(count, word)); };
  const int64_t groups = inputs / 32;
  tensors[name + ".qweight"] = {"I32", {inputs / 8, outputs}, words(inputs / 8 * outputs, 0x76543210)};
  tensors[name + ".qzeros"] = {"I32", {groups, outputs / 8}, words(groups * outputs / 8, 0x77777777)};
  tensors[name + ".scales"] = {"F16", {groups, outputs}, Halves(groups * outputs, 0x3800)};
}

// A LLaMA of one layer.
Tensors Llama() {
  Tensors tensors;
  const auto plain = [&](const std::string& name, std::vector<int64_t> shape) {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    tensors[name] = {"F16", std::move(shape), Halves(count, 0x3c00)};
  };
  plain("model.embed_tokens.weight", {kVocab, kHidden});
  plain("model.norm.weight", {kHidden});
  plain("lm_head.weight", {kVocab, kHidden});
  const std::string layer = "model.layers.0.";
  for (const char* norm : {"input_layernorm", "post_attention_layernorm"})
    plain(absl::StrCat(layer, norm, ".weight"), {kHidden});
  for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"})
    AddLinear(absl::StrCat(layer, "self_attn.", name), kHidden, kHidden, tensors);
  AddLinear(layer + "mlp.gate_proj", kFfn, kHidden, tensors);
  AddLinear(layer + "mlp.up_proj", kFfn, kHidden, tensors);
  AddLinear(layer + "mlp.down_proj", kHidden, kFfn, tensors);
  return tensors;
}

constexpr char kQ[] = "model.layers.0.self_attn.q_proj";

void WriteModel(const TemporaryDirectory& dir, const Tensors& tensors, const std::string& settings) {
  dir.Write("config.json",
            absl::StrCat(R"({"model_type": "llama", "hidden_size": )", kHidden, R"(, "intermediate_size": )",
                         kFfn, R"(, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": )",
                         kVocab, settings.empty() ? "" : ", \"quantization_config\": ", settings, "}"));
  SafetensorsWriter writer;
  for (const auto& [name, tensor] : tensors) writer.Add(name, tensor.dtype, tensor.shape, tensor.data);
  dir.Write("model.safetensors", writer.file());
}

absl::Status Open(const Tensors& tensors, const std::string& settings = "", const GptqOptions& gptq = {}) {
  const TemporaryDirectory dir;
  WriteModel(dir, tensors, settings);
  const auto checkpoint = Checkpoint::Open(dir.path(), {.gptq = gptq});
  if (!checkpoint.ok()) return checkpoint.status();
  for (const TensorKey& key : (*checkpoint)->Keys()) {
    const TensorInfo& info = *(*checkpoint)->Find(key);
    if (!IsQuantized(info.format.format)) continue;
    const auto read = (*checkpoint)->ReadQuantized(key, {0, info.rows, 0, info.cols});
    if (!read.ok()) return read.status();
  }
  return absl::OkStatus();
}

std::string Refusal(const Tensors& tensors, const std::string& settings = "", const GptqOptions& gptq = {}) {
  const absl::Status status = Open(tensors, settings, gptq);
  EXPECT_FALSE(status.ok());
  return std::string(status.message());
}

// `change` is made to q_proj's part `part`.
template <typename Change>
std::string RefusalOf(const std::string& part, const Change& change) {
  Tensors tensors = Llama();
  change(tensors[absl::StrCat(kQ, ".", part)]);
  return Refusal(tensors);
}

TEST(QuantizedTensorsTest, TheModelItselfIsRead) {
  EXPECT_TRUE(Open(Llama()).ok()) << Open(Llama());
  const std::string settings = R"({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": true})";
  EXPECT_TRUE(Open(Llama(), settings).ok()) << Open(Llama(), settings);
}

TEST(QuantizedTensorsTest, PartsThatDoNotFitAreRefusedByName) {
  EXPECT_THAT(RefusalOf("qweight",
                        [](Tensor& t) {
                          t.shape = {1, 512};
                        }),
              AllOf(HasSubstr("q_proj.qweight"), HasSubstr("2, 3, 4 and 8 bits")));
  EXPECT_THAT(RefusalOf("qzeros", [](Tensor& t) { t.shape = {4, 4}; }), HasSubstr("should be [2, 8]"));
  EXPECT_THAT(RefusalOf("qzeros", [](Tensor& t) { t.dtype = "F32"; }), HasSubstr("a matrix of I32"));
  EXPECT_THAT(RefusalOf("qweight", [](Tensor& t) { t.shape = {512}; }), HasSubstr("a matrix of I32"));
  EXPECT_THAT(RefusalOf("scales", [](Tensor& t) { t.dtype = "I16"; }), HasSubstr("F32, F16 or BF16"));
  EXPECT_THAT(RefusalOf("scales", [](Tensor& t) { t.shape = {4, 32}; }), HasSubstr("should be [4, 8]"));
}

TEST(QuantizedTensorsTest, MatricesThatAreNotWholeAreRefused) {
  for (const char* part : {"qweight", "qzeros", "scales"}) {
    Tensors tensors = Llama();
    tensors.erase(absl::StrCat(kQ, ".", part));
    EXPECT_THAT(Refusal(tensors), AllOf(HasSubstr("q_proj"), HasSubstr(absl::StrCat("no '", part, "'"))));
  }
  Tensors both = Llama();
  both[absl::StrCat(kQ, ".weight")] = {"F16", {kHidden, kHidden}, Halves(kHidden * kHidden, 0)};
  EXPECT_THAT(Refusal(both), HasSubstr("is there twice"));
}

TEST(QuantizedTensorsTest, SettingsThatContradictTheTensorsAreRefused) {
  const auto settings = [](const char* more) {
    return absl::StrCat(R"({"quant_method": "gptq", )", more, "}");
  };
  EXPECT_THAT(Refusal(Llama(), settings(R"("bits": 8, "group_size": 32)")), HasSubstr("settings say 8"));
  EXPECT_THAT(Refusal(Llama(), settings(R"("bits": 4, "group_size": 16)")), HasSubstr("groups of 16"));
  // Stored zeros of 7 are 8, or with the second format 7, which is not symmetric.
  EXPECT_THAT(
      Refusal(Llama(),
              settings(R"("bits": 4, "group_size": 32, "sym": true, "checkpoint_format": "gptq_v2")")),
      AllOf(HasSubstr("a zero of 7"), HasSubstr("\"sym\": false")));
}

TEST(QuantizedTensorsTest, WhatTheCommandLineSaysMustAgree) {
  const std::string settings = R"({"quant_method": "gptq", "bits": 4, "group_size": 32})";
  for (const std::string& of_file : {std::string(), settings}) {
    const GptqOptions right{.bits = 4, .group = 32};
    EXPECT_TRUE(Open(Llama(), of_file, right).ok()) << Open(Llama(), of_file, right);
  }
  EXPECT_THAT(Refusal(Llama(), "", {.bits = 8}), AllOf(HasSubstr("4 bits"), HasSubstr("--gptq-bits")));
  EXPECT_THAT(Refusal(Llama(), "", {.group = -1}), HasSubstr("--gptq-group"));
  EXPECT_THAT(Refusal(Llama(), settings, {.bits = 8}),
              AllOf(HasSubstr("--gptq-bits is 8, but "), HasSubstr("config.json says 4")));
  EXPECT_THAT(Refusal(Llama(), settings, {.group = 64}),
              AllOf(HasSubstr("--gptq-group is 64, but "), HasSubstr("config.json says 32")));
  EXPECT_THAT(std::string(Checkpoint::Open("random:llama", {.gptq = {.bits = 4}}).status().message()),
              HasSubstr("--gptq-bits"));
}

// Fewer rows of zeros and scales: the groups of `name` become larger.
void SetGroups(const std::string& name, int64_t groups, Tensors& tensors) {
  for (const char* part : {".qzeros", ".scales"}) {
    Tensor& tensor = tensors[name + part];
    tensor.data.resize(tensor.data.size() / tensor.shape[0] * groups);
    tensor.shape[0] = groups;
  }
}

constexpr char kDown[] = "model.layers.0.mlp.down_proj";

// 96 inputs in two groups: of 48, or of 64 with a shorter last one. Only being told helps.
TEST(QuantizedTensorsTest, AShorterLastGroupMustBeTold) {
  Tensors tensors = Llama();
  SetGroups(kDown, 2, tensors);
  EXPECT_THAT(Refusal(tensors),
              AllOf(HasSubstr("down_proj.scales"), HasSubstr("groups of 48 or of 64 inputs"),
                    HasSubstr("give --gptq-group")));
  Tensors others = tensors;
  for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                           "mlp.gate_proj", "mlp.up_proj"}) {
    SetGroups(absl::StrCat("model.layers.0.", name), 1, others);
  }
  const TemporaryDirectory dir;
  WriteModel(dir, others, "");
  const auto told = Checkpoint::Open(dir.path(), {.gptq = {.group = 64}});
  ASSERT_TRUE(told.ok()) << told.status();
  EXPECT_EQ((*told)->Find({TensorRole::kDown})->format.group, 64);
}

// GPTQModel's rules, of which the first that matches counts.
TEST(QuantizedTensorsTest, ARuleSaysTheGroupOfSomeMatrices) {
  Tensors tensors = Llama();
  SetGroups(kDown, 2, tensors);
  const auto settings = [](const char* rules) {
    return absl::StrCat(R"({"quant_method": "gptq", "bits": 4, "group_size": 32, "dynamic": {)", rules, "}}");
  };
  const TemporaryDirectory dir;
  WriteModel(dir, tensors, settings(R"("+:.*down": {"group_size": 64}, ".*": {"group_size": 32})"));
  const auto opened = Checkpoint::Open(dir.path());
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ((*opened)->Find({TensorRole::kDown})->format.group, 64);
  EXPECT_EQ((*opened)->Find({TensorRole::kUp})->format.group, 32);
  EXPECT_THAT(Refusal(tensors, settings(R"("+:down": {"group_size": 64})")),
              HasSubstr("groups of 32, which 96"));
  EXPECT_THAT(Refusal(tensors, settings(R"("+:.*down": {"group_size": 64, "bits": 8})")),
              HasSubstr("settings say 8"));
  EXPECT_THAT(Refusal(tensors, settings(R"("(": {"group_size": 64})")), HasSubstr("'dynamic'"));
}

TEST(QuantizedTensorsTest, BiasesOfZerosArePassedOverAndOthersRefused) {
  Tensors tensors = Llama();
  tensors[absl::StrCat(kQ, ".bias")] = {"F16", {kHidden}, Halves(kHidden, 0)};
  EXPECT_TRUE(Open(tensors).ok()) << Open(tensors);
  tensors[absl::StrCat(kQ, ".bias")].data = Halves(kHidden, 1);
  EXPECT_THAT(Refusal(tensors), AllOf(HasSubstr("q_proj.bias"), HasSubstr("not zero")));
}

TEST(QuantizedTensorsTest, GroupsByIndex) {
  Tensors tensors = Llama();
  std::vector<int32_t> index(kHidden);
  for (int i = 0; i < kHidden; ++i) index[i] = i / 32;
  tensors[absl::StrCat(kQ, ".g_idx")] = {"I32", {kHidden}, Bytes(index)};
  const std::string settings = R"({"quant_method": "gptq", "bits": 4, "group_size": 32})";
  EXPECT_TRUE(Open(tensors, settings).ok()) << Open(tensors, settings);
  // As many inputs in each group, but others.
  index[0] = 1;
  index[32] = 0;
  const auto replace = [&](const std::string& matrix) {
    tensors[absl::StrCat("model.layers.0.", matrix, ".g_idx")] = {"I32", {kHidden}, Bytes(index)};
  };
  replace("self_attn.q_proj");
  EXPECT_THAT(Refusal(tensors, settings), AllOf(HasSubstr("k_proj"), HasSubstr("desc_act")));
  replace("self_attn.k_proj");
  replace("self_attn.v_proj");
  EXPECT_TRUE(Open(tensors, settings).ok()) << Open(tensors, settings);
  index[0] = 0;
  replace("self_attn.q_proj");
  EXPECT_THAT(Refusal(tensors, settings), HasSubstr("group 0 has 33 inputs"));
  index[0] = 2;
  replace("self_attn.q_proj");
  EXPECT_THAT(Refusal(tensors, settings), HasSubstr("input 0 is of group 2"));
  tensors[absl::StrCat(kQ, ".g_idx")].shape = {kHidden / 2, 2};
  EXPECT_THAT(Refusal(tensors, settings), HasSubstr("64 numbers of I32"));
}

// Read as if its groups followed each other, an act-order matrix is noise.
TEST(QuantizedTensorsTest, ALostIndexIsMissed) {
  const auto settings = [](const char* more) {
    return absl::StrCat(R"({"quant_method": "gptq", "bits": 4, "group_size": 32, )", more, "}");
  };
  EXPECT_THAT(Refusal(Llama(), settings(R"("desc_act": true)")),
              AllOf(HasSubstr("q_proj.qweight"), HasSubstr("no 'g_idx'"), HasSubstr("'desc_act' is true")));
  EXPECT_THAT(Refusal(Llama(), settings(R"("desc_act": false, "dynamic": {".*down": {"desc_act": true}})")),
              HasSubstr("down_proj.qweight"));
  const std::string in_order = settings(R"("desc_act": true, "static_groups": true)");
  EXPECT_TRUE(Open(Llama(), in_order).ok()) << Open(Llama(), in_order);
  // Where nothing is said, matrices are all alike.
  Tensors one = Llama();
  std::vector<int32_t> index(kHidden);
  for (int i = 0; i < kHidden; ++i) index[i] = i / 32;
  one[absl::StrCat(kQ, ".g_idx")] = {"I32", {kHidden}, Bytes(index)};
  EXPECT_THAT(Refusal(one),
              AllOf(HasSubstr("no 'g_idx' beside it, where"), HasSubstr("q_proj.g_idx' is there")));
}

// The same matrices as Llama()'s, with zeros of 8 that GPTQ's second format stores as they are.
TEST(QuantizedTensorsTest, ASymmetricModelOfTheSecondFormatWithoutSettingsIsSuspected) {
  Tensors tensors = Llama();
  const auto warnings = [&](const std::string& settings) {
    const TemporaryDirectory dir;
    WriteModel(dir, tensors, settings);
    const auto contents = OpenContents(dir.path());
    EXPECT_TRUE(contents.ok()) << contents.status();
    return contents.ok() ? contents->warnings : std::vector<std::string>();
  };
  EXPECT_THAT(warnings(""), IsEmpty());
  for (auto& [name, tensor] : tensors) {
    if (name.ends_with("qzeros")) tensor.data.assign(tensor.data.size(), '\x88');
  }
  EXPECT_THAT(warnings(""), ElementsAre(HasSubstr("\"checkpoint_format\": \"gptq_v2\"")));
  EXPECT_THAT(
      warnings(R"({"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq_v2"})"),
      IsEmpty());
  tensors[absl::StrCat(kDown, ".qzeros")].data.back() = '\x87';
  EXPECT_THAT(warnings(""), IsEmpty());
}

// A published model has its settings twice. What one file leaves out the other says.
TEST(QuantizedTensorsTest, SettingsInTwoFilesMustAgree) {
  const TemporaryDirectory dir;
  WriteModel(dir, Llama(), R"({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": false})");
  const auto with = [&](const char* second) {
    dir.Write("quantize_config.json", second);
    return Checkpoint::Open(dir.path());
  };
  EXPECT_TRUE(with(R"({"bits": 4, "group_size": 32, "sym": false, "desc_act": false})").ok());
  for (const char* other :
       {R"({"bits": 8})", R"({"group_size": 64})", R"({"sym": true})", R"({"quant_method": "awq"})"}) {
    EXPECT_THAT(
        std::string(with(other).status().message()),
        AllOf(HasSubstr("quantize_config.json: '"), HasSubstr(", but "), HasSubstr("/config.json says")));
  }
  const auto id = [](const auto& opened) { return *(*opened)->ModelId(); };
  const std::string first = id(with("{}")), v1 = id(with(R"({"checkpoint_format": "gptq"})"));
  EXPECT_EQ(first, v1);
  EXPECT_NE(id(with(R"({"checkpoint_format": "gptq_v2"})")), v1);
  EXPECT_EQ(id(with(R"({"format": "gptq_v2"})")), id(with(R"({"checkpoint_format": "gptq_v2"})")));
}

TEST(QuantizedTensorsTest, AHeadInTheOrderOfActivationsIsRefused) {
  Tensors tensors = Llama();
  tensors.erase("lm_head.weight");
  AddLinear("lm_head", kVocab, kHidden, tensors);
  EXPECT_TRUE(Open(tensors).ok()) << Open(tensors);
  std::vector<int32_t> index(kHidden);
  for (int i = 0; i < kHidden; ++i) index[i] = i % 2;
  tensors["lm_head.g_idx"] = {"I32", {kHidden}, Bytes(index)};
  const std::string settings = R"({"quant_method": "gptq", "bits": 4, "group_size": 32})";
  EXPECT_THAT(Refusal(tensors, settings), AllOf(HasSubstr("lm_head"), HasSubstr("desc_act")));
}

TEST(QuantizedTensorsTest, MatricesThatAreNotAwqs) {
  EXPECT_THAT(Refusal(Llama(), R"({"quant_method": "awq", "bits": 4, "group_size": 32})"),
              AllOf(HasSubstr("qweight"), HasSubstr("AWQ's matrices are of 4 bits")));
}

}  // namespace
}  // namespace bellwether
