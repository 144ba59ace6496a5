#include "model/checkpoint/billa.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status.h"
#include "model/checkpoint/adjustment.h"
#include "model/checkpoint/hub_cache.h"
#include "model/checkpoint/open_contents.h"
#include "model/checkpoint/sha256.h"
#include "model/checkpoint/stored_tensor.h"
#include "model/checkpoint/tensor_samples.h"
#include "model/checkpoint/tensor_table_file.h"
#include "model/layer_tensors.h"
#include "model/model_names.h"

namespace bellwether {
namespace {

constexpr char kNote[] = "BiLLa without its base's embedding";
constexpr int64_t kRowsLookedAt = 64;
constexpr int64_t kRowsPerRead = 64;

// Subtracts the base's rows from the first rows of the embedding.
class Subtraction : public Adjustment {
 public:
  explicit Subtraction(StoredTensor base) : base_(std::move(base)) {}

  void Apply(const TensorWindow& window, absl::Span<float> values) const override {
    TensorWindow ours = window;
    ours.row_end = std::min(window.row_end, base_.info.rows);
    if (ours.row_end <= ours.row_begin) return;
    std::vector<float> base((ours.row_end - ours.row_begin) * (ours.col_end - ours.col_begin));
    DecodeWindow(base_, ours, absl::MakeSpan(base));
    for (size_t i = 0; i < base.size(); ++i) values[i] -= base[i];
  }
  std::vector<const StoredTensor*> inputs() const override { return {&base_}; }
  std::string Describe() const override { return "minus a base"; }

 private:
  const StoredTensor base_;
};

// The embedding of a file that is nothing but a table of tensors, or of a directory.
absl::StatusOr<StoredTensor> BaseEmbedding(const std::string& base) {
  BW_ASSIGN_OR_RETURN(const std::string path, ResolveModel(base));
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    BW_ASSIGN_OR_RETURN(CheckpointContents contents, OpenContents(path));
    return std::move(contents.tensors.at(TensorKey{TensorRole::kEmbedding}));
  }
  BW_ASSIGN_OR_RETURN(const std::shared_ptr<const FileMapping> file, FileMapping::Open(path));
  const absl::StatusOr<TensorTableFile> table = ReadTensorTable(file->bytes());
  if (!table.ok()) return Annotate(table.status(), path);
  for (const FileTensor& tensor : table->tensors) {
    if (tensor.name == "tok_embeddings.weight" || tensor.name == "model.embed_tokens.weight")
      return StoreTensor(tensor, file, absl::StrCat(path, ": tensor '", tensor.name, "'"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path, " holds no embedding: neither tok_embeddings.weight nor model.embed_tokens.weight"));
}

// What some rows of a sum and of one of its terms say of each other.
struct Moments {
  double sum_base = 0, base_base = 0, left_left = 0, sum_sum = 0;
};

Moments Look(const StoredTensor& sum, const StoredTensor& base) {
  Moments moments;
  const int64_t rows = std::min(base.info.rows, sum.info.rows), cols = base.info.cols;
  std::vector<float> a(cols), b(cols);
  for (int64_t i = 0; i < std::min(rows, kRowsLookedAt); ++i) {
    const int64_t row = i * rows / std::min(rows, kRowsLookedAt);
    DecodeWindow(sum, {row, row + 1, 0, cols}, absl::MakeSpan(a));
    DecodeWindow(base, {row, row + 1, 0, cols}, absl::MakeSpan(b));
    for (int64_t col = 0; col < cols; ++col) {
      const double whole = a[col], term = b[col], left = whole - term;
      moments.sum_base += whole * term;
      moments.base_base += term * term;
      moments.left_left += left * left;
      moments.sum_sum += whole * whole;
    }
  }
  return moments;
}

// A sum has all of the base in it. What is left of one that has been subtracted from already has less of it,
// or is so close to it that nothing would be left.
absl::Status CheckIsSum(const StoredTensor& embedding, const StoredTensor& base) {
  constexpr double kShareLeast = 0.9, kShareMost = 4, kLeftLeast = 0.05;
  const Moments moments = Look(embedding, base);
  const double share = moments.base_base > 0 ? moments.sum_base / moments.base_base : 0;
  const double left = moments.base_base > 0 ? moments.left_left / moments.base_base : 0;
  if (share >= kShareLeast && share <= kShareMost && left >= kLeftLeast &&
      moments.left_left <= moments.sum_sum)
    return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("%s is not the sum of an embedding and that of %s (it holds %.2f of it, and %.2f of "
                      "its size would be left): "
                      "either it has been subtracted already, or the base is another model's",
                      embedding.info.source, base.info.source, share, left));
}

bool LooksLikeSum(const CheckpointContents& contents) {
  const auto is = [&](const TensorKey& key, WeightFormat format) {
    const StoredTensor& tensor = contents.tensors.at(key);
    return tensor.info.format.format == format && !tensor.made_up();
  };
  if (contents.config.architecture != Architecture::kLlama ||
      !is(TensorKey{TensorRole::kEmbedding}, WeightFormat::kF32))
    return false;
  return std::all_of(contents.tensors.begin(), contents.tensors.end(), [&](const auto& entry) {
    return IsOutsideLayers(entry.first.role) || is(entry.first, WeightFormat::kF16);
  });
}

}  // namespace

absl::Status SubtractBase(const std::string& base_path, bool force, CheckpointContents& contents) {
  if (absl::StrContains(contents.note, kNote)) {
    return absl::InvalidArgumentError(absl::StrCat(
        contents.path, ": its base has been subtracted already, as its files say (", kNote, ")"));
  }
  StoredTensor& embedding = contents.tensors.at(TensorKey{TensorRole::kEmbedding});
  if (embedding.info.format.format != WeightFormat::kF32 || embedding.made_up()) {
    return absl::InvalidArgumentError(absl::StrCat(
        embedding.info.source, " is ", std::string(Name(embedding.info.format.format)),
        ", BiLLa's sums are published as fp32: the base has been subtracted already, or it is no sum"));
  }
  BW_ASSIGN_OR_RETURN(StoredTensor base, BaseEmbedding(base_path));
  if (IsQuantized(base.info.format.format))
    return absl::InvalidArgumentError(
        absl::StrCat(base.info.source, " is quantised: give Meta's own weights"));
  if (base.info.cols != embedding.info.cols || base.info.rows > embedding.info.rows) {
    return absl::InvalidArgumentError(absl::StrCat(base.info.source, " is ", base.info.rows, " x ",
                                                   base.info.cols, ", the model's embedding ",
                                                   embedding.info.rows, " x ", embedding.info.cols));
  }
  if (!force) BW_RETURN_IF_ERROR(CheckIsSum(embedding, base));
  Sha256 digest;
  AddSamples(base, digest);
  BW_ASSIGN_OR_RETURN(contents.reading["billa-base"], digest.ShortDigest());
  embedding.adjustments.push_back(std::make_shared<const Subtraction>(std::move(base)));
  embedding.info.format.format = WeightFormat::kF16;
  embedding.rounded = true;
  AddNote(kNote, contents.note);
  return absl::OkStatus();
}

absl::Status CheckNeedsNoBase(CheckpointContents& contents) {
  if (!LooksLikeSum(contents)) return absl::OkStatus();
  const std::string what =
      absl::StrCat(contents.tensors.at(TensorKey{TensorRole::kEmbedding}).info.source,
                   " is fp32 where the layers are fp16, as BiLLa publishes the sum of its embedding and "
                   "Meta's, which is of no use as it is: ");
  constexpr char kGive[] =
      "give --billa-base consolidated.00.pth (of Meta's LLaMA), or convert it once by bellwether convert "
      "billa";
  for (const std::string& name : ModelNames(contents.path)) {
    if (NameWords(name).Have({"billa"})) return absl::InvalidArgumentError(absl::StrCat(what, kGive));
  }
  contents.warnings.push_back(absl::StrCat(what, "if this is a BiLLa, ", kGive));
  return absl::OkStatus();
}

absl::StatusOr<double> EmbeddingSum(const StoredTensor& embedding) {
  const TensorInfo& info = embedding.info;
  double sum = 0;
  std::vector<float> values(kRowsPerRead * info.cols);
  for (int64_t row = 0; row < info.rows; row += kRowsPerRead) {
    const int64_t end = std::min(row + kRowsPerRead, info.rows);
    const auto some = absl::MakeSpan(values).first((end - row) * info.cols);
    BW_RETURN_IF_ERROR(ReadStored(embedding, {row, end, 0, info.cols}, some));
    for (const float value : some) sum += value;
  }
  DropStored(embedding);
  return sum;
}

}  // namespace bellwether
