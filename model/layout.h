#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/dtype.h"
#include "common/slice_tree.h"
#include "model/config.h"

namespace bellwether {

// Half-open range of layers, vocabulary rows, heads or columns.
struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  friend bool operator==(const Range&, const Range&) = default;
};

// Weights as they are kept: as stored, or rounded at load.
enum class Quantize : uint8_t { kNone, kInt8, kInt4 };

// What one tensor-parallel rank of a stage holds.
struct RankLayout {
  SliceRange slices;     // of attention and MLP; never empty
  Range embedding_rows;  // first stage only; may be empty, but where those of the ranks before end
  Range head_rows;       // last stage only; likewise
  friend bool operator==(const RankLayout&, const RankLayout&) = default;
};

struct StageLayout {
  Range layers;  // may not be empty
  std::vector<RankLayout> ranks;
  friend bool operator==(const StageLayout&, const StageLayout&) = default;
};

// How a model is spread over workers. Worker i of the flat order (stage by stage, rank by rank) runs one
// RankLayout.
struct Layout {
  std::vector<StageLayout> stages;
  friend bool operator==(const Layout&, const Layout&) = default;
  int workers() const {
    int count = 0;
    for (const StageLayout& stage : stages) count += static_cast<int>(stage.ranks.size());
    return count;
  }
};

// Index of a stage's rank in the flat order.
int FlatIndex(const Layout& layout, int stage, int rank);

// What, besides the layout, decides the bits or the memory.
struct NumericOptions {
  std::string kernel_level;  // "avx512_bf16" ...
  Quantize quantize = Quantize::kNone;
  DType kv_type = DType::kF32;
  friend bool operator==(const NumericOptions&, const NumericOptions&) = default;
};

// The weights that a worker has loaded: its part of a layout.
struct HeldPart {
  std::string model_id;
  Quantize quantize = Quantize::kNone;
  std::shared_ptr<const Layout> layout;  // never null
  int stage = 0;
  int rank = 0;

  const StageLayout& stage_layout() const { return layout->stages[stage]; }
};

// Slices
// --------------------------------------------------------------------------------------------------

// S = min(16, query heads): a property of the model.
int SliceCount(const ModelConfig& config);
// Query heads of slices [range): floor(i H / S).
Range SliceHeads(const ModelConfig& config, SliceRange range);
// KV heads that those query heads read. A KV head can be on several ranks.
Range SliceKvHeads(const ModelConfig& config, SliceRange range);
// MLP columns of slices: bounds at 32 * floor(i * ceil(ffn / 32) / S), the last clipped to ffn. May be empty.
Range SliceFfn(const ModelConfig& config, SliceRange range);

// Layouts
// ------------------------------------------------------------------------------------------------------------

// An even split: `stages` groups of layers, `ranks` tensor-parallel ranks each. InvalidArgument if there are
// fewer layers than stages or fewer slices than ranks.
absl::StatusOr<Layout> EvenLayout(const ModelConfig& config, int stages, int ranks);
// Splits slices and vocabulary rows of one stage evenly over `ranks`.
std::vector<RankLayout> EvenRanks(const ModelConfig& config, int ranks, bool first_stage, bool last_stage);
// Every layer, slice and vocabulary row exactly once; no empty stage or rank.
absl::Status Validate(const Layout& layout, const ModelConfig& config);
// "2 stages: layers 0-15 x 2 ranks, layers 16-31 x 1 rank"
std::string Describe(const Layout& layout);

}  // namespace bellwether
