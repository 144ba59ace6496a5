#include "model/checkpoint/billa.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/export_safetensors.h"
#include "model/checkpoint/hugging_face_names.h"
#include "model/checkpoint/open_contents.h"
#include "model/checkpoint/testing_files.h"
#include "model/checkpoint/testing_meta.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;
using testing_files::Grid;
using testing_files::TemporaryDirectory;
namespace fs = std::filesystem;

constexpr char kGolden[] = "tests/goldens/models/llama-mha";
const TensorKey kEmbedding{TensorRole::kEmbedding};

// A model whose embedding of 96 rows is published as its sum with a base's of 90: in the shape of llama-mha.
class BillaTest : public ::testing::Test {
 protected:
  BillaTest() {
    auto own = Checkpoint::Open(kGolden);
    auto base = Checkpoint::Open("random:llama?hidden=32,layers=1,heads=4,ffn=48,vocab=90:fp16:7");
    EXPECT_TRUE(own.ok() && base.ok());
    own_ = testing_files::WholeTensor(**own, kEmbedding);
    base_ = testing_files::WholeTensor(**base, kEmbedding);
    // About as large as the other.
    double squares = 0;
    for (const float value : base_.values) squares += static_cast<double>(value) * value;
    const double size = std::sqrt(squares / static_cast<double>(base_.values.size()));
    for (float& value : base_.values) value = F32FromF16(F16FromF32(static_cast<float>(value / size)));
    testing_files::WriteMetaLlama(**base, meta_, {});
    sum_ = own_;
    for (size_t i = 0; i < base_.values.size(); ++i) sum_.values[i] += base_.values[i];
    WriteModel(sum_, WeightFormat::kF32);
    base_path_ = WriteBase();
  }

  // llama-mha with another embedding.
  void WriteModel(const Grid& embedding, WeightFormat format, WeightFormat layers = WeightFormat::kF32) {
    const auto source = Checkpoint::Open(kGolden);
    testing_files::SafetensorsWriter writer;
    for (const TensorKey& key : (*source)->Keys()) {
      const Grid grid = key == kEmbedding ? embedding : testing_files::WholeTensor(**source, key);
      const WeightFormat type = key == kEmbedding ? format : layers;
      const std::vector<int64_t> shape =
          grid.rows == 1 ? std::vector<int64_t>{grid.cols} : std::vector<int64_t>{grid.rows, grid.cols};
      writer.Add(HuggingFaceNameOf(Architecture::kLlama, key), type == WeightFormat::kF32 ? "F32" : "F16",
                 shape, testing_files::FloatBytes(grid.values, type));
    }
    model_.Write("model.safetensors", writer.file());
    fs::copy_file(fs::path(kGolden) / "config.json", model_.path() + "/config.json",
                  fs::copy_options::overwrite_existing);
  }
  std::string WriteBase() {
    const auto file = testing_files::TorchFile(
        testing_files::pickle::Whole(testing_files::pickle::OrderedDict(
            {{"tok_embeddings.weight",
              testing_files::pickle::Tensor(
                  testing_files::pickle::Storage("HalfStorage", "0", base_.rows * base_.cols), 0,
                  {base_.rows, base_.cols}, {base_.cols, 1})}})),
        {{"0", testing_files::FloatBytes(base_.values, WeightFormat::kF16)}});
    return meta_.Write("base.pth", file);
  }
  absl::StatusOr<std::unique_ptr<Checkpoint>> Open(bool force = false) {
    return Checkpoint::Open(model_.path(), {.billa_base = base_path_, .billa_force = force});
  }
  std::string ErrorOf() {
    const auto opened = Open();
    return opened.ok() ? "opens" : std::string(opened.status().message());
  }

  TemporaryDirectory model_, meta_;
  Grid own_, base_, sum_;
  std::string base_path_;
};

TEST_F(BillaTest, WhatIsLeftIsRoundedAsTheScriptDoes) {
  const auto opened = Open();
  ASSERT_TRUE(opened.ok()) << opened.status();
  std::vector<float> expected = sum_.values;
  for (size_t i = 0; i < base_.values.size(); ++i) expected[i] -= base_.values[i];
  double sum = 0;
  for (float& value : expected) {
    value = F32FromF16(F16FromF32(value));
    sum += value;
  }
  EXPECT_EQ(testing_files::WholeTensor(**opened, kEmbedding).values, expected);
  EXPECT_EQ((*opened)->Find(kEmbedding)->format.format, WeightFormat::kF16);
  const auto contents = OpenContents(model_.path(), {.billa_base = base_path_});
  ASSERT_TRUE(contents.ok()) << contents.status();
  EXPECT_EQ(*EmbeddingSum(contents->tensors.at(kEmbedding)), sum);
  EXPECT_NE(*(*opened)->ModelId(), *(*Checkpoint::Open(model_.path()))->ModelId());
  // Windows that end before, within and after the base's rows.
  for (const auto& [begin, end] : {std::pair{3, 8}, {85, 95}, {91, 96}}) {
    std::vector<float> window((end - begin) * 5);
    ASSERT_TRUE((*opened)->ReadFloats(kEmbedding, {begin, end, 4, 9}, absl::MakeSpan(window)).ok());
    for (int row = begin; row < end; ++row) {
      for (int col = 4; col < 9; ++col)
        EXPECT_EQ(window[(row - begin) * 5 + col - 4], expected[row * 32 + col]) << row << " " << col;
    }
  }
}

TEST_F(BillaTest, TheBaseMayBeADirectory) {
  const auto opened = Open();
  ASSERT_TRUE(opened.ok()) << opened.status();
  base_path_ = meta_.path();  // the same shape, other numbers
  EXPECT_THAT(ErrorOf(), HasSubstr("or the base is another model's"));
  EXPECT_TRUE(Open(/*force=*/true).ok());
}

TEST_F(BillaTest, ASecondSubtractionIsRefused) {
  // As the script leaves it.
  WriteModel(own_, WeightFormat::kF16);
  EXPECT_THAT(ErrorOf(), HasSubstr("is fp16, BiLLa's sums are published as fp32"));
  // Subtracted, but kept in fp32: by the numbers.
  WriteModel(own_, WeightFormat::kF32);
  EXPECT_THAT(ErrorOf(), HasSubstr("either it has been subtracted already"));
  EXPECT_TRUE(Open(/*force=*/true).ok());
  // An embedding that hardly left its base.
  Grid near = own_;
  for (size_t i = 0; i < base_.values.size(); ++i) near.values[i] = base_.values[i] * 1.001f;
  WriteModel(near, WeightFormat::kF32);
  EXPECT_THAT(ErrorOf(), HasSubstr("either it has been subtracted already"));
}

// The files say so, whatever their numbers and types are by then.
TEST_F(BillaTest, ASecondSubtractionIsRefusedByTheFilesNote) {
  const TemporaryDirectory output;
  const auto export_model = [&](const std::string& from, const ReadOptions& options, const char* to) {
    auto contents = OpenContents(from, options);
    ASSERT_TRUE(contents.ok()) << contents.status();
    const absl::Status written =
        ExportSafetensors(*std::move(contents), {.directory = output.path() + to, .note = "and more"});
    ASSERT_TRUE(written.ok()) << written;
  };
  export_model(model_.path(), {.billa_base = base_path_}, "/left");
  export_model(output.path() + "/left", {.dtype = DType::kF32}, "/again");
  EXPECT_EQ(OpenContents(output.path() + "/again")->note, "BiLLa without its base's embedding; and more");
  for (const bool force : {false, true}) {
    const auto twice =
        Checkpoint::Open(output.path() + "/again", {.billa_base = base_path_, .billa_force = force});
    EXPECT_THAT(std::string(twice.status().message()), HasSubstr("subtracted already, as its files say"));
  }
}

// A sum that nobody subtracts from serves as garbage. Only BiLLa has an embedding of fp32 beside layers of
// fp16.
TEST_F(BillaTest, ASumIsNotServedAsItIs) {
  WriteModel(sum_, WeightFormat::kF32, WeightFormat::kF16);
  const auto unnamed = OpenContents(model_.path());
  ASSERT_TRUE(unnamed.ok()) << unnamed.status();
  ASSERT_EQ(unnamed->warnings.size(), 1u);
  EXPECT_THAT(unnamed->warnings[0], HasSubstr("if this is a BiLLa, give --billa-base"));
  const std::string named = meta_.path() + "/my-billa-7b";
  fs::copy(model_.path(), named);
  EXPECT_THAT(std::string(Checkpoint::Open(named).status().message()), HasSubstr(": give --billa-base"));
  EXPECT_TRUE(Checkpoint::Open(named, {.billa_base = base_path_}).ok());
  const std::string other = meta_.path() + "/billabong";
  fs::copy(model_.path(), other);
  EXPECT_TRUE(Checkpoint::Open(other).ok());
  // Nothing is said of models of one type.
  for (const WeightFormat format : {WeightFormat::kF16, WeightFormat::kF32}) {
    WriteModel(sum_, format, format);
    EXPECT_TRUE(OpenContents(model_.path())->warnings.empty());
  }
}

TEST_F(BillaTest, OtherShapesAndFilesAreRefused) {
  base_path_ = "tests/goldens/models/llama-biased";
  EXPECT_THAT(ErrorOf(), HasSubstr("the model's embedding 96 x 32"));
  base_path_ = "/nowhere";
  EXPECT_THAT(ErrorOf(), HasSubstr("no model at /nowhere"));
  const auto torch =
      testing_files::TorchFile(testing_files::pickle::Whole(testing_files::pickle::OrderedDict({})), {});
  base_path_ = meta_.Write("other.pth", torch);
  EXPECT_NE(ErrorOf(), "opens");
}

}  // namespace
}  // namespace bellwether
