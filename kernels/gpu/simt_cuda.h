#pragma once

// The words of simt.h on a GPU.

#include <cuda_runtime.h>

#include <cstdint>

#define BW_DEVICE __device__ __forceinline__
#define BW_UNROLL _Pragma("unroll")
#define BW_UNROLL_8 _Pragma("unroll 8")

namespace bellwether::gpu {

struct alignas(8) Words2 {
  uint32_t x, y;
};
struct alignas(16) Words4 {
  uint32_t x, y, z, w;
};

BW_DEVICE int ThreadIndex() { return static_cast<int>(threadIdx.x); }
BW_DEVICE int BlockThreads() { return static_cast<int>(blockDim.x); }
BW_DEVICE int Lane() { return ThreadIndex() % 32; }
BW_DEVICE int Warp() { return ThreadIndex() / 32; }
BW_DEVICE int BlockX() { return static_cast<int>(blockIdx.x); }
BW_DEVICE int BlockY() { return static_cast<int>(blockIdx.y); }
BW_DEVICE int BlockZ() { return static_cast<int>(blockIdx.z); }
BW_DEVICE int GridX() { return static_cast<int>(gridDim.x); }
BW_DEVICE int GridY() { return static_cast<int>(gridDim.y); }
BW_DEVICE int GridZ() { return static_cast<int>(gridDim.z); }

BW_DEVICE void SyncBlock() { __syncthreads(); }
BW_DEVICE void SyncWarp() { __syncwarp(); }
BW_DEVICE void SyncGroup(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

template <typename T>
BW_DEVICE T ShuffleXor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
template <typename T>
BW_DEVICE T Shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
BW_DEVICE uint32_t Transpose8x8(uint32_t word) {
  uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(word));
  return result;
}

BW_DEVICE float Fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
BW_DEVICE float Sqrt(float x) { return __fsqrt_rn(x); }
BW_DEVICE uint32_t FloatBits(float x) { return __float_as_uint(x); }
BW_DEVICE float BitsFloat(uint32_t bits) { return __uint_as_float(bits); }
BW_DEVICE uint32_t PackBF16(float low, float high) {
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
BW_DEVICE uint32_t SubBF16(uint32_t a, uint32_t b) {
  uint32_t word;  // a + 1 * -b
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(word) : "r"(a), "r"(0x3f803f80u), "r"(b ^ 0x80008000u));
  return word;
}
BW_DEVICE float HalfToFloat(uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

BW_DEVICE uint16_t FloatToHalf(float x) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}

BW_DEVICE void Mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <typename T>
BW_DEVICE T Load(const T* p) {
  return *p;
}
template <typename T>
BW_DEVICE void Store(T* p, T value) {
  *p = value;
}
BW_DEVICE Words4 LoadStream(const void* p) {
  Words4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}
BW_DEVICE void Prefetch64(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

BW_DEVICE char* SharedMemory() {
  extern __shared__ __align__(1024) char shared_memory[];
  return shared_memory;
}
BW_DEVICE uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
BW_DEVICE void CopyAsync16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(SharedAddress(shared)), "l"(global)
               : "memory");
}
BW_DEVICE void CopyAsyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kGroups>
BW_DEVICE void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

// From here on words of Hopper's; elsewhere no kernel that is compiled uses them (kernels.cu).
BW_DEVICE void BarrierInit(uint64_t* bar, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(bar)), "r"(arrivals) : "memory");
}
BW_DEVICE void FenceBarrierInit() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
BW_DEVICE void BarrierArrive(uint64_t* bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(bar)) : "memory");
}
BW_DEVICE void BarrierArriveExpect(uint64_t* bar, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(bar)), "r"(bytes)
               : "memory");
}
BW_DEVICE void BarrierWait(uint64_t* bar, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "wait: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra wait;\n"
      "}" ::"r"(SharedAddress(bar)),
      "r"(parity)
      : "memory");
}
BW_DEVICE void CopyBulk(void* shared, const void* global, int bytes, uint64_t* bar) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          SharedAddress(shared)),
      "l"(global), "r"(bytes), "r"(SharedAddress(bar))
      : "memory");
}
BW_DEVICE void FenceAsyncShared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// The k16 x kN operand of a wgmma in shared memory.
struct SharedTile {
  const void* start;
  int k_stride, n_stride;  // bytes
};
BW_DEVICE uint64_t Descriptor(const SharedTile& tile) {
  const uint64_t start = SharedAddress(tile.start) >> 4;
  return start | static_cast<uint64_t>(tile.k_stride >> 4) << 16 |
         static_cast<uint64_t>(tile.n_stride >> 4) << 32;
}
BW_DEVICE void WgmmaFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
BW_DEVICE void WgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kGroups>
BW_DEVICE void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}
template <int kRegisters>
BW_DEVICE void RaiseRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
BW_DEVICE void LowerRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kN>
BW_DEVICE void Wgmma(float (&d)[kN / 2], const uint32_t (&a)[4], const SharedTile& b, bool accumulate);
template <>
BW_DEVICE void Wgmma<8>(float (&d)[4], const uint32_t (&a)[4], const SharedTile& b, bool accumulate) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %9, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, %8, p, 1, 1, 0;\n"
      "}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(Descriptor(b)), "r"(static_cast<int>(accumulate)));
}
template <>
BW_DEVICE void Wgmma<64>(float (&d)[32], const uint32_t (&a)[4], const SharedTile& b, bool accumulate) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, "
      "%11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "
      "%31}, "
      "{%32, %33, %34, %35}, %36, p, 1, 1, 0;\n"
      "}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]),
        "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
        "+f"(d[30]), "+f"(d[31])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(Descriptor(b)), "r"(static_cast<int>(accumulate)));
}
template <>
BW_DEVICE void Wgmma<128>(float (&d)[64], const uint32_t (&a)[4], const SharedTile& b, bool accumulate) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, "
      "%11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, "
      "%31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, "
      "%51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, p, 1, 1, 0;\n"
      "}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]),
        "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
        "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]),
        "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]),
        "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), "+f"(d[50]),
        "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]),
        "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(Descriptor(b)), "r"(static_cast<int>(accumulate)));
}
// Before Hopper kernels do not overlap.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
BW_DEVICE void WaitForPreviousKernel() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
BW_DEVICE void LetNextKernelStart() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
#else
BW_DEVICE void WaitForPreviousKernel() {}
BW_DEVICE void LetNextKernelStart() {}
#endif

}  // namespace bellwether::gpu
