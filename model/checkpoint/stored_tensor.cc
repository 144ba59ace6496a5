#include "model/checkpoint/stored_tensor.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/dtype.h"
#include "common/round_floats.h"
#include "common/status.h"
#include "model/checkpoint/adjustment.h"
#include "model/random_checkpoint.h"

namespace bellwether {
namespace {

absl::StatusOr<StorageType> StorageOf(const std::string& dtype, const std::string& source) {
  if (dtype == "F32") return StorageType::kF32;
  if (dtype == "F16") return StorageType::kF16;
  if (dtype == "BF16") return StorageType::kBF16;
  if (dtype == "F64") return StorageType::kF64;
  return absl::UnimplementedError(
      absl::StrCat(source, " has type ", dtype, "; F32, F16, BF16 and F64 can be read"));
}

// Element by element: a vector whose elements `rows` places, or a view with gaps between its columns.
void DecodeScattered(const StoredTensor& tensor, int64_t row, int64_t first_col, absl::Span<float> out) {
  const std::byte* data = tensor.file->bytes().data() + tensor.offset;
  const Strides strides = tensor.strides.value_or(Strides{.row = tensor.info.cols, .col = 1});
  const int64_t start = tensor.vector_mapped ? 0 : tensor.rows.Source(row) * strides.row;
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t col = first_col + static_cast<int64_t>(i);
    const int64_t source = start + (tensor.vector_mapped ? tensor.rows.Source(col) : col) * strides.col;
    DecodeFloats(tensor.storage, data, source, out.subspan(i, 1));
  }
}

const std::byte* RowStart(const StoredTensor& tensor, int64_t row) {
  const int64_t row_bytes = tensor.strides.has_value() ? tensor.strides->row * BlockBytes(tensor.storage)
                                                       : RowBytes(tensor.storage, tensor.info.cols);
  return tensor.file->bytes().data() + tensor.offset + tensor.rows.Source(row) * row_bytes;
}

void DecodeRow(const StoredTensor& tensor, int64_t row, int64_t first_col, absl::Span<float> out);

// A row of a tensor that lies in parts.
void DecodeParts(const StoredTensor& tensor, int64_t row, int64_t first_col, absl::Span<float> out) {
  const int64_t source = tensor.rows.Source(row);
  if (!tensor.parts_are_columns) {
    const int64_t each = tensor.parts[0].info.rows;
    return DecodeRow(tensor.parts[source / each], source % each, first_col, out);
  }
  const int64_t each = tensor.parts[0].info.cols;
  while (!out.empty()) {
    const int64_t count = std::min<int64_t>(each - first_col % each, out.size());
    DecodeRow(tensor.parts[first_col / each], source, first_col % each, out.first(count));
    first_col += count;
    out.remove_prefix(count);
  }
}

// One row of a window.
void DecodeRow(const StoredTensor& tensor, int64_t row, int64_t first_col, absl::Span<float> out) {
  if (tensor.made_up()) return RandomFloats(tensor, row, first_col, out);
  if (!tensor.parts.empty()) return DecodeParts(tensor, row, first_col, out);
  if (tensor.vector_mapped || (tensor.strides.has_value() && tensor.strides->col != 1))
    return DecodeScattered(tensor, row, first_col, out);
  DecodeFloats(tensor.storage, RowStart(tensor, row), first_col, out);
}

}  // namespace

absl::StatusOr<StoredTensor> StoreTensor(const FileTensor& tensor,
                                         const std::shared_ptr<const FileMapping>& file,
                                         const std::string& source) {
  StoredTensor stored;
  BW_ASSIGN_OR_RETURN(stored.storage, StorageOf(tensor.dtype, source));
  const std::vector<int64_t>& shape = tensor.shape;
  if (shape.empty() || shape.size() > 2) {
    return absl::InvalidArgumentError(absl::StrCat(source, " has ", shape.size(), " dimensions"));
  }
  stored.info.source = source;
  stored.info.format = FormatOf(stored.storage);
  stored.info.rows = shape.size() == 2 ? shape[0] : 1;
  stored.info.cols = shape.back();
  stored.file = file;
  stored.offset = tensor.offset;
  stored.bytes = tensor.bytes;
  if (const std::vector<int64_t>& strides = tensor.strides; !strides.empty()) {
    stored.strides = Strides{.row = strides.size() == 2 ? strides[0] : 0, .col = strides.back()};
  }
  return stored;
}

absl::StatusOr<StoredTensor> StoreTensor(const BlockTensor& tensor,
                                         const std::shared_ptr<const FileMapping>& file,
                                         const std::string& source) {
  if (tensor.rows == 1 && BlockColumns(tensor.storage) != 1) {
    return absl::UnimplementedError(absl::StrCat(source, " is a vector of type ",
                                                 std::string(Name(tensor.storage)),
                                                 "; vectors of F32, F16 and BF16 can be read"));
  }
  StoredTensor stored;
  stored.info = {tensor.rows, tensor.cols, FormatOf(tensor.storage), source};
  stored.file = file;
  stored.storage = tensor.storage;
  stored.offset = tensor.offset;
  stored.bytes = tensor.bytes;
  return stored;
}

void DecodeWindow(const StoredTensor& tensor, const TensorWindow& window, absl::Span<float> out) {
  const int64_t cols = window.col_end - window.col_begin;
  for (int64_t row = window.row_begin; row < window.row_end; ++row)
    DecodeRow(tensor, row, window.col_begin, out.subspan((row - window.row_begin) * cols, cols));
}

absl::Status ReadStored(const StoredTensor& tensor, const TensorWindow& window, absl::Span<float> out) {
  if (tensor.linear != nullptr) {
    BW_RETURN_IF_ERROR(ReadFloats(*tensor.linear, tensor.rows, window, out));
  } else {
    DecodeWindow(tensor, window, out);
  }
  for (const auto& adjustment : tensor.adjustments) adjustment->Apply(window, out);
  if (!tensor.rounded) return absl::OkStatus();
  const int64_t cols = window.col_end - window.col_begin;
  for (int64_t row = window.row_begin; row < window.row_end; ++row) {
    const absl::Span<float> values = out.subspan((row - window.row_begin) * cols, cols);
    if (RoundFloats(tensor.info.format.format, values)) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        tensor.info.source, ": row ", row, " holds a value too large for ",
        std::string(Name(tensor.info.format.format)), ", which bf16 and fp32 hold: choose one by --dtype"));
  }
  return absl::OkStatus();
}

absl::StatusOr<QuantizedRows> ReadStoredQuantized(const StoredTensor& tensor, const TensorWindow& window) {
  const TensorFormat& format = tensor.info.format;
  if (tensor.linear != nullptr) return ReadQuantized(*tensor.linear, tensor.rows, window);
  const int64_t rows = window.row_end - window.row_begin, cols = window.col_end - window.col_begin;
  const int64_t groups = (cols + format.group - 1) / format.group;
  QuantizedRows result;
  result.q.resize(rows * cols);
  result.scales.resize(rows * groups);
  if (format.has_offset) result.offsets.resize(rows * groups);
  for (int64_t row = 0; row < rows; ++row) {
    const absl::Span<int8_t> q = absl::MakeSpan(result.q).subspan(row * cols, cols);
    float* scales = result.scales.data() + row * groups;
    float* offsets = format.has_offset ? result.offsets.data() + row * groups : nullptr;
    if (tensor.made_up()) {
      RandomQuantized(tensor, window.row_begin + row, window.col_begin, q, scales);
    } else {
      DecodeQuantized(tensor.storage, RowStart(tensor, window.row_begin + row), window.col_begin, q, scales,
                      offsets);
    }
  }
  return result;
}

int64_t BytesOf(const StoredTensor& tensor) {
  if (tensor.made_up()) return 0;
  if (tensor.linear == nullptr) return tensor.info.rows * RowBytes(tensor.storage, tensor.info.cols);
  const QuantizedLinear& linear = *tensor.linear;  // of which this may be some rows
  const uint64_t whole = linear.weights.bytes + linear.zeros.bytes + linear.scales.bytes;
  return static_cast<int64_t>(whole) / linear.outputs * tensor.info.rows;
}

void ForEachFile(const StoredTensor& tensor, absl::FunctionRef<void(const FileMapping&)> use) {
  if (tensor.file != nullptr) use(*tensor.file);
  for (const StoredTensor& part : tensor.parts) ForEachFile(part, use);
  for (const auto& adjustment : tensor.adjustments) {
    for (const StoredTensor* input : adjustment->inputs()) ForEachFile(*input, use);
  }
  if (tensor.linear == nullptr) return;
  const QuantizedLinear& linear = *tensor.linear;
  for (const FilePiece* piece : {&linear.weights, &linear.zeros, &linear.scales, &linear.index}) {
    if (piece->file != nullptr) use(*piece->file);
  }
}

void DropStored(const StoredTensor& tensor) {
  if (tensor.file != nullptr) tensor.file->DropPages(tensor.offset, tensor.bytes);
  for (const StoredTensor& part : tensor.parts) DropStored(part);
  for (const auto& adjustment : tensor.adjustments) {
    for (const StoredTensor* input : adjustment->inputs()) DropStored(*input);
  }
  if (tensor.linear == nullptr) return;
  for (const FilePiece* piece : {&tensor.linear->weights, &tensor.linear->zeros, &tensor.linear->scales})
    piece->file->DropPages(piece->offset, piece->bytes);
}

}  // namespace bellwether
