#include "worker/weights/embedding_rows.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/aligned_buffer.h"
#include "common/check.h"
#include "common/mutex.h"
#include "common/packed_row.h"
#include "common/status.h"
#include "kernels/packed_matrix.h"
#include "worker/device/packed_store.h"
#include "worker/thread_pool.h"

namespace bellwether {
namespace {

// A read that the drive answers is over long before.
constexpr absl::Duration kJoinLimit = absl::Seconds(2);

bool Has(const VocabularyPiece& piece, TokenId token) {
  return piece.rows.begin <= token && token < piece.rows.end;
}

}  // namespace

// The buffer for a piece and what its threads are to read into it.
class EmbeddingRows::Reader {
 public:
  Reader(AlignedBuffer buffer, int threads) : buffer_(std::move(buffer)), threads_(threads) {}

  std::byte* image() const { return buffer_.data(); }
  // Waits until all extents are read.
  absl::Status Read(const std::shared_ptr<const LayerFile>& file, const std::vector<Extent>& extents,
                    absl::Duration limit);
  void Abort(const absl::Status& reason);

  void Run();  // a thread's life
  // Whether all threads have ended.
  bool Ended(absl::Duration limit);

 private:
  struct Task {
    std::shared_ptr<const LayerFile> file;
    Extent extent;
  };
  // Nothing once it is over.
  std::optional<Task> Next();
  void Finish(const absl::Status& read);

  const AlignedBuffer buffer_;
  const int threads_;

  Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::deque<Task> waiting_ ABSL_GUARDED_BY(mutex_);
  int64_t left_ ABSL_GUARDED_BY(mutex_) = 0;  // waiting, or being read
  int ended_ ABSL_GUARDED_BY(mutex_) = 0;     // threads
};

absl::Status EmbeddingRows::Reader::Read(const std::shared_ptr<const LayerFile>& file,
                                         const std::vector<Extent>& extents, absl::Duration limit) {
  MutexLock lock(&mutex_);
  for (const Extent& extent : extents) waiting_.push_back({file, extent});
  left_ += static_cast<int64_t>(extents.size());
  const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !status_.ok() || left_ == 0; };
  if (!mutex_.AwaitFor(done, limit)) {
    status_.Update(absl::DeadlineExceededError(
        absl::StrCat(file->path(), ": not read within ", absl::FormatDuration(limit))));
  }
  return status_;
}

void EmbeddingRows::Reader::Abort(const absl::Status& reason) {
  MutexLock lock(&mutex_);
  status_.Update(reason);
}

void EmbeddingRows::Reader::Run() {
  while (const std::optional<Task> task = Next()) {
    const auto& [begin, end, check] = task->extent;
    const absl::Status read = check ? task->file->ReadBlock(begin / kLayerBlockBytes, /*check=*/true, image())
                                    : task->file->ReadPages(begin, end, image());
    if (!read.ok()) task->file->Discard();
    Finish(read);
  }
  MutexLock lock(&mutex_);
  ++ended_;
}

std::optional<EmbeddingRows::Reader::Task> EmbeddingRows::Reader::Next() {
  MutexLock lock(&mutex_);
  const auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !status_.ok() || !waiting_.empty();
  };
  mutex_.Await(wanted);
  if (!status_.ok()) return std::nullopt;
  Task task = std::move(waiting_.front());
  waiting_.pop_front();
  return task;
}

void EmbeddingRows::Reader::Finish(const absl::Status& read) {
  MutexLock lock(&mutex_);
  status_.Update(read);
  --left_;
}

bool EmbeddingRows::Reader::Ended(absl::Duration limit) {
  MutexLock lock(&mutex_);
  const auto all = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return ended_ == threads_; };
  return mutex_.AwaitFor(all, limit);
}

absl::StatusOr<std::unique_ptr<EmbeddingRows>> EmbeddingRows::Create(Options options) {
  BW_CHECK(!options.pieces.empty() && options.threads >= 1);
  std::shared_ptr<Reader> reader;
  if (options.pieces[0]->file != nullptr) {
    int64_t largest = 0;
    for (const auto& piece : options.pieces) largest = std::max(largest, piece->image_bytes);
    absl::StatusOr<AlignedBuffer> buffer = AlignedBuffer::Allocate(largest);
    if (!buffer.ok()) return Annotate(buffer.status(), "a buffer for rows of the embedding");
    reader = std::make_shared<Reader>(*std::move(buffer), options.threads);
  }
  return std::unique_ptr<EmbeddingRows>(new EmbeddingRows(std::move(options), std::move(reader)));
}

EmbeddingRows::EmbeddingRows(Options options, std::shared_ptr<Reader> reader)
    : options_(std::move(options)), reader_(std::move(reader)) {
  if (reader_ == nullptr) return;
  for (const auto& piece : options_.pieces) checked_.emplace_back(piece->file->blocks(), false);
  for (int i = 0; i < options_.threads; ++i) {
    threads_.emplace_back([reader = reader_, cpus = options_.cpus] {
      LetCurrentThreadRunOn(cpus);
      reader->Run();
    });
  }
}

EmbeddingRows::~EmbeddingRows() {
  if (reader_ == nullptr) return;
  reader_->Abort(absl::CancelledError("the embedding is no longer wanted"));
  const bool ended = reader_->Ended(kJoinLimit);
  for (std::thread& thread : threads_) ended ? thread.join() : thread.detach();
}

void EmbeddingRows::Abort(const absl::Status& reason) {
  if (reader_ != nullptr) reader_->Abort(reason);
}

std::vector<EmbeddingRows::Extent> EmbeddingRows::Wanted(size_t piece, const Batch& batch) const {
  const VocabularyPiece& weights = *options_.pieces[piece];
  std::vector<int64_t> panels;
  for (const TokenId token : batch.tokens) {
    if (Has(weights, token)) panels.push_back((token - weights.rows.begin) / kernels::kPanelRows);
  }
  std::sort(panels.begin(), panels.end());
  panels.erase(std::unique(panels.begin(), panels.end()), panels.end());
  std::vector<Extent> extents;
  int64_t read_end = 0;  // all that is wanted before it is among them
  for (const int64_t panel : panels) {
    const int64_t panel_begin = panel * weights.panel_bytes;
    const int64_t panel_end =
        std::min(RoundUp(panel_begin + weights.panel_bytes, kLayerPageBytes), weights.image_bytes);
    for (int64_t at = std::max(read_end, panel_begin); at < panel_end; at = read_end) {
      const int64_t block = at / kLayerBlockBytes, block_begin = block * kLayerBlockBytes;
      const int64_t block_end = block_begin + weights.file->BytesOf(block);
      const bool check = options_.verify_always || !checked_[piece][block];
      const Extent pages = {.begin = at / kLayerPageBytes * kLayerPageBytes,
                            .end = std::min(panel_end, block_end)};
      extents.push_back(check ? Extent{block_begin, block_end, true} : pages);
      read_end = extents.back().end;
    }
  }
  return extents;
}

absl::Status EmbeddingRows::Read(size_t piece, const std::vector<Extent>& extents) {
  options_.progress->counter.fetch_add(1, std::memory_order_relaxed);
  StepMeter& meter = options_.progress->meter;
  const StepPart before = meter.Enter(StepPart::kWeightsWait).before;
  const absl::Status read = reader_->Read(options_.pieces[piece]->file, extents, options_.wait_limit);
  meter.Enter(before);
  if (!read.ok()) return Annotate(read, "rows of the embedding");
  for (const Extent& extent : extents) {
    if (extent.check) checked_[piece][extent.begin / kLayerBlockBytes] = true;
    options_.progress->streamed_bytes.fetch_add(extent.end - extent.begin, std::memory_order_relaxed);
  }
  return absl::OkStatus();
}

void EmbeddingRows::LookUp(const VocabularyPiece& piece, const Batch& batch, MutableRows out) const {
  const kernels::PackedMatrix& matrix = PackedOf(*piece.matrix);
  options_.ops->OnHost(batch.rows(), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const TokenId token = batch.tokens[row];
      if (Has(piece, token))
        matrix.GetRow(token - piece.rows.begin, absl::MakeSpan(out.row(row), matrix.cols()));
    }
  });
}

absl::Status EmbeddingRows::Embed(const Batch& batch, MutableRows out) {
  const bool in_place = options_.host_rows == nullptr;
  if (in_place) BW_RETURN_IF_ERROR(options_.ops->Finish());  // what came before may be writing there
  const MutableRows rows = {in_place ? options_.ops->HostView(out.data) : options_.host_rows, out.rows,
                            out.stride};
  for (size_t i = 0; i < options_.pieces.size(); ++i) {
    const VocabularyPiece& piece = *options_.pieces[i];
    const auto wanted = [&](TokenId token) { return Has(piece, token); };
    if (std::none_of(batch.tokens.begin(), batch.tokens.end(), wanted)) continue;
    if (piece.file != nullptr) {
      BW_RETURN_IF_ERROR(Read(i, Wanted(i, batch)));
      piece.store->MoveTo(reader_->image());
    }
    LookUp(piece, batch, rows);
    if (piece.file != nullptr) piece.store->MoveTo(nullptr);
  }
  if (in_place) return absl::OkStatus();
  return options_.ops->Write(absl::MakeConstSpan(rows.data, rows.rows * rows.stride), out.data);
}

}  // namespace bellwether
