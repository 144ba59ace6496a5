#include "kernels/gpu/emulate.h"

#include <vector>

#include "gtest/gtest.h"
#include "kernels/gpu/simt.h"

namespace bellwether::gpu {
namespace {

struct CopyArgs {
  const float* from;
  float* to;
};

void Reverse(const CopyArgs& args) {
  auto* shared = reinterpret_cast<float*>(SharedMemory());
  shared[ThreadIndex()] = Load(args.from + BlockX() * BlockThreads() + ThreadIndex());
  SyncBlock();
  Store(args.to + BlockX() * BlockThreads() + ThreadIndex(), shared[BlockThreads() - 1 - ThreadIndex()]);
}

TEST(Emulate, ReversesBlocks) {
  EmulatedMemory memory(1 << 20);
  auto* from = static_cast<float*>(*memory.Allocate(512 * 4));
  auto* to = static_cast<float*>(*memory.Allocate(512 * 4));
  for (int i = 0; i < 512; ++i) from[i] = i;
  const LaunchShape shape = {.grid_x = 4, .threads = 128, .shared_bytes = 512, .name = "reverse"};
  for (int seed = 0; seed < 20; ++seed) {
    const EmulateOptions options = {.memory = &memory, .seed = static_cast<uint64_t>(seed), .threads = 2};
    const absl::Status status = EmulateLaunch<Reverse>(shape, options, CopyArgs{from, to});
    ASSERT_TRUE(status.ok()) << status;
    for (int i = 0; i < 512; ++i) ASSERT_EQ(to[i], i / 128 * 128 + 127 - i % 128);
  }
}

}  // namespace
}  // namespace bellwether::gpu
