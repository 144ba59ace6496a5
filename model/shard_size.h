#pragma once

#include <cstdint>

#include "model/checkpoint/checkpoint.h"
#include "model/layout.h"

namespace bellwether {

// Storage format of every matrix of a model, known before any weight is read. For a checkpoint it comes from
// its tensor table; for `plan --shape` and `bench --shape` every matrix has one format.
class TensorFormats {
 public:
  virtual ~TensorFormats() = default;
  virtual TensorFormat FormatOf(const TensorKey& key) const = 0;
};

// The formats of an opened checkpoint, which must outlive this. fp32 for tensors it does not have.
class CheckpointFormats : public TensorFormats {
 public:
  explicit CheckpointFormats(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}
  TensorFormat FormatOf(const TensorKey& key) const override;

 private:
  const Checkpoint& checkpoint_;
};

// One format for every matrix, as files made by one program mostly have.
class UniformFormats : public TensorFormats {
 public:
  explicit UniformFormats(const TensorFormat& format) : format_(format) {}
  TensorFormat FormatOf(const TensorKey&) const override { return format_; }

 private:
  const TensorFormat format_;
};

// How --quantize changes a stored format: float matrices of the layers become int8 or int4; the embedding and
// the head become int8 with either (their errors reach the tokens directly). Norms and biases stay fp32.
// Formats that are already quantised stay as they are.
TensorFormat PackedFormat(const TensorKey& key, const TensorFormat& stored, Quantize quantize);

// Type of the KV cache unless told otherwise: fp32 beside fp32 weights, else bf16.
DType DefaultKvType(const TensorFormats& formats, Quantize quantize);

// The limbs that activations of a stage have on GPUs (model/gpu_size.h): those of its most precise matrix.
int MostGpuLimbs(const ModelConfig& config, const TensorFormats& formats, Quantize quantize, Range layers,
                 bool last_stage);

// Whether a stage holds the embedding and the head.
struct StageEnds {
  bool first_stage = false;
  bool last_stage = false;
};

// Bytes of the packed weights of one rank, norms and biases included: exactly what the packed form of
// kernels/packed_matrix.h takes, padding and groups cut by slices included. A tied head costs nothing where
// the same rank holds the same rows of the embedding.
int64_t ShardBytes(const ModelConfig& config, const TensorFormats& formats, Quantize quantize,
                   const StageLayout& stage, int rank, StageEnds ends);
// The same in the form that GPU kernels read (model/gpu_size.h).
int64_t GpuShardBytes(const ModelConfig& config, const TensorFormats& formats, Quantize quantize,
                      const StageLayout& stage, int rank, StageEnds ends);
// Bytes of a layer's matrices as an image of whole pages that comes and goes (worker/weights/layer_file.h),
// in the form of a CPU or a GPU. Vectors, and tables of a GPU's matrices, are not part of it.
int64_t LayerImageBytes(const ModelConfig& config, const TensorFormats& formats, Quantize quantize,
                        const RankLayout& rank, int32_t layer, bool gpu);
// The rank's embedding and head where they are streamed (model/streamed_layers.h), and the largest piece of
// each; 0 of what it does not hold.
struct EndBytes {
  int64_t embedding = 0, embedding_piece = 0;  // packed, with whoever looks rows up
  int64_t head = 0, head_piece = 0;            // images in the device's form
  // Of the device's memory, buffers aside: what they take there when they are not streamed, less the tables
  // of a GPU's matrices, which stay.
  int64_t embedding_spared = 0, head_spared = 0;
  bool one_matrix = false;    // both are the same, and counted as each
  bool rows_on_host = false;  // of the embedding: a GPU's host looks them up
};
EndBytes BytesOfEnds(const ModelConfig& config, const TensorFormats& formats, Quantize quantize,
                     const StageLayout& stage, int rank, StageEnds ends);
EndBytes GpuBytesOfEnds(const ModelConfig& config, const TensorFormats& formats, Quantize quantize,
                        const StageLayout& stage, int rank, StageEnds ends);
// Bytes of those that one decoded token makes the rank read (an embedding row instead of the embedding).
int64_t BytesReadPerToken(const ModelConfig& config, const TensorFormats& formats, Quantize quantize,
                          const StageLayout& stage, int rank, bool last_stage);
// Operations (a multiply and an add are two) of the rank's matrices on one token; attention's own come on
// top.
int64_t OperationsPerToken(const ModelConfig& config, const StageLayout& stage, int rank, bool last_stage);
// Bytes of one KV block (32 positions) on one rank: its layers and its KV heads.
int64_t KvBlockBytes(const ModelConfig& config, DType kv_type, const StageLayout& stage, int rank);

}  // namespace bellwether
