#include "worker/weights/read_ahead.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace bellwether {

absl::StatusOr<std::unique_ptr<ReadAhead>> ReadAhead::Create(Options options) {
  BW_CHECK(!options.files.empty() && options.buffers >= 2 && options.threads >= 1);
  int64_t largest = 0;
  for (const auto& file : options.files) largest = std::max(largest, file->info().image_bytes);
  auto ahead = std::unique_ptr<ReadAhead>(new ReadAhead(std::move(options)));
  for (int i = 0; i < ahead->options_.buffers; ++i) {
    absl::StatusOr<AlignedBuffer> buffer = AlignedBuffer::Allocate(largest);
    if (!buffer.ok()) return Annotate(buffer.status(), "buffers for layers that are read ahead");
    ahead->buffers_.push_back(*std::move(buffer));
  }
  for (int i = 0; i < ahead->options_.threads; ++i)
    ahead->threads_.emplace_back([&ahead = *ahead] { ahead.Run(); });
  return ahead;
}

ReadAhead::ReadAhead(Options options) : options_(std::move(options)), blocks_left_(options_.buffers, 0) {}

ReadAhead::~ReadAhead() {
  Abort(absl::CancelledError("the layers are no longer wanted"));
  for (std::thread& thread : threads_) thread.join();
}

absl::StatusOr<std::byte*> ReadAhead::Take() {
  MutexLock lock(&mutex_);
  const int64_t image = taken_;
  BW_CHECK(image < released_ + options_.buffers);
  const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !status_.ok() || (next_image_ > image && blocks_left_[BufferOf(image)] == 0);
  };
  if (!mutex_.AwaitFor(there, options_.wait_limit)) {
    return absl::DeadlineExceededError(
        absl::StrCat(FileOf(image).path(), ": not read within ", absl::FormatDuration(options_.wait_limit)));
  }
  BW_RETURN_IF_ERROR(status_);
  ++taken_;
  return buffers_[BufferOf(image)].data();
}

void ReadAhead::Release() {
  MutexLock lock(&mutex_);
  BW_CHECK_LT(released_, taken_);
  ++released_;
}

void ReadAhead::Abort(const absl::Status& reason) {
  MutexLock lock(&mutex_);
  status_.Update(reason);
}

int64_t ReadAhead::bytes_read() const {
  MutexLock lock(&mutex_);
  return bytes_read_;
}

// Blocks are begun in order, one after the other, by whichever thread is free.
void ReadAhead::Run() {
  const auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !status_.ok() || next_image_ < released_ + options_.buffers;
  };
  while (true) {
    int64_t image = 0, block = 0;
    {
      MutexLock lock(&mutex_);
      mutex_.Await(wanted);
      if (!status_.ok()) return;
      image = next_image_;
      block = next_block_++;
      const int64_t blocks = FileOf(image).blocks();
      if (block == 0) blocks_left_[BufferOf(image)] = blocks;
      if (next_block_ == blocks) {
        ++next_image_;
        next_block_ = 0;
      }
    }
    const LayerFile& file = FileOf(image);
    const bool check = options_.check_always || image < static_cast<int64_t>(options_.files.size());
    const absl::Status read = file.ReadBlock(block, check, buffers_[BufferOf(image)].data());
    if (!read.ok()) file.Discard();
    MutexLock lock(&mutex_);
    status_.Update(read);
    --blocks_left_[BufferOf(image)];
    bytes_read_ += file.BytesOf(block);
  }
}

}  // namespace bellwether
