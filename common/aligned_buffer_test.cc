#include "common/aligned_buffer.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

bool IsZero(const AlignedBuffer& buffer) {
  return std::all_of(buffer.data(), buffer.data() + buffer.size(),
                     [](std::byte b) { return b == std::byte{}; });
}
uintptr_t Address(const AlignedBuffer& buffer) { return reinterpret_cast<uintptr_t>(buffer.data()); }

TEST(AlignedBufferTest, IsZeroAndAligned) {
  for (int64_t bytes : {1, 63, 4096, 2 << 20, 3 << 20}) {
    const AlignedBuffer buffer = *AlignedBuffer::Allocate(bytes);
    EXPECT_EQ(buffer.size(), bytes);
    EXPECT_EQ(Address(buffer) % (bytes >= (2 << 20) ? 2 << 20 : 64), 0u);
    EXPECT_TRUE(IsZero(buffer));
  }
  EXPECT_EQ(AlignedBuffer::Allocate(0)->size(), 0);
}

TEST(AlignedBufferTest, MovesWithItsMemory) {
  AlignedBuffer from = *AlignedBuffer::Allocate(10);
  from.data()[9] = std::byte{7};
  const AlignedBuffer to = std::move(from);
  EXPECT_EQ(to.data()[9], std::byte{7});
}

TEST(AlignedBufferTest, SaysHowMuchItCouldNotGet) {
  EXPECT_TRUE(absl::IsInvalidArgument(AlignedBuffer::Allocate(-1).status()));
  const absl::Status status = AlignedBuffer::Allocate(int64_t{1} << 60).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_NE(status.message().find("1152921504606846976 bytes"), status.message().npos);
}

TEST(BufferArenaTest, BuffersFollowEachOtherAndOutliveIt) {
  std::vector<AlignedBuffer> buffers;
  {
    BufferArena arena = *BufferArena::Create(1000);
    for (int64_t bytes : {100, 1, 500}) buffers.push_back(*arena.Allocate(bytes));
  }
  EXPECT_EQ(buffers[1].data(), buffers[0].data() + 128);
  EXPECT_EQ(buffers[2].data(), buffers[1].data() + 64);
  for (size_t i = 0; i < buffers.size(); ++i) {
    EXPECT_EQ(Address(buffers[i]) % 64, 0u);
    EXPECT_TRUE(IsZero(buffers[i]));
    std::fill_n(buffers[i].data(), buffers[i].size(), std::byte(i + 1));
  }
  EXPECT_EQ(buffers[0].data()[99], std::byte{1});
  EXPECT_EQ(buffers[1].data()[0], std::byte{2});
  buffers.erase(buffers.begin(), buffers.begin() + 2);
  EXPECT_EQ(buffers[0].data()[499], std::byte{3});
}

TEST(BufferArenaTest, WhatDoesNotFitGetsMemoryOfItsOwn) {
  BufferArena arena = *BufferArena::Create(200);
  const AlignedBuffer first = *arena.Allocate(150), second = *arena.Allocate(100), last = *arena.Allocate(8);
  EXPECT_TRUE(IsZero(second));
  EXPECT_EQ(last.data(), first.data() + 192);
  EXPECT_TRUE(IsZero(*arena.Allocate(1)));
  EXPECT_EQ(arena.Allocate(0)->size(), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(arena.Allocate(-1).status()));
  EXPECT_TRUE(absl::IsResourceExhausted(BufferArena::Create(int64_t{1} << 60).status()));
  EXPECT_TRUE(absl::IsResourceExhausted(arena.Allocate(int64_t{1} << 60).status()));
}

}  // namespace
}  // namespace bellwether
