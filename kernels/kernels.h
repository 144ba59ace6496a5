#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/dtype.h"
#include "kernels/packed_matrix.h"

// The whole contract between the model and the arithmetic: one table of functions for each kernel level.
//
// - Every function is pure: it writes its outputs and nothing else, allocates nothing, starts no thread.
//   Threads come from the caller, who splits rows, panels or queries between them; how they are split never
//   changes a bit.
// - An output element depends on its own row alone, summed in an order fixed by the shapes and the level:
//   one row or 512, whole prompt or chunks, the bits are the same.
// - Inputs and outputs do not overlap unless said so. Activations are fp32, rows `stride` floats apart.
// - NaN and infinity in inputs give NaN or infinity in their own row only.

namespace bellwether::kernels {

// Which instruction set computes, in ascending order of what it asks of the CPU. Levels differ in last bits.
enum class KernelLevel : int {
  kReference = 0,   // slow and obviously right
  kPortable = 1,    // plain C++
  kAvx2 = 2,        // AVX2, FMA, F16C
  kAvx512 = 3,      // AVX-512 F, BW, DQ, VL and VNNI
  kAvx512Bf16 = 4,  // the same and AVX512_BF16: bf16 products read activations rounded to bf16
};
inline constexpr int kKernelLevels = 5;

std::string_view Name(KernelLevel level);  // "reference", "portable", "avx2", "avx512", "avx512_bf16"
std::optional<KernelLevel> ParseKernelLevel(std::string_view name);

// Rows of fp32 activations: row r starts at data + r * stride.
struct ConstRows {
  const float* data = nullptr;
  int64_t rows = 0;
  int64_t stride = 0;  // floats
  const float* row(int64_t r) const { return data + r * stride; }
};
struct MutableRows {
  float* data = nullptr;
  int64_t rows = 0;
  int64_t stride = 0;  // floats
  float* row(int64_t r) const { return data + r * stride; }
};

// A product with rows of activations that prepare_rows has prepared.
struct MatmulArgs {
  const PackedMatrix* weights = nullptr;
  const std::byte* prepared = nullptr;  // [rows][weights->prepared_row_bytes()], 64-byte aligned
  int64_t rows = 0;
  int64_t panel_begin = 0, panel_end = 0;  // computes outputs of these panels only
  // Output of root g, row r, column n: y[g * root_stride + r * stride + n]. Columns past weights->rows() are
  // not written.
  float* y = nullptr;
  int64_t stride = 0;       // floats between rows
  int64_t root_stride = 0;  // floats between roots; unused if there is one
};

// One query head at one position, walking the KV blocks of its sequence.
struct AttentionQuery {
  const float* q = nullptr;  // [head_dim], RoPE applied, not scaled
  float* out = nullptr;      // [head_dim], fully overwritten
  int32_t position = 0;      // attends to positions 0 ... position
  float alibi_slope = 0;     // score += slope * key position; 0 for models without ALiBi
};

inline constexpr int kAttentionQueriesMax = 64;
inline constexpr int kHeadDimMax = 512;

// The KV cache of one KV head. A KV block holds kKvBlockTokens = 32 positions:
//   keys   [head_dim][32]  (position fastest)      values [32][head_dim]
// the values following the keys, so block b starts at blocks + b * block_stride.
struct KvHead {
  std::byte* blocks = nullptr;
  int64_t block_stride = 0;        // bytes
  const int32_t* table = nullptr;  // block of positions [32 i, 32 i + 32) is table[i]
  DType dtype = DType::kF32;       // kF32, kBF16 or kF16
  int32_t head_dim = 0;
};

struct KernelTable {
  KernelLevel level;

  // -- Matrix products

  // prepared rows [row_begin, row_end) of x (x.row(r) has weights.cols() values) for any matrix that shares
  // `weights`' preparation: fp32, rounded to bf16 (kAvx512Bf16 with bf16 weights), or int8 in groups of 32
  // with scale = max|x| / 127, q = round to nearest even (x / scale); a group of zeros has scale 0, one with
  // NaN or infinity has scale NaN.
  void (*prepare_rows)(const PackedMatrix& weights, ConstRows x, int64_t row_begin, int64_t row_end,
                       std::byte* prepared);
  // y = x W^T, a partial sum for each root of the reduction tree. Inside a segment: float formats accumulate
  // in fp32 along the columns; quantised ones add, block by block, activation scale * (weight scale * dot +
  // offset * sum), the integer parts exact. Segments add up in the order that their `additions` say.
  void (*matmul)(const MatmulArgs& args);

  // -- Attention

  // Writes key and value (fp32 [head_dim] each) of `position` into its block, rounding to the cache's type.
  void (*write_kv)(const KvHead& head, int32_t position, const float* key, const float* value);
  // softmax(scale * q.k + alibi) v for `count` <= kAttentionQueriesMax queries over one KV head of one
  // sequence. Walks tiles of 64 positions from position 0; running maximum and sum are updated once a tile;
  // positions past a query's own contribute nothing and are not read as values that could matter (NaN there
  // is harmless).
  void (*attention)(const KvHead& head, const AttentionQuery* queries, int count, float scale);

  // -- Row by row; rows are independent

  // out = x / sqrt(mean(x^2) + epsilon) * weight. May be in place.
  void (*rms_norm)(ConstRows x, const float* weight, int64_t cols, float epsilon, MutableRows out);
  // out = (x - mean) / sqrt(variance + epsilon) * weight + bias. May be in place.
  void (*layer_norm)(ConstRows x, const float* weight, const float* bias, int64_t cols, float epsilon,
                     MutableRows out);
  // Rotates pairs (i, i + head_dim / 2) of each of `heads` neighbouring heads of one row, in place;
  // cosines and sines are [head_dim / 2].
  void (*rope)(float* row, int heads, int head_dim, const float* cosines, const float* sines);
  // gate = silu(gate) * up
  void (*silu_multiply)(MutableRows gate, ConstRows up, int64_t cols);
  // x = gelu(x), tanh form: x/2 (1 + tanh(0.79788456 x (1 + 0.044715 x^2)))
  void (*gelu)(MutableRows x, int64_t cols);
  // x += bias for every row
  void (*add_bias)(MutableRows x, const float* bias, int64_t cols);
  // out = a + b; out may be a or b
  void (*add)(const float* a, const float* b, int64_t count, float* out);
};

// The levels this CPU can run, ascending; kReference and kPortable are always among them.
std::vector<KernelLevel> AvailableKernelLevels();
// FailedPrecondition, naming what is missing, if this CPU cannot run `level`.
absl::StatusOr<const KernelTable*> GetKernels(KernelLevel level);

// One table a file; null where it was not compiled for this architecture.
const KernelTable* ReferenceKernels();
const KernelTable* PortableKernels();
const KernelTable* Avx2Kernels();
const KernelTable* Avx512Kernels();
const KernelTable* Avx512Bf16Kernels();

}  // namespace bellwether::kernels
