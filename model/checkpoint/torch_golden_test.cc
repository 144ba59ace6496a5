#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "common/json.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/file_mapping.h"
#include "model/checkpoint/tensor_table_file.h"
#include "model/checkpoint/testing_files.h"

// Files that torch itself wrote (tests/goldens/torch).

namespace bellwether {
namespace {

namespace fs = std::filesystem;

const fs::path kGoldens = "tests/goldens";

// The model of a golden directory with `file` for its weights must hold the same numbers.
void ExpectSameWeights(const std::string& model, const std::string& file) {
  const fs::path golden = kGoldens / "models" / model;
  const auto expected = Checkpoint::Open(golden.string());
  ASSERT_TRUE(expected.ok()) << expected.status();
  const testing_files::TemporaryDirectory dir;
  fs::copy_file(golden / "config.json", dir.path() + "/config.json");
  fs::copy_file(kGoldens / "torch" / file, dir.path() + "/pytorch_model.bin");
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->container(), "torch");
  EXPECT_EQ((*checkpoint)->config(), (*expected)->config());
  for (const TensorKey& key : (*expected)->Keys()) {
    const TensorInfo &ours = *(*checkpoint)->Find(key), &theirs = *(*expected)->Find(key);
    EXPECT_EQ(ours.format, theirs.format);
    std::vector<float> a(ours.rows * ours.cols), b(theirs.rows * theirs.cols);
    ASSERT_TRUE((*checkpoint)->ReadFloats(key, {0, ours.rows, 0, ours.cols}, absl::MakeSpan(a)).ok());
    ASSERT_TRUE((*expected)->ReadFloats(key, {0, theirs.rows, 0, theirs.cols}, absl::MakeSpan(b)).ok());
    EXPECT_EQ(a, b) << Name(key);
  }
}

TEST(TorchGoldenTest, ATiedLlama) { ExpectSameWeights("llama-mqa-tied", "llama-mqa-tied.bin"); }

TEST(TorchGoldenTest, ABloomOfATrainerWithTransposedMatrices) {
  ExpectSameWeights("bloom-6-heads-bf16", "bloom-6-heads-bf16-wrapped.bin");
}

double ElementAt(const std::string& dtype, const std::byte* at) {
  const auto load = [&](auto value) {
    std::memcpy(&value, at, sizeof(value));
    return value;
  };
  if (dtype == "F64") return load(double{});
  if (dtype == "F32") return load(float{});
  if (dtype == "F16") return F32FromF16(load(uint16_t{}));
  if (dtype == "BF16") return F32FromBF16(load(uint16_t{}));
  if (dtype == "I64") return static_cast<double>(load(int64_t{}));
  if (dtype == "I32") return load(int32_t{});
  if (dtype == "I16") return load(int16_t{});
  if (dtype == "I8") return load(int8_t{});
  return load(uint8_t{});
}

// All elements in the order of their indices.
std::vector<double> ElementsOf(const FileTensor& tensor, absl::Span<const std::byte> file) {
  std::vector<int64_t> strides = tensor.strides;
  if (strides.empty()) {
    strides.assign(tensor.shape.size(), 1);
    for (size_t i = strides.size(); i-- > 1;) strides[i - 1] = strides[i] * tensor.shape[i];
  }
  int64_t count = 1;
  for (const int64_t size : tensor.shape) count *= size;
  const int64_t each = tensor.dtype.ends_with("64")   ? 8
                       : tensor.dtype.ends_with("32") ? 4
                       : tensor.dtype.ends_with("16") ? 2
                                                      : 1;
  std::vector<double> elements;
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i, place = 0;
    for (size_t d = tensor.shape.size(); d-- > 0; rest /= tensor.shape[d]) {
      place += rest % tensor.shape[d] * strides[d];
    }
    elements.push_back(ElementAt(tensor.dtype, file.data() + tensor.offset + place * each));
  }
  return elements;
}

void ExpectViewsAndTypes(const std::string& name) {
  SCOPED_TRACE(name);
  const auto file = FileMapping::Open((kGoldens / "torch" / name).string());
  ASSERT_TRUE(file.ok()) << file.status();
  const auto table = ReadTensorTable((*file)->bytes());
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->container, TensorContainer::kTorch);
  const auto text = ReadSmallFile((kGoldens / "torch/views.json").string(), 1 << 20);
  ASSERT_TRUE(text.ok()) << text.status();
  const auto expected = ParseJson(*text);
  ASSERT_TRUE(expected.ok()) << expected.status();
  const std::map<std::string, std::string> dtypes = {{"torch.float32", "F32"}, {"torch.float64", "F64"},
                                                     {"torch.float16", "F16"}, {"torch.bfloat16", "BF16"},
                                                     {"torch.int64", "I64"},   {"torch.int32", "I32"},
                                                     {"torch.int16", "I16"},   {"torch.int8", "I8"},
                                                     {"torch.uint8", "U8"},    {"torch.bool", "BOOL"}};
  ASSERT_EQ(table->tensors.size(), expected->size());
  for (const FileTensor& tensor : table->tensors) {
    SCOPED_TRACE(tensor.name);
    const Json& entry = (*expected)[tensor.name];
    EXPECT_EQ(tensor.dtype, dtypes.at(entry["dtype"].text()));
    std::vector<int64_t> shape;
    for (const Json& size : entry["shape"]) shape.push_back(size.get<int64_t>());
    EXPECT_EQ(tensor.shape, shape);
    std::vector<double> values;
    for (const Json& value : entry["values"]) values.push_back(value.get<double>());
    EXPECT_EQ(ElementsOf(tensor, (*file)->bytes()), values);
  }
}

TEST(TorchGoldenTest, ViewsAndTypes) { ExpectViewsAndTypes("views.bin"); }

TEST(TorchGoldenTest, TheFormatFromBefore16) { ExpectViewsAndTypes("views-legacy.bin"); }

TEST(TorchGoldenTest, TheFormatFromBefore16AsTorch2WritesIt) {
  ExpectViewsAndTypes("views-legacy-torch2.bin");
  ExpectSameWeights("llama-rope-v4-type", "llama-rope-v4-type-legacy.bin");
}

}  // namespace
}  // namespace bellwether
