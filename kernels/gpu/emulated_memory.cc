#include "kernels/gpu/emulated_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "absl/strings/str_cat.h"

namespace bellwether::gpu {
namespace {

constexpr int64_t kGuardBytes = 256;
constexpr char kGuardByte = static_cast<char>(0xb1);

int64_t PaddedBytes(int64_t bytes) {
  return (bytes + EmulatedMemory::kAlignment - 1) / EmulatedMemory::kAlignment * EmulatedMemory::kAlignment;
}

// Of `count` bytes at `p`; count if all are untouched.
int64_t UntouchedBytes(const char* p, int64_t count) {
  return std::find_if(p, p + count, [](char byte) { return byte != kGuardByte; }) - p;
}

}  // namespace

void Poison(void* memory, int64_t bytes) {
  auto* p = static_cast<char*>(memory);
  const uint16_t word = EmulatedMemory::kPoison;
  const int64_t first = std::min<int64_t>(bytes, 64);
  for (int64_t i = 0; i < first; i += 2) std::memcpy(p + i, &word, std::min<int64_t>(2, first - i));
  for (int64_t done = first; done < bytes; done *= 2) std::memcpy(p + done, p, std::min(done, bytes - done));
}

EmulatedMemory::~EmulatedMemory() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [begin, allocation] : allocations_) std::free(allocation.memory);
}

absl::StatusOr<void*> EmulatedMemory::Allocate(int64_t bytes) {
  if (bytes <= 0) return absl::InvalidArgumentError(absl::StrCat("allocation of ", bytes, " bytes"));
  std::lock_guard<std::mutex> lock(mutex_);
  if (bytes > capacity_ - bytes_allocated_) {
    return absl::ResourceExhaustedError(absl::StrCat("the emulated GPU has ", capacity_ - bytes_allocated_,
                                                     " of its ", capacity_, " bytes left, not ", bytes));
  }
  const int64_t padded = PaddedBytes(bytes);
  auto* memory = static_cast<char*>(std::aligned_alloc(kAlignment, padded + 2 * kGuardBytes));
  if (memory == nullptr)
    return absl::ResourceExhaustedError(absl::StrCat("the host has no ", bytes, " bytes left"));
  std::memset(memory, kGuardByte, kGuardBytes);
  char* data = memory + kGuardBytes;
  Poison(data, bytes);
  std::memset(data + bytes, kGuardByte, padded - bytes + kGuardBytes);
  allocations_[reinterpret_cast<uintptr_t>(data)] = {bytes, memory};
  bytes_allocated_ += bytes;
  return data;
}

absl::Status EmulatedMemory::Register(void* memory, int64_t bytes) {
  if (bytes <= 0) return absl::InvalidArgumentError(absl::StrCat("registration of ", bytes, " bytes"));
  const auto begin = reinterpret_cast<uintptr_t>(memory);
  std::lock_guard<std::mutex> lock(mutex_);
  const auto after = allocations_.lower_bound(begin);
  const bool overlaps =
      (after != allocations_.end() && after->first < begin + bytes) ||
      (after != allocations_.begin() && std::prev(after)->first + std::prev(after)->second.bytes > begin);
  if (overlaps) return absl::InvalidArgumentError("memory that overlaps what is known already");
  allocations_[begin] = {bytes, nullptr};
  return absl::OkStatus();
}

absl::Status EmulatedMemory::CheckGuards(uintptr_t begin, const Allocation& allocation) const {
  if (allocation.memory == nullptr) return absl::OkStatus();
  const auto* data = reinterpret_cast<const char*>(begin);
  const auto complain = [&](int64_t offset) {
    return absl::InternalError(absl::StrCat("an allocation of ", allocation.bytes,
                                            " bytes was written to outside of its bounds, at byte ", offset));
  };
  const int64_t before = UntouchedBytes(allocation.memory, kGuardBytes);
  if (before != kGuardBytes) return complain(before - kGuardBytes);
  const int64_t zone = PaddedBytes(allocation.bytes) - allocation.bytes + kGuardBytes;
  const int64_t behind = UntouchedBytes(data + allocation.bytes, zone);
  return behind == zone ? absl::OkStatus() : complain(allocation.bytes + behind);
}

absl::Status EmulatedMemory::CheckGuards() const {
  std::lock_guard<std::mutex> lock(mutex_);
  absl::Status status;
  for (const auto& [begin, allocation] : allocations_) status.Update(CheckGuards(begin, allocation));
  return status;
}

absl::Status EmulatedMemory::Free(void* memory) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = allocations_.find(reinterpret_cast<uintptr_t>(memory));
  if (found == allocations_.end())
    return absl::InvalidArgumentError("freed memory is not the start of a live allocation");
  absl::Status status = CheckGuards(found->first, found->second);
  if (found->second.memory != nullptr) bytes_allocated_ -= found->second.bytes;
  std::free(found->second.memory);
  unsettled_.erase(found->first);
  allocations_.erase(found);
  return status;
}

EmulatedMemory::Range EmulatedMemory::Find(const void* p) const {
  const auto address = reinterpret_cast<uintptr_t>(p);
  std::lock_guard<std::mutex> lock(mutex_);
  auto after = allocations_.upper_bound(address);
  if (after == allocations_.begin()) return {};
  const auto& [begin, allocation] = *--after;
  if (address >= begin + allocation.bytes) return {};
  return {begin, begin + allocation.bytes};
}

std::vector<EmulatedMemory::Range> EmulatedMemory::Allocations() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Range> ranges;
  for (const auto& [begin, allocation] : allocations_) ranges.push_back({begin, begin + allocation.bytes});
  return ranges;
}

bool EmulatedMemory::Contains(const void* p, int64_t bytes) const {
  const Range range = Find(p);
  return range.end != 0 && bytes <= static_cast<int64_t>(range.end - reinterpret_cast<uintptr_t>(p));
}

std::string EmulatedMemory::Describe(const void* p) const {
  const auto address = reinterpret_cast<uintptr_t>(p);
  std::lock_guard<std::mutex> lock(mutex_);
  const auto after = allocations_.upper_bound(address);
  const auto before = after == allocations_.begin() ? allocations_.end() : std::prev(after);
  // The nearer of the two neighbours.
  const bool take_before = before != allocations_.end() &&
                           (after == allocations_.end() ||
                            address - (before->first + before->second.bytes) < after->first - address ||
                            address < before->first + before->second.bytes);
  if (take_before)
    return absl::StrCat("byte ", address - before->first, " of an allocation of ", before->second.bytes);
  if (after == allocations_.end()) return "no allocation is known";
  return absl::StrCat(after->first - address, " bytes before an allocation of ", after->second.bytes);
}

void EmulatedMemory::Unsettle(const void* p) const {
  const Range range = Find(p);
  std::lock_guard<std::mutex> lock(mutex_);
  unsettled_.insert(range.begin);
}

bool EmulatedMemory::Unsettled(const void* p) const {
  const Range range = Find(p);
  std::lock_guard<std::mutex> lock(mutex_);
  return unsettled_.contains(range.begin);
}

void EmulatedMemory::Settle() const {
  std::lock_guard<std::mutex> lock(mutex_);
  unsettled_.clear();
}

int64_t EmulatedMemory::bytes_allocated() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return bytes_allocated_;
}

}  // namespace bellwether::gpu
