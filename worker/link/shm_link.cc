#include "worker/link/shm_link.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/mutex.h"
#include "worker/link/message.h"

namespace bellwether {
namespace {

// Messages begin at cache lines, with a header of one line.
constexpr uint32_t kLine = 64;
static_assert(sizeof(MessageHeader) <= kLine && std::is_trivially_copyable_v<MessageHeader>);
// How much is copied before the other side is told: it can then copy out while we copy in.
constexpr uint32_t kCopyBytes = 16 << 10;
// How long a sleeping side goes without a look at the abort flag and at the peer's pulse.
constexpr absl::Duration kSleepSlice = absl::Milliseconds(50);

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

// Not the private kind: the other waiter is another process.
void SleepWhileEqual(std::atomic<uint32_t>& word, uint32_t value) {
  const timespec slice = absl::ToTimespec(kSleepSlice);
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, value, &slice, nullptr, 0);
}
void WakeSleepers(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

class ShmLink : public Link {
 public:
  ShmLink(ShmSegment segment, UniqueFd socket, ShmLinkOptions options)
      : segment_(std::move(segment)), socket_(std::move(socket)), options_(std::move(options)) {
    options_.peer += " by shared memory";
  }

  ~ShmLink() override { Close(); }

  absl::Status Send(const MessageTag& tag, absl::Span<const float> data) override;
  absl::Status Receive(const MessageTag& tag, absl::Span<float> data) override;

  void SetWaitLimit(absl::Duration limit) override { options_.wait_limit = limit; }

  void Abort(const absl::Status& reason) override {
    {
      MutexLock lock(&abort_mutex_);
      if (abort_reason_.ok()) abort_reason_ = reason;
    }
    aborted_.store(true, std::memory_order_release);
    Close();
  }

  std::string peer() const override { return options_.peer; }

 private:
  // One end of one direction. `position` is how far this side has come; the ring's word of it, which the peer
  // reads, follows at Publish.
  struct End {
    ShmRing* ring;
    std::byte* data;
    uint32_t position = 0;
  };
  struct Transfer {
    Direction direction;
    const MessageTag& tag;
  };

  // Tells both sides that this one will neither write nor read any more.
  void Close() {
    ShmHeader& header = segment_.header();
    header.closed[segment_.own_side()].store(1, std::memory_order_seq_cst);
    for (ShmRing& ring : header.rings) {
      WakeSleepers(ring.written);
      WakeSleepers(ring.read);
    }
  }
  bool PeerHasClosed() const {
    return segment_.header().closed[1 - segment_.own_side()].load(std::memory_order_acquire) != 0 ||
           HungUp(socket_.get());
  }
  absl::Status AbortReason() {
    MutexLock lock(&abort_mutex_);
    return abort_reason_;
  }

  static void Publish(std::atomic<uint32_t>& word, uint32_t position, const std::atomic<uint32_t>& sleeps) {
    // Sequentially consistent with the sleeper's "raise flag, look again": one of the two sees the other.
    word.store(position, std::memory_order_seq_cst);
    if (sleeps.load(std::memory_order_seq_cst) != 0) WakeSleepers(word);
  }

  // Returns once `word` is no longer `seen`.
  absl::Status Wait(const Transfer& transfer, std::atomic<uint32_t>& word, uint32_t seen,
                    std::atomic<uint32_t>& sleeps);
  absl::Status WaitAsleep(const Transfer& transfer, std::atomic<uint32_t>& word, uint32_t seen);
  // Waits until there is something to write to (to read); how many bytes, a multiple of kLine whatever the
  // peer does.
  absl::StatusOr<uint32_t> WaitForSpace(const Transfer& transfer);
  absl::StatusOr<uint32_t> WaitForBytes(const Transfer& transfer);
  absl::Status Corrupted(const Transfer& transfer) const {
    return absl::DataLossError(absl::StrCat(DescribeTransfer(transfer.direction, transfer.tag, options_.peer),
                                            ": the peer has written nonsense into the shared memory"));
  }

  const ShmSegment segment_;
  const UniqueFd socket_;
  ShmLinkOptions options_;
  End out_{&segment_.header().rings[segment_.own_side()], segment_.ring_data(segment_.own_side())};
  End in_{&segment_.header().rings[1 - segment_.own_side()], segment_.ring_data(1 - segment_.own_side())};

  std::atomic<bool> aborted_{false};
  Mutex abort_mutex_;
  absl::Status abort_reason_ ABSL_GUARDED_BY(abort_mutex_);
};

absl::Status ShmLink::Wait(const Transfer& transfer, std::atomic<uint32_t>& word, uint32_t seen,
                           std::atomic<uint32_t>& sleeps) {
  for (int i = 0; i < options_.spin_pauses; ++i) {
    if (word.load(std::memory_order_acquire) != seen) return absl::OkStatus();
    if (aborted_.load(std::memory_order_relaxed)) return AbortReason();
    Pause();
  }
  sleeps.store(1, std::memory_order_seq_cst);
  absl::Status status = WaitAsleep(transfer, word, seen);
  sleeps.store(0, std::memory_order_relaxed);
  return status;
}

absl::Status ShmLink::WaitAsleep(const Transfer& transfer, std::atomic<uint32_t>& word, uint32_t seen) {
  const absl::Duration start = Clock::Real()->Now();
  for (;;) {
    if (word.load(std::memory_order_seq_cst) != seen) return absl::OkStatus();
    if (aborted_.load(std::memory_order_acquire)) return AbortReason();
    const absl::Duration waited = Clock::Real()->Now() - start;
    if (PeerHasClosed()) {
      // What it sent before it closed still counts.
      if (word.load(std::memory_order_seq_cst) != seen) return absl::OkStatus();
      return PeerGone(transfer.direction, transfer.tag, options_.peer, waited);
    }
    if (waited >= options_.wait_limit) {
      return WaitedTooLong(transfer.direction, transfer.tag, options_.peer, waited);
    }
    SleepWhileEqual(word, seen);
  }
}

absl::StatusOr<uint32_t> ShmLink::WaitForSpace(const Transfer& transfer) {
  for (;;) {
    const uint32_t read = out_.ring->read.load(std::memory_order_acquire);
    const uint32_t used = out_.position - read;
    if (used > kShmRingBytes || used % kLine != 0) return Corrupted(transfer);
    if (used < kShmRingBytes) return kShmRingBytes - used;
    if (absl::Status status = Wait(transfer, out_.ring->read, read, out_.ring->writer_sleeps); !status.ok()) {
      return status;
    }
  }
}

absl::StatusOr<uint32_t> ShmLink::WaitForBytes(const Transfer& transfer) {
  for (;;) {
    const uint32_t written = in_.ring->written.load(std::memory_order_acquire);
    const uint32_t available = written - in_.position;
    if (available > kShmRingBytes || available % kLine != 0) return Corrupted(transfer);
    if (available > 0) return available;
    if (absl::Status status = Wait(transfer, in_.ring->written, written, in_.ring->reader_sleeps);
        !status.ok()) {
      return status;
    }
  }
}

absl::Status ShmLink::Send(const MessageTag& tag, absl::Span<const float> data) {
  const Transfer transfer{Direction::kSend, tag};
  if (aborted_.load(std::memory_order_acquire)) return AbortReason();
  absl::StatusOr<uint32_t> space =
      WaitForSpace(transfer);  // everything moves by whole lines: one line at least
  if (!space.ok()) return space.status();
  const MessageHeader header{tag, static_cast<int64_t>(data.size())};
  std::memcpy(out_.data + out_.position % kShmRingBytes, &header, sizeof(header));
  out_.position += kLine;
  *space -= kLine;
  const std::byte* bytes = reinterpret_cast<const std::byte*>(data.data());
  size_t left = data.size() * sizeof(float);
  while (left > 0) {
    if (*space == 0) {
      Publish(out_.ring->written, out_.position, out_.ring->reader_sleeps);
      space = WaitForSpace(transfer);
      if (!space.ok()) return space.status();
    }
    const uint32_t offset = out_.position % kShmRingBytes;
    const uint32_t length =
        static_cast<uint32_t>(std::min<size_t>({left, *space, kShmRingBytes - offset, kCopyBytes}));
    std::memcpy(out_.data + offset, bytes, length);
    bytes += length;
    left -= length;
    const uint32_t moved = (length + kLine - 1) / kLine * kLine;  // only the last piece is not whole lines
    out_.position += moved;
    *space -= moved;
    if (left > 0) Publish(out_.ring->written, out_.position, out_.ring->reader_sleeps);
  }
  Publish(out_.ring->written, out_.position, out_.ring->reader_sleeps);
  return absl::OkStatus();
}

absl::Status ShmLink::Receive(const MessageTag& tag, absl::Span<float> data) {
  const Transfer transfer{Direction::kReceive, tag};
  if (aborted_.load(std::memory_order_acquire)) return AbortReason();
  absl::StatusOr<uint32_t> available = WaitForBytes(transfer);
  if (!available.ok()) return available.status();
  MessageHeader header;
  std::memcpy(&header, in_.data + in_.position % kShmRingBytes, sizeof(header));
  const MessageHeader expected{tag, static_cast<int64_t>(data.size())};
  if (absl::Status status = CheckHeader(expected, header, options_.peer); !status.ok()) return status;
  in_.position += kLine;
  *available -= kLine;
  std::byte* bytes = reinterpret_cast<std::byte*>(data.data());
  size_t left = data.size() * sizeof(float);
  while (left > 0) {
    if (*available == 0) {
      available = WaitForBytes(transfer);
      if (!available.ok()) return available.status();
    }
    const uint32_t offset = in_.position % kShmRingBytes;
    const uint32_t length =
        static_cast<uint32_t>(std::min<size_t>({left, *available, kShmRingBytes - offset, kCopyBytes}));
    std::memcpy(bytes, in_.data + offset, length);
    bytes += length;
    left -= length;
    const uint32_t moved = (length + kLine - 1) / kLine * kLine;
    in_.position += moved;
    *available -= moved;
    if (left > 0) Publish(in_.ring->read, in_.position, in_.ring->writer_sleeps);
  }
  Publish(in_.ring->read, in_.position, in_.ring->writer_sleeps);
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<Link> MakeShmLink(ShmSegment segment, UniqueFd socket, ShmLinkOptions options) {
  return std::make_unique<ShmLink>(std::move(segment), std::move(socket), std::move(options));
}

}  // namespace bellwether
