#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// The memory of an emulated GPU: host memory of which the emulator knows what a kernel may touch.

namespace bellwether::gpu {

// Safe for any number of threads; memory that a running kernel uses must not be freed.
class EmulatedMemory {
 public:
  struct Range {
    uintptr_t begin = 0;
    uintptr_t end = 0;
  };

  // bf16, fp16 and fp32 NaN: what memory holds before it is written. As an index it is out of every bound.
  static constexpr uint16_t kPoison = 0x7fc0;
  static constexpr int64_t kAlignment = 256;  // cudaMalloc's

  explicit EmulatedMemory(int64_t capacity) : capacity_(capacity) {}
  ~EmulatedMemory();
  EmulatedMemory(const EmulatedMemory&) = delete;
  EmulatedMemory& operator=(const EmulatedMemory&) = delete;

  // Poisoned memory between two guard zones. ResourceExhausted beyond the capacity, InvalidArgument if bytes
  // is not positive.
  absl::StatusOr<void*> Allocate(int64_t bytes);
  // Memory of the caller's that kernels may use too (pinned, mapped), until Free.
  absl::Status Register(void* memory, int64_t bytes);
  // InvalidArgument if `memory` is not the start of a live allocation; Internal if a guard zone was written
  // to (the memory is freed all the same).
  absl::Status Free(void* memory);

  bool Contains(const void* p, int64_t bytes) const;
  // The allocation that holds the byte at p; {0, 0} if there is none.
  Range Find(const void* p) const;
  std::vector<Range> Allocations() const;
  // "1024 bytes from the start of an allocation of 512 bytes", for messages.
  std::string Describe(const void* p) const;
  int64_t bytes_allocated() const;

  // An allocation is unsettled from when some of it is written to by work in a GPU's order until that work is
  // known to be done: a kernel that overlaps with the one before may not see what it holds.
  void Unsettle(const void* p) const;
  bool Unsettled(const void* p) const;
  void Settle() const;

  // Guard zones of all live allocations.
  absl::Status CheckGuards() const;

 private:
  struct Allocation {
    int64_t bytes = 0;
    char* memory = nullptr;  // with the guard zones; null if the caller's
  };
  absl::Status CheckGuards(uintptr_t begin, const Allocation& allocation) const;

  const int64_t capacity_;
  mutable std::mutex mutex_;
  std::map<uintptr_t, Allocation> allocations_;  // by start
  int64_t bytes_allocated_ = 0;
  mutable std::set<uintptr_t> unsettled_;
};

// Fills with EmulatedMemory::kPoison; bytes of a last odd one too.
void Poison(void* memory, int64_t bytes);

}  // namespace bellwether::gpu
