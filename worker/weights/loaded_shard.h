#pragma once

#include <vector>

#include "kernels/packed_matrix.h"
#include "model/config.h"
#include "model/layout.h"
#include "worker/assignment.h"
#include "worker/stage_executor.h"

namespace bellwether {

// A norm's parameters; bias is empty with RMSNorm.
struct NormWeights {
  std::vector<float> weight;  // [hidden]
  std::vector<float> bias;    // [hidden]
};

// What one rank holds of one layer. Biases are empty where the model has none.
struct LayerWeights {
  NormWeights attention_norm;
  kernels::PackedMatrix query;       // [own query heads * head_dim, hidden]
  kernels::PackedMatrix key, value;  // [own kv heads * head_dim, hidden]
  std::vector<float> query_bias, key_bias, value_bias;
  kernels::PackedMatrix attention_output;    // [hidden, own query heads * head_dim], row-parallel
  std::vector<float> attention_output_bias;  // [hidden], added once after the reduction
  NormWeights mlp_norm;
  kernels::PackedMatrix gate;  // [own ffn columns, hidden]; no rows if the MLP is not gated
  kernels::PackedMatrix up;    // [own ffn columns, hidden]
  std::vector<float> gate_bias, up_bias;
  kernels::PackedMatrix down;    // [hidden, own ffn columns], row-parallel
  std::vector<float> down_bias;  // [hidden], added once after the reduction
};

// Weights of one rank of one stage. Immutable once loaded.
class LoadedShard {
 public:
  ModelConfig config;
  // What it was loaded for.
  std::string model_id;
  Range layers;
  RankLayout rank;
  Quantize quantize = Quantize::kNone;

  kernels::PackedMatrix embedding;  // first stage: own rows
  NormWeights embedding_norm;       // first stage, BLOOM
  std::vector<LayerWeights> layer_weights;
  NormWeights final_norm;          // last stage
  kernels::PackedMatrix head;      // last stage: own rows, unless `head_is_embedding`
  bool head_is_embedding = false;  // tied, both ends on this worker and the same rows: stored once

  const kernels::PackedMatrix& head_matrix() const { return head_is_embedding ? embedding : head; }
  int64_t bytes() const;
  // Whether it can serve `assignment` as it is.
  bool Serves(const Assignment& assignment) const;
};

}  // namespace bellwether
