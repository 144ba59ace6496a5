#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "common/ids.h"
#include "worker/link/link.h"
#include "worker/link/unix_socket.h"

namespace bellwether {

// The memory that two processes share for one link: a ring of bytes for each direction. A fresh one for every
// link of every epoch, so a process that was stopped and wakes up later can only scribble on what nobody
// reads any more.
//
// What lies in it is written by the peer: positions are checked before use, nothing else is believed.

// Positions count bytes and wrap at 2^32. Each word has one writer and a cache line of its own.
struct ShmRing {
  alignas(64) std::atomic<uint32_t> written;        // moved by the writing side
  alignas(64) std::atomic<uint32_t> read;           // moved by the reading side
  alignas(64) std::atomic<uint32_t> reader_sleeps;  // nonzero: wake whoever sleeps on `written`
  alignas(64) std::atomic<uint32_t> writer_sleeps;  // nonzero: wake whoever sleeps on `read`
};
static_assert(std::atomic<uint32_t>::is_always_lock_free);

struct ShmHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t ring_bytes;
  uint64_t epoch;
  int32_t creator, opener;                      // flat indices
  alignas(64) std::atomic<uint32_t> closed[2];  // by the creator, by the opener
  ShmRing rings[2];                             // written by the creator, by the opener
};

// A power of two. Headers and padding travel in it too: twice the bytes that a FIFO promises to take.
inline constexpr uint32_t kShmRingBytes = 2 * kLinkFifoBytes;

struct ShmIdentity {
  Epoch epoch;
  int creator = 0, opener = 0;
};

// One mapping of such a memory.
class ShmSegment {
 public:
  // A new one, zeroed, its size sealed; `fd` is what the peer opens.
  struct Created;
  static absl::StatusOr<Created> Create(const ShmIdentity& identity);
  // DataLoss unless `fd` is a sealed memory of exactly the right size and identity: then no access can fault.
  static absl::StatusOr<ShmSegment> Open(const UniqueFd& fd, const ShmIdentity& identity);

  ShmSegment(ShmSegment&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)), creator_(other.creator_) {}
  ShmSegment& operator=(ShmSegment&&) = delete;
  ~ShmSegment();

  ShmHeader& header() const { return *reinterpret_cast<ShmHeader*>(base_); }
  int own_side() const { return creator_ ? 0 : 1; }
  std::byte* ring_data(int side) const;

 private:
  ShmSegment(std::byte* base, bool creator) : base_(base), creator_(creator) {}
  static absl::StatusOr<ShmSegment> Map(int fd, bool creator);
  std::byte* base_ = nullptr;
  bool creator_ = false;
};

struct ShmSegment::Created {
  ShmSegment segment;
  UniqueFd fd;
};

}  // namespace bellwether
