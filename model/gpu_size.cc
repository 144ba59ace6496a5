#include "model/gpu_size.h"

#include <algorithm>
#include <vector>

#include "common/packed_row.h"
#include "common/slice_tree.h"
#include "common/step.h"
#include "model/row_limits.h"

namespace bellwether {
namespace {

constexpr int64_t kTileRows = 16, kBlockTiles = 8;
constexpr int64_t kStepColumns = 16;
constexpr int64_t kPieceRows = 64;
constexpr int64_t kPartRowsMax = 1024;
constexpr int64_t kImageAlignment = 256;
constexpr int64_t kLargestChunk = 8192, kLargestMax = 64, kLargestValueBytes = 8;
// Tables that say where columns lie: a step or a set takes 8 bytes, a segment 12 and its parts 16.
constexpr int64_t kTableBytes = 256, kStepTableBytes = 8, kSetTableBytes = 8, kSegmentTableBytes = 44;

int64_t CeilDiv(int64_t value, int64_t by) { return (value + by - 1) / by; }

// Columns cut into segments, weight groups, steps of 16 and units of steps.
struct Columns {
  int64_t units = 0, sets = 0, segments = 0;
};

void AddSegment(const TensorFormat& format, int64_t begin, int64_t end, int64_t unit_steps,
                Columns* columns) {
  int64_t steps = CeilDiv(end - begin, kStepColumns);
  if (IsQuantized(format.format)) {
    // A set is filled up to a whole group, and a unit to whole sets.
    const int64_t groups = begin == end ? 0 : CeilDiv(end, format.group) - begin / format.group;
    const int64_t set_steps = format.group / kStepColumns;
    const int64_t sets = RoundUp(groups, std::max<int64_t>(unit_steps / set_steps, 1));
    columns->sets += sets;
    steps = sets * set_steps;
  }
  columns->units += CeilDiv(steps, unit_steps);
  ++columns->segments;
}

Columns CutColumns(const TensorFormat& format, const std::vector<int64_t>& bounds, int64_t segment,
                   int64_t unit_steps) {
  Columns columns;
  for (size_t slice = 0; slice + 1 < bounds.size(); ++slice) {
    int64_t begin = bounds[slice];
    do {
      const int64_t end = std::min(begin + segment, bounds[slice + 1]);
      AddSegment(format, begin, end, unit_steps, &columns);
      begin = end;
    } while (begin < bounds[slice + 1]);
  }
  return columns;
}

struct MatrixBytes {
  int64_t values = 0, scales = 0, tables = 0;
};

MatrixBytes BytesOf(const TensorFormat& format, int64_t rows, const std::vector<int64_t>& bounds,
                    int64_t segment) {
  const int64_t unit_steps = format.format == WeightFormat::kInt4 ? 4 : 2;
  const int64_t unit_bytes = IsQuantized(format.format)            ? 512
                             : format.format == WeightFormat::kF32 ? 2048
                                                                   : 1024;
  const Columns columns = CutColumns(format, bounds, segment, unit_steps);
  const int64_t tiles = CeilDiv(rows, kTileRows);
  return {.values = RoundUp(tiles, kBlockTiles) * columns.units * unit_bytes,
          .scales = columns.sets == 0 ? 0
                                      : (tiles * columns.sets + 2) * kTileRows *
                                            (format.half_scales ? 2 : 4) * (format.has_offset ? 2 : 1),
          .tables = columns.units * unit_steps * kStepTableBytes + columns.sets * kSetTableBytes +
                    columns.segments * kSegmentTableBytes + kTableBytes};
}

// The widest row of activations once it is prepared for a product.
int64_t PreparedColumns(int64_t columns) { return RoundUp(2 * columns, 64) + 4096; }

// On either side.
int64_t BatchBytes(int64_t heads, int64_t kv_heads, const GpuStepLimits& limits) {
  constexpr int64_t kRowBytes = 24, kItemBytes = 32, kPaddings = 6 * 256;
  const int64_t items = 2 * int64_t{limits.step_tokens} * heads + kv_heads;
  const int64_t tables = int64_t{limits.step_tokens} * CeilDiv(limits.context_tokens, kKvBlockTokens) * 4;
  return limits.step_tokens * kRowBytes + items * kItemBytes + tables + kPaddings;
}

// Of the logits, likewise (kernels/largest_value.h).
int64_t LargestBytes(const ModelConfig& config) {
  return kLogitRowsMax * CeilDiv(config.vocab, kLargestChunk) * kLargestMax * kLargestValueBytes;
}

// That a rank can own of a tree with so many slices.
int64_t MostRoots(int slices) {
  size_t most = 0;
  for (int begin = 0; begin < slices; ++begin) {
    for (int end = begin + 1; end <= slices; ++end)
      most = std::max(most, SubtreeRoots({begin, end}, slices).size());
  }
  return static_cast<int64_t>(most);
}

}  // namespace

int64_t GpuMatrixBytes(const TensorFormat& format, int64_t rows, const std::vector<int64_t>& bounds,
                       int64_t segment) {
  const MatrixBytes bytes = BytesOf(format, rows, bounds, segment);
  return bytes.values + bytes.scales + bytes.tables;
}

int64_t GpuMatrixImageBytes(const TensorFormat& format, int64_t rows, const std::vector<int64_t>& bounds,
                            int64_t segment) {
  const MatrixBytes bytes = BytesOf(format, rows, bounds, segment);
  return RoundUp(bytes.values, kImageAlignment) + RoundUp(bytes.scales, kImageAlignment);
}

int64_t GpuKvBlockBytes(const ModelConfig& config, DType kv_type, const StageLayout& stage, int rank) {
  const bool fragments = kv_type == DType::kBF16;
  ModelConfig padded = config;
  if (fragments) padded.head_dim = static_cast<int32_t>(RoundUp(config.head_dim, kStepColumns));
  return KvBlockBytes(padded, kv_type, stage, rank);
}

int64_t GpuScratchBytes(const ModelConfig& config, const RankLayout& rank, const GpuStepLimits& limits,
                        bool last_stage) {
  const int64_t hidden = config.hidden;
  const int64_t heads = SliceHeads(config, rank.slices).size();
  const int64_t kv_heads = SliceKvHeads(config, rank.slices).size();
  const int64_t query = heads * config.head_dim, key = kv_heads * config.head_dim;
  const int64_t ffn = SliceFfn(config, rank.slices).size();
  const int64_t roots = static_cast<int64_t>(SubtreeRoots(rank.slices, SliceCount(config)).size());
  const int64_t rows = std::min<int64_t>(limits.step_tokens, kGpuLayerRowsMax);

  const int64_t operand_rows = RoundUp(std::max(rows, kPieceRows), kPieceRows);
  const int64_t prepared =
      operand_rows * PreparedColumns(std::max({hidden, ffn, query})) * (8 * limits.limbs + 1) / 4;
  const int64_t parts = std::min(rows, kPartRowsMax) * hidden * rank.slices.size();
  const int64_t layer =
      rows * (hidden + std::max({query + 2 * key, ffn, roots * hidden}) + std::max({query, ffn, hidden}));
  const int64_t residual = int64_t{limits.step_tokens} * hidden;
  // The first rank gathers those of all.
  const int64_t logit_cols = rank.head_rows.begin == 0 ? config.vocab : rank.head_rows.size();
  const int64_t logits = last_stage ? int64_t{kLogitRowsMax} * (hidden + logit_cols) : 0;
  const int64_t positions = config.alibi ? heads : int64_t{limits.context_tokens} * config.head_dim;
  return prepared + LargestBytes(config) + 4 * (parts + layer + residual + logits + positions) +
         BatchBytes(heads, kv_heads, limits);
}

int64_t GpuMessageBytes(const ModelConfig& config, const StageLayout& stage, const GpuStepLimits& limits) {
  constexpr int64_t kFlatFloatsMax = (1 << 20) / 4, kPartPadding = 32;
  const auto ranks = static_cast<int64_t>(stage.ranks.size());
  if (ranks == 1) return 0;
  int64_t roots = 0;
  for (const RankLayout& rank : stage.ranks)
    roots += static_cast<int64_t>(SubtreeRoots(rank.slices, SliceCount(config)).size());
  const int64_t sums = std::min<int64_t>(limits.step_tokens, kGpuLayerRowsMax) * config.hidden;
  const int64_t part = std::min(sums, sums / ranks + kPartPadding);
  return 4 * std::max({std::min(roots * sums, kFlatFloatsMax), roots * part, int64_t{config.hidden}});
}

int64_t GpuPinnedBytes(const ModelConfig& config, const GpuStepLimits& limits) {
  const int64_t hidden = config.hidden, step_tokens = limits.step_tokens;
  const int64_t residual = step_tokens * hidden;
  const int64_t logits = std::min<int64_t>(step_tokens, kLogitRowsMax) * config.vocab;
  const int64_t layer_rows = std::min(step_tokens, kGpuLayerRowsMax);
  const int64_t messages =  // between ranks: roots and their sum, or one of the others
      std::max({(MostRoots(SliceCount(config)) + 1) * layer_rows * hidden, residual, logits});
  return kGpuPieceBytes + LargestBytes(config) + 4 * (residual + messages + logits) +
         BatchBytes(config.heads, config.kv_heads, limits);
}

}  // namespace bellwether
