#include "model/checkpoint/foreign_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/testing_files.h"

// Content decides what a file is: what people have under the name of weights is told for what it is.

namespace bellwether {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing_files::TemporaryDirectory;
namespace fs = std::filesystem;

const std::string kModels = "tests/goldens/models/";

std::string Refusal(const std::string& path) {
  const auto opened = Checkpoint::Open(path);
  return opened.ok() ? "opens" : std::string(opened.status().message());
}

void Copy(const std::string& from, const TemporaryDirectory& dir, const std::string& name) {
  fs::copy_file(kModels + from, dir.path() + "/" + name);
}

const char kGgml[] = "ggjt-v1-mixed/ggml-model.bin", kGguf[] = "gguf-llama-mixed/model.gguf";

// It once was "a header of 7090182950739338087 bytes".
TEST(ForeignFileTest, GgmlAndGgufWhereADirectoryShouldHoldSafetensors) {
  for (const char* name : {"model.safetensors", "pytorch_model.bin", "llama.pt"}) {
    SCOPED_TRACE(name);
    const TemporaryDirectory ggml, gguf;
    Copy("llama-mha/config.json", ggml, "config.json");
    Copy("llama-mha/config.json", gguf, "config.json");
    Copy(kGgml, ggml, name);
    Copy(kGguf, gguf, name);
    EXPECT_THAT(Refusal(ggml.path()),
                AllOf(HasSubstr(name), HasSubstr("a GGML file"), HasSubstr("its path")));
    EXPECT_THAT(Refusal(gguf.path()),
                AllOf(HasSubstr(name), HasSubstr("a GGUF file"), HasSubstr("its path")));
    // And what it says helps.
    EXPECT_EQ(Refusal(ggml.path() + "/" + name), "opens");
    EXPECT_EQ(Refusal(gguf.path() + "/" + name), "opens");
  }
}

TEST(ForeignFileTest, WithoutAConfigToo) {
  const TemporaryDirectory dir;
  Copy(kGgml, dir, "ggml-model-q4_0.bin");
  EXPECT_THAT(Refusal(dir.path()), AllOf(HasSubstr("ggml-model-q4_0.bin"), HasSubstr("a GGML file")));
}

TEST(ForeignFileTest, ContainersUnderEachOthersNamesAreRead) {
  const TemporaryDirectory dir;
  Copy("llama-mqa-tied/config.json", dir, "config.json");
  fs::copy_file("tests/goldens/torch/llama-mqa-tied.bin", dir.path() + "/model.safetensors");
  EXPECT_EQ(Refusal(dir.path()), "opens");
  fs::remove(dir.path() + "/model.safetensors");
  Copy("llama-mqa-tied/model.safetensors", dir, "pytorch_model.bin");
  EXPECT_EQ(Refusal(dir.path()), "opens");
}

TEST(ForeignFileTest, WhatIsNoModelAtAll) {
  const TemporaryDirectory dir;
  Copy("llama-mha/config.json", dir, "config.json");
  const auto refusal = [&](const std::string& bytes) {
    const std::string path = dir.Write("model.safetensors", bytes);
    const std::string in_directory = Refusal(dir.path()), as_file = Refusal(path);
    EXPECT_THAT(in_directory, HasSubstr("model.safetensors"));
    EXPECT_THAT(as_file, HasSubstr("model.safetensors"));
    return in_directory + "\n" + as_file;
  };
  const std::string zeros(100, '\0');
  EXPECT_THAT(refusal("\x1f\x8b" + zeros), HasSubstr("a packed archive: unpack it first"));
  EXPECT_THAT(refusal("\xfd"
                      "7zXZ" +
                      zeros),
              HasSubstr("a packed archive"));
  EXPECT_THAT(refusal("\x89HDF\r\n\x1a\n" + zeros), HasSubstr("HDF5"));
  EXPECT_THAT(refusal("\n<!DOCTYPE HTML><html><title>Sign in</title>"), HasSubstr("a web page"));
  EXPECT_THAT(refusal("{\"error\": \"Repository not found\"}"), HasSubstr("a text of JSON"));
}

TEST(ForeignFileTest, SafetensorsAndOtherBytesAreNotTakenForOthers) {
  const auto describe = [](const std::string& bytes) {
    return DescribeForeignFile({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
  };
  EXPECT_EQ(describe(""), "");
  EXPECT_EQ(describe("GGU"), "");
  EXPECT_EQ(describe(testing_files::Safetensors("{}", "")), "");
  const std::string braced = testing_files::Safetensors("{" + std::string(0x7b - 2, ' ') + "}", "");
  ASSERT_EQ(braced[0], '{');  // the length of its header
  EXPECT_EQ(describe(braced), "");
  EXPECT_EQ(describe(std::string(4096, '\0')), "");
}

}  // namespace
}  // namespace bellwether
