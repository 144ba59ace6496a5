#include "common/aligned_buffer.h"

#include <sys/mman.h>

#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {
constexpr int64_t kHugePageBytes = int64_t{2} << 20;
constexpr int64_t kPageBytes = 4096;
}  // namespace

AlignedBuffer::~AlignedBuffer() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapping_bytes_, other.mapping_bytes_);
  return *this;
}

absl::StatusOr<AlignedBuffer> AlignedBuffer::Allocate(int64_t bytes) {
  if (bytes < 0) return absl::InvalidArgumentError(absl::StrCat("cannot allocate ", bytes, " bytes"));
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  // Large buffers start on a huge page: with 4 KiB pages reading them is up to a tenth slower.
  const int64_t alignment = bytes >= kHugePageBytes ? kHugePageBytes : kPageBytes;
  const size_t mapping_bytes = static_cast<size_t>(bytes + alignment);
  void* mapping = mmap(nullptr, mapping_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes, " bytes of memory"));
  }
  const uintptr_t start = (reinterpret_cast<uintptr_t>(mapping) + alignment - 1) / alignment * alignment;
  if (alignment == kHugePageBytes) madvise(reinterpret_cast<void*>(start), bytes, MADV_HUGEPAGE);
  buffer.data_ = reinterpret_cast<std::byte*>(start);
  buffer.size_ = bytes;
  buffer.mapping_ = mapping;
  buffer.mapping_bytes_ = mapping_bytes;
  return buffer;
}

}  // namespace bellwether
