#include "model/checkpoint/gguf.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "model/checkpoint/byte_reader.h"

namespace bellwether {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kAlignmentDefault = 32;

// Bytes of a value of fixed size; 0 for strings, arrays and unknown types.
uint64_t FixedBytes(GgufType type) {
  constexpr uint64_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  const auto number = static_cast<uint32_t>(type);
  return number < std::size(kBytes) ? kBytes[number] : 0;
}

bool IsKnown(GgufType type) { return type <= GgufType::kFloat64; }

template <typename T>
T LoadAt(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

std::optional<int64_t> IntegerAt(GgufType type, const std::byte* at) {
  switch (type) {
    case GgufType::kUint8:
      return LoadAt<uint8_t>(at);
    case GgufType::kInt8:
      return LoadAt<int8_t>(at);
    case GgufType::kUint16:
      return LoadAt<uint16_t>(at);
    case GgufType::kInt16:
      return LoadAt<int16_t>(at);
    case GgufType::kUint32:
      return LoadAt<uint32_t>(at);
    case GgufType::kInt32:
      return LoadAt<int32_t>(at);
    case GgufType::kInt64:
      return LoadAt<int64_t>(at);
    case GgufType::kUint64: {
      const auto value = LoadAt<uint64_t>(at);
      if (value > uint64_t{INT64_MAX}) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

// A tensor type by its number in ggml; the readable ones have a StorageType.
struct TensorType {
  uint32_t number;
  const char* name;
  std::optional<StorageType> storage;
};
constexpr TensorType kTensorTypes[] = {
    {0, "F32", StorageType::kF32},
    {1, "F16", StorageType::kF16},
    {2, "Q4_0", StorageType::kQ4_0},
    {3, "Q4_1", StorageType::kQ4_1},
    {6, "Q5_0", StorageType::kQ5_0},
    {7, "Q5_1", StorageType::kQ5_1},
    {8, "Q8_0", StorageType::kQ8_0},
    {9, "Q8_1", {}},
    {10, "Q2_K", {}},
    {11, "Q3_K", {}},
    {12, "Q4_K", StorageType::kQ4_K},
    {13, "Q5_K", StorageType::kQ5_K},
    {14, "Q6_K", StorageType::kQ6_K},
    {15, "Q8_K", {}},
    {16, "IQ2_XXS", {}},
    {17, "IQ2_XS", {}},
    {18, "IQ3_XXS", {}},
    {19, "IQ1_S", {}},
    {20, "IQ4_NL", {}},
    {21, "IQ3_S", {}},
    {22, "IQ2_S", {}},
    {23, "IQ4_XS", {}},
    {24, "I8", {}},
    {25, "I16", {}},
    {26, "I32", {}},
    {27, "I64", {}},
    {28, "F64", {}},
    {29, "IQ1_M", {}},
    {30, "BF16", StorageType::kBF16},
    {34, "TQ1_0", {}},
    {35, "TQ2_0", {}},
    {39, "MXFP4", {}},
};

absl::StatusOr<StorageType> StorageOf(uint32_t number, const std::string& tensor) {
  for (const TensorType& type : kTensorTypes) {
    if (type.number != number) continue;
    if (type.storage.has_value()) return *type.storage;
    return absl::UnimplementedError(
        absl::StrCat("tensor '", tensor, "' has type ", type.name,
                     "; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K can be read"));
  }
  return absl::InvalidArgumentError(absl::StrCat("tensor '", tensor, "' has the unknown type ", number));
}

absl::Status WrongType(const std::string& key, const char* wanted) {
  return absl::InvalidArgumentError(absl::StrCat("'", key, "' should be ", wanted));
}

}  // namespace

// Reads the header from front to back.
class GgufParser {
 public:
  explicit GgufParser(absl::Span<const std::byte> file) : file_(file), in_(file) {}

  absl::StatusOr<GgufFile> Parse();

 private:
  absl::Status TakeText(uint64_t bytes_max, std::string& text);
  absl::Status SkipText();
  absl::Status SkipArray(GgufType element, uint64_t count, int depth);
  absl::Status TakeHeader(uint64_t& tensors, uint64_t& metadata);
  absl::Status TakeMetadata();
  absl::Status TakeTensor();
  absl::Status PlaceTensors();

  const absl::Span<const std::byte> file_;
  ByteReader in_;
  GgufFile result_;
};

absl::Status GgufParser::TakeText(uint64_t bytes_max, std::string& text) {
  uint64_t length = 0;
  BW_RETURN_IF_ERROR(in_.Take(length));
  if (length > in_.left()) return in_.CutShort();
  if (length > bytes_max) {
    return absl::InvalidArgumentError(absl::StrCat("a name of ", length, " bytes; at most ", bytes_max));
  }
  return in_.Take(length, text);
}

absl::Status GgufParser::SkipText() {
  uint64_t length = 0;
  BW_RETURN_IF_ERROR(in_.Take(length));
  return in_.Skip(length);
}

absl::Status GgufParser::SkipArray(GgufType element, uint64_t count, int depth) {
  if (!IsKnown(element)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a list of the unknown type ", static_cast<uint32_t>(element)));
  }
  if (const uint64_t each = FixedBytes(element); each > 0) {
    if (count > in_.left() / each) return in_.CutShort();
    return in_.Skip(count * each);
  }
  // Every element takes at least a length or a header, so a count beyond the file ends at its end.
  for (uint64_t i = 0; i < count; ++i) {
    if (element == GgufType::kString) {
      BW_RETURN_IF_ERROR(SkipText());
      continue;
    }
    if (depth == kGgufArrayDepthMax) {
      return absl::InvalidArgumentError(absl::StrCat("lists nested deeper than ", kGgufArrayDepthMax));
    }
    uint32_t inner = 0;
    uint64_t inner_count = 0;
    BW_RETURN_IF_ERROR(in_.Take(inner));
    BW_RETURN_IF_ERROR(in_.Take(inner_count));
    BW_RETURN_IF_ERROR(SkipArray(static_cast<GgufType>(inner), inner_count, depth + 1));
  }
  return absl::OkStatus();
}

absl::Status GgufParser::TakeHeader(uint64_t& tensors, uint64_t& metadata) {
  uint32_t magic = 0, version = 0;
  BW_RETURN_IF_ERROR(in_.Take(magic));
  if (magic != kMagic) return absl::InvalidArgumentError("not a GGUF file");
  BW_RETURN_IF_ERROR(in_.Take(version));
  if (version != 2 && version != 3) {
    const bool swapped = (version & 0xffff) == 0 && version != 0;
    return absl::UnimplementedError(swapped
                                        ? std::string("a big-endian GGUF file; convert it to little-endian")
                                        : absl::StrCat("GGUF version ", version, "; 2 and 3 can be read"));
  }
  BW_RETURN_IF_ERROR(in_.Take(tensors));
  BW_RETURN_IF_ERROR(in_.Take(metadata));
  if (tensors > kGgufTensorsMax || metadata > kGgufMetadataMax) {
    return absl::InvalidArgumentError(absl::StrCat(tensors, " tensors and ", metadata,
                                                   " metadata values; at most ", kGgufTensorsMax, " and ",
                                                   kGgufMetadataMax));
  }
  return absl::OkStatus();
}

absl::Status GgufParser::TakeMetadata() {
  std::string key;
  BW_RETURN_IF_ERROR(TakeText(kGgufKeyBytesMax, key));
  uint32_t type = 0;
  BW_RETURN_IF_ERROR(in_.Take(type));
  GgufValue value;
  value.type = static_cast<GgufType>(type);
  if (!IsKnown(value.type)) {
    return absl::InvalidArgumentError(absl::StrCat("'", key, "' has the unknown type ", type));
  }
  if (value.type == GgufType::kArray) {
    uint32_t element = 0;
    BW_RETURN_IF_ERROR(in_.Take(element));
    BW_RETURN_IF_ERROR(in_.Take(value.count));
    value.element = static_cast<GgufType>(element);
  }
  const uint64_t begin = in_.position();
  if (value.type == GgufType::kArray) {
    BW_RETURN_IF_ERROR(Annotate(SkipArray(value.element, value.count, 1), absl::StrCat("'", key, "'")));
  } else if (value.type == GgufType::kString) {
    BW_RETURN_IF_ERROR(Annotate(SkipText(), absl::StrCat("'", key, "'")));
  } else {
    BW_RETURN_IF_ERROR(in_.Skip(FixedBytes(value.type)));
  }
  value.bytes = file_.subspan(begin, in_.position() - begin);
  if (!result_.metadata_.emplace(key, value).second) {
    return absl::InvalidArgumentError(absl::StrCat("'", key, "' is there twice"));
  }
  return absl::OkStatus();
}

absl::Status GgufParser::TakeTensor() {
  BlockTensor tensor;
  BW_RETURN_IF_ERROR(TakeText(kGgufKeyBytesMax, tensor.name));
  uint32_t rank = 0, type = 0;
  BW_RETURN_IF_ERROR(in_.Take(rank));
  if (rank < 1 || rank > kGgufRankMax) {
    return absl::InvalidArgumentError(absl::StrCat("tensor '", tensor.name, "' has ", rank, " dimensions"));
  }
  // The first dimension is the fastest: columns. All others count rows.
  uint64_t sizes[kGgufRankMax] = {1, 1, 1, 1};
  for (uint32_t i = 0; i < rank; ++i) BW_RETURN_IF_ERROR(in_.Take(sizes[i]));
  BW_RETURN_IF_ERROR(in_.Take(type));
  BW_RETURN_IF_ERROR(in_.Take(tensor.offset));
  BW_ASSIGN_OR_RETURN(tensor.storage, StorageOf(type, tensor.name));
  uint64_t rows = 1, blocks = 0;
  bool overflow = sizes[0] % BlockColumns(tensor.storage) != 0 || sizes[0] > uint64_t{INT64_MAX};
  for (uint32_t i = 1; i < kGgufRankMax; ++i) overflow |= __builtin_mul_overflow(rows, sizes[i], &rows);
  overflow |= rows > uint64_t{INT64_MAX};
  overflow |= __builtin_mul_overflow(rows, sizes[0] / BlockColumns(tensor.storage), &blocks);
  overflow |=
      __builtin_mul_overflow(blocks, static_cast<uint64_t>(BlockBytes(tensor.storage)), &tensor.bytes);
  if (overflow) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor '", tensor.name, "' has an impossible shape: ", sizes[0], " columns of type ",
        std::string(Name(tensor.storage)), ", ", sizes[1], " x ", sizes[2], " x ", sizes[3], " rows"));
  }
  tensor.rows = static_cast<int64_t>(rows);
  tensor.cols = static_cast<int64_t>(sizes[0]);
  result_.tensors_.push_back(std::move(tensor));
  return absl::OkStatus();
}

// Makes offsets count from the start of the file and checks that the tensors lie in it, apart from each
// other.
absl::Status GgufParser::PlaceTensors() {
  BW_ASSIGN_OR_RETURN(const std::optional<int64_t> given, result_.Integer("general.alignment"));
  const auto alignment = static_cast<uint64_t>(given.value_or(kAlignmentDefault));
  if (alignment < 8 || alignment > kGgufAlignmentMax || alignment % 8 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("an alignment of ", alignment));
  }
  const uint64_t data_start = (in_.position() + alignment - 1) / alignment * alignment;
  const uint64_t data_bytes = data_start < file_.size() ? file_.size() - data_start : 0;
  std::vector<const BlockTensor*> order;
  order.reserve(result_.tensors_.size());
  for (BlockTensor& tensor : result_.tensors_) {
    if (data_start > file_.size() || tensor.offset % alignment != 0 || tensor.offset > data_bytes ||
        tensor.bytes > data_bytes - tensor.offset) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", tensor.name, "' of ", tensor.bytes, " bytes at ", tensor.offset,
                       " does not fit the ", data_bytes, " bytes of data; the file may be cut short"));
    }
    tensor.offset += data_start;
    order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(), [](const BlockTensor* a, const BlockTensor* b) {
    return std::pair(a->offset, a->bytes) < std::pair(b->offset, b->bytes);
  });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i]->offset < order[i - 1]->offset + order[i - 1]->bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensors '", order[i - 1]->name, "' and '", order[i]->name, "' overlap"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<GgufFile> GgufParser::Parse() {
  uint64_t tensors = 0, metadata = 0;
  BW_RETURN_IF_ERROR(TakeHeader(tensors, metadata));
  for (uint64_t i = 0; i < metadata; ++i) BW_RETURN_IF_ERROR(TakeMetadata());
  for (uint64_t i = 0; i < tensors; ++i) BW_RETURN_IF_ERROR(TakeTensor());
  BW_RETURN_IF_ERROR(PlaceTensors());
  return std::move(result_);
}

bool IsGguf(absl::Span<const std::byte> file) {
  return file.size() >= sizeof(kMagic) && LoadAt<uint32_t>(file.data()) == kMagic;
}

absl::StatusOr<GgufFile> GgufFile::Parse(absl::Span<const std::byte> file) {
  return GgufParser(file).Parse();
}

absl::StatusOr<std::optional<int64_t>> GgufFile::Integer(const std::string& key) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return std::nullopt;
  const std::optional<int64_t> value = IntegerAt(found->second.type, found->second.bytes.data());
  if (!value.has_value()) return WrongType(key, "one integer");
  return value;
}

absl::StatusOr<std::optional<double>> GgufFile::Number(const std::string& key) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return std::nullopt;
  const std::byte* at = found->second.bytes.data();
  if (found->second.type == GgufType::kFloat32) return static_cast<double>(LoadAt<float>(at));
  if (found->second.type == GgufType::kFloat64) return LoadAt<double>(at);
  return WrongType(key, "a number with a fraction");
}

absl::StatusOr<std::optional<bool>> GgufFile::Bool(const std::string& key) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return std::nullopt;
  if (found->second.type != GgufType::kBool) return WrongType(key, "true or false");
  return LoadAt<uint8_t>(found->second.bytes.data()) != 0;
}

absl::StatusOr<std::string> GgufFile::Text(const std::string& key) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return std::string();
  if (found->second.type != GgufType::kString) return WrongType(key, "a text");
  const absl::Span<const std::byte> text = found->second.bytes.subspan(sizeof(uint64_t));
  return std::string(reinterpret_cast<const char*>(text.data()), text.size());
}

absl::StatusOr<const GgufValue*> GgufFile::FindArray(const std::string& key) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) return nullptr;
  if (found->second.type != GgufType::kArray) return WrongType(key, "a list");
  return &found->second;
}

absl::StatusOr<std::vector<std::string>> GgufFile::Texts(const std::string& key) const {
  BW_ASSIGN_OR_RETURN(const GgufValue* value, FindArray(key));
  std::vector<std::string> result;
  if (value == nullptr) return result;
  if (value->element != GgufType::kString) return WrongType(key, "a list of texts");
  result.reserve(value->count);  // each takes at least 8 bytes of the file
  const std::byte* at = value->bytes.data();
  for (uint64_t i = 0; i < value->count; ++i) {
    const auto length = LoadAt<uint64_t>(at);  // checked by the parser
    result.emplace_back(reinterpret_cast<const char*>(at) + sizeof(length), length);
    at += sizeof(length) + length;
  }
  return result;
}

absl::StatusOr<std::vector<int64_t>> GgufFile::Integers(const std::string& key) const {
  BW_ASSIGN_OR_RETURN(const GgufValue* value, FindArray(key));
  std::vector<int64_t> result;
  if (value == nullptr) return result;
  const uint64_t each = FixedBytes(value->element);
  if (each == 0) return WrongType(key, "a list of integers");
  result.reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    const std::optional<int64_t> element = IntegerAt(value->element, value->bytes.data() + i * each);
    if (!element.has_value()) return WrongType(key, "a list of integers");
    result.push_back(*element);
  }
  return result;
}

absl::StatusOr<std::vector<float>> GgufFile::Floats(const std::string& key) const {
  BW_ASSIGN_OR_RETURN(const GgufValue* value, FindArray(key));
  std::vector<float> result;
  if (value == nullptr) return result;
  if (value->element != GgufType::kFloat32) return WrongType(key, "a list of floats");
  result.resize(value->count);
  if (!result.empty()) std::memcpy(result.data(), value->bytes.data(), value->bytes.size());
  return result;
}

}  // namespace bellwether
