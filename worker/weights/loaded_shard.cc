#include "worker/weights/loaded_shard.h"

#include <initializer_list>

namespace bellwether {
namespace {

int64_t Bytes(std::initializer_list<const DeviceMatrix*> matrices) {
  int64_t bytes = 0;
  for (const DeviceMatrix* matrix : matrices) bytes += matrix == nullptr ? 0 : matrix->bytes();
  return bytes;
}

int64_t Bytes(std::initializer_list<DeviceVector> vectors) {
  int64_t bytes = 0;
  for (const DeviceVector& vector : vectors) bytes += vector.size * static_cast<int64_t>(sizeof(float));
  return bytes;
}

int64_t Bytes(const NormWeights& norm) { return Bytes({norm.weight, norm.bias}); }

int64_t Bytes(const LayerWeights& layer) {
  return Bytes(layer.attention_norm) + Bytes(layer.mlp_norm) +
         Bytes({layer.query.get(), layer.key.get(), layer.value.get(), layer.attention_output.get(),
                layer.gate.get(), layer.up.get(), layer.down.get()}) +
         Bytes({layer.query_bias, layer.key_bias, layer.value_bias, layer.attention_output_bias,
                layer.gate_bias, layer.up_bias, layer.down_bias});
}

}  // namespace

int64_t LoadedShard::bytes() const {
  int64_t bytes = Bytes({embedding.get(), head.get()}) + Bytes(embedding_norm) + Bytes(final_norm);
  for (const LayerWeights& layer : layer_weights) bytes += Bytes(layer);
  return bytes;
}

bool LoadedShard::Serves(const Assignment& assignment) const {
  return model_id == assignment.model_id && layers == assignment.stage_layout().layers &&
         rank == assignment.rank_layout() && quantize == assignment.numeric.quantize;
}

}  // namespace bellwether
