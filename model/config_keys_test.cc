#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "model/checkpoint/gguf_checkpoint.h"
#include "model/checkpoint/testing_files.h"
#include "model/config.h"

// The tables of docs/formats.md, "Which keys decide the maths", row by row: what they promise of a missing
// key, of a neutral value and of another one.

namespace bellwether {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using testing_files::Bytes;
using testing_files::GgufWriter;

// A row; values are JSON.
struct Row {
  std::string key;
  std::string absent;
  std::string neutral;
  std::string other;
  std::string then;
};

// What stands between the first pair of backticks.
std::string Code(const std::string& cell) {
  const std::vector<std::string> parts = absl::StrSplit(cell, '`');
  return parts.size() < 3 ? "" : parts[1];
}

std::vector<Row> TableOf(const std::string& heading) {
  std::ifstream file("docs/formats.md");
  std::vector<Row> rows;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("#")) inside = line == "#### " + heading;
    if (!inside || !line.starts_with("| `")) continue;
    std::vector<std::string> cells = absl::StrSplit(line, '|');
    if (cells.size() != 7) {
      ADD_FAILURE() << "not five cells: " << line;
      continue;
    }
    for (std::string& cell : cells) cell = std::string(absl::StripAsciiWhitespace(cell));
    rows.push_back({Code(cells[1]), cells[2], Code(cells[3]), Code(cells[4]), cells[5]});
  }
  EXPECT_FALSE(rows.empty()) << heading;
  return rows;
}

// A file's keys and their values as JSON.
using Fields = std::map<std::string, std::string>;
using Reader = std::function<absl::StatusOr<ModelConfig>(const Fields&)>;

// `base` has the keys that may not be absent, with neutral values.
void CheckRow(const Row& row, const Fields& base, const Reader& read) {
  SCOPED_TRACE(absl::StrCat(row.key, ": ", row.neutral, ", ", row.other, " (", row.then, ")"));
  const absl::StatusOr<ModelConfig> plain = read(base);
  ASSERT_TRUE(plain.ok()) << plain.status();
  Fields fields = base;

  fields.erase(row.key);
  const absl::StatusOr<ModelConfig> absent = read(fields);
  EXPECT_EQ(absent.ok(), row.absent != "refused") << absent.status();
  if (absent.ok()) {
    EXPECT_EQ(*absent, *plain);
  }

  fields[row.key] = row.neutral;
  const absl::StatusOr<ModelConfig> neutral = read(fields);
  ASSERT_TRUE(neutral.ok()) << neutral.status();
  EXPECT_EQ(*neutral, *plain);

  fields[row.key] = row.other;
  const absl::StatusOr<ModelConfig> other = read(fields);
  if (row.then == "refused") {
    EXPECT_FALSE(other.ok());
    const std::string value(absl::StripPrefix(absl::StripSuffix(row.other, "\""), "\""));
    EXPECT_THAT(std::string(other.status().message()), AnyOf(HasSubstr(row.key), HasSubstr(value)));
    return;
  }
  ASSERT_TRUE(other.ok()) << other.status();
  if (row.then == "honoured") {
    EXPECT_NE(*other, *plain);
  } else {
    EXPECT_EQ(row.then, "no effect");
    EXPECT_EQ(*other, *plain);
  }
}

absl::StatusOr<ModelConfig> ReadJsonConfig(const Fields& fields) {
  std::string text;
  for (const auto& [key, value] : fields)
    absl::StrAppend(&text, text.empty() ? "{" : ", ", "\"", key, "\": ", value);
  return ParseHuggingFaceConfig(text + "}");
}

const Fields kLlamaJson = {{"model_type", "\"llama\""},  {"hidden_size", "64"},
                           {"intermediate_size", "100"}, {"num_hidden_layers", "2"},
                           {"num_attention_heads", "4"}, {"vocab_size", "160"}};
const Fields kBloomJson = {
    {"model_type", "\"bloom\""}, {"n_embed", "64"}, {"n_layer", "2"}, {"n_head", "4"}, {"vocab_size", "160"}};

TEST(ConfigKeysTest, ConfigJsonOfLlama) {
  for (const Row& row : TableOf("config.json of LLaMA")) CheckRow(row, kLlamaJson, ReadJsonConfig);
}

TEST(ConfigKeysTest, ConfigJsonOfBloom) {
  for (const Row& row : TableOf("config.json of BLOOM")) CheckRow(row, kBloomJson, ReadJsonConfig);
}

// LLaMA's with another type, and what none but LLaMA may leave out.
Fields RelativeJson(const char* model_type) {
  Fields fields = kLlamaJson;
  fields["model_type"] = absl::StrCat("\"", model_type, "\"");
  fields["num_key_value_heads"] = "2";
  return fields;
}

TEST(ConfigKeysTest, ConfigJsonOfMistral) {
  for (const Row& row : TableOf("config.json of Mistral"))
    CheckRow(row, RelativeJson("mistral"), ReadJsonConfig);
}

TEST(ConfigKeysTest, ConfigJsonOfQwen2) {
  for (const Row& row : TableOf("config.json of Qwen 2"))
    CheckRow(row, RelativeJson("qwen2"), ReadJsonConfig);
}

TEST(ConfigKeysTest, ConfigJsonOfQwen3) {
  for (const Row& row : TableOf("config.json of Qwen 3"))
    CheckRow(row, RelativeJson("qwen3"), ReadJsonConfig);
}

TEST(ConfigKeysTest, ConfigJsonOfAll) {
  for (const Row& row : TableOf("config.json of all")) {
    CheckRow(row, kLlamaJson, ReadJsonConfig);
    CheckRow(row, kBloomJson, ReadJsonConfig);
    for (const char* relative : {"mistral", "qwen2", "qwen3"})
      CheckRow(row, RelativeJson(relative), ReadJsonConfig);
  }
}

// Windows that are used cut the positions; a type that has none is none.
TEST(ConfigKeysTest, AModelHasAsManyPositionsAsItsWindow) {
  Fields mistral = RelativeJson("mistral");
  EXPECT_EQ(ReadJsonConfig(mistral)->max_positions, 4096);
  mistral["max_position_embeddings"] = "2048";
  EXPECT_EQ(ReadJsonConfig(mistral)->max_positions, 2048);
  mistral["sliding_window"] = "null";
  EXPECT_EQ(ReadJsonConfig(mistral)->max_positions, 2048);
  Fields qwen = RelativeJson("qwen2");
  qwen["use_sliding_window"] = "true";
  EXPECT_EQ(ReadJsonConfig(qwen)->max_positions, 4096);
  qwen["layer_types"] = R"(["full_attention", "full_attention"])";
  EXPECT_EQ(ReadJsonConfig(qwen)->max_positions, 32768) << "no layer has one";
  qwen["layer_types"] = R"(["full_attention", "sliding_attention"])";
  qwen["sliding_window"] = "1024";
  EXPECT_EQ(ReadJsonConfig(qwen)->max_positions, 1024);
}

// The type that llama.cpp's converter gives such a value.
void AddValue(const std::string& key, const std::string& json, GgufWriter& writer) {
  if (json.starts_with("\"")) {
    writer.Add(key, json.substr(1, json.size() - 2));
  } else if (json == "true" || json == "false") {
    writer.Add(key, json == "true");
  } else if (json.find_first_of(".e") != std::string::npos) {
    writer.Add(key, std::stof(json));
  } else {
    writer.Add(key, static_cast<uint32_t>(std::stoul(json)));
  }
}

absl::StatusOr<ModelConfig> ReadMetadata(const Fields& fields) {
  GgufWriter writer;
  for (const auto& [key, value] : fields) AddValue(key, value, writer);
  writer.AddTensor("token_embd.weight", /*F32*/ 0, {8, 10}, Bytes(std::vector<float>(80)));
  const std::string file = writer.file();
  const absl::Span<const std::byte> bytes(reinterpret_cast<const std::byte*>(file.data()), file.size());
  const absl::StatusOr<GgufFile> gguf = GgufFile::Parse(bytes);
  if (!gguf.ok()) return gguf.status();
  return ReadGgufConfig(*gguf, bytes);
}

const Fields kLlamaGguf = {{"general.architecture", "\"llama\""},
                           {"llama.context_length", "64"},
                           {"llama.embedding_length", "8"},
                           {"llama.block_count", "1"},
                           {"llama.feed_forward_length", "12"},
                           {"llama.attention.head_count", "2"},
                           {"llama.attention.layer_norm_rms_epsilon", "1e-05"}};

TEST(ConfigKeysTest, MetadataOfLlama) {
  for (const Row& row : TableOf("Metadata of a LLaMA GGUF")) CheckRow(row, kLlamaGguf, ReadMetadata);
}

TEST(ConfigKeysTest, MetadataOfBloom) {
  const Fields base = {{"general.architecture", "\"bloom\""},
                       {"bloom.context_length", "64"},
                       {"bloom.embedding_length", "8"},
                       {"bloom.block_count", "1"},
                       {"bloom.feed_forward_length", "32"},
                       {"bloom.attention.head_count", "2"},
                       {"bloom.attention.layer_norm_epsilon", "1e-05"}};
  for (const Row& row : TableOf("Metadata of a BLOOM GGUF")) CheckRow(row, base, ReadMetadata);
}

// The keys are the same after another name.
TEST(ConfigKeysTest, MetadataOfQwen) {
  for (const std::string architecture : {"qwen2", "qwen3"}) {
    SCOPED_TRACE(architecture);
    const auto renamed = [&](const std::string& key) {
      return key.starts_with("llama.") ? absl::StrCat(architecture, key.substr(5)) : key;
    };
    Fields base;
    for (const auto& [key, value] : kLlamaGguf) base[renamed(key)] = value;
    base["general.architecture"] = absl::StrCat("\"", architecture, "\"");
    for (Row row : TableOf("Metadata of a LLaMA GGUF")) {
      if (row.key == "general.architecture") continue;
      row.key = renamed(row.key);
      CheckRow(row, base, ReadMetadata);
    }
  }
}

// llama.cpp takes "linear" where no type stands: a factor alone changes the maths.
TEST(ConfigKeysTest, EveryMixOfRopeScalingKeysIsHonouredOrRefused) {
  const ModelConfig plain = *ReadMetadata(kLlamaGguf);
  for (const char* type : {"", "none", "linear", "yarn", "longrope"}) {
    for (const char* factor_key : {"llama.rope.scaling.factor", "llama.rope.scale_linear"}) {
      for (const char* factor : {"", "0.0", "1.0", "4.0"}) {
        SCOPED_TRACE(absl::StrCat("type ", type, ", ", factor_key, " ", factor));
        Fields fields = kLlamaGguf;
        if (*type != 0) fields["llama.rope.scaling.type"] = absl::StrCat("\"", type, "\"");
        if (*factor != 0) fields[factor_key] = factor;
        const absl::StatusOr<ModelConfig> config = ReadMetadata(fields);
        const bool scaled = std::string(factor) == "4.0";
        const std::string name = type;
        ASSERT_EQ(config.ok(), name != "longrope" && !(name == "yarn" && scaled)) << config.status();
        if (!config.ok()) continue;
        ModelConfig expected = plain;
        if (scaled && name != "none") expected.rope_factors = {4, 4};
        EXPECT_EQ(*config, expected);
      }
    }
  }
}

TEST(ConfigKeysTest, ALinearFactorAndTheTablesOfAFileMultiply) {
  Fields fields = kLlamaGguf;
  fields["llama.rope.scaling.factor"] = "2.0";
  GgufWriter writer;
  for (const auto& [key, value] : fields) AddValue(key, value, writer);
  writer.AddTensor("token_embd.weight", /*F32*/ 0, {8, 10}, Bytes(std::vector<float>(80)));
  writer.AddTensor("rope_freqs.weight", /*F32*/ 0, {2}, Bytes(std::vector<float>{1, 8}));
  const std::string file = writer.file();
  const absl::Span<const std::byte> bytes(reinterpret_cast<const std::byte*>(file.data()), file.size());
  const absl::StatusOr<GgufFile> gguf = GgufFile::Parse(bytes);
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  const absl::StatusOr<ModelConfig> config = ReadGgufConfig(*gguf, bytes);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->rope_factors, ::testing::ElementsAre(2, 16));
}

// transformers divides every frequency by the factor: positions are squeezed.
TEST(ConfigKeysTest, ALinearFactorSqueezesPositions) {
  Fields fields = kLlamaJson;
  const std::vector<float> plain = RopeInverseFrequencies(*ReadJsonConfig(fields));
  fields["rope_scaling"] = R"({"type": "linear", "factor": 4.0})";
  const std::vector<float> squeezed = RopeInverseFrequencies(*ReadJsonConfig(fields));
  ASSERT_EQ(plain.size(), squeezed.size());
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(squeezed[i], plain[i] / 4);
}

}  // namespace
}  // namespace bellwether
