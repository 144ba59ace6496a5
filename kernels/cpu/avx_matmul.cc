#include <algorithm>
#include <cstring>

#include "common/check.h"
#include "kernels/cpu/avx_tiles.h"

namespace bellwether::kernels {
namespace {

constexpr int64_t kRowBlock = 48;           // rows whose partial sums wait together
constexpr int64_t kPieceBytes = 96 * 1024;  // of weights; a piece is passed over once for each tile of rows

// One panel, or two neighbours of full width.
struct Panels {
  int64_t first = 0;
  int64_t count = 1;
};

// These times one block of rows.
class PanelProduct {
 public:
  PanelProduct(const MatmulArgs& args, const TileFunctions& tiles, Panels panels, int64_t row_begin,
               int64_t rows)
      : args_(args),
        tiles_(tiles),
        matrix_(*args.weights),
        row_begin_(row_begin),
        rows_(rows),
        panels_(panels.count),
        width_(matrix_.panel_width(panels.first)),
        output_begin_(panels.first * kPanelRows),
        outputs_(std::min(panels_ * kPanelRows, matrix_.rows() - output_begin_)),
        sums_stride_(panels_ * kPanelRows),
        weights_(matrix_.panel_data(panels.first)),
        row_bytes_(matrix_.prepared_row_bytes()),
        prepared_(args.prepared + row_begin * row_bytes_) {}

  void Compute() {
    const auto segments = matrix_.segments();
    if (segments.size() == 1 && outputs_ == panels_ * width_) {  // straight to the result
      Segment(segments[0], args_.y + row_begin_ * args_.stride + output_begin_, args_.stride);
      return;
    }
    alignas(64) float stack[kPartialSumsMax][kRowBlock * kPanelRows];
    int depth = 0;
    for (const PackedMatrix::Segment& segment : segments) {
      BW_CHECK_LT(depth, kPartialSumsMax);
      Segment(segment, stack[depth++], sums_stride_);
      for (int i = 0; i < segment.additions; ++i, --depth) {
        tiles_.accumulate(stack[depth - 2], stack[depth - 1], rows_ * sums_stride_);
      }
      if (segment.root >= 0) WriteRoot(segment.root, stack[--depth]);
    }
  }

 private:
  void WriteRoot(int64_t root, const float* sums) {
    float* y = args_.y + root * args_.root_stride + row_begin_ * args_.stride + output_begin_;
    for (int64_t r = 0; r < rows_; ++r) {
      std::memcpy(y + r * args_.stride, sums + r * sums_stride_, outputs_ * sizeof(float));
    }
  }

  void Segment(const PackedMatrix::Segment& segment, float* sums, int64_t sums_stride) {
    TileArgs tile;
    tile.activations = tile.block_scales = prepared_;
    tile.activation_stride = row_bytes_;
    tile.width = width_;
    tile.sums = sums;
    tile.sums_stride = sums_stride;
    tile.second_panel = matrix_.panel_data(1) - matrix_.panel_data(0);
    if (IsQuantized(matrix_.format())) {
      QuantizedSegment(segment, tile);
    } else {
      FloatSegment(segment, tile);
    }
  }

  void FloatSegment(const PackedMatrix::Segment& segment, TileArgs tile) {
    const bool pairs = matrix_.format() == WeightFormat::kBF16;
    const int64_t step_bytes = width_ * (matrix_.format() == WeightFormat::kF16 ? 2 : 4);
    const int64_t steps = pairs ? segment.packed_count / 2 : segment.packed_count;
    const int64_t piece_steps = kPieceBytes / step_bytes;
    tile.activations = prepared_ + segment.packed_begin / (pairs ? 2 : 1) * tiles_.activation_bytes;
    int64_t begin = 0;
    do {
      tile.weights = weights_;
      tile.steps = std::min(piece_steps, steps - begin);
      tile.first = begin == 0;
      const int64_t bytes = tile.steps * step_bytes;
      Piece(tile, bytes, step_bytes);
      weights_ += bytes;
      tile.activations += tile.steps * tiles_.activation_bytes;
      begin += tile.steps;
    } while (begin < steps);
  }

  void QuantizedSegment(const PackedMatrix::Segment& segment, TileArgs tile) {
    const MatrixSpec& spec = matrix_.spec();
    const bool int4 = spec.format == WeightFormat::kInt4;
    const int64_t scale_bytes = width_ * (spec.half_scales ? 2 : 4) * (spec.has_offset ? 2 : 1);
    const auto blocks = matrix_.blocks();
    tile.has_offset = spec.has_offset;
    tile.half_scales = spec.half_scales;
    tile.lowest_q = matrix_.lowest_q();
    const std::byte* scales = nullptr;
    int64_t begin = segment.block_begin;
    do {
      tile.weights = weights_;
      tile.weight_scales = scales;
      int64_t end = begin, bytes = 0;
      for (; end < segment.block_end && bytes < kPieceBytes; ++end) {
        if (blocks[end].new_scales) {
          scales = weights_ + bytes;
          bytes += scale_bytes;
        }
        bytes += width_ * blocks[end].padded / (int4 ? 2 : 1);
      }
      tile.blocks = blocks.data() + begin;
      tile.block_count = end - begin;
      tile.first = begin == segment.block_begin;
      if (tile.block_count > 0) tile.activations = prepared_ + blocks[begin].packed_begin;
      tile.block_scales = prepared_ + RoundUp(matrix_.packed_cols(), 64) + begin * sizeof(BlockScale);
      Piece(tile, bytes, width_ * (int4 ? 4 : 8));
      weights_ += bytes;
      begin = end;
    } while (begin < segment.block_end);
  }

  // Every tile of rows over one piece of the weights, 64 or 16 outputs at a time.
  void Piece(const TileArgs& piece, int64_t bytes, int64_t step_bytes) {
    if (panels_ == 2) {
      tiles_.two_panels(piece);
      return;
    }
    const int64_t tiles = (rows_ + tiles_.rows_max - 1) / tiles_.rows_max;
    // Even tiles: 8 rows are 4 + 4, not 6 + 2.
    const int64_t most_rows = (rows_ + tiles - 1) / tiles;
    const bool wide = width_ == kPanelRows && tiles_.four_lanes[most_rows] != nullptr;
    const TileFunction* functions = wide ? tiles_.four_lanes : tiles_.one_lane;
    const int64_t outputs = wide ? kPanelRows : kLaneRows;
    const int64_t passes = tiles * (width_ / outputs);
    // Several passes share the work of fetching the next piece, so that memory is never idle. A single pass
    // streams and fetches a little ahead, which helps most where segments are short (quantised tiles see to
    // that themselves: their blocks are too irregular a pace).
    const bool ahead = passes > 1 || !IsQuantized(matrix_.format());
    const int64_t share = ahead ? RoundUp((bytes + passes - 1) / passes, 64) : 0;
    TileArgs tile = piece;
    tile.prefetch_lines = static_cast<int>((step_bytes + 64 * passes - 1) / (64 * passes));
    tile.prefetch_end = tile.weights + (passes > 1 ? bytes : kStreamAhead);
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t begin = rows_ * i / tiles, end = rows_ * (i + 1) / tiles;
      tile.activations = piece.activations + begin * row_bytes_;
      tile.block_scales = piece.block_scales + begin * row_bytes_;
      for (tile.first_output = 0; tile.first_output < width_; tile.first_output += outputs) {
        tile.sums = piece.sums + begin * piece.sums_stride + tile.first_output;
        tile.prefetch = tile.prefetch_end;
        tile.prefetch_end += share;
        functions[end - begin](tile);
      }
    }
  }

  const MatmulArgs& args_;
  const TileFunctions& tiles_;
  const PackedMatrix& matrix_;
  const int64_t row_begin_, rows_;
  const int64_t panels_, width_, output_begin_, outputs_;
  const int64_t sums_stride_;  // of sums that wait
  const std::byte* weights_;   // moves on from segment to segment
  const int64_t row_bytes_;
  const std::byte* const prepared_;
};

}  // namespace

void MultiplyByTiles(const MatmulArgs& args, const TileFunctions& tiles) {
  const PackedMatrix& matrix = *args.weights;
  Panels panels;
  for (panels.first = args.panel_begin; panels.first < args.panel_end; panels.first += panels.count) {
    const bool pair = args.rows == 1 && tiles.two_panels != nullptr && panels.first + 1 < args.panel_end &&
                      matrix.panel_width(panels.first + 1) == kPanelRows;
    panels.count = pair ? 2 : 1;
    for (int64_t row = 0; row < args.rows; row += kRowBlock) {
      PanelProduct(args, tiles, panels, row, std::min(kRowBlock, args.rows - row)).Compute();
    }
  }
}

}  // namespace bellwether::kernels
