#include "worker/weights/loaded_shard.h"

#include <algorithm>

#include "common/check.h"
#include "model/streamed_layers.h"

namespace bellwether {

LayerField FieldOf(LayerWeights& layer, TensorRole role) {
  const auto norm = [](NormWeights& weights) {
    return LayerField{.vector = &weights.weight, .bias = &weights.bias};
  };
  switch (role) {
    case TensorRole::kAttentionNorm:
      return norm(layer.attention_norm);
    case TensorRole::kQuery:
      return {.matrix = &layer.query, .bias = &layer.query_bias, .input_order = &layer.attention_order};
    case TensorRole::kKey:
      return {.matrix = &layer.key, .bias = &layer.key_bias};
    case TensorRole::kValue:
      return {.matrix = &layer.value, .bias = &layer.value_bias};
    case TensorRole::kQueryNorm:
      return {.vector = &layer.head_norms.query};
    case TensorRole::kKeyNorm:
      return {.vector = &layer.head_norms.key};
    case TensorRole::kAttentionOutput:
      return {.matrix = &layer.attention_output, .bias = &layer.attention_output_bias};
    case TensorRole::kMlpNorm:
      return norm(layer.mlp_norm);
    case TensorRole::kGate:
      return {.matrix = &layer.gate, .bias = &layer.gate_bias};
    case TensorRole::kUp:
      return {.matrix = &layer.up, .bias = &layer.up_bias, .input_order = &layer.mlp_order};
    case TensorRole::kDown:
      return {.matrix = &layer.down, .bias = &layer.down_bias};
    case TensorRole::kEmbedding:
    case TensorRole::kEmbeddingNorm:
    case TensorRole::kFinalNorm:
    case TensorRole::kHead:
      break;
  }
  BW_CHECK(false);  // not of a layer
  return {};
}

int64_t LoadedShard::ResidentBytes() const {
  int64_t in_turn = 0;  // the largest image of what is streamed so
  for (const auto& layer : layer_weights) in_turn = std::max(in_turn, layer->image_bytes);
  for (const auto& piece : head_pieces) in_turn = std::max(in_turn, piece->image_bytes);
  return bytes - streamed_bytes + kLayerBuffers * in_turn + row_buffer_bytes;
}

bool LoadedShard::Serves(const Assignment& assignment) const {
  const auto lost = [](const auto& part) { return part->file != nullptr && part->file->discarded(); };
  return complete && model_id == assignment.model_id && layers == assignment.stage_layout().layers &&
         rank == assignment.rank_layout() && quantize == assignment.numeric.quantize &&
         streamed_layers == assignment.streamed_layers &&
         (!assignment.Streams() || stream_home == assignment.stream_home) &&
         streamed_ends == assignment.streamed_ends &&
         std::none_of(layer_weights.begin(), layer_weights.end(), lost) &&
         std::none_of(embedding_pieces.begin(), embedding_pieces.end(), lost) &&
         std::none_of(head_pieces.begin(), head_pieces.end(), lost);
}

}  // namespace bellwether
