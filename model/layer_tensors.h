#pragma once

#include <cstdint>
#include <vector>

#include "model/checkpoint/checkpoint.h"
#include "model/config.h"
#include "model/layout.h"

namespace bellwether {

// How the ranks of a stage share a tensor of a layer, in the words of Megatron-LM
// (https://arxiv.org/abs/1909.08053). A column-parallel matrix is cut along its outputs (our rows), a
// row-parallel one along its inputs.
enum class Split : uint8_t {
  kNone,          // [hidden], whole on every rank
  kHeadDim,       // [head_dim], whole on every rank
  kQueryRows,     // [query heads * head_dim, hidden], column-parallel
  kKvRows,        // [KV heads * head_dim, hidden], column-parallel
  kFfnRows,       // [ffn, hidden], column-parallel
  kQueryColumns,  // [hidden, query heads * head_dim], row-parallel
  kFfnColumns,    // [hidden, ffn], row-parallel
};

// A tensor of every layer of a model: a matrix, or a norm's vector.
struct LayerTensor {
  TensorRole role = TensorRole::kQuery;
  Split split = Split::kNone;  // kNone or kHeadDim for norms, and for them alone
  bool bias = false;           // has one too: an element for each row; of a norm, for each element
};

// The tensors of a layer in the order of the computation: the one list that readers, loader and sizes go by.
std::vector<LayerTensor> LayerTensors(const ModelConfig& config);

bool IsNorm(TensorRole role);
// Embedding, head and their norms.
bool IsOutsideLayers(TensorRole role);
// Whether a rank holds some of the columns of all rows, whose products are summed over ranks.
bool IsRowParallel(Split split);

// The matrix with which the input order (TensorInfo) of all with the same input stands: query of query, key
// and value, up of gate and up.
bool HoldsInputOrder(TensorRole role);

// What the ranks with slices `slices` hold of a layer's tensor, as rows and columns of the whole: all slices
// give the whole. A norm is one row.
struct TensorPart {
  Range rows;
  Range cols;
  // Where slices end. Of row-parallel matrices in columns, of those cut along the MLP's inner width in rows,
  // both with the begin of the first; else empty.
  std::vector<int64_t> slice_bounds;
};
TensorPart PartOf(const ModelConfig& config, Split split, SliceRange slices);

}  // namespace bellwether
