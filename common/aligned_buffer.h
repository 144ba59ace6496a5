#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"

namespace bellwether {

// Anonymous memory from the system, given back with the last of those who share it.
class MemoryMapping;

// Zero-filled memory, aligned to 64 bytes. Movable only.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  AlignedBuffer(AlignedBuffer&& other) noexcept { *this = std::move(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;

  // Aligned to 2 MiB and on huge pages if it is as large. ResourceExhausted, naming the size, when the system
  // has not that much.
  static absl::StatusOr<AlignedBuffer> Allocate(int64_t bytes);
  // Bytes that somebody else owns, who outlives this.
  static AlignedBuffer View(std::byte* data, int64_t bytes);

  std::byte* data() const { return data_; }
  int64_t size() const { return size_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  friend class BufferArena;

  std::byte* data_ = nullptr;
  int64_t size_ = 0;
  std::shared_ptr<const MemoryMapping> mapping_;
};

// One piece of memory for many buffers that live as long as each other, such as the weights of a shard: they
// follow each other, each on the next cache line, so that even the small ones and the ends of the large ones
// lie on huge pages. The buffers may outlive the arena. One thread at a time.
class BufferArena {
 public:
  static constexpr int64_t kAlignment = 64;  // a cache line
  // Room for buffers of `bytes` together; what does not fit gets memory of its own. Nothing is resident
  // before it is written. ResourceExhausted as above.
  static absl::StatusOr<BufferArena> Create(int64_t bytes);

  absl::StatusOr<AlignedBuffer> Allocate(int64_t bytes);

  // All of it, whatever has been given out.
  std::byte* data() const { return memory_.data(); }
  int64_t size() const { return memory_.size(); }

 private:
  AlignedBuffer memory_;
  int64_t used_ = 0;
};

}  // namespace bellwether
