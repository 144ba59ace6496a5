#pragma once

#include "kernels/kernels.h"

// Plain C++ for any processor, with vectors of four floats (a compiler extension that falls back to scalars).

namespace bellwether::kernels::portable {

void PrepareRows(const PackedMatrix& weights, ConstRows x, int64_t row_begin, int64_t row_end,
                 std::byte* prepared);
void Matmul(const MatmulArgs& args);
void Attention(const KvHead& head, const AttentionQuery* queries, int count, float scale);
void RmsNorm(ConstRows x, const float* weight, int64_t cols, float epsilon, MutableRows out);
void LayerNorm(ConstRows x, const float* weight, const float* bias, int64_t cols, float epsilon,
               MutableRows out);
void Rope(float* row, int heads, int head_dim, const float* cosines, const float* sines);
void SiluMultiply(MutableRows gate, ConstRows up, int64_t cols);
void Gelu(MutableRows x, int64_t cols);
void AddBias(MutableRows x, const float* bias, int64_t cols);
void Add(const float* a, const float* b, int64_t count, float* out);

}  // namespace bellwether::kernels::portable
