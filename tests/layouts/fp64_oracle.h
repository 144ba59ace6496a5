#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "model/checkpoint/checkpoint.h"
#include "model/layout.h"

namespace bellwether {

// A whole model in fp64, written down straight from its definition, with our formula for quantised products:
// weights are scale * q + offset, activations int8 in groups of 32 that restart at each slice (kernels.h). No
// packing, no tiles, no cache, no ranks: slow and obviously right.
class Fp64Oracle {
 public:
  Fp64Oracle(const Checkpoint& checkpoint, Quantize quantize);

  struct Answer {
    std::vector<double> logprobs;  // [vocab], of what follows
    double spread = 0;             // standard deviation of the logits
    // Activations so near to the middle of two integers that fp32 may round them the other way. With none,
    // all that fp32 may change is the last bits of sums.
    int close_calls = 0;
  };
  Answer Ask(absl::Span<const TokenId> tokens) const;

  // Columns of the widest product.
  int64_t cols_max() const { return cols_max_; }

 private:
  using Vector = std::vector<double>;
  struct Matrix {
    int64_t rows = 0, cols = 0;
    Vector values;  // [rows][cols]
    bool quantized = false;
    Vector bias;                       // [rows], or empty
    std::vector<int32_t> input_order;  // input of each column, where they are not in order
  };
  struct Norm {
    Vector weight, bias;
  };
  struct Layer {
    Norm attention_norm, mlp_norm;
    Norm query_norm, key_norm;  // of heads; without weight where there is none
    Matrix query, key, value, attention_output, gate, up, down;
  };
  // What was computed at the positions before.
  struct Cache {
    std::vector<Vector> keys, values;
  };

  Matrix ReadMatrix(const Checkpoint& checkpoint, TensorKey key, Quantize quantize);
  static Vector ReadVector(const Checkpoint& checkpoint, const TensorKey& key);
  static Norm ReadNorm(const Checkpoint& checkpoint, TensorRole role, int32_t layer);

  Vector Normed(const Vector& x, const Norm& norm) const;
  void NormHeads(const Norm& norm, Vector& heads) const;
  // `bounds`: of the slices along the columns.
  static Vector Multiply(const Matrix& matrix, const Vector& x, const std::vector<int64_t>& bounds,
                         int* close_calls);
  static Vector Multiply(const Matrix& matrix, const Vector& x, int* close_calls) {
    return Multiply(matrix, x, {0, matrix.cols}, close_calls);
  }
  void Rotate(Vector& heads, int64_t position) const;
  Vector Attend(const Vector& query, const Cache& cache) const;
  void RunLayer(const Layer& layer, int64_t position, Cache& cache, Vector& residual, int* close_calls) const;

  const ModelConfig config_;
  std::vector<int64_t> head_bounds_, ffn_bounds_;  // of the slices, in columns
  std::vector<float> alibi_slopes_, inverse_frequencies_;
  Matrix embedding_, head_;
  Norm embedding_norm_, final_norm_;
  std::vector<Layer> layers_;
  int64_t cols_max_ = 0;
};

}  // namespace bellwether
