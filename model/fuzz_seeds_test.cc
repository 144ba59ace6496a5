#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "model/checkpoint/file_mapping.h"
#include "model/checkpoint/ggml_checkpoint.h"
#include "model/checkpoint/gguf_checkpoint.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/torch_archive.h"
#include "model/checkpoint/torch_legacy.h"
#include "model/checkpoint/torch_pickle.h"
#include "model/config.h"
#include "model/quantization_config.h"
#include "model/tokenizer/sentencepiece_model.h"
#include "model/tokenizer/tokenizer_json.h"

// What fuzzers set out from (tests/corpora) is read as what it is: one that is refused at its first byte
// leads nowhere.

namespace bellwether {
namespace {

using Bytes = absl::Span<const std::byte>;

std::string Text(Bytes file) { return std::string(reinterpret_cast<const char*>(file.data()), file.size()); }

// Every seed of a fuzzer of model/ whose name has `part`.
void ExpectRead(const std::string& fuzzer, const std::string& part,
                const std::function<absl::Status(Bytes)>& read) {
  int seeds = 0;
  for (const auto& entry : std::filesystem::directory_iterator("tests/corpora/model/" + fuzzer)) {
    if (!absl::StrContains(entry.path().filename().string(), part)) continue;
    const auto file = FileMapping::Open(entry.path());
    ASSERT_TRUE(file.ok()) << file.status();
    const absl::Status status = read((*file)->bytes());
    EXPECT_TRUE(status.ok()) << entry.path() << ": " << status;
    ++seeds;
  }
  EXPECT_GT(seeds, 0) << fuzzer << " " << part;
}

TEST(FuzzSeedsTest, FilesOfTorch) {
  const std::string fuzzer = "checkpoint/torch_archive_fuzz";
  ExpectRead(fuzzer, "archive", [](Bytes file) { return ParseTorchArchive(file).status(); });
  ExpectRead(fuzzer, "wrapped", [](Bytes file) { return ParseTorchArchive(file).status(); });
  ExpectRead(fuzzer, "legacy", [](Bytes file) { return ParseTorchLegacy(file).status(); });
  ExpectRead(fuzzer, "pickle", [](Bytes file) { return ReadTorchPickle(file).status(); });
}

TEST(FuzzSeedsTest, FilesOfOtherContainers) {
  ExpectRead("checkpoint/safetensors_fuzz", "", [](Bytes file) { return ParseSafetensors(file).status(); });
  ExpectRead("checkpoint/ggml_fuzz", "", [](Bytes file) {
    const auto ggml = GgmlFile::Parse(file);
    return ggml.ok() ? GgmlConfig(*ggml).status() : ggml.status();
  });
  ExpectRead("checkpoint/gguf_fuzz", "", [](Bytes file) {
    const auto gguf = GgufFile::Parse(file);
    if (!gguf.ok()) return gguf.status();
    const auto config = ReadGgufConfig(*gguf, file);
    return config.ok() ? ReadGgufVocabulary(*gguf).status() : config.status();
  });
}

TEST(FuzzSeedsTest, Tokenizers) {
  ExpectRead("tokenizer/sentencepiece_model_fuzz", "",
             [](Bytes file) { return ParseSentencepieceModel(Text(file)).status(); });
  ExpectRead("tokenizer/tokenizer_json_fuzz", "",
             [](Bytes file) { return ParseTokenizerJson(Text(file)).status(); });
}

TEST(FuzzSeedsTest, Settings) {
  ExpectRead("config_fuzz", "", [](Bytes file) { return ParseHuggingFaceConfig(Text(file)).status(); });
  for (const char* name : {"gptq", "awq"}) {
    ExpectRead("quantization_config_fuzz", name, [](Bytes file) {
      const auto json = ParseJson(Text(file));
      return json.ok() ? ParseQuantizationConfig(*json).status() : json.status();
    });
  }
}

}  // namespace
}  // namespace bellwether
