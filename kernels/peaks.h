#pragma once

#include <cstdint>
#include <limits>

#include "kernels/kernels.h"

// What this machine can do at best, measured: the limits that benchmarks are held against. Speeds of a shared
// or virtual machine move by tens of percent within seconds, so measure right beside what is compared.

namespace bellwether::kernels {

// Bytes per second that `threads` threads read together from memory, each streaming through its own part of a
// buffer much larger than the caches: of 192 MiB a thread, or of `buffer_bytes_max` in all if that is less
// (then the caches may have their share in the figure). The best pass within about `seconds`. 0 if there is
// no memory for the buffer.
double MeasureReadBandwidth(int threads, double seconds,
                            int64_t buffer_bytes_max = std::numeric_limits<int64_t>::max());

enum class Arithmetic : int {
  kF32,   // fp32 multiply-adds
  kBF16,  // bf16 dot products in fp32; where the level has none, bf16 is widened to fp32 and this is kF32's
          // rate
  kInt8,  // int8 dot products in int32
};

// Operations per second (a multiply and an add are two) that `threads` threads reach together with the
// instructions that `level` uses, operands in registers. The best of several runs within about `seconds`. The
// CPU must support the level (AvailableKernelLevels).
double MeasureArithmeticPeak(KernelLevel level, Arithmetic arithmetic, int threads, double seconds);

// What a matrix product with weights of this format is limited by at this level.
constexpr Arithmetic ArithmeticOf(WeightFormat format) {
  if (IsQuantized(format)) return Arithmetic::kInt8;
  return format == WeightFormat::kBF16 ? Arithmetic::kBF16 : Arithmetic::kF32;
}

}  // namespace bellwether::kernels
