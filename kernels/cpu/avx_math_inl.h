// Elementary functions on a Vector; include avx512_vector.h or avx2_vector.h first.
#pragma once

namespace bellwether::kernels::BW_LEVEL {

// e^x within 1 ulp or so: 1 at 0, 0 far below, infinity far above, NaN for NaN.
BW_SIMD_INLINE Vector Exp(Vector x) {
  x = Min(Broadcast(100.0f), Max(Broadcast(-120.0f), x));
  const Vector n = RoundToEven(Multiply(x, Broadcast(1.44269504f)));
  // r = x - n ln 2, with ln 2 in two parts.
  Vector r = NegativeMultiplyAdd(n, Broadcast(0.693359375f), x);
  r = NegativeMultiplyAdd(n, Broadcast(-2.12194440e-4f), r);
  // Cephes' polynomial for e^r on [-ln 2 / 2, ln 2 / 2].
  Vector p = Broadcast(1.9875691500e-4f);
  p = MultiplyAdd(p, r, Broadcast(1.3981999507e-3f));
  p = MultiplyAdd(p, r, Broadcast(8.3334519073e-3f));
  p = MultiplyAdd(p, r, Broadcast(4.1665795894e-2f));
  p = MultiplyAdd(p, r, Broadcast(1.6666665459e-1f));
  p = MultiplyAdd(p, r, Broadcast(5.0000001201e-1f));
  p = MultiplyAdd(p, Multiply(r, r), r);
  return TimesPowerOfTwo(Add(p, Broadcast(1.0f)), n);
}

}  // namespace bellwether::kernels::BW_LEVEL
