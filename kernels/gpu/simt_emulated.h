#pragma once

// The words of simt.h on the host: calls to the emulated block whose thread runs. What cannot go wrong is
// computed here.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/dtype.h"
#include "kernels/gpu/emulated_block.h"

#define BW_DEVICE inline
#define BW_UNROLL
#define BW_UNROLL_8

namespace bellwether::gpu {

struct alignas(8) Words2 {
  uint32_t x, y;
};
struct alignas(16) Words4 {
  uint32_t x, y, z, w;
};

inline int ThreadIndex() { return emulated::running.thread; }
inline int BlockThreads() { return emulated::running.block_threads; }
inline int Lane() { return ThreadIndex() % 32; }
inline int Warp() { return ThreadIndex() / 32; }
inline int BlockX() { return emulated::running.block_x; }
inline int BlockY() { return emulated::running.block_y; }
inline int BlockZ() { return emulated::running.block_z; }
inline int GridX() { return emulated::running.grid_x; }
inline int GridY() { return emulated::running.grid_y; }
inline int GridZ() { return emulated::running.grid_z; }

inline void SyncBlock(const Where& where = Where::current()) {
  emulated::running.block->SyncGroup(0, 0, "SyncBlock", where);
}
inline void SyncWarp(const Where& where = Where::current()) { emulated::running.block->SyncWarp(where); }
inline void SyncGroup(int id, int threads, const Where& where = Where::current()) {
  emulated::running.block->SyncGroup(id, threads, "SyncGroup", where);
}

namespace emulated {
uint32_t ShuffleWord(uint32_t value, int source, const char* word, const Where& where);
uint32_t TransposeWord(uint32_t word, const Where& where);
void MmaStep(float* c, const uint32_t* a, const uint32_t* b, const Where& where);
float FusedMultiplyAdd(float a, float b, float c);
float FusedInDouble(float a, float b, float c);  // the same where the CPU has no such instruction
}  // namespace emulated

template <typename T>
T ShuffleXor(T value, int mask, const Where& where = Where::current()) {
  return std::bit_cast<T>(
      emulated::ShuffleWord(std::bit_cast<uint32_t>(value), Lane() ^ mask, "ShuffleXor", where));
}
template <typename T>
T Shuffle(T value, int lane, const Where& where = Where::current()) {
  return std::bit_cast<T>(emulated::ShuffleWord(std::bit_cast<uint32_t>(value), lane, "Shuffle", where));
}
inline uint32_t Transpose8x8(uint32_t word, const Where& where = Where::current()) {
  return emulated::TransposeWord(word, where);
}

inline float Fma(float a, float b, float c) { return emulated::FusedMultiplyAdd(a, b, c); }
inline float Sqrt(float x) { return std::sqrt(x); }
inline uint32_t FloatBits(float x) { return std::bit_cast<uint32_t>(x); }
inline float BitsFloat(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t PackBF16(float low, float high) {
  const auto convert = [](float x) -> uint32_t { return x != x ? 0x7fffu : BF16FromF32(x); };
  return convert(low) | convert(high) << 16;
}
// Rounded twice, to fp32 and to bf16, which is once: fp32 has more than twice bf16's bits, and two.
inline uint32_t SubBF16(uint32_t a, uint32_t b) {
  const auto half = [](uint32_t word, int i) { return F32FromBF16(static_cast<uint16_t>(word >> 16 * i)); };
  return PackBF16(half(a, 0) - half(b, 0), half(a, 1) - half(b, 1));
}
inline float HalfToFloat(uint16_t bits) {
  const float value = F32FromF16(bits);
  return value != value ? BitsFloat(0x7fffffffu) : value;
}
inline uint16_t FloatToHalf(float x) { return x != x ? uint16_t{0x7fff} : F16FromF32(x); }
inline void Mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                const Where& where = Where::current()) {
  emulated::MmaStep(c, a, b, where);
}

template <typename T>
T Load(const T* p, const Where& where = Where::current()) {
  emulated::running.block->CheckGlobal(p, sizeof(T), alignof(T), "Load", where);
  return *p;
}
template <typename T>
void Store(T* p, T value, const Where& where = Where::current()) {
  emulated::running.block->CheckStore(p, sizeof(T), alignof(T), where);
  *p = value;
}
inline Words4 LoadStream(const void* p, const Where& where = Where::current()) {
  emulated::running.block->CheckGlobal(p, 16, 16, "LoadStream", where);
  Words4 value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}
inline void Prefetch64(const void* p, const Where& where = Where::current()) {
  emulated::running.block->CheckGlobal(p, 1, 1, "Prefetch64", where);
}

inline char* SharedMemory() { return emulated::running.shared; }
inline void CopyAsync16(void* shared, const void* global, const Where& where = Where::current()) {
  emulated::running.block->CopyAsync16(shared, global, where);
}
inline void CopyAsyncCommit() { emulated::running.block->CopyAsyncCommit(); }
template <int kGroups>
void CopyAsyncWait(const Where& where = Where::current()) {
  emulated::running.block->CopyAsyncWait(kGroups, where);
}

inline void BarrierInit(uint64_t* bar, int arrivals, const Where& where = Where::current()) {
  emulated::running.block->BarrierInit(bar, arrivals, where);
}
inline void FenceBarrierInit(const Where& where = Where::current()) {
  emulated::running.block->FenceBarrierInit(where);
}
inline void BarrierArrive(uint64_t* bar, const Where& where = Where::current()) {
  emulated::running.block->BarrierArrive(bar, 0, "BarrierArrive", where);
}
inline void BarrierArriveExpect(uint64_t* bar, int bytes, const Where& where = Where::current()) {
  emulated::running.block->BarrierArrive(bar, bytes, "BarrierArriveExpect", where);
}
inline void BarrierWait(uint64_t* bar, int parity, const Where& where = Where::current()) {
  emulated::running.block->BarrierWait(bar, parity, where);
}
inline void CopyBulk(void* shared, const void* global, int bytes, uint64_t* bar,
                     const Where& where = Where::current()) {
  emulated::running.block->CopyBulk(shared, global, bytes, bar, where);
}
inline void FenceAsyncShared(const Where& where = Where::current()) {
  emulated::running.block->FenceAsyncShared(where);
}

template <int kRegisters>
void LowerRegisters() {}
template <int kRegisters>
void RaiseRegisters() {}
inline void WgmmaFence(const Where& where = Where::current()) { emulated::running.block->WgmmaFence(where); }
template <int kColumns>
void Wgmma(float (&d)[kColumns / 2], const uint32_t (&a)[4], SharedTile b, bool accumulate,
           const Where& where = Where::current()) {
  static_assert(kColumns % 8 == 0 && kColumns >= 8 && kColumns <= 256);
  emulated::running.block->Wgmma({d, a, b, kColumns, accumulate}, where);
}
inline void WgmmaCommit(const Where& where = Where::current()) {
  emulated::running.block->WgmmaCommit(where);
}
template <int kGroups>
void WgmmaWait(const Where& where = Where::current()) {
  emulated::running.block->WgmmaWait(kGroups, where);
}

inline void WaitForPreviousKernel(const Where& where = Where::current()) {
  emulated::running.block->WaitForPreviousKernel(where);
}
inline void LetNextKernelStart() {}

}  // namespace bellwether::gpu
