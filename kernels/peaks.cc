#include "kernels/peaks.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "common/aligned_buffer.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bellwether::kernels {
namespace {

constexpr int64_t kBytesPerThread = int64_t{192} << 20;
constexpr int64_t kBytesPerRun = int64_t{32} << 20;  // short, so that some run is not interrupted
constexpr int64_t kPageBytes = 4096;
constexpr int kChains = 12;  // independent sums, enough to hide the latency of an instruction
constexpr int64_t kRounds = 20000;

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Runs work(thread) on all threads at once, again and again for about `seconds`; the shortest wall time of a
// run.
double ShortestRun(int threads, double seconds, const std::function<void(int)>& work) {
  double shortest = 1e30;
  const Clock::time_point begin = Clock::now();
  do {
    const Clock::time_point start = Clock::now();
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(work, t);
    work(0);
    for (std::thread& other : others) other.join();
    shortest = std::min(shortest, SecondsSince(start));
  } while (SecondsSince(begin) < seconds);
  return shortest;
}

#if defined(__x86_64__)
// Wide loads: with narrow ones the processor sees too few cache lines ahead.
__attribute__((target("avx512f"))) void ReadWithAvx512(const std::byte* data, int64_t bytes) {
  __m512i all = _mm512_setzero_si512();
  for (int64_t i = 0; i < bytes; i += 256) {
    for (int64_t j = 0; j < 256; j += 64) all = _mm512_or_si512(all, _mm512_loadu_si512(data + i + j));
  }
  asm volatile("" : : "v"(all));
}
__attribute__((target("avx2"))) void ReadWithAvx2(const std::byte* data, int64_t bytes) {
  __m256i all = _mm256_setzero_si256();
  for (int64_t i = 0; i < bytes; i += 256) {
    for (int64_t j = 0; j < 256; j += 32) {
      all = _mm256_or_si256(all, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + i + j)));
    }
  }
  asm volatile("" : : "x"(all));
}
#endif

void ReadInPlainCode(const std::byte* data, int64_t bytes) {
  typedef uint64_t Two __attribute__((vector_size(16)));
  const auto* pairs = reinterpret_cast<const Two*>(data);
  Two all = {};
  for (int64_t i = 0; i < bytes / 64; ++i, pairs += 4) all |= (pairs[0] | pairs[1]) | (pairs[2] | pairs[3]);
  asm volatile("" : : "m"(all));
}

void Read(const std::byte* data, int64_t bytes) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return ReadWithAvx512(data, bytes);
  if (__builtin_cpu_supports("avx2")) return ReadWithAvx2(data, bytes);
#endif
  ReadInPlainCode(data, bytes);
}

// Each function below does kRounds rounds of kChains independent instructions (or groups of them) and returns
// the operations that they were. The empty asm statements keep the compiler from shortening the loops: they
// make `x` unknown in every round and the sums needed in the end.
using Work = double (*)();

#if defined(__x86_64__)

#if defined(__clang__)
#define BW_UNROLL _Pragma("clang loop unroll(full)")
#else
#define BW_UNROLL _Pragma("GCC unroll 16")
#endif

__attribute__((target("avx2,fma"))) double F32WithAvx2() {
  __m256 x = _mm256_setzero_ps(), sums[kChains];
  BW_UNROLL
  for (int i = 0; i < kChains; ++i) {
    sums[i] = x;
    asm volatile("" : "+x"(sums[i]));
  }
  for (int64_t round = 0; round < kRounds; ++round) {
    asm volatile("" : "+x"(x));
    BW_UNROLL
    for (int i = 0; i < kChains; ++i) sums[i] = _mm256_fmadd_ps(x, x, sums[i]);
  }
  BW_UNROLL
  for (int i = 0; i < kChains; ++i) asm volatile("" : : "x"(sums[i]));
  return double{kRounds} * kChains * 8 * 2;
}

// What the AVX2 tiles do for int4: multiply and add pairs of bytes, then add up in 16 bits.
__attribute__((target("avx2"))) double Int8WithAvx2() {
  __m256i x = _mm256_setzero_si256(), sums[kChains];
  BW_UNROLL
  for (int i = 0; i < kChains; ++i) {
    sums[i] = x;
    asm volatile("" : "+x"(sums[i]));
  }
  for (int64_t round = 0; round < kRounds; ++round) {
    asm volatile("" : "+x"(x));
    BW_UNROLL
    for (int i = 0; i < kChains; ++i) {
      __m256i y = x;
      asm volatile("" : "+x"(y));  // a product for each sum
      sums[i] = _mm256_add_epi16(sums[i], _mm256_maddubs_epi16(y, y));
    }
  }
  BW_UNROLL
  for (int i = 0; i < kChains; ++i) asm volatile("" : : "x"(sums[i]));
  return double{kRounds} * kChains * 32 * 2;
}

__attribute__((target("avx512f"))) double F32WithAvx512() {
  __m512 x = _mm512_setzero_ps(), sums[kChains];
  BW_UNROLL
  for (int i = 0; i < kChains; ++i) {
    sums[i] = x;
    asm volatile("" : "+v"(sums[i]));
  }
  for (int64_t round = 0; round < kRounds; ++round) {
    asm volatile("" : "+v"(x));
    BW_UNROLL
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_fmadd_ps(x, x, sums[i]);
  }
  BW_UNROLL
  for (int i = 0; i < kChains; ++i) asm volatile("" : : "v"(sums[i]));
  return double{kRounds} * kChains * 16 * 2;
}

__attribute__((target("avx512f,avx512bf16"))) double BF16WithAvx512() {
  __m512 x = _mm512_setzero_ps(), sums[kChains];
  BW_UNROLL
  for (int i = 0; i < kChains; ++i) {
    sums[i] = x;
    asm volatile("" : "+v"(sums[i]));
  }
  for (int64_t round = 0; round < kRounds; ++round) {
    asm volatile("" : "+v"(x));
    BW_UNROLL
    for (int i = 0; i < kChains; ++i) {
      sums[i] = _mm512_dpbf16_ps(sums[i], reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(x));
    }
  }
  BW_UNROLL
  for (int i = 0; i < kChains; ++i) asm volatile("" : : "v"(sums[i]));
  return double{kRounds} * kChains * 32 * 2;
}

__attribute__((target("avx512f,avx512vnni"))) double Int8WithAvx512() {
  __m512i x = _mm512_setzero_si512(), sums[kChains];
  BW_UNROLL
  for (int i = 0; i < kChains; ++i) {
    sums[i] = x;
    asm volatile("" : "+v"(sums[i]));
  }
  for (int64_t round = 0; round < kRounds; ++round) {
    asm volatile("" : "+v"(x));
    BW_UNROLL
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], x, x);
  }
  BW_UNROLL
  for (int i = 0; i < kChains; ++i) asm volatile("" : : "v"(sums[i]));
  return double{kRounds} * kChains * 64 * 2;
}

#endif  // __x86_64__

// Four floats at a time, a multiply and an add: what the portable level compiles to on most processors.
double F32InPlainCode() {
  typedef float Four __attribute__((vector_size(16)));
  Four x = {}, sums[kChains] = {};
  for (int64_t round = 0; round < kRounds; ++round) {
    asm volatile("" : "+m"(x));
    const Four y = x;
    for (int i = 0; i < kChains; ++i) sums[i] = sums[i] * y + y;
  }
  for (int i = 0; i < kChains; ++i) asm volatile("" : : "m"(sums[i]));
  return double{kRounds} * kChains * 4 * 2;
}

Work WorkOf(KernelLevel level, Arithmetic arithmetic) {
#if defined(__x86_64__)
  if (level == KernelLevel::kAvx2) return arithmetic == Arithmetic::kInt8 ? Int8WithAvx2 : F32WithAvx2;
  if (level >= KernelLevel::kAvx512) {
    if (arithmetic == Arithmetic::kInt8) return Int8WithAvx512;
    return arithmetic == Arithmetic::kBF16 && level == KernelLevel::kAvx512Bf16 ? BF16WithAvx512
                                                                                : F32WithAvx512;
  }
#endif
  (void)level, (void)arithmetic;
  return F32InPlainCode;
}

}  // namespace

double MeasureReadBandwidth(int threads, double seconds, int64_t buffer_bytes_max) {
  threads = std::max(1, threads);
  const int64_t part = std::min(kBytesPerThread, buffer_bytes_max / threads / kPageBytes * kPageBytes);
  if (part <= 0) return 0;
  absl::StatusOr<AlignedBuffer> buffer = AlignedBuffer::Allocate(threads * part);
  if (!buffer.ok()) return 0;
  // Pages that were never written share one page of zeros, which the caches would hold.
  for (int64_t i = 0; i < buffer->size(); i += kPageBytes) buffer->data()[i] = std::byte{1};
  const int64_t piece = std::min(part, kBytesPerRun);
  const int64_t pieces = kBytesPerRun / piece;
  std::vector<int64_t> next(threads * 8);  // a cache line for each thread
  const double shortest = ShortestRun(threads, seconds, [&](int thread) {
    int64_t& begin = next[thread * 8];
    for (int64_t i = 0; i < pieces; ++i) {
      if (begin + piece > part) begin = 0;
      Read(buffer->data() + thread * part + begin, piece);
      begin += piece;
    }
  });
  return static_cast<double>(threads * pieces * piece) / shortest;
}

double MeasureArithmeticPeak(KernelLevel level, Arithmetic arithmetic, int threads, double seconds) {
  threads = std::max(1, threads);
  const Work work = WorkOf(level, arithmetic);
  constexpr int kRepeats = 40;  // so that starting threads is a small part of a run
  const double operations = work() * kRepeats * threads;
  return operations / ShortestRun(threads, seconds, [&](int) {
           for (int i = 0; i < kRepeats; ++i) work();
         });
}

}  // namespace bellwether::kernels
