#include "worker/weights/read_ahead.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/mutex.h"
#include "common/status.h"
#include "worker/device/device.h"
#include "worker/thread_pool.h"

namespace bellwether {
namespace {

// A read that the drive answers is over long before.
constexpr absl::Duration kJoinLimit = absl::Seconds(2);

}  // namespace

// Images are numbered as they are read, from 0 over all rounds.
class ReadAhead::Ring {
 public:
  explicit Ring(Options options)
      : options_(std::move(options)),
        blocks_left_(options_.buffers, 0),
        held_(options_.buffers, 0),
        checked_(options_.files.size(), false) {}
  ~Ring();
  absl::Status Allocate();

  absl::StatusOr<std::byte*> Take(const LayerFile& file);
  void Release();
  bool Ready() const;
  void Abort(const absl::Status& reason);
  int64_t bytes_read() const;

  void Read();  // a thread's life
  // Whether all threads have ended.
  bool Ended(absl::Duration limit);

 private:
  // Until `file` is the next one to be taken.
  void PassOver(const LayerFile& file) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  size_t FileIndex(int64_t image) const { return static_cast<size_t>(image) % options_.files.size(); }
  const LayerFile& FileOf(int64_t image) const { return *options_.files[FileIndex(image)]; }
  size_t BufferOf(int64_t image) const { return static_cast<size_t>(image) % buffers_.size(); }
  struct Block {
    int64_t image = 0, block = 0;
    bool check = true;
  };
  // Nothing once it is over.
  std::optional<Block> Next();
  void Finish(const Block& block, const absl::Status& read);
  void LetGo(size_t buffer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    options_.meter->LetGo(std::exchange(held_[buffer], 0));
  }
  // Read whole, or never to come.
  bool IsThere(int64_t image) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !status_.ok() || (next_.image > image && blocks_left_[BufferOf(image)] == 0);
  }

  const Options options_;
  std::vector<std::shared_ptr<std::byte>> buffers_;
  int64_t ring_bytes_ = 0;  // of them all

  mutable Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  int64_t taken_ ABSL_GUARDED_BY(mutex_) = 0;                 // images
  int64_t released_ ABSL_GUARDED_BY(mutex_) = 0;              // likewise
  Block next_ ABSL_GUARDED_BY(mutex_);                        // to be read
  std::vector<int64_t> blocks_left_ ABSL_GUARDED_BY(mutex_);  // of each buffer's image
  std::vector<int64_t> held_ ABSL_GUARDED_BY(mutex_);         // bytes of an image, likewise
  std::vector<bool> checked_ ABSL_GUARDED_BY(mutex_);         // of each file: it has been taken
  int64_t bytes_read_ ABSL_GUARDED_BY(mutex_) = 0;
  int ended_ ABSL_GUARDED_BY(mutex_) = 0;  // threads
};

absl::Status ReadAhead::Ring::Allocate() {
  int64_t largest = 0;
  for (const auto& file : options_.files) largest = std::max(largest, file->info().image_bytes);
  for (int i = 0; i < options_.buffers; ++i) {
    auto buffer = options_.new_buffer ? options_.new_buffer(largest) : NewPlainImage(largest);
    if (!buffer.ok()) return Annotate(buffer.status(), "buffers for layers that are read ahead");
    buffers_.push_back(*std::move(buffer));
    options_.meter->AddRing(largest);
    ring_bytes_ += largest;
  }
  return absl::OkStatus();
}

ReadAhead::Ring::~Ring() {
  MutexLock lock(&mutex_);
  for (size_t buffer = 0; buffer < held_.size(); ++buffer) LetGo(buffer);
  options_.meter->RemoveRing(ring_bytes_);
}

absl::StatusOr<std::byte*> ReadAhead::Ring::Take(const LayerFile& file) {
  MutexLock lock(&mutex_);
  PassOver(file);
  const int64_t image = taken_;
  BW_CHECK(image < released_ + options_.buffers);
  const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return IsThere(image); };
  if (!mutex_.AwaitFor(there, options_.wait_limit)) {
    return absl::DeadlineExceededError(
        absl::StrCat(file.path(), ": not read within ", absl::FormatDuration(options_.wait_limit)));
  }
  BW_RETURN_IF_ERROR(status_);
  ++taken_;
  checked_[FileIndex(image)] = true;
  return buffers_[BufferOf(image)].get();
}

bool ReadAhead::Ring::Ready() const {
  MutexLock lock(&mutex_);
  return taken_ < released_ + options_.buffers && IsThere(taken_);
}

void ReadAhead::Ring::PassOver(const LayerFile& file) {
  int64_t image = taken_;
  const int64_t round_end = taken_ + static_cast<int64_t>(options_.files.size());
  while (image < round_end && &FileOf(image) != &file) ++image;
  BW_CHECK_LT(image, round_end);
  if (image == taken_) return;
  BW_CHECK_EQ(released_, taken_);
  taken_ = released_ = image;
  if (next_.image >= image) return;
  if (next_.block > 0) blocks_left_[BufferOf(next_.image)] -= FileOf(next_.image).blocks() - next_.block;
  next_ = {image, 0};
}

void ReadAhead::Ring::Release() {
  MutexLock lock(&mutex_);
  BW_CHECK_LT(released_, taken_);
  LetGo(BufferOf(released_++));
}

void ReadAhead::Ring::Abort(const absl::Status& reason) {
  MutexLock lock(&mutex_);
  status_.Update(reason);
}

int64_t ReadAhead::Ring::bytes_read() const {
  MutexLock lock(&mutex_);
  return bytes_read_;
}

bool ReadAhead::Ring::Ended(absl::Duration limit) {
  MutexLock lock(&mutex_);
  const auto all = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return ended_ == options_.threads; };
  return mutex_.AwaitFor(all, limit);
}

// Blocks are begun in order, one after the other, by whichever thread is free.
void ReadAhead::Ring::Read() {
  while (const std::optional<Block> it = Next()) {
    const LayerFile& file = FileOf(it->image);
    std::byte* const image = buffers_[BufferOf(it->image)].get();
    options_.meter->BeginRead();
    absl::Status read = file.ReadBlock(it->block, /*check=*/false, image);
    options_.meter->EndRead();
    if (read.ok() && it->check) read = file.CheckBlock(it->block, image);
    if (!read.ok()) file.Discard();
    Finish(*it, read);
  }
  MutexLock lock(&mutex_);
  ++ended_;
}

std::optional<ReadAhead::Ring::Block> ReadAhead::Ring::Next() {
  MutexLock lock(&mutex_);
  const auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    // The first block of an image waits for those of one that was passed over.
    const bool free = next_.block > 0 || blocks_left_[BufferOf(next_.image)] == 0;
    return !status_.ok() || (free && next_.image < released_ + options_.buffers);
  };
  mutex_.Await(wanted);
  if (!status_.ok()) return std::nullopt;
  Block next = next_;
  next.check = options_.verify_always || !checked_[FileIndex(next.image)];
  const int64_t blocks = FileOf(next.image).blocks();
  if (next.block == 0) {
    LetGo(BufferOf(next.image));  // one that was passed over
    blocks_left_[BufferOf(next.image)] = blocks;
  }
  next_ = next.block + 1 < blocks ? Block{next.image, next.block + 1} : Block{next.image + 1, 0};
  return next;
}

void ReadAhead::Ring::Finish(const Block& block, const absl::Status& read) {
  MutexLock lock(&mutex_);
  status_.Update(read);
  --blocks_left_[BufferOf(block.image)];
  const int64_t bytes = FileOf(block.image).BytesOf(block.block);
  bytes_read_ += bytes;
  held_[BufferOf(block.image)] += bytes;
  options_.meter->Fill(bytes);
}

absl::StatusOr<std::unique_ptr<ReadAhead>> ReadAhead::Create(Options options) {
  BW_CHECK(!options.files.empty() && options.buffers >= 2 && options.threads >= 1);
  const int threads = options.threads;
  const std::vector<int> cpus = options.cpus;
  const auto ring = std::make_shared<Ring>(std::move(options));
  BW_RETURN_IF_ERROR(ring->Allocate());
  auto ahead = std::unique_ptr<ReadAhead>(new ReadAhead(ring));
  for (int i = 0; i < threads; ++i) {
    ahead->threads_.emplace_back([ring, cpus] {
      LetCurrentThreadRunOn(cpus);
      ring->Read();
    });
  }
  return ahead;
}

ReadAhead::~ReadAhead() {
  ring_->Abort(absl::CancelledError("the layers are no longer wanted"));
  const bool ended = ring_->Ended(kJoinLimit);
  for (std::thread& thread : threads_) ended ? thread.join() : thread.detach();
}

absl::StatusOr<std::byte*> ReadAhead::Take(const LayerFile& file) { return ring_->Take(file); }
void ReadAhead::Release() { ring_->Release(); }
bool ReadAhead::Ready() const { return ring_->Ready(); }
void ReadAhead::Abort(const absl::Status& reason) { ring_->Abort(reason); }
int64_t ReadAhead::bytes_read() const { return ring_->bytes_read(); }

}  // namespace bellwether
