#pragma once

#include <cstdint>

#include "kernels/gpu/attention.h"
#include "kernels/gpu/largest.h"
#include "kernels/gpu/mma_tile_matmul.h"
#include "kernels/gpu/rows.h"
#include "kernels/gpu/scalar_attention.h"
#include "kernels/gpu/store_kv.h"
#include "kernels/gpu/stream_matmul.h"
#include "kernels/gpu/tensor_core_bits.h"
#include "kernels/gpu/tile_matmul.h"

// Every kernel there is, once: KERNEL(name, its arguments, its body, most threads of a block, blocks a
// multiprocessor should hold). kernels.cu makes a __global__ function of each, emulated_kernels.cc an
// emulated one.

// clang-format off
#define BW_GPU_KERNELS(KERNEL)                                                                                          \
  KERNEL(stream_bf16_1x1, StreamMatmulArgs, (StreamMatmul<WeightFormat::kBF16, SetEnds::kUnits, 1, 1>), 512, 2)         \
  KERNEL(stream_bf16_1x2, StreamMatmulArgs, (StreamMatmul<WeightFormat::kBF16, SetEnds::kUnits, 1, 2>), 512, 1)         \
  KERNEL(stream_fp16_1x1, StreamMatmulArgs, (StreamMatmul<WeightFormat::kF16, SetEnds::kUnits, 1, 1>), 512, 1)          \
  KERNEL(stream_fp16_1x2, StreamMatmulArgs, (StreamMatmul<WeightFormat::kF16, SetEnds::kUnits, 1, 2>), 512, 1)          \
  KERNEL(stream_fp32_1x1, StreamMatmulArgs, (StreamMatmul<WeightFormat::kF32, SetEnds::kUnits, 1, 1>), 256, 1)          \
  KERNEL(stream_fp32_1x2, StreamMatmulArgs, (StreamMatmul<WeightFormat::kF32, SetEnds::kUnits, 1, 2>), 256, 1)          \
  KERNEL(stream_int8_each_1x1, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt8, SetEnds::kEach, 1, 1>), 256, 3)    \
  KERNEL(stream_int8_units_1x1, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt8, SetEnds::kUnits, 1, 1>), 256, 3)   \
  KERNEL(stream_int8_each_2x1, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt8, SetEnds::kEach, 2, 1>), 256, 2)    \
  KERNEL(stream_int8_units_2x1, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt8, SetEnds::kUnits, 2, 1>), 256, 2)   \
  KERNEL(stream_int8_each_1x2, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt8, SetEnds::kEach, 1, 2>), 256, 2)    \
  KERNEL(stream_int8_units_1x2, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt8, SetEnds::kUnits, 1, 2>), 256, 2)   \
  KERNEL(stream_int8_halves_1x1, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt8, SetEnds::kHalves, 1, 1>), 256, 3)  \
  KERNEL(stream_int4_each_1x1, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt4, SetEnds::kEach, 1, 1>), 256, 3)    \
  KERNEL(stream_int4_units_1x1, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt4, SetEnds::kUnits, 1, 1>), 256, 3)   \
  KERNEL(stream_int4_each_2x1, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt4, SetEnds::kEach, 2, 1>), 256, 2)    \
  KERNEL(stream_int4_units_2x1, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt4, SetEnds::kUnits, 2, 1>), 256, 2)   \
  KERNEL(stream_int4_each_1x2, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt4, SetEnds::kEach, 1, 2>), 256, 2)    \
  KERNEL(stream_int4_units_1x2, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt4, SetEnds::kUnits, 1, 2>), 256, 2)   \
  KERNEL(stream_int4_halves_1x1, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt4, SetEnds::kHalves, 1, 1>), 256, 3) \
  KERNEL(stream_int4_halves_2x1, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt4, SetEnds::kHalves, 2, 1>), 256, 2) \
  KERNEL(stream_int4_halves_1x2, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt4, SetEnds::kHalves, 1, 2>), 256, 2) \
  KERNEL(stream_int4_quarters_1x1, StreamMatmulArgs, (StreamMatmul<WeightFormat::kInt4, SetEnds::kQuarters, 1, 1>), 256, 3)  \
  KERNEL(mma_tile_bf16_1, TileMatmulArgs, (MmaTileMatmul<WeightFormat::kBF16, 1>), kMmaTileThreads, 2)                  \
  KERNEL(mma_tile_bf16_2, TileMatmulArgs, (MmaTileMatmul<WeightFormat::kBF16, 2>), kMmaTileThreads, 2)                  \
  KERNEL(mma_tile_fp16_1, TileMatmulArgs, (MmaTileMatmul<WeightFormat::kF16, 1>), kMmaTileThreads, 2)                   \
  KERNEL(mma_tile_fp32_1, TileMatmulArgs, (MmaTileMatmul<WeightFormat::kF32, 1>), kMmaTileThreads, 1)                   \
  KERNEL(mma_tile_int8_1, TileMatmulArgs, (MmaTileMatmul<WeightFormat::kInt8, 1>), kMmaTileThreads, 2)                  \
  KERNEL(mma_tile_int4_1, TileMatmulArgs, (MmaTileMatmul<WeightFormat::kInt4, 1>), kMmaTileThreads, 2)                  \
  KERNEL(prepare, PrepareArgs, Prepare, 256, 1)                                                                         \
  KERNEL(set_sums, SetSumsArgs, SetSums, 256, 1)                                                                        \
  KERNEL(norm, NormArgs, Norm, 512, 1)                                                                                  \
  KERNEL(activate, ActivateArgs, Activate, 256, 1)                                                                      \
  KERNEL(add, AddArgs, Add, 256, 1)                                                                                     \
  KERNEL(sum_tree, SumTreeArgs, SumTree, 256, 1)                                                                        \
  KERNEL(pick_rows, PickRowsArgs, PickRows, 256, 1)                                                                     \
  KERNEL(largest, LargestArgs, Largest, 256, 1)                                                                         \
  KERNEL(embed, EmbedArgs, Embed, 256, 1)                                                                               \
  KERNEL(fill_random, FillRandomArgs, FillRandom, 256, 1)                                                                \
  KERNEL(tensor_core_mma, TensorCoreBitsArgs, TensorCoreBits<false>, 128, 1)                                            \
  KERNEL(store_kv, StoreKvArgs, StoreKv, 128, 1)                                                                        \
  KERNEL(attend_block_4, AttentionArgs, AttendByBlock<4>, 128, 4)                                                       \
  KERNEL(attend_block_8, AttentionArgs, AttendByBlock<8>, 128, 4)                                                       \
  KERNEL(attend_block_16, AttentionArgs, AttendByBlock<16>, 128, 2)                                                     \
  KERNEL(attend_warp_4, AttentionArgs, (AttendByWarp<4, 2>), 128, 1)                                                    \
  KERNEL(attend_warp_8, AttentionArgs, (AttendByWarp<8, 2>), 128, 1)                                                    \
  KERNEL(attend_warp_16, AttentionArgs, (AttendByWarp<16, 1>), 128, 1)                                                  \
  KERNEL(attend_scalar, ScalarAttentionArgs, AttendScalar, 32, 1)

// What needs wgmma: compiled for sm_90a only.
#define BW_HOPPER_KERNELS(KERNEL)                                                                                       \
  KERNEL(tensor_core_wgmma, TensorCoreBitsArgs, TensorCoreBits<true>, 128, 1)                                           \
  KERNEL(attend_tile_4, AttentionArgs, (AttendByTile<4, 2>), 256, 1)                                                    \
  KERNEL(attend_tile_8, AttentionArgs, (AttendByTile<8, 2>), 256, 1)                                                    \
  KERNEL(attend_tile_16, AttentionArgs, (AttendByTile<16, 1>), 256, 1)                                                                                       \
  KERNEL(tile_bf16_64_1, TileMatmulArgs, (TileMatmul<WeightFormat::kBF16, 64, 1>), 384, 1)                              \
  KERNEL(tile_bf16_64_2, TileMatmulArgs, (TileMatmul<WeightFormat::kBF16, 64, 2>), 384, 1)                              \
  KERNEL(tile_bf16_128_1, TileMatmulArgs, (TileMatmul<WeightFormat::kBF16, 128, 1>), 384, 1)                            \
  KERNEL(tile_bf16_128_2, TileMatmulArgs, (TileMatmul<WeightFormat::kBF16, 128, 2>), 384, 1)                            \
  KERNEL(tile_fp16_64_1, TileMatmulArgs, (TileMatmul<WeightFormat::kF16, 64, 1>), 384, 1)                               \
  KERNEL(tile_fp16_128_1, TileMatmulArgs, (TileMatmul<WeightFormat::kF16, 128, 1>), 384, 1)                             \
  KERNEL(tile_fp32_64_1, TileMatmulArgs, (TileMatmul<WeightFormat::kF32, 64, 1>), 384, 1)                               \
  KERNEL(tile_int8_64_1, TileMatmulArgs, (TileMatmul<WeightFormat::kInt8, 64, 1>), 384, 1)                              \
  KERNEL(tile_int8_128_1, TileMatmulArgs, (TileMatmul<WeightFormat::kInt8, 128, 1>), 384, 1)                            \
  KERNEL(tile_int4_64_1, TileMatmulArgs, (TileMatmul<WeightFormat::kInt4, 64, 1>), 384, 1)                              \
  KERNEL(tile_int4_128_1, TileMatmulArgs, (TileMatmul<WeightFormat::kInt4, 128, 1>), 384, 1)
// clang-format on

namespace bellwether::gpu {

#define BW_KERNEL_ID(name, args, body, threads, blocks) name,
enum class Kernel : int32_t { BW_GPU_KERNELS(BW_KERNEL_ID) BW_HOPPER_KERNELS(BW_KERNEL_ID) kCount };
#undef BW_KERNEL_ID

inline constexpr int kKernelCount = static_cast<int>(Kernel::kCount);

// The name of a kernel, and what it takes.
struct KernelInfo {
  const char* name;
  int args_bytes;
  int threads_max;
  bool hopper_only;
};
inline constexpr KernelInfo kKernels[] = {
#define BW_KERNEL_ROW(name, args, body, threads, blocks) {#name, sizeof(args), threads, false},
    BW_GPU_KERNELS(BW_KERNEL_ROW)
#undef BW_KERNEL_ROW
#define BW_KERNEL_ROW(name, args, body, threads, blocks) {#name, sizeof(args), threads, true},
        BW_HOPPER_KERNELS(BW_KERNEL_ROW)
#undef BW_KERNEL_ROW
};

}  // namespace bellwether::gpu
