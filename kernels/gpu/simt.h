#pragma once

// The words that GPU kernels are written in. A kernel's body is a header that only uses these words and plain
// arithmetic; it is compiled twice from the same text: by nvcc for a GPU (simt_cuda.h: each word is an
// instruction or two) and by the host compiler for the emulator (simt_emulated.h: fibers, random schedules,
// checked memory), which runs every kernel in `make test` on machines without a GPU.
//
// The emulator gives the GPU's bits because every word is exact or says how it rounds: the tensor core step
// is tensor_core.h's function, Fma rounds once, and nvcc compiles with -fmad=false -ftz=false -prec-div=true
// -prec-sqrt=true, so + - * / are IEEE's. libm is not used: device_math.h has our own.
//
// clang-format off
// Index:      ThreadIndex() BlockThreads() Lane() Warp() BlockX() BlockY() BlockZ() GridX() GridY() GridZ()
// Order:      SyncBlock()                  all threads of the block, at one place of the program; shared memory
//                                          written before is seen after
//             SyncWarp()                   like every word of a warp: all 32 lanes, at one place of the program
//             SyncGroup(id, threads)       named barrier 1-15 among `threads` threads (whole warps) of the block
// Exchange:   ShuffleXor(value, mask) Shuffle(value, lane)      within a warp; float, int or uint32_t
//             Transpose8x8(word)           an 8 x 8 matrix of 16-bit values over a warp: lane l holds row l / 4,
//                                          columns 2 (l % 4) and + 1 (low half first); the same of its
//                                          transpose comes back
// Arithmetic: Fma(a, b, c) Sqrt(x) FloatBits(x) BitsFloat(word)
//             PackBF16(low, high)          two floats rounded to nearest even, NaN becomes 0x7fff
//             SubBF16(word, word)          of each half, rounded to nearest even
//             HalfToFloat(bits16) FloatToHalf(x)    fp16; to nearest even, overflow to infinity, NaN 0x7fff
//             Mma(c, a, b)                 tensor core step m16n8k16, bf16 -> fp32, on fragments (below)
// Global:     Load(p) Store(p, value)      4-, 8- or 16-byte types and smaller; aligned as their type
//             LoadStream(p)                16 bytes that are read once: not kept in the L1 cache
//             Prefetch64(p)                asks for the 64 bytes that p is in, as far as the second level cache: a
//                                          hint, of which a card takes as much as it likes
//             Words2, Words4               8 and 16 bytes as uint32_t x, y(, z, w)
// Shared:     SharedMemory()               the block's dynamic shared memory, aligned to 1024; read and written
//                                          plainly
//             CopyAsync16(shared, global) CopyAsyncCommit() CopyAsyncWait<n>()     cp.async, in groups by thread
//             BarrierInit(bar, arrivals) BarrierArrive(bar) BarrierArriveExpect(bar, bytes)
//             BarrierWait(bar, parity)     of the phase, counted from 0, that must have ended
//             FenceBarrierInit()           makes initialised barriers visible to asynchronous copies
//             CopyBulk(shared, global, bytes, bar)    one thread; 16-byte multiples; completes on `bar`
//             FenceAsyncShared()           own writes to shared memory become visible to Wgmma's reads and bulk
//                                          copies
// Warpgroup:  WgmmaFence() Wgmma<kN>(d, a, b, accumulate) WgmmaCommit() WgmmaWait<n>()     Hopper only (sm_90a)
//             d: float [kN / 2], the m64nNk16 accumulator of this thread, which must stay where it is until the
//             wait; a: 4 words, this thread's fragment (as Mma's, warp w of the four has rows 16 w ...); b:
//             SharedTile, the k16 x kN operand. A fence begins each group.
//             SharedTile{start, k_stride, n_stride}    core matrices of 8 columns x 16 bytes (8 values along k),
//                                          128 contiguous bytes each, and the bytes from one to the next along k
//                                          and along columns
//             LowerRegisters<n>() RaiseRegisters<n>()      of each thread of the warpgroup
// Grids:      WaitForPreviousKernel()      before the first write, and the first read of what any kernel or copy
//                                          wrote since the host last waited; by every thread
//             LetNextKernelStart()         the next kernel may begin (and wait)
//
// Fragments, l = lane, g = l / 4, t = l % 4; a pair is one word, its first value in the low half:
//   A (16 x 16, weights): a[0] = row g, columns 2t 2t+1      a[1] = row g + 8, same
//                         a[2] = row g, columns 2t+8 2t+9    a[3] = row g + 8, columns 2t+8 2t+9
//   B (16 x 8):           b[0] = rows 2t 2t+1 of column g    b[1] = rows 2t+8 2t+9 of column g
//   C (16 x 8):           c[0] c[1] = row g, columns 2t 2t+1    c[2] c[3] = row g + 8
//   Wgmma's d: for each 8 columns j the four values of a C fragment, d[4 j ...]: row g + 16 (warp % 4) (+ 8).
// clang-format on

#ifdef __CUDACC__
#include "kernels/gpu/simt_cuda.h"
#else
#include "kernels/gpu/simt_emulated.h"
#endif
