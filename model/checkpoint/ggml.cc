#include "model/checkpoint/ggml.h"

#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "model/checkpoint/byte_reader.h"
#include "model/config.h"

namespace bellwether {
namespace {

constexpr uint32_t kGgml = 0x67676d6c, kGgmf = 0x67676d66, kGgjt = 0x67676a74;
constexpr uint64_t kGgjtAlignment = 32;

// Which blocks a file has: they changed at ggjt v2 and v3.
enum class Generation { kFirst, kSecond, kThird };

// A tensor type by its number, in each generation; nothing where it cannot be read.
struct TensorType {
  uint32_t number;
  const char* name;
  std::optional<StorageType> first, second, third;
};
constexpr TensorType kTypes[] = {
    {0, "F32", StorageType::kF32, StorageType::kF32, StorageType::kF32},
    {1, "F16", StorageType::kF16, StorageType::kF16, StorageType::kF16},
    {2, "Q4_0", StorageType::kQ4_0V1, StorageType::kQ4_0V2, StorageType::kQ4_0},
    {3, "Q4_1", StorageType::kQ4_1V1, StorageType::kQ4_1V2, StorageType::kQ4_1},
    {4, "Q4_2", {}, {}, {}},
    {5, "Q4_3", {}, {}, {}},
    {6, "Q5_0", {}, StorageType::kQ5_0, StorageType::kQ5_0},
    {7, "Q5_1", {}, StorageType::kQ5_1, StorageType::kQ5_1},
    {8, "Q8_0", {}, StorageType::kQ8_0V2, StorageType::kQ8_0},
    {10, "Q2_K", {}, {}, {}},
    {11, "Q3_K", {}, {}, {}},
    {12, "Q4_K", {}, {}, StorageType::kQ4_K},
    {13, "Q5_K", {}, {}, StorageType::kQ5_K},
    {14, "Q6_K", {}, {}, StorageType::kQ6_K},
};

// Reads a file from front to back.
class Parser {
 public:
  explicit Parser(absl::Span<const std::byte> file) : file_(file), in_(file) {}
  absl::StatusOr<GgmlFile> Parse();

 private:
  absl::Status TakeContainer();
  absl::Status TakeSizes();
  absl::Status TakeSize(const char* what, int32_t max, int32_t& value);
  absl::Status TakeVocabulary();
  absl::Status TakeTensor();
  absl::StatusOr<StorageType> StorageOf(uint32_t number, const std::string& tensor) const;
  absl::Status CheckRowLayout() const;

  const absl::Span<const std::byte> file_;
  ByteReader in_;
  Generation generation_ = Generation::kFirst;
  bool has_scores_ = true;
  bool aligned_ = false;
  absl::flat_hash_set<std::string> names_;
  GgmlFile result_;
};

absl::Status Parser::TakeContainer() {
  uint32_t magic = 0, version = 0;
  BW_RETURN_IF_ERROR(in_.Take(magic));
  if (magic == kGgml) {
    has_scores_ = false;
    result_.container = "ggml";
    return absl::OkStatus();
  }
  BW_RETURN_IF_ERROR(in_.Take(version));
  aligned_ = magic == kGgjt;
  result_.container = absl::StrCat(aligned_ ? "ggjt" : "ggmf", " v", version);
  if (version < 1 || version > (aligned_ ? 3 : 1))
    return absl::UnimplementedError(absl::StrCat(result_.container, " is not known"));
  generation_ = version == 1 ? Generation::kFirst : version == 2 ? Generation::kSecond : Generation::kThird;
  return absl::OkStatus();
}

absl::Status Parser::TakeSize(const char* what, int32_t max, int32_t& value) {
  BW_RETURN_IF_ERROR(in_.Take(value));
  if (1 <= value && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, " is ", value, ", allowed: 1 to ", max));
}

absl::Status Parser::TakeSizes() {
  BW_RETURN_IF_ERROR(TakeSize("n_vocab", kVocabMax, result_.vocab));
  BW_RETURN_IF_ERROR(TakeSize("n_embd", kHiddenMax, result_.hidden));
  BW_RETURN_IF_ERROR(TakeSize("n_mult", kFfnMax, result_.ffn_multiple));
  BW_RETURN_IF_ERROR(TakeSize("n_head", kHeadsMax, result_.heads));
  BW_RETURN_IF_ERROR(TakeSize("n_layer", kLayersMax, result_.layers));
  BW_RETURN_IF_ERROR(TakeSize("n_rot", kHiddenMax, result_.rotary));
  uint32_t type = 0;  // of most tensors; each says its own
  return in_.Take(type);
}

absl::Status Parser::TakeVocabulary() {
  for (int32_t i = 0; i < result_.vocab; ++i) {
    uint32_t length = 0;
    BW_RETURN_IF_ERROR(in_.Take(length));
    if (length > kGgmlPieceBytesMax)
      return absl::InvalidArgumentError(absl::StrCat("token ", i, " claims ", length, " bytes"));
    BW_RETURN_IF_ERROR(in_.Take(length, result_.pieces.emplace_back()));
    if (has_scores_) BW_RETURN_IF_ERROR(in_.Take(result_.scores.emplace_back()));
  }
  return absl::OkStatus();
}

absl::StatusOr<StorageType> Parser::StorageOf(uint32_t number, const std::string& tensor) const {
  for (const TensorType& type : kTypes) {
    if (type.number != number) continue;
    const std::optional<StorageType>& storage = generation_ == Generation::kFirst    ? type.first
                                                : generation_ == Generation::kSecond ? type.second
                                                                                     : type.third;
    if (storage.has_value()) return *storage;
    return absl::UnimplementedError(absl::StrCat(tensor, " has type ", type.name, ", which is not read from ",
                                                 result_.container,
                                                 ": take a file of F32, F16, Q4_0 or Q4_1, or one of GGUF"));
  }
  return absl::InvalidArgumentError(absl::StrCat(tensor, " has the unknown type ", number));
}

absl::Status Parser::TakeTensor() {
  uint32_t rank = 0, name_bytes = 0, type = 0;
  BW_RETURN_IF_ERROR(in_.Take(rank));
  BW_RETURN_IF_ERROR(in_.Take(name_bytes));
  BW_RETURN_IF_ERROR(in_.Take(type));
  if (rank < 1 || rank > 2 || name_bytes > kGgmlNameBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("byte ", in_.position(), ": a tensor of ", rank,
                                                   " dimensions with a name of ", name_bytes, " bytes"));
  }
  uint32_t cols = 0, rows = 1;
  BW_RETURN_IF_ERROR(in_.Take(cols));
  if (rank == 2) BW_RETURN_IF_ERROR(in_.Take(rows));
  std::string name;
  BW_RETURN_IF_ERROR(in_.Take(name_bytes, name));
  const std::string quoted = absl::StrCat("tensor ", Quoted(name));
  BW_ASSIGN_OR_RETURN(const StorageType storage, StorageOf(type, quoted));
  if (rows < 1 || cols < 1 || cols % BlockColumns(storage) != 0)
    return absl::InvalidArgumentError(absl::StrCat(quoted, " is ", rows, " x ", cols));
  if (!names_.insert(name).second) return absl::InvalidArgumentError(absl::StrCat(quoted, " is there twice"));
  if (aligned_)
    BW_RETURN_IF_ERROR(in_.Skip((kGgjtAlignment - in_.position() % kGgjtAlignment) % kGgjtAlignment));
  // Below 2^32 rows of 2^32 elements of 8 bytes each: the row's bytes fit, their number of rows may not.
  const auto row_bytes = static_cast<uint64_t>(RowBytes(storage, cols));
  if (row_bytes > in_.left() / rows)
    return absl::InvalidArgumentError(absl::StrCat(quoted, " lies beyond the end of the file"));
  result_.tensors.push_back({.name = std::move(name),
                             .storage = storage,
                             .rows = rows,
                             .cols = cols,
                             .offset = in_.position(),
                             .bytes = row_bytes * rows});
  return in_.Skip(row_bytes * rows);
}

// The first programs wrote the scales of a row before its integers, under the same magic and type. Blocks of
// random bits are no scales: a file whose first rows have some that no weights would have is one of those.
absl::Status Parser::CheckRowLayout() const {
  constexpr int64_t kBlocksLooked = 256;
  constexpr float kScaleMax = 1024;
  for (const BlockTensor& tensor : result_.tensors) {
    if (tensor.storage != StorageType::kQ4_0V1 && tensor.storage != StorageType::kQ4_1V1) continue;
    const int64_t blocks = std::min(tensor.rows * tensor.cols / BlockColumns(tensor.storage), kBlocksLooked);
    for (int64_t i = 0; i < blocks; ++i) {
      float scale = 0;
      std::memcpy(&scale, file_.data() + tensor.offset + i * BlockBytes(tensor.storage), sizeof(scale));
      if (std::abs(scale) <= kScaleMax) continue;  // not a NaN either
      return absl::UnimplementedError(absl::StrCat(
          "tensor ", Quoted(tensor.name), " has a block with the scale ", scale,
          ": damaged, or of the very first layout (scales before the integers of a row), which is not read"));
    }
    break;
  }
  return absl::OkStatus();
}

absl::StatusOr<GgmlFile> Parser::Parse() {
  BW_RETURN_IF_ERROR(TakeContainer());
  BW_RETURN_IF_ERROR(TakeSizes());
  BW_RETURN_IF_ERROR(TakeVocabulary());
  while (in_.left() > 0) {
    if (result_.tensors.size() == kGgmlTensorsMax) return absl::InvalidArgumentError("too many tensors");
    BW_RETURN_IF_ERROR(TakeTensor());
  }
  BW_RETURN_IF_ERROR(CheckRowLayout());
  return std::move(result_);
}

}  // namespace

bool IsGgml(absl::Span<const std::byte> file) {
  uint32_t magic = 0;
  if (file.size() < sizeof(magic)) return false;
  std::memcpy(&magic, file.data(), sizeof(magic));
  return magic == kGgml || magic == kGgmf || magic == kGgjt;
}

absl::StatusOr<GgmlFile> GgmlFile::Parse(absl::Span<const std::byte> file) {
  if (!IsGgml(file)) return absl::InvalidArgumentError("no file of GGML from before GGUF");
  return Parser(file).Parse();
}

}  // namespace bellwether
