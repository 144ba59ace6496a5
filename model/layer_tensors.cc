#include "model/layer_tensors.h"

namespace bellwether {
namespace {

// Where each of the slices ends, in units of `Slice`'s ranges times `unit`; first where the first begins.
template <typename Slice>
std::vector<int64_t> SliceBounds(const ModelConfig& config, Slice slice, int64_t unit, SliceRange slices) {
  std::vector<int64_t> bounds;
  // The slices [0, end) end where slice `end` begins.
  for (int end = slices.begin; end <= slices.end; ++end)
    bounds.push_back(slice(config, SliceRange{0, end}).end * unit);
  return bounds;
}

Range Times(Range range, int64_t unit) { return {range.begin * unit, range.end * unit}; }

}  // namespace

std::vector<LayerTensor> LayerTensors(const ModelConfig& config) {
  std::vector<LayerTensor> tensors = {
      {TensorRole::kAttentionNorm, Split::kNone, config.layer_norm},
      {TensorRole::kQuery, Split::kQueryRows, config.qkv_bias},
      {TensorRole::kKey, Split::kKvRows, config.qkv_bias},
      {TensorRole::kValue, Split::kKvRows, config.qkv_bias},
  };
  if (config.head_norm) {
    tensors.push_back({TensorRole::kQueryNorm, Split::kHeadDim});
    tensors.push_back({TensorRole::kKeyNorm, Split::kHeadDim});
  }
  tensors.push_back({TensorRole::kAttentionOutput, Split::kQueryColumns, config.attention_output_bias});
  tensors.push_back({TensorRole::kMlpNorm, Split::kNone, config.layer_norm});
  if (config.gated_mlp) tensors.push_back({TensorRole::kGate, Split::kFfnRows, config.mlp_bias});
  tensors.push_back({TensorRole::kUp, Split::kFfnRows, config.mlp_bias});
  tensors.push_back({TensorRole::kDown, Split::kFfnColumns, config.mlp_bias});
  return tensors;
}

bool IsNorm(TensorRole role) {
  return role == TensorRole::kEmbeddingNorm || role == TensorRole::kAttentionNorm ||
         role == TensorRole::kMlpNorm || role == TensorRole::kFinalNorm || role == TensorRole::kQueryNorm ||
         role == TensorRole::kKeyNorm;
}

bool IsOutsideLayers(TensorRole role) {
  return role == TensorRole::kEmbedding || role == TensorRole::kEmbeddingNorm ||
         role == TensorRole::kFinalNorm || role == TensorRole::kHead;
}

bool HoldsInputOrder(TensorRole role) { return role == TensorRole::kQuery || role == TensorRole::kUp; }

bool IsRowParallel(Split split) { return split == Split::kQueryColumns || split == Split::kFfnColumns; }

TensorPart PartOf(const ModelConfig& config, Split split, SliceRange slices) {
  const Range hidden = {0, config.hidden};
  switch (split) {
    case Split::kNone:
      return {.rows = {0, 1}, .cols = hidden};
    case Split::kHeadDim:
      return {.rows = {0, 1}, .cols = {0, config.head_dim}};
    case Split::kQueryRows:
      return {.rows = Times(SliceHeads(config, slices), config.head_dim), .cols = hidden};
    case Split::kKvRows:
      return {.rows = Times(SliceKvHeads(config, slices), config.head_dim), .cols = hidden};
    case Split::kFfnRows:
      return {SliceFfn(config, slices), hidden, SliceBounds(config, SliceFfn, 1, slices)};
    case Split::kQueryColumns:
      return {hidden, Times(SliceHeads(config, slices), config.head_dim),
              SliceBounds(config, SliceHeads, config.head_dim, slices)};
    case Split::kFfnColumns:
      return {hidden, SliceFfn(config, slices), SliceBounds(config, SliceFfn, 1, slices)};
  }
  return {};
}

}  // namespace bellwether
