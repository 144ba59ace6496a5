#include "kernels/gpu/emulated_memory.h"

#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether::gpu {
namespace {

TEST(EmulatedMemory, GivesPoisonedMemoryUpToItsCapacity) {
  EmulatedMemory memory(1000);
  const absl::StatusOr<void*> first = memory.Allocate(601);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(*first) % EmulatedMemory::kAlignment, 0u);
  uint16_t words[300];
  std::memcpy(words, *first, sizeof(words));
  EXPECT_THAT(words, testing::Each(EmulatedMemory::kPoison));
  EXPECT_EQ(memory.bytes_allocated(), 601);
  EXPECT_TRUE(absl::IsResourceExhausted(memory.Allocate(400).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(memory.Allocate(0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(memory.Allocate(-1).status()));
  EXPECT_TRUE(memory.Free(*first).ok());
  EXPECT_EQ(memory.bytes_allocated(), 0);
  EXPECT_TRUE(memory.Allocate(1000).ok());
}

TEST(EmulatedMemory, KnowsWhatLiesWhere) {
  EmulatedMemory memory(1 << 20);
  auto* data = static_cast<char*>(*memory.Allocate(100));
  EXPECT_TRUE(memory.Contains(data, 100));
  EXPECT_TRUE(memory.Contains(data + 99, 1));
  EXPECT_FALSE(memory.Contains(data, 101));
  EXPECT_FALSE(memory.Contains(data - 1, 1));
  EXPECT_FALSE(memory.Contains(data + 100, 0));
  EXPECT_EQ(memory.Describe(data + 100), "byte 100 of an allocation of 100");
  EXPECT_EQ(memory.Describe(data - 4), "4 bytes before an allocation of 100");
  EXPECT_TRUE(memory.Free(data).ok());
  EXPECT_FALSE(memory.Contains(data, 1));
  EXPECT_EQ(memory.Describe(data), "no allocation is known");
}

TEST(EmulatedMemory, FreesOnlyTheStartOfWhatLives) {
  EmulatedMemory memory(1 << 20);
  auto* data = static_cast<char*>(*memory.Allocate(100));
  EXPECT_TRUE(absl::IsInvalidArgument(memory.Free(data + 1)));
  EXPECT_TRUE(memory.Free(data).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(memory.Free(data)));
  EXPECT_TRUE(absl::IsInvalidArgument(memory.Free(nullptr)));
}

TEST(EmulatedMemory, FindsWritesToGuardZones) {
  EmulatedMemory memory(1 << 20);
  for (const int offset : {-256, -1, 100, 255, 511}) {
    auto* data = static_cast<char*>(*memory.Allocate(100));
    EXPECT_TRUE(memory.CheckGuards().ok());
    data[offset] = 0;
    EXPECT_TRUE(absl::IsInternal(memory.CheckGuards()));
    const absl::Status status = memory.Free(data);
    EXPECT_TRUE(absl::IsInternal(status));
    EXPECT_THAT(status.message(), testing::HasSubstr("at byte " + std::to_string(offset)));
  }
}

TEST(EmulatedMemory, TakesMemoryOfTheCaller) {
  EmulatedMemory memory(0);
  std::vector<char> host(100);
  EXPECT_TRUE(memory.Register(host.data(), 100).ok());
  EXPECT_TRUE(memory.Contains(host.data() + 50, 50));
  EXPECT_FALSE(memory.Register(host.data() + 50, 10).ok());
  EXPECT_FALSE(memory.Register(host.data(), 0).ok());
  EXPECT_EQ(memory.bytes_allocated(), 0);
  EXPECT_TRUE(memory.CheckGuards().ok());
  EXPECT_TRUE(memory.Free(host.data()).ok());
  EXPECT_FALSE(memory.Contains(host.data(), 1));
}

}  // namespace
}  // namespace bellwether::gpu
