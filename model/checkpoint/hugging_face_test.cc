#include "model/checkpoint/hugging_face.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "absl/strings/str_replace.h"
#include "model/checkpoint/expected_tensors.h"
#include "model/checkpoint/hugging_face_names.h"
#include "model/checkpoint/testing_files.h"
#include "model/checkpoint/testing_torch.h"
#include "model/shapes.h"

namespace bellwether {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing_files::Bytes;
using testing_files::SafetensorsWriter;
using testing_files::TemporaryDirectory;

constexpr char kLlamaConfig[] =
    R"({"model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2,
        "num_hidden_layers": 1, "vocab_size": 99, "eos_token_id": 2})";

struct Tensor {
  std::string name;
  std::vector<int64_t> shape;
};
const std::vector<Tensor> kLlamaTensors = {
    {"model.embed_tokens.weight", {10, 8}},
    {"model.layers.0.input_layernorm.weight", {8}},
    {"model.layers.0.self_attn.q_proj.weight", {8, 8}},
    {"model.layers.0.self_attn.k_proj.weight", {8, 8}},
    {"model.layers.0.self_attn.v_proj.weight", {8, 8}},
    {"model.layers.0.self_attn.o_proj.weight", {8, 8}},
    {"model.layers.0.post_attention_layernorm.weight", {8}},
    {"model.layers.0.mlp.gate_proj.weight", {12, 8}},
    {"model.layers.0.mlp.up_proj.weight", {12, 8}},
    {"model.layers.0.mlp.down_proj.weight", {8, 12}},
    {"model.norm.weight", {8}},
    {"lm_head.weight", {10, 8}},
};

// The number of the tensor, then 0, 1, 2 ... / 1000.
std::string Floats(int number, const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(number + i / 1000.0);
  return Bytes(values);
}

// Writes a LLaMA whose tensors `change` may alter first.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenLlama(
    const std::function<void(std::vector<Tensor>&)>& change = {}, const std::string& config = kLlamaConfig) {
  TemporaryDirectory dir;
  std::vector<Tensor> tensors = kLlamaTensors;
  if (change) change(tensors);
  SafetensorsWriter writer;
  for (size_t i = 0; i < tensors.size(); ++i) {
    writer.Add(tensors[i].name, "F32", tensors[i].shape, Floats(static_cast<int>(i), tensors[i].shape));
  }
  dir.Write("config.json", config);
  dir.Write("model.safetensors", writer.file());
  return Checkpoint::Open(dir.path());  // the mapping outlives the file
}

std::string Refusal(const std::function<void(std::vector<Tensor>&)>& change,
                    const std::string& config = kLlamaConfig) {
  return std::string(OpenLlama(change, config).status().message());
}

TEST(HuggingFaceTest, LlamaIsReadUnderCanonicalNames) {
  auto checkpoint = OpenLlama();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const Checkpoint& c = **checkpoint;
  EXPECT_EQ(c.container(), "safetensors");
  EXPECT_EQ(c.config().vocab, 10);  // the embedding's rows, not the config's 99
  EXPECT_FALSE(c.config().tied_head);
  EXPECT_EQ(c.Keys().size(), kLlamaTensors.size());
  const TensorInfo* down = c.Find({TensorRole::kDown, 0});
  ASSERT_NE(down, nullptr);
  EXPECT_EQ(down->rows, 8);
  EXPECT_EQ(down->cols, 12);
  EXPECT_EQ(down->format, TensorFormat{});
  EXPECT_THAT(down->source, HasSubstr("model.layers.0.mlp.down_proj.weight"));
  std::vector<float> window(4);
  ASSERT_TRUE(c.ReadFloats({TensorRole::kDown, 0}, {2, 4, 10, 12}, absl::MakeSpan(window)).ok());
  EXPECT_THAT(window, ElementsAre(9.034f, 9.035f, 9.046f, 9.047f));
  std::vector<float> norm(8);
  ASSERT_TRUE(c.ReadFloats({TensorRole::kFinalNorm}, {0, 1, 0, 8}, absl::MakeSpan(norm)).ok());
  EXPECT_EQ(norm[7], 10.007f);
  c.DropPages({TensorRole::kDown, 0});
  ASSERT_TRUE(c.ReadFloats({TensorRole::kDown, 0}, {2, 4, 10, 12}, absl::MakeSpan(window)).ok());
  EXPECT_EQ(window[3], 9.047f);
  EXPECT_TRUE(absl::IsNotFound(c.LoadTokenizer().status())) << c.LoadTokenizer().status();
  EXPECT_EQ(c.chat_template_text(), "");
}

TEST(HuggingFaceTest, WindowsOutsideATensorAreRefused) {
  auto checkpoint = OpenLlama();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  std::vector<float> out(8);
  const TensorKey key = {TensorRole::kDown, 0};
  for (const TensorWindow& window :
       {TensorWindow{-1, 0, 0, 8}, TensorWindow{8, 9, 0, 8}, TensorWindow{0, 1, 5, 13},
        TensorWindow{1, 0, 0, 8}, TensorWindow{0, 1, 8, 0}, TensorWindow{0, 1, 0, 7}}) {
    EXPECT_FALSE((*checkpoint)->ReadFloats(key, window, absl::MakeSpan(out)).ok());
  }
  EXPECT_TRUE(
      absl::IsNotFound((*checkpoint)->ReadFloats({TensorRole::kDown, 1}, {0, 1, 0, 8}, absl::MakeSpan(out))));
  EXPECT_THAT((*checkpoint)->ReadQuantized(key, {0, 1, 0, 8}).status().message(), HasSubstr("not quantised"));
}

TEST(HuggingFaceTest, NamesWithoutPrefixTiedHeadsAndOldTablesAreAccepted) {
  auto checkpoint = OpenLlama([](std::vector<Tensor>& tensors) {
    tensors.pop_back();  // the head
    for (Tensor& tensor : tensors) tensor.name = tensor.name.substr(6);
    for (const char* buffer :
         {"model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq",
          "rotary_emb.cos_cached", "model.layers.0.attention.masked_bias", "model.position_ids"}) {
      tensors.push_back({buffer, {2}});
    }
  });
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE((*checkpoint)->config().tied_head);
  EXPECT_EQ((*checkpoint)->Find({TensorRole::kHead}), (*checkpoint)->Find({TensorRole::kEmbedding}));
  EXPECT_EQ((*checkpoint)->Keys().size(), kLlamaTensors.size() - 1);
  std::vector<float> row(8);
  ASSERT_TRUE((*checkpoint)->ReadFloats({TensorRole::kHead}, {9, 10, 0, 8}, absl::MakeSpan(row)).ok());
  EXPECT_EQ(row[7], 0.079f);
}

std::string Tied(const std::string& value) {
  return absl::StrCat(R"({"tie_word_embeddings": )", value, ", ", std::string(kLlamaConfig).substr(1));
}

// safetensors stores one name of a shared matrix, and not always the embedding's.
TEST(HuggingFaceTest, ATiedModelMayStoreItsHeadOnly) {
  const auto no_embedding = [](std::vector<Tensor>& tensors) { tensors.erase(tensors.begin()); };
  auto checkpoint = OpenLlama(no_embedding, Tied("true"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->config().vocab, 10);
  EXPECT_THAT((*checkpoint)->Find({TensorRole::kEmbedding})->source, HasSubstr("lm_head.weight"));
  EXPECT_EQ((*checkpoint)->Find({TensorRole::kHead}), (*checkpoint)->Find({TensorRole::kEmbedding}));
  EXPECT_THAT(Refusal(no_embedding, Tied("false")), HasSubstr("embedding weight is missing"));
}

TEST(HuggingFaceTest, ATiedModelIgnoresTheCopyInItsHead) {
  auto checkpoint = OpenLlama({}, Tied("true"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->Find({TensorRole::kHead})->source, HasSubstr("embed_tokens.weight"));
}

// A config without the key, as LLaMA's were written, is taken at the word of its files. One that says that
// the head is another matrix has lost it.
TEST(HuggingFaceTest, AHeadThatIsSaidToBeThereIsNotReplacedByTheEmbedding) {
  const auto config = [](const char* tied) {
    return absl::StrReplaceAll(kLlamaConfig, {{"}", absl::StrCat(", \"tie_word_embeddings\": ", tied, "}")}});
  };
  const auto without_head = [](std::vector<Tensor>& tensors) { tensors.pop_back(); };
  EXPECT_TRUE(OpenLlama(without_head).ok()) << OpenLlama(without_head).status();
  EXPECT_TRUE(OpenLlama(without_head, config("true")).ok());
  EXPECT_THAT(Refusal(without_head, config("false")),
              HasSubstr("head weight (lm_head.weight) is missing, and config.json says"));
}

// The index was made for a shard that held the head: the one that lies there is another.
TEST(HuggingFaceTest, WhatTheIndexNamesIsInItsShard) {
  TemporaryDirectory dir;
  dir.Write("config.json", kLlamaConfig);
  SafetensorsWriter writer;
  std::string index;
  for (size_t i = 0; i < kLlamaTensors.size(); ++i) {
    const Tensor& tensor = kLlamaTensors[i];
    absl::StrAppend(&index, index.empty() ? "" : ",", "\"", tensor.name, "\": \"a.safetensors\"");
    if (tensor.name != "lm_head.weight")
      writer.Add(tensor.name, "F32", tensor.shape, Floats(static_cast<int>(i), tensor.shape));
  }
  dir.Write("a.safetensors", writer.file());
  const auto open = [&](const std::string& more) {
    dir.Write("model.safetensors.index.json", absl::StrCat("{\"weight_map\": {", index, more, "}}"));
    return Checkpoint::Open(dir.path()).status();
  };
  EXPECT_THAT(std::string(open("").message()),
              HasSubstr("a.safetensors does not hold the tensor \"lm_head.weight\", which the index says"));
  // A tied model needs none, and tables are computed anew.
  dir.Write("config.json", absl::StrReplaceAll(kLlamaConfig, {{"}", ", \"tie_word_embeddings\": true}"}}));
  EXPECT_TRUE(open("").ok()) << open("");
  EXPECT_TRUE(open(R"(, "model.layers.0.self_attn.rotary_emb.inv_freq": "a.safetensors")").ok());
}

TEST(HuggingFaceTest, TensorsThatDoNotFitTheConfigAreRefusedByName) {
  EXPECT_THAT(Refusal([](auto& t) {
                t[2].shape = {6, 8};
              }),
              HasSubstr("layer 0 query weight is 6 x 8 but the config asks for 8 x 8"));
  EXPECT_THAT(Refusal([](auto& t) { t.erase(t.begin() + 3); }),
              HasSubstr("layer 0 key weight (8 x 8) is missing"));
  EXPECT_THAT(Refusal([](auto& t) { t.erase(t.begin() + 3, t.begin() + 5); }),
              HasSubstr("and 1 more tensors"));
  EXPECT_THAT(Refusal([](auto& t) { t.erase(t.begin()); }), HasSubstr("embedding weight is missing"));
  EXPECT_THAT(Refusal([](auto& t) { t[0].shape = {80}; }),
              HasSubstr("the shape [80], which is no vocabulary"));
  EXPECT_THAT(Refusal([](auto& t) { t[11].shape = {11, 8}; }), HasSubstr("head weight is 11 x 8 but"));
  EXPECT_THAT(Refusal([](auto& t) { t[2].shape = {2, 4, 8}; }), HasSubstr("has 3 dimensions"));
  EXPECT_THAT(Refusal([](auto& t) {
                t.push_back({"model.layers.0.self_attn.q_proj.bias", {8}});
              }),
              HasSubstr("the config has no layer 0 query bias"));
  EXPECT_THAT(Refusal([](auto& t) {
                t.push_back({"model.layers.1.self_attn.q_proj.weight", {8, 8}});
              }),
              HasSubstr("lies beyond the 1 layers"));
  EXPECT_THAT(Refusal([](auto& t) {
                t.push_back({"model.layers.0.pre_feedforward_layernorm.weight", {4}});
              }),
              HasSubstr("'model.layers.0.pre_feedforward_layernorm.weight' is not known"));
  EXPECT_THAT(Refusal([](auto& t) {
                t.push_back({"layers.0.self_attn.q_proj.weight", {8, 8}});
              }),
              HasSubstr("is there twice"));
}

TEST(HuggingFaceTest, OtherTypesAreRefusedByName) {
  TemporaryDirectory dir;
  dir.Write("config.json", kLlamaConfig);
  SafetensorsWriter writer;
  writer.Add("model.embed_tokens.weight", "I8", {10, 8}, std::string(80, 'x'));
  dir.Write("model.safetensors", writer.file());
  EXPECT_THAT(Checkpoint::Open(dir.path()).status().message(),
              HasSubstr("'model.embed_tokens.weight' has type I8; F32, F16, BF16 and F64 can be read"));
}

TEST(HuggingFaceTest, BloomsFusedRowsAreSplitByHead) {
  TemporaryDirectory dir;
  dir.Write("config.json",
            R"({"model_type": "bloom", "n_embed": 4, "n_head": 2, "n_layer": 1, "vocab_size": 9})");
  SafetensorsWriter writer;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    writer.Add(name, "F32", shape, Floats(0, shape));
  };
  add("transformer.word_embeddings.weight", {9, 4});
  for (const char* norm :
       {"word_embeddings_layernorm", "h.0.input_layernorm", "h.0.post_attention_layernorm", "ln_f"}) {
    add(absl::StrCat("transformer.", norm, ".weight"), {4});
    add(absl::StrCat("transformer.", norm, ".bias"), {4});
  }
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols) {
    add("transformer.h.0." + name + ".weight", {rows, cols});
    add("transformer.h.0." + name + ".bias", {rows});
  };
  matrix("self_attention.query_key_value", 12, 4);
  matrix("self_attention.dense", 4, 4);
  matrix("mlp.dense_h_to_4h", 16, 4);
  matrix("mlp.dense_4h_to_h", 4, 16);
  dir.Write("model.safetensors", writer.file());
  auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();

  // Rows of the file: q of head 0, k, v, then head 1; head_dim 2.
  const std::vector<std::vector<int>> rows = {{0, 1, 6, 7}, {2, 3, 8, 9}, {4, 5, 10, 11}};
  const TensorRole roles[] = {TensorRole::kQuery, TensorRole::kKey, TensorRole::kValue};
  for (int part = 0; part < 3; ++part) {
    std::vector<float> bias(4);
    ASSERT_TRUE((*checkpoint)->ReadFloats({roles[part], 0, true}, {0, 1, 0, 4}, absl::MakeSpan(bias)).ok());
    for (int row = 0; row < 4; ++row) {
      std::vector<float> values(2);
      ASSERT_TRUE(
          (*checkpoint)->ReadFloats({roles[part], 0}, {row, row + 1, 1, 3}, absl::MakeSpan(values)).ok());
      EXPECT_EQ(values[0], static_cast<float>((rows[part][row] * 4 + 1) / 1000.0));
      EXPECT_EQ(bias[row], static_cast<float>(rows[part][row] / 1000.0));
    }
  }
  EXPECT_TRUE((*checkpoint)->config().tied_head);
}

TEST(HuggingFaceTest, EveryGoldenCheckpointOpens) {
  int opened = 0;
  for (const auto& entry : std::filesystem::directory_iterator("tests/goldens/models")) {
    if (!std::filesystem::exists(entry.path() / "config.json")) continue;
    // Their weights are a file that is to be named.
    if (entry.path().filename().string().starts_with("gptq-belle-")) continue;
    auto checkpoint = Checkpoint::Open(entry.path().string());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_EQ((*checkpoint)->Keys().size(), ExpectedTensors((*checkpoint)->config()).size());
    EXPECT_EQ((*checkpoint)->ModelId()->size(), 64u);
    ++opened;
  }
  EXPECT_GE(opened, 10);
}

// BELLE published the index of shards that are not there beside the one quantised file.
TEST(HuggingFaceTest, AFileThatIsNamedWinsOverAnIndexOfAbsentShards) {
  const std::string dir = "tests/goldens/models/gptq-belle-bloom-4bit";
  const auto by_index = Checkpoint::Open(dir);
  EXPECT_TRUE(absl::IsNotFound(by_index.status())) << by_index.status();
  EXPECT_THAT(std::string(by_index.status().message()), HasSubstr("give their path"));
  const auto named = Checkpoint::Open(dir + "/bloom7b-4bit-128g.pt");
  ASSERT_TRUE(named.ok()) << named.status();
  EXPECT_EQ((*named)->container(), "torch");
}

TEST(HuggingFaceTest, GenerationConfigAndChatTemplate) {
  TemporaryDirectory dir;
  const std::string sample = "tests/goldens/models/llama-mha";
  for (const char* file : {"config.json", "model.safetensors"}) {
    std::filesystem::copy_file(sample + "/" + file, dir.path() + "/" + file);
  }
  dir.Write("generation_config.json", R"({"eos_token_id": [2, 44]})");
  dir.Write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "tools", "template": "A"}, {"name": "default", "template": "B"}]})");
  auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->config().eos, ElementsAre(2, 44));
  EXPECT_EQ((*checkpoint)->chat_template_text(), "B");
  dir.Write("tokenizer_config.json", R"({"chat_template": "C"})");
  EXPECT_EQ((*Checkpoint::Open(dir.path()))->chat_template_text(), "C");
  dir.Write("chat_template.jinja", "D");
  EXPECT_EQ((*Checkpoint::Open(dir.path()))->chat_template_text(), "D");
  dir.Write("generation_config.json", "{");
  EXPECT_THAT(Checkpoint::Open(dir.path()).status().message(),
              HasSubstr("generation_config.json: not valid JSON"));
}

TEST(HuggingFaceTest, IndexesMustNameFilesOfTheDirectory) {
  TemporaryDirectory dir;
  dir.Write("config.json", kLlamaConfig);
  const auto refusal = [&](const std::string& index) {
    dir.Write("model.safetensors.index.json", index);
    return std::string(Checkpoint::Open(dir.path()).status().message());
  };
  EXPECT_THAT(refusal("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("{}"), HasSubstr("no 'weight_map'"));
  EXPECT_THAT(refusal(R"({"weight_map": {"a": 1}})"), HasSubstr("no file for \"a\""));
  EXPECT_THAT(refusal(R"({"weight_map": {"a": "../x"}})"), HasSubstr("is not a file of this directory"));
  EXPECT_THAT(refusal(R"({"weight_map": {"a": "/etc/passwd"}})"),
              HasSubstr("is not a file of this directory"));
  EXPECT_THAT(refusal(R"({"weight_map": {"a": "gone.safetensors"}})"),
              HasSubstr("names \"gone.safetensors\", which is not there"));
  dir.Write("a.safetensors", "not one");
  EXPECT_THAT(refusal(R"({"weight_map": {"a": "a.safetensors"}})"), HasSubstr("a.safetensors: shorter than"));
}

// kLlamaTensors as torch.save writes them, with names begun by `prefix`.
std::string TorchLlama(const std::string& prefix) {
  namespace pickle = testing_files::pickle;
  std::vector<std::pair<std::string, std::string>> members;
  std::map<std::string, std::string> storages;
  for (size_t i = 0; i < kLlamaTensors.size(); ++i) {
    const std::vector<int64_t>& shape = kLlamaTensors[i].shape;
    const std::string key = absl::StrCat(i);
    storages[key] = Floats(static_cast<int>(i), shape);
    const auto elements = static_cast<int64_t>(storages[key].size() / sizeof(float));
    const std::vector<int64_t> strides =
        shape.size() == 2 ? std::vector<int64_t>{shape[1], 1} : std::vector<int64_t>{1};
    members.push_back({prefix + kLlamaTensors[i].name,
                       pickle::Tensor(pickle::Storage("FloatStorage", key, elements), 0, shape, strides)});
  }
  return testing_files::TorchFile(pickle::Whole(pickle::OrderedDict(members)), storages);
}

std::vector<float> AllOf(const Checkpoint& checkpoint, const TensorKey& key) {
  const TensorInfo& info = *checkpoint.Find(key);
  std::vector<float> values(info.rows * info.cols);
  EXPECT_TRUE(checkpoint.ReadFloats(key, {0, info.rows, 0, info.cols}, absl::MakeSpan(values)).ok());
  return values;
}

// Containers are told by their first bytes.
TEST(HuggingFaceTest, TorchFilesHoldTheSameWeights) {
  const auto expected = OpenLlama();
  ASSERT_TRUE(expected.ok()) << expected.status();
  for (const char* name : {"pytorch_model.bin", "model.safetensors", "belle.pt"}) {
    for (const char* prefix : {"", "module.", "module.model."}) {
      SCOPED_TRACE(absl::StrCat(name, " ", prefix));
      TemporaryDirectory dir;
      dir.Write("config.json", kLlamaConfig);
      const std::string path = dir.Write(name, TorchLlama(prefix));
      for (const std::string& model : {dir.path(), path}) {
        const auto checkpoint = Checkpoint::Open(model);
        ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
        EXPECT_EQ((*checkpoint)->container(), "torch");
        for (const TensorKey& key : (*expected)->Keys()) {
          EXPECT_EQ(AllOf(**checkpoint, key), AllOf(**expected, key)) << Name(key);
        }
        EXPECT_EQ(*(*checkpoint)->ModelId(), *(*expected)->ModelId());
      }
    }
  }
}

TEST(HuggingFaceTest, ViewsWithGapsAreReadByTheirStrides) {
  namespace pickle = testing_files::pickle;
  // Of the matrices named, one is stored transposed and one with a gap after each row.
  const auto open = [](const std::string& name, const std::vector<int64_t>& strides,
                       const std::string& data) {
    TemporaryDirectory dir;
    dir.Write("config.json", kLlamaConfig);
    std::vector<std::pair<std::string, std::string>> members;
    std::map<std::string, std::string> storages;
    for (size_t i = 0; i < kLlamaTensors.size(); ++i) {
      const Tensor& tensor = kLlamaTensors[i];
      const bool is_view = tensor.name == name;
      const std::string key = absl::StrCat(i);
      storages[key] = is_view ? data : Floats(static_cast<int>(i), tensor.shape);
      const std::vector<int64_t> plain =
          tensor.shape.size() == 2 ? std::vector<int64_t>{tensor.shape[1], 1} : std::vector<int64_t>{1};
      const auto elements = static_cast<int64_t>(storages[key].size() / sizeof(float));
      members.push_back({tensor.name, pickle::Tensor(pickle::Storage("FloatStorage", key, elements), 0,
                                                     tensor.shape, is_view ? strides : plain)});
    }
    dir.Write("pytorch_model.bin",
              testing_files::TorchFile(pickle::Whole(pickle::OrderedDict(members)), storages));
    return Checkpoint::Open(dir.path());
  };
  const std::string down = "model.layers.0.mlp.down_proj.weight";  // 8 x 12
  const auto transposed = open(down, {1, 8}, Floats(0, {12, 8}));
  ASSERT_TRUE(transposed.ok()) << transposed.status();
  std::vector<float> window(4);
  ASSERT_TRUE((*transposed)->ReadFloats({TensorRole::kDown, 0}, {2, 4, 10, 12}, absl::MakeSpan(window)).ok());
  EXPECT_THAT(window, ElementsAre(0.082f, 0.090f, 0.083f, 0.091f));
  const auto gaps = open(down, {20, 1}, Floats(0, {8, 20}));
  ASSERT_TRUE(gaps.ok()) << gaps.status();
  ASSERT_TRUE((*gaps)->ReadFloats({TensorRole::kDown, 0}, {2, 4, 10, 12}, absl::MakeSpan(window)).ok());
  EXPECT_THAT(window, ElementsAre(0.050f, 0.051f, 0.070f, 0.071f));
  const auto norm = open("model.norm.weight", {3}, Floats(0, {24}));
  ASSERT_TRUE(norm.ok()) << norm.status();
  ASSERT_TRUE((*norm)->ReadFloats({TensorRole::kFinalNorm}, {0, 1, 4, 8}, absl::MakeSpan(window)).ok());
  EXPECT_THAT(window, ElementsAre(0.012f, 0.015f, 0.018f, 0.021f));
}

TEST(HuggingFaceTest, TheOldestFilesOfTorchAreCalledSo) {
  TemporaryDirectory dir;
  dir.Write("config.json", kLlamaConfig);
  const std::string path =
      dir.Write("pytorch_model.bin", std::string(257, '\0') + "ustar" + std::string(9, ' '));
  for (const std::string& model : {dir.path(), path}) {
    EXPECT_THAT(std::string(Checkpoint::Open(model).status().message()),
                HasSubstr("pytorch_model.bin: a tar archive, as torch wrote before version 0.1.10"));
  }
}

TEST(HuggingFaceTest, DirectoriesOfOtherContainersAreRefusedWithWhatToDo) {
  for (const char* file : {"model.bin.abc.enc", "consolidated.00.pth", "model.gguf"}) {
    TemporaryDirectory dir;
    dir.Write("config.json", kLlamaConfig);
    dir.Write(file, "x");
    const absl::Status status = Checkpoint::Open(dir.path()).status();
    EXPECT_TRUE(absl::IsUnimplemented(status)) << status;
    EXPECT_THAT(status.message(), HasSubstr(file));
    EXPECT_THAT(status.message(), HasSubstr("Readable are"));
  }
  TemporaryDirectory empty;
  EXPECT_THAT(Checkpoint::Open(empty.path()).status().message(), HasSubstr("no config.json"));
  empty.Write("config.json", kLlamaConfig);
  EXPECT_THAT(Checkpoint::Open(empty.path()).status().message(), HasSubstr("no weights"));
  EXPECT_TRUE(absl::IsNotFound(Checkpoint::Open(empty.path() + "/nothing").status()));
}

TEST(HuggingFaceNamesTest, NamesAreParsedStrictly) {
  const auto llama = [](std::string_view name) {
    return ParseHuggingFaceName(Architecture::kLlama, name).has_value();
  };
  EXPECT_TRUE(llama("model.layers.12.mlp.up_proj.bias"));
  EXPECT_EQ(ParseHuggingFaceName(Architecture::kLlama, "model.layers.12.mlp.up_proj.bias")->key,
            (TensorKey{TensorRole::kUp, 12, true}));
  for (const char* name :
       {"", "model.", "model.layers.", "model.layers.x.mlp.up_proj.weight", "model.norm",
        "model.layers.12.mlp.up_proj", "model.layers.12..weight", "model.layers.-1.mlp.up_proj.weight",
        "model.layers.9999999.mlp.up_proj.weight", "layers.1mlp.up_proj.weight", ".weight",
        "model.model.norm.weight", "h.0.input_layernorm.weight"}) {
    EXPECT_FALSE(llama(name)) << name;
  }
}

}  // namespace
}  // namespace bellwether
