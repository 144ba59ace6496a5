#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "common/json.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/file_mapping.h"
#include "model/checkpoint/testing_files.h"

// Checkpoints in the layouts of GPTQ's tools, whose matrices NumPy multiplied out (tests/goldens/models).

namespace bellwether {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

const fs::path kModels = "tests/goldens/models";

// A file with the suffix .pt is named itself, others by their directory.
std::string PathOf(const fs::path& directory) {
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() == ".pt") return entry.path();
  }
  return directory;
}

// Hashes of dequantised matrices by our names; empty if the golden has none.
std::map<std::string, std::string> HashesOf(const fs::path& directory) {
  std::map<std::string, std::string> hashes;
  const auto text = ReadSmallFile((directory / "golden.json").string(), size_t{1} << 20);
  const auto golden = text.ok() ? ParseJson(*text) : text.status();
  if (!golden.ok()) return hashes;
  for (const auto& [name, hash] : (*golden)["dequantized"].items()) hashes[name] = hash.text();
  return hashes;
}

std::vector<std::string> GoldenNames() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kModels)) {
    if (!HashesOf(entry.path()).empty()) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string Sha256(const std::vector<float>& values) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EXPECT_EQ(EVP_Digest(values.data(), values.size() * sizeof(float), digest, &size, EVP_sha256(), nullptr),
            1);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), size));
}

std::vector<float> Floats(const Checkpoint& checkpoint, const TensorKey& key, const TensorWindow& window) {
  std::vector<float> values((window.row_end - window.row_begin) * (window.col_end - window.col_begin));
  const absl::Status status = checkpoint.ReadFloats(key, window, absl::MakeSpan(values));
  EXPECT_TRUE(status.ok()) << status;
  return values;
}

class QuantizedGolden : public ::testing::TestWithParam<std::string> {};

TEST_P(QuantizedGolden, MatricesEqualWhatNumPyMultipliedOut) {
  const fs::path directory = kModels / GetParam();
  std::map<std::string, std::string> hashes = HashesOf(directory);
  const auto checkpoint = Checkpoint::Open(PathOf(directory));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  for (const TensorKey& key : (*checkpoint)->Keys()) {
    const TensorInfo& info = *(*checkpoint)->Find(key);
    if (!hashes.contains(Name(key))) {
      EXPECT_FALSE(IsQuantized(info.format.format)) << Name(key);
      continue;
    }
    const std::vector<float> whole = Floats(**checkpoint, key, {0, info.rows, 0, info.cols});
    EXPECT_EQ(Sha256(whole), hashes[Name(key)]) << Name(key);
    hashes.erase(Name(key));

    const TensorWindow part = {info.rows / 3, info.rows / 2, 16, info.cols - 16};
    std::vector<float> expected;
    for (int64_t row = part.row_begin; row < part.row_end; ++row) {
      expected.insert(expected.end(), whole.begin() + row * info.cols + part.col_begin,
                      whole.begin() + row * info.cols + part.col_end);
    }
    EXPECT_EQ(Floats(**checkpoint, key, part), expected) << Name(key);
  }
  EXPECT_TRUE(hashes.empty()) << hashes.begin()->first;
}

// The packed form multiplies integers and zeros on their own: exact with scales of few bits; else each
// product and their sum are rounded once.
TEST_P(QuantizedGolden, PackedNumbersAreThoseOfTheFile) {
  const auto checkpoint = Checkpoint::Open(PathOf(kModels / GetParam()));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  for (const TensorKey& key : (*checkpoint)->Keys()) {
    const TensorInfo& info = *(*checkpoint)->Find(key);
    if (!IsQuantized(info.format.format)) continue;
    const auto read = (*checkpoint)->ReadQuantized(key, {0, info.rows, 0, info.cols});
    ASSERT_TRUE(read.ok()) << read.status();
    const std::vector<float> floats = Floats(**checkpoint, key, {0, info.rows, 0, info.cols});
    const int64_t groups = (info.cols + info.format.group - 1) / info.format.group;
    const auto half = [](float value) { return F32FromF16(F16FromF32(value)) == value; };
    const bool exact = std::all_of(read->scales.begin(), read->scales.end(), half);
    for (int64_t i = 0; i < info.rows * info.cols; ++i) {
      const int64_t group = i / info.cols * groups + i % info.cols / info.format.group;
      const float product = read->scales[group] * static_cast<float>(read->q[i]);
      const float offset = info.format.has_offset ? read->offsets[group] : 0;
      const float allowed = exact ? 0 : std::ldexp(std::abs(product) + std::abs(offset), -23);
      ASSERT_NEAR(product + offset, floats[i], allowed) << Name(key) << ", value " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, QuantizedGolden, ::testing::ValuesIn(GoldenNames()), [](const auto& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

}  // namespace
}  // namespace bellwether
