#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/kernels.h"

// How the AVX levels multiply: one walk over panels, segments and rows (avx_matmul.cc), which hands tiles of
// at most 6 rows of activations by 16 or 64 outputs, or of one row by a whole quantised panel, to a function
// of the level. Each (row, output) has one accumulator that goes through the columns in order, whatever the
// tile: so neither the number of rows nor how work is split between threads changes a bit.

namespace bellwether::kernels {

inline constexpr int kTileRowsMax = 6;
inline constexpr int64_t kStreamAhead = 1536;  // bytes that a single pass fetches before it needs them

// A piece of one segment: its columns are few enough for the weights to stay in the second-level cache while
// every tile of rows passes over them. Or, for `whole_panel`, all segments of one root of the reduction tree.
struct TileArgs {
  const std::byte* activations = nullptr;  // prepared rows, at the first column of the piece
  int64_t activation_stride = 0;           // bytes between rows
  const std::byte* weights = nullptr;      // of the whole panel's width, at the first column of the piece
  int64_t width = 0;                       // outputs of the panel
  int64_t first_output = 0;                // the tile's first one within the panel, a multiple of 16

  int64_t steps = 0;  // float formats: columns, or pairs of columns if the weights are bf16

  // Tiles of a whole panel: they walk the segments themselves. `blocks` are those of the matrix, `sums` is
  // the bottom of the stack, where the sum of all segments ends.
  absl::Span<const PackedMatrix::Segment> segments;

  // Quantised formats.
  const PackedMatrix::Block* blocks = nullptr;
  int64_t block_count = 0;
  const std::byte* block_scales =
      nullptr;  // BlockScale of row 0 and the first block, `activation_stride` apart
  const std::byte* weight_scales = nullptr;  // in force before the first block; null if that one has its own
  bool has_offset = false;
  bool half_scales = false;
  int lowest_q = 0;

  float* sums = nullptr;    // fp32, row r at sums + r * sums_stride
  int64_t sums_stride = 0;  // floats
  bool first = true;        // start from zero, else from what `sums` holds
  // The last piece of a segment that closes branches of the reduction tree: this many sums of earlier
  // segments, each `stack_stride` floats before the next, are added and the result takes the place of the
  // earliest.
  int additions = 0;
  int64_t stack_stride = 0;

  // Bytes that will be needed later, fetched while this one is computed.
  const std::byte* prefetch = nullptr;
  const std::byte* prefetch_end = nullptr;
  int prefetch_lines = 0;  // cache lines for each step (quantised: each 8 columns)
};

using TileFunction = void (*)(const TileArgs&);

struct TileFunctions {
  TileFunction one_lane[kTileRowsMax + 1] = {};    // [rows]: 16 outputs
  TileFunction four_lanes[kTileRowsMax + 1] = {};  // [rows]: 64 outputs; null: the tile is done lane by lane
  // A single row of a quantised matrix by a panel of full width, all of `segments` in one call, or null.
  // Every return from here to the walk is a time in which nothing is fetched.
  TileFunction whole_panel = nullptr;
  int rows_max = kTileRowsMax;  // of these tiles
  int activation_bytes = 4;     // float formats: bytes of activations a step reads
};

// KernelTable::matmul with these tiles.
void MultiplyByTiles(const MatmulArgs& args, const TileFunctions& tiles);

}  // namespace bellwether::kernels
