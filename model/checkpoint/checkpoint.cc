#include "model/checkpoint/checkpoint.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status.h"
#include "model/checkpoint/contents.h"
#include "model/checkpoint/expected_tensors.h"
#include "model/checkpoint/open_contents.h"
#include "model/checkpoint/stored_tensor.h"

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

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& path,
                                                             const ReadOptions& options) {
  BW_ASSIGN_OR_RETURN(CheckpointContents contents, OpenContents(path, options));
  return std::make_unique<Checkpoint>(std::move(contents));
}

Checkpoint::Checkpoint(CheckpointContents contents)
    : contents_(std::make_unique<const CheckpointContents>(std::move(contents))) {}
Checkpoint::~Checkpoint() = default;

const ModelConfig& Checkpoint::config() const { return contents_->config; }
const std::string& Checkpoint::path() const { return contents_->path; }
const std::string& Checkpoint::container() const { return contents_->container; }
const ReadingText& Checkpoint::reading() const { return contents_->reading; }
const std::string& Checkpoint::chat_template_text() const { return contents_->chat_template_text; }
const std::string& Checkpoint::model_name() const { return contents_->model_name; }
const GenerationOptions& Checkpoint::generation_defaults() const { return contents_->generation_defaults; }

const TensorInfo* Checkpoint::Find(const TensorKey& key) const {
  const StoredTensor* tensor = Lookup(*contents_, key);
  return tensor == nullptr ? nullptr : &tensor->info;
}

int64_t Checkpoint::StoredBytes() const {
  int64_t bytes = 0;
  for (const auto& [key, tensor] : contents_->tensors) {
    bytes += BytesOf(tensor);
  }
  return bytes;
}

std::string Checkpoint::SourceFiles() const {
  std::set<std::string> files;
  for (const auto& [key, tensor] : contents_->tensors) {
    ForEachFile(tensor, [&](const FileMapping& file) { files.insert(file.identity()); });
  }
  return absl::StrJoin(files, ", ");
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
  return ReadStored(*tensor, window, out);
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
  return ReadStoredQuantized(*tensor, window);
}

void Checkpoint::DropPages(const TensorKey& key) const {
  const StoredTensor* tensor = Lookup(*contents_, key);
  if (tensor != nullptr) DropStored(*tensor);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Checkpoint::LoadTokenizer() const {
  const TokenizerSource& source = contents_->tokenizer;
  if (source.vocabulary != nullptr) {
    absl::StatusOr<GgufVocabulary> vocabulary = source.vocabulary();
    if (!vocabulary.ok()) return Annotate(vocabulary.status(), contents_->path);
    auto tokenizer = MakeTokenizerFromGguf(*std::move(vocabulary));
    if (!tokenizer.ok()) return Annotate(tokenizer.status(), contents_->path);
    return tokenizer;
  }
  if (!source.directory.empty()) return LoadTokenizerFromDirectory(source.directory);
  return absl::NotFoundError(absl::StrCat(contents_->path, ": no tokenizer"));
}

}  // namespace bellwether
