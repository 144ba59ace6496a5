#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/assignment.h"
#include "model/checkpoint/checkpoint.h"
#include "model/config.h"
#include "model/layout.h"
#include "model/weight_hash.h"
#include "worker/device/device.h"
#include "worker/weights/layer_file.h"

namespace bellwether {

// What one rank holds of one layer. Biases are empty where the model has none.
struct LayerWeights {
  std::shared_ptr<WeightStore> store;     // has all that follows; first, so that it outlives the matrices
  WeightHome home = WeightHome::kDevice;  // of the matrices
  std::shared_ptr<const LayerFile> file;  // where they lie on the drive, if they do
  int64_t image_bytes = 0;                // of what is streamed
  std::vector<WeightHash> hashes;         // of what was read
  int64_t bytes = 0;                      // of matrices and vectors

  NormWeights attention_norm;
  DeviceVector attention_order;              // [hidden], if the columns of the next three are reordered
  std::unique_ptr<DeviceMatrix> query;       // [own query heads * head_dim, hidden]
  std::unique_ptr<DeviceMatrix> key, value;  // [own kv heads * head_dim, hidden]
  DeviceVector query_bias, key_bias, value_bias;
  HeadNorms head_norms;
  std::unique_ptr<DeviceMatrix> attention_output;  // [hidden, own query heads * head_dim], row-parallel
  DeviceVector attention_output_bias;              // [hidden], added once after the reduction
  NormWeights mlp_norm;
  DeviceVector mlp_order;              // [hidden], if the columns of the next two are reordered
  std::unique_ptr<DeviceMatrix> gate;  // [own ffn columns, hidden]; null if the MLP is not gated
  std::unique_ptr<DeviceMatrix> up;    // [own ffn columns, hidden]
  DeviceVector gate_bias, up_bias;
  std::unique_ptr<DeviceMatrix> down;  // [hidden, own ffn columns], row-parallel
  DeviceVector down_bias;              // [hidden], added once after the reduction

  bool streamed() const { return home != WeightHome::kDevice; }
};

// Where a role of LayerTensors (model/layer_tensors.h) stands: a matrix and its bias, or a norm's two
// vectors. Just one of `matrix` and `vector` is not null.
struct LayerField {
  std::unique_ptr<DeviceMatrix>* matrix = nullptr;
  DeviceVector* vector = nullptr;
  DeviceVector* bias = nullptr;
  DeviceVector* input_order = nullptr;  // of the matrices that hold one
};
LayerField FieldOf(LayerWeights& layer, TensorRole role);

// Consecutive rows of an embedding or a head that is streamed: the only matrix of its store.
struct VocabularyPiece {
  std::shared_ptr<WeightStore> store;     // first, as above
  std::shared_ptr<const LayerFile> file;  // on the drive; null: in the host's memory
  int64_t image_bytes = 0;
  std::vector<WeightHash> hashes;
  Range rows;  // of the vocabulary
  std::unique_ptr<DeviceMatrix> matrix;
  int64_t panel_bytes = 0;  // of an embedding's each kPanelRows rows, which follow each other in the image
};

// Weights of one rank of one stage, on its device. Immutable once loaded.
class LoadedShard {
 public:
  std::shared_ptr<WeightStore> store;  // of what is outside the layers, which it outlives: so it is first

  ModelConfig config;
  // What it was loaded for.
  std::string model_id;
  Range layers;
  RankLayout rank;
  Quantize quantize = Quantize::kNone;
  int64_t streamed_layers = 0;
  WeightHome stream_home = WeightHome::kDrive;  // of those, and of the ends
  StreamedEnds streamed_ends;
  std::vector<WeightHash> hashes;  // of what was read, in all
  int64_t bytes = 0;               // of matrices and vectors, in all
  int64_t streamed_bytes = 0;      // of those that are streamed

  std::unique_ptr<DeviceMatrix> embedding;  // first stage: own rows, unless it has pieces
  NormWeights embedding_norm;               // first stage, BLOOM
  std::vector<std::shared_ptr<const LayerWeights>> layer_weights;
  NormWeights final_norm;              // last stage
  std::unique_ptr<DeviceMatrix> head;  // last stage: own rows, unless it has pieces or `head_is_embedding`
  bool head_is_embedding = false;      // tied, both ends on this worker and the same rows: stored once

  // Of those that are streamed: of the embedding as packed matrices (worker/device/packed_store.h), of the
  // head in the device's form. The same where they are one matrix and one form.
  std::vector<std::shared_ptr<const VocabularyPiece>> embedding_pieces, head_pieces;
  int64_t row_buffer_bytes = 0;  // of the device's memory, for the rows of the former

  bool reordered = false;  // some layer has an input order
  int gpu_limbs = 1;       // MostGpuLimbs (model/shard_size.h)
  bool complete = true;    // else it serves nothing: loading has ended after the last of its layers
  const DeviceMatrix& head_matrix() const { return head_is_embedding ? *embedding : *head; }
  // Of weights and of the buffers that those elsewhere need, in the device's memory.
  int64_t ResidentBytes() const;
  // Whether it can serve `assignment` as it is.
  bool Serves(const Assignment& assignment) const;
};

}  // namespace bellwether
