#pragma once

#include <cstdint>
#include <type_traits>

#include "absl/status/status.h"
#include "kernels/gpu/emulated_block.h"
#include "kernels/gpu/emulated_memory.h"
#include "kernels/gpu/tensor_core.h"

// Launches of kernels on the emulated GPU (emulated_block.h says what it finds and what it does not model).

namespace bellwether::gpu {

struct EmulateOptions {
  const EmulatedMemory* memory = nullptr;  // what the kernel may touch
  uint64_t seed = 0;                       // of the schedule
  int threads = 1;                         // of the host, on which blocks run at the same time
  TensorCoreClass tensor_core = kHopperTensorCore;
  // The kernel begins while the one before it runs, as on a card: until WaitForPreviousKernel it may write
  // nothing, and read nothing that is unsettled.
  bool overlaps = false;
  int64_t shared_bytes_max = emulated::Block::kSharedBytesMax;
  BarrierTrial* barriers = nullptr;
};

// Runs `body(args)` in every thread of every block, in an order of blocks that the seed gives, and returns
// when all are done. Internal, naming kernel, block, thread and what, if the kernel does what it must not;
// other blocks may then not have run. InvalidArgument for a shape that no GPU takes. Safe for any number of
// threads.
absl::Status EmulateLaunch(const LaunchShape& shape, const EmulateOptions& options,
                           void (*body)(const void* args), const void* args);

// The same for a kernel that takes one struct: EmulateLaunch<Kernel>(shape, options, args).
template <auto kBody, typename Args>
absl::Status EmulateLaunch(const LaunchShape& shape, const EmulateOptions& options, const Args& args) {
  static_assert(std::is_trivially_copyable_v<Args>);
  return EmulateLaunch(
      shape, options, [](const void* p) { kBody(*static_cast<const Args*>(p)); }, &args);
}

}  // namespace bellwether::gpu
