#pragma once

#include "kernels/kernels.h"

// The slow and obviously right kernels: one element at a time, in fp32, in the order that kernels.h tells.

namespace bellwether::kernels::reference {

void PrepareRows(const PackedMatrix& weights, ConstRows x, int64_t row_begin, int64_t row_end,
                 std::byte* prepared);
void Matmul(const MatmulArgs& args);
void WriteKv(const KvHead& head, int32_t position, const float* key, const float* value);
void Attention(const KvHead& head, const AttentionQuery* queries, int count, float scale);
void RmsNorm(ConstRows x, const float* weight, int64_t cols, float epsilon, MutableRows out);
void LayerNorm(ConstRows x, const float* weight, const float* bias, int64_t cols, float epsilon,
               MutableRows out);
void Rope(float* row, int heads, int head_dim, const float* cosines, const float* sines);
void SiluMultiply(MutableRows gate, ConstRows up, int64_t cols);
void Gelu(MutableRows x, int64_t cols);
void AddBias(MutableRows x, const float* bias, int64_t cols);
void Add(const float* a, const float* b, int64_t count, float* out);

}  // namespace bellwether::kernels::reference
