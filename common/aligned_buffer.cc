#include "common/aligned_buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/packed_row.h"
#include "common/status.h"

namespace bellwether {
namespace {
constexpr int64_t kHugePageBytes = int64_t{2} << 20;
constexpr int64_t kPageBytes = 4096;
}  // namespace

class MemoryMapping {
 public:
  MemoryMapping(void* begin, size_t bytes) : begin_(begin), bytes_(bytes) {}
  ~MemoryMapping() { munmap(begin_, bytes_); }
  MemoryMapping(const MemoryMapping&) = delete;
  MemoryMapping& operator=(const MemoryMapping&) = delete;

 private:
  void* const begin_;
  const size_t bytes_;
};

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapping_, other.mapping_);
  return *this;
}

absl::StatusOr<AlignedBuffer> AlignedBuffer::Allocate(int64_t bytes) {
  if (bytes < 0) return absl::InvalidArgumentError(absl::StrCat("cannot allocate ", bytes, " bytes"));
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  // Large buffers start on a huge page: with 4 KiB pages reading them is up to a tenth slower.
  const int64_t alignment = bytes >= kHugePageBytes ? kHugePageBytes : kPageBytes;
  const int64_t whole = RoundUp(bytes, alignment);  // the end lies on a huge page too
  const size_t mapping_bytes = static_cast<size_t>(whole + alignment);
  void* mapping = mmap(nullptr, mapping_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes, " bytes of memory"));
  }
  buffer.mapping_ = std::make_shared<const MemoryMapping>(mapping, mapping_bytes);
  const auto begin = reinterpret_cast<intptr_t>(mapping);
  buffer.data_ = static_cast<std::byte*>(mapping) + (RoundUp(begin, alignment) - begin);
  if (alignment == kHugePageBytes) madvise(buffer.data_, whole, MADV_HUGEPAGE);
  buffer.size_ = bytes;
  return buffer;
}

AlignedBuffer AlignedBuffer::View(std::byte* data, int64_t bytes) {
  AlignedBuffer buffer;
  buffer.data_ = data;
  buffer.size_ = bytes;
  return buffer;
}

absl::StatusOr<BufferArena> BufferArena::Create(int64_t bytes) {
  BW_ASSIGN_OR_RETURN(AlignedBuffer memory, AlignedBuffer::Allocate(bytes));
  BufferArena arena;
  arena.memory_ = std::move(memory);
  return arena;
}

absl::StatusOr<AlignedBuffer> BufferArena::Allocate(int64_t bytes) {
  if (bytes <= 0 || bytes > memory_.size() - used_) return AlignedBuffer::Allocate(bytes);
  AlignedBuffer buffer;
  buffer.data_ = memory_.data() + used_;
  buffer.size_ = bytes;
  buffer.mapping_ = memory_.mapping_;
  used_ = std::min(RoundUp(used_ + bytes, kAlignment), memory_.size());
  return buffer;
}

}  // namespace bellwether
