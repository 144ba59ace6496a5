#include "model/checkpoint/encrypted_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/sha256.h"
#include "model/checkpoint/testing_files.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;
using testing_files::TemporaryDirectory;

constexpr size_t kBlock = size_t{10} << 20;

std::string HashOf(const std::string& bytes) {
  Sha256 hash;
  hash.Add(bytes.data(), bytes.size());
  return *hash.HexDigest();
}

std::string Noise(size_t size, uint32_t seed) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>((seed = seed * 1664525u + 1013904223u) >> 24);
  return bytes;
}

// By the words of docs/formats.md, a byte at a time.
std::string Encrypted(const std::string& plain, const std::string& key) {
  std::string bytes = absl::HexStringToBytes(HashOf(plain));
  const size_t key_blocks = (key.size() + kBlock - 1) / kBlock;
  for (size_t i = 0; i < plain.size(); ++i) {
    const size_t begin = i / kBlock % key_blocks * kBlock;
    const size_t length = std::min(kBlock, key.size() - begin);
    bytes += static_cast<char>(plain[i] ^ key[begin + i % kBlock % length]);
  }
  return bytes;
}

class EncryptedFileTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& plain, const std::string& key) {
    key_path_ = dir_.Write("consolidated.00.pth", key);
    return dir_.Write(absl::StrCat(name, ".", HashOf(plain), ".enc"), Encrypted(plain, key));
  }
  absl::Status Decrypt(const std::string& input) {
    const auto key = XorKey::Open(key_path_);
    EXPECT_TRUE(key.ok()) << key.status();
    return DecryptFile(input, *key, output(), nullptr);
  }
  std::string output() const { return dir_.path() + "/out"; }
  std::string Result() const { return *ReadSmallFile(output(), size_t{1} << 30); }

  TemporaryDirectory dir_;
  std::string key_path_;
};

TEST_F(EncryptedFileTest, LongerThanTheKeyIsNotCyclic) {
  const std::string key = Noise(kBlock + 3'000'001, 1);
  const std::string plain = Noise(4 * kBlock + 77, 2);
  const absl::Status status = Decrypt(Write("weights", plain, key));
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(Result() == plain);
}

// A link to itself once ended the program by an exception.
TEST_F(EncryptedFileTest, WhatCannotBeLookedAtIsAnError) {
  std::filesystem::create_symlink("out", output());
  const absl::Status status = Decrypt(Write("config.json", "{}", Noise(64, 1)));
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(output() + ": Too many levels of symbolic links"));
}

TEST_F(EncryptedFileTest, KeysOfAllLengths) {
  int number = 0;
  for (const size_t key_bytes : {size_t{1}, size_t{1000}, kBlock, 2 * kBlock}) {
    const std::string plain = Noise(kBlock + 12345, 3);
    const std::string input = Write(absl::StrCat("w", number++), plain, Noise(key_bytes, 4));
    ASSERT_TRUE(Decrypt(input).ok());
    EXPECT_TRUE(Result() == plain);
    std::filesystem::remove(output());
  }
}

TEST_F(EncryptedFileTest, AnEmptyFile) {
  ASSERT_TRUE(Decrypt(Write("empty", "", "key")).ok());
  EXPECT_EQ(std::filesystem::file_size(output()), 0u);
  EXPECT_EQ(Decrypt(Write("empty", "", "key")).code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(EncryptedFileTest, WhatIsDoneIsNotDoneAgainAndNothingIsOverwritten) {
  const std::string input = Write("config.json", "{}", "some key");
  ASSERT_TRUE(Decrypt(input).ok());
  EXPECT_EQ(Decrypt(input).code(), absl::StatusCode::kAlreadyExists);
  dir_.Write("out", "mine");
  EXPECT_THAT(std::string(Decrypt(input).message()), HasSubstr("it is not overwritten"));
  EXPECT_EQ(Result(), "mine");
}

TEST_F(EncryptedFileTest, BothHashesAreChecked) {
  const std::string input = Write("config.json", "{\"a\": 1}", "some key");
  const std::string renamed = absl::StrCat(dir_.path(), "/config.json.", std::string(64, 'a'), ".enc");
  std::filesystem::copy_file(input, renamed);
  EXPECT_THAT(std::string(Decrypt(renamed).message()), HasSubstr("its name has another"));
  key_path_ = dir_.Write("consolidated.00.pth", "another key");
  EXPECT_THAT(std::string(Decrypt(input).message()), HasSubstr("the base is not the file"));
  EXPECT_FALSE(std::filesystem::exists(output()));
  EXPECT_FALSE(std::filesystem::exists(output() + ".partial"));
  dir_.Write("short.enc", "x");
  EXPECT_THAT(std::string(Decrypt(dir_.path() + "/short.enc").message()), HasSubstr("is not called"));
  const std::string cut = absl::StrCat(dir_.path(), "/cut.", std::string(64, 'b'), ".enc");
  std::ofstream(cut) << "x";
  EXPECT_THAT(std::string(Decrypt(cut).message()), HasSubstr("less than a hash"));
}

TEST_F(EncryptedFileTest, CanBeStopped) {
  const std::string input = Write("weights", Noise(3 << 20, 5), "key");
  int calls = 0;
  const absl::Status status =
      DecryptFile(input, *XorKey::Open(key_path_), output(), [&](int64_t) { return ++calls < 2; });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(calls, 2);
  EXPECT_FALSE(std::filesystem::exists(output() + ".partial"));
}

TEST(EncryptedNameTest, HasItsParts) {
  const std::string hex(64, '7');
  const auto name = ParseEncryptedName(absl::StrCat("pytorch_model-00001-of-00002.bin.", hex, ".enc"));
  ASSERT_TRUE(name.has_value());
  EXPECT_EQ(name->plain, "pytorch_model-00001-of-00002.bin");
  EXPECT_EQ(name->sha256, hex);
  for (const std::string& other : {"." + hex + ".enc", "a" + hex + ".enc", "a." + hex, std::string("a.enc"),
                                   "a." + std::string(64, 'G') + ".enc"}) {
    EXPECT_FALSE(ParseEncryptedName(other).has_value()) << other;
  }
}

// What BELLE published of its 13B model: the hash in the name of config.json is that of these bytes.
TEST(EncryptedNameTest, ThePublishedConfigHasThePublishedHash) {
  const std::string config = R"({
  "architectures": [
    "LlamaForCausalLM"
  ],
  "bos_token_id": 1,
  "eos_token_id": 2,
  "hidden_act": "silu",
  "hidden_size": 5120,
  "initializer_range": 0.02,
  "intermediate_size": 13824,
  "model_type": "llama",
  "num_attention_heads": 40,
  "num_hidden_layers": 40,
  "pad_token_id": 0,
  "rms_norm_eps": 1e-06,
  "tie_word_embeddings": false,
  "torch_dtype": "float16",
  "transformers_version": "4.28.0.dev0",
  "use_cache": true,
  "vocab_size": 32000
}
)";
  EXPECT_THAT(HashOf(config), ::testing::StartsWith("e366f0c9"));
  const auto parsed = ParseHuggingFaceConfig(config);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->kv_heads, 40);
  EXPECT_EQ(parsed->max_positions, 2048);
  EXPECT_EQ(parsed->rope_theta, 10000);
}

// People feed the directory as it was downloaded.
TEST(EncryptedNameTest, AnEncryptedDirectorySaysWhatToRun) {
  const TemporaryDirectory dir;
  dir.Write(absl::StrCat("config.json.", std::string(64, '1'), ".enc"), "xxxxxxxxxxxxxxxxx");
  const std::string file =
      dir.Write(absl::StrCat("pytorch_model.bin.", std::string(64, '2'), ".enc"), "xxxxxxxxx");
  for (const std::string& path : {dir.path(), file}) {
    EXPECT_THAT(std::string(Checkpoint::Open(path).status().message()),
                HasSubstr("bellwether convert xor --base"));
  }
}

}  // namespace
}  // namespace bellwether
