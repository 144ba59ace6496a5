#include "model/checkpoint/checkpoint.h"

#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "model/checkpoint/contents.h"
#include "model/checkpoint/expected_tensors.h"
#include "model/checkpoint/ggml_checkpoint.h"
#include "model/checkpoint/gguf_checkpoint.h"
#include "model/checkpoint/hugging_face.h"
#include "model/checkpoint/tensor_table_file.h"
#include "model/random_checkpoint.h"

namespace bellwether {
namespace {

// The stored form of a key; a tied head is the embedding.
const StoredTensor* Lookup(const CheckpointContents& contents, TensorKey key) {
  if (key == TensorKey{TensorRole::kHead} && contents.config.tied_head) key.role = TensorRole::kEmbedding;
  const auto found = contents.tensors.find(key);
  return found == contents.tensors.end() ? nullptr : &found->second;
}

absl::StatusOr<const StoredTensor*> LookupWindow(const CheckpointContents& contents, const TensorKey& key,
                                                 const TensorWindow& window) {
  const StoredTensor* tensor = Lookup(contents, key);
  if (tensor == nullptr) return absl::NotFoundError(absl::StrCat(contents.path, ": no ", Name(key)));
  if (window.row_begin < 0 || window.row_begin > window.row_end || window.row_end > tensor->info.rows ||
      window.col_begin < 0 || window.col_begin > window.col_end || window.col_end > tensor->info.cols) {
    return absl::InvalidArgumentError(absl::StrCat(
        tensor->info.source, ": rows ", window.row_begin, "-", window.row_end, ", columns ", window.col_begin,
        "-", window.col_end, " lie outside ", Name(key), ", ", tensor->info.rows, " x ", tensor->info.cols));
  }
  return tensor;
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

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& path) {
  if (absl::StartsWith(path, kRandomPrefix)) {
    BW_ASSIGN_OR_RETURN(CheckpointContents contents, MakeRandomContents(path));
    return std::make_unique<Checkpoint>(std::move(contents));
  }
  struct stat info;
  if (stat(path.c_str(), &info) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open model ", path));
  if (S_ISDIR(info.st_mode)) {
    BW_ASSIGN_OR_RETURN(CheckpointContents contents, OpenHuggingFaceDirectory(path));
    return std::make_unique<Checkpoint>(std::move(contents));
  }
  BW_ASSIGN_OR_RETURN(const bool has_table, HasTensorTable(path));
  if (has_table) {
    BW_ASSIGN_OR_RETURN(CheckpointContents contents, OpenHuggingFaceFile(path));
    return std::make_unique<Checkpoint>(std::move(contents));
  }
  BW_ASSIGN_OR_RETURN(const std::shared_ptr<const FileMapping> file, FileMapping::Open(path));
  BW_ASSIGN_OR_RETURN(CheckpointContents contents,
                      IsGgml(file->bytes()) ? OpenGgmlCheckpoint(path) : OpenGgufCheckpoint(path));
  return std::make_unique<Checkpoint>(std::move(contents));
}

Checkpoint::Checkpoint(CheckpointContents contents)
    : contents_(std::make_unique<const CheckpointContents>(std::move(contents))) {}
Checkpoint::~Checkpoint() = default;

const ModelConfig& Checkpoint::config() const { return contents_->config; }
const std::string& Checkpoint::path() const { return contents_->path; }
const std::string& Checkpoint::container() const { return contents_->container; }
const std::string& Checkpoint::chat_template_text() const { return contents_->chat_template_text; }
const std::string& Checkpoint::model_name() const { return contents_->model_name; }
const GenerationOptions& Checkpoint::generation_defaults() const { return contents_->generation_defaults; }

const TensorInfo* Checkpoint::Find(const TensorKey& key) const {
  const StoredTensor* tensor = Lookup(*contents_, key);
  return tensor == nullptr ? nullptr : &tensor->info;
}

std::vector<TensorKey> Checkpoint::Keys() const {
  std::vector<TensorKey> keys;
  for (const ExpectedTensor& tensor : ExpectedTensors(contents_->config)) keys.push_back(tensor.key);
  return keys;
}

absl::Status Checkpoint::ReadFloats(const TensorKey& key, const TensorWindow& window,
                                    absl::Span<float> out) const {
  BW_ASSIGN_OR_RETURN(const StoredTensor* tensor, LookupWindow(*contents_, key, window));
  const int64_t rows = window.row_end - window.row_begin, cols = window.col_end - window.col_begin;
  if (static_cast<int64_t>(out.size()) != rows * cols) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(key), ": room for ", out.size(), " values of a window of ", rows, " x ", cols));
  }
  if (tensor->linear != nullptr) return bellwether::ReadFloats(*tensor->linear, tensor->rows, window, out);
  for (int64_t row = 0; row < rows; ++row) {
    const absl::Span<float> out_row = out.subspan(row * cols, cols);
    if (tensor->file == nullptr) {
      RandomFloats(*tensor, window.row_begin + row, window.col_begin, out_row);
    } else if (tensor->vector_mapped || (tensor->strides.has_value() && tensor->strides->col != 1)) {
      DecodeScattered(*tensor, window.row_begin + row, window.col_begin, out_row);
    } else {
      DecodeFloats(tensor->storage, RowStart(*tensor, window.row_begin + row), window.col_begin, out_row);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<QuantizedRows> Checkpoint::ReadQuantized(const TensorKey& key,
                                                        const TensorWindow& window) const {
  BW_ASSIGN_OR_RETURN(const StoredTensor* tensor, LookupWindow(*contents_, key, window));
  const TensorFormat& format = tensor->info.format;
  if (!IsQuantized(format.format)) {
    return absl::InvalidArgumentError(
        absl::StrCat(tensor->info.source, ": ", Name(key), " is not quantised"));
  }
  if (window.col_begin % format.group != 0 ||
      (window.col_end % format.group != 0 && window.col_end != tensor->info.cols)) {
    return absl::InvalidArgumentError(absl::StrCat(Name(key), ": columns ", window.col_begin, "-",
                                                   window.col_end, " cut a group of ", format.group));
  }
  if (tensor->linear != nullptr) return bellwether::ReadQuantized(*tensor->linear, tensor->rows, window);
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
    if (tensor->file == nullptr) {
      RandomQuantized(*tensor, window.row_begin + row, window.col_begin, q, scales);
    } else {
      DecodeQuantized(tensor->storage, RowStart(*tensor, window.row_begin + row), window.col_begin, q, scales,
                      offsets);
    }
  }
  return result;
}

void Checkpoint::DropPages(const TensorKey& key) const {
  const StoredTensor* tensor = Lookup(*contents_, key);
  if (tensor == nullptr) return;
  if (tensor->file != nullptr) tensor->file->DropPages(tensor->offset, tensor->bytes);
  if (tensor->linear == nullptr) return;
  for (const FilePiece* piece : {&tensor->linear->weights, &tensor->linear->zeros, &tensor->linear->scales})
    piece->file->DropPages(piece->offset, piece->bytes);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Checkpoint::LoadTokenizer() const {
  if (contents_->load_tokenizer == nullptr) {
    return absl::NotFoundError(absl::StrCat(contents_->path, ": no tokenizer"));
  }
  return contents_->load_tokenizer();
}

}  // namespace bellwether
