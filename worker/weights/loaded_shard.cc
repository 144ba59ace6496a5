#include "worker/weights/loaded_shard.h"

namespace bellwether {
namespace {

int64_t VectorBytes(std::initializer_list<const std::vector<float>*> vectors) {
  int64_t bytes = 0;
  for (const std::vector<float>* vector : vectors)
    bytes += static_cast<int64_t>(vector->size() * sizeof(float));
  return bytes;
}

int64_t Bytes(const NormWeights& norm) { return VectorBytes({&norm.weight, &norm.bias}); }

int64_t Bytes(const LayerWeights& layer) {
  return Bytes(layer.attention_norm) + Bytes(layer.mlp_norm) + layer.query.bytes() + layer.key.bytes() +
         layer.value.bytes() + layer.attention_output.bytes() + layer.gate.bytes() + layer.up.bytes() +
         layer.down.bytes() +
         VectorBytes({&layer.query_bias, &layer.key_bias, &layer.value_bias, &layer.attention_output_bias,
                      &layer.gate_bias, &layer.up_bias, &layer.down_bias});
}

}  // namespace

int64_t LoadedShard::bytes() const {
  int64_t bytes = embedding.bytes() + head.bytes() + Bytes(embedding_norm) + Bytes(final_norm);
  for (const LayerWeights& layer : layer_weights) bytes += Bytes(layer);
  return bytes;
}

bool LoadedShard::Serves(const Assignment& assignment) const {
  return model_id == assignment.model_id && layers == assignment.stage_layout().layers &&
         rank == assignment.rank_layout() && quantize == assignment.numeric.quantize;
}

}  // namespace bellwether
