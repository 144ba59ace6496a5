#include <algorithm>
#include <cstring>

#include "common/check.h"
#include "kernels/cpu/avx_tiles.h"

namespace bellwether::kernels {
namespace {

constexpr int64_t kRowBlock = 48;           // rows whose partial sums wait together
constexpr int64_t kPieceBytes = 96 * 1024;  // of weights; a piece is passed over once for each tile of rows

// A panel times one block of rows.
class PanelProduct {
 public:
  PanelProduct(const MatmulArgs& args, const TileFunctions& tiles, int64_t panel, int64_t row_begin,
               int64_t rows)
      : args_(args),
        tiles_(tiles),
        matrix_(*args.weights),
        row_begin_(row_begin),
        rows_(rows),
        width_(matrix_.panel_width(panel)),
        output_begin_(panel * kPanelRows),
        outputs_(std::min(width_, matrix_.rows() - output_begin_)),
        weights_(matrix_.panel_data(panel)),
        row_bytes_(matrix_.prepared_row_bytes()),
        prepared_(args.prepared + row_begin * row_bytes_) {
    tile_.activation_stride = row_bytes_;
    tile_.width = width_;
    tile_.has_offset = matrix_.spec().has_offset;
    tile_.half_scales = matrix_.spec().half_scales;
    tile_.lowest_q = matrix_.lowest_q();
  }

  // Whether there is a tile for all of it.
  bool FitsOneTile() const { return rows_ == 1 && tiles_.whole_panel != nullptr && width_ == kPanelRows; }

  // Every segment on its own, in pieces that the rows share.
  void ByPieces() {
    alignas(64) float stack[kPartialSumsMax][kRowBlock * kPanelRows];
    tile_.stack_stride = kRowBlock * kPanelRows;
    tile_.sums_stride = kPanelRows;
    int depth = 0;
    for (const PackedMatrix::Segment& segment : matrix_.segments()) {
      BW_CHECK_LT(depth, kPartialSumsMax);
      tile_.sums = stack[depth];
      if (IsStraight()) WriteStraight();
      if (IsQuantized(matrix_.format())) {
        QuantizedSegment(segment);
      } else {
        FloatSegment(segment);
      }
      depth += 1 - segment.additions;
      if (segment.root >= 0) WriteRoot(segment.root, stack[--depth]);
    }
  }

  // The segments of each root in one go.
  void InOneTile() {
    alignas(64) float stack[kPartialSumsMax][kPanelRows];
    tile_.stack_stride = tile_.sums_stride = kPanelRows;
    tile_.blocks = matrix_.blocks().data();
    const auto segments = matrix_.segments();
    for (size_t begin = 0, end = 0; begin < segments.size(); begin = end) {
      tile_.sums = stack[0];
      if (IsStraight()) WriteStraight();
      tile_.weights = weights_;
      tile_.activations = prepared_ + segments[begin].packed_begin;
      tile_.block_scales = BlockScales(segments[begin].block_begin);
      do {
        weights_ += QuantizedBytes(segments[end]);
      } while (segments[end++].root < 0);
      BW_CHECK_GE(size_t{kMatrixSlicesMax}, end - begin);  // what the stack is for
      tile_.segments = segments.subspan(begin, end - begin);
      tiles_.whole_panel(tile_);
      WriteRoot(segments[end - 1].root, stack[0]);
    }
  }

 private:
  // Whether the only sums are the result, and all of them are wanted.
  bool IsStraight() const { return matrix_.segments().size() == 1 && outputs_ == width_; }
  void WriteStraight() {
    tile_.sums = args_.y + row_begin_ * args_.stride + output_begin_;
    tile_.sums_stride = args_.stride;
  }
  void WriteRoot(int64_t root, const float* sums) {
    if (IsStraight()) return;
    float* y = args_.y + root * args_.root_stride + row_begin_ * args_.stride + output_begin_;
    for (int64_t r = 0; r < rows_; ++r) {
      std::memcpy(y + r * args_.stride, sums + r * tile_.sums_stride, outputs_ * sizeof(float));
    }
  }

  void FloatSegment(const PackedMatrix::Segment& segment) {
    const bool pairs = matrix_.format() == WeightFormat::kBF16;
    const int64_t step_bytes = width_ * (matrix_.format() == WeightFormat::kF16 ? 2 : 4);
    const int64_t steps = pairs ? segment.packed_count / 2 : segment.packed_count;
    const int64_t piece_steps = kPieceBytes / step_bytes;
    tile_.activations = prepared_ + segment.packed_begin / (pairs ? 2 : 1) * tiles_.activation_bytes;
    int64_t begin = 0;
    do {
      tile_.weights = weights_;
      tile_.steps = std::min(piece_steps, steps - begin);
      tile_.first = begin == 0;
      tile_.additions = begin + tile_.steps == steps ? segment.additions : 0;
      const int64_t bytes = tile_.steps * step_bytes;
      Piece(bytes, step_bytes);
      weights_ += bytes;
      tile_.activations += tile_.steps * tiles_.activation_bytes;
      begin += tile_.steps;
    } while (begin < steps);
  }

  // Bytes of `columns` columns with padding, of one set of scales and offsets, and of a segment.
  int64_t ColumnBytes(int64_t columns) const {
    return width_ * columns / (matrix_.format() == WeightFormat::kInt4 ? 2 : 1);
  }
  int64_t ScaleBytes() const { return width_ * (tile_.half_scales ? 2 : 4) * (tile_.has_offset ? 2 : 1); }
  int64_t QuantizedBytes(const PackedMatrix::Segment& segment) const {
    return segment.scale_sets * ScaleBytes() + ColumnBytes(segment.packed_count);
  }
  const std::byte* BlockScales(int64_t block) const {
    return prepared_ + RoundUp(matrix_.packed_cols(), 64) + block * sizeof(BlockScale);
  }

  void QuantizedSegment(const PackedMatrix::Segment& segment) {
    const auto blocks = matrix_.blocks();
    const std::byte* scales = nullptr;
    int64_t begin = segment.block_begin;
    do {
      tile_.weights = weights_;
      tile_.weight_scales = scales;
      int64_t end = begin, bytes = 0;
      for (; end < segment.block_end && bytes < kPieceBytes; ++end) {
        if (blocks[end].new_scales) {
          scales = weights_ + bytes;
          bytes += ScaleBytes();
        }
        bytes += ColumnBytes(blocks[end].padded);
      }
      tile_.blocks = blocks.data() + begin;
      tile_.block_count = end - begin;
      tile_.first = begin == segment.block_begin;
      tile_.additions = end == segment.block_end ? segment.additions : 0;
      if (tile_.block_count > 0) tile_.activations = prepared_ + blocks[begin].packed_begin;
      tile_.block_scales = BlockScales(begin);
      Piece(bytes, ColumnBytes(8));
      weights_ += bytes;
      begin = end;
    } while (begin < segment.block_end);
  }

  // Every tile of rows over one piece of the weights, 64 or 16 outputs at a time.
  void Piece(int64_t bytes, int64_t step_bytes) {
    const int64_t tiles = (rows_ + tiles_.rows_max - 1) / tiles_.rows_max;
    // Even tiles: 8 rows are 4 + 4, not 6 + 2.
    const int64_t most_rows = (rows_ + tiles - 1) / tiles;
    const bool wide = width_ == kPanelRows && tiles_.four_lanes[most_rows] != nullptr;
    const int64_t tile_outputs = wide ? kPanelRows : kLaneRows;
    const int64_t passes = tiles * (width_ / tile_outputs);
    // Several passes share the work of fetching the next piece, so that memory is never idle. A single pass
    // streams and fetches a little ahead, which helps most where segments are short.
    const int64_t share = RoundUp((bytes + passes - 1) / passes, 64);
    TileArgs tile = tile_;
    tile.prefetch_lines = static_cast<int>((step_bytes + 64 * passes - 1) / (64 * passes));
    tile.prefetch_end = tile.weights + (passes > 1 ? bytes : kStreamAhead);
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t begin = rows_ * i / tiles, end = rows_ * (i + 1) / tiles;
      tile.activations = tile_.activations + begin * row_bytes_;
      tile.block_scales = tile_.block_scales + begin * row_bytes_;
      for (tile.first_output = 0; tile.first_output < width_; tile.first_output += tile_outputs) {
        tile.sums = tile_.sums + begin * tile_.sums_stride + tile.first_output;
        tile.prefetch = tile.prefetch_end;
        tile.prefetch_end += share;
        (wide ? tiles_.four_lanes : tiles_.one_lane)[end - begin](tile);
      }
    }
  }

  const MatmulArgs& args_;
  const TileFunctions& tiles_;
  const PackedMatrix& matrix_;
  const int64_t row_begin_, rows_;
  const int64_t width_, output_begin_, outputs_;
  const std::byte* weights_;  // moves on from segment to segment
  const int64_t row_bytes_;
  const std::byte* const prepared_;
  TileArgs tile_;
};

}  // namespace

void MultiplyByTiles(const MatmulArgs& args, const TileFunctions& tiles) {
  for (int64_t panel = args.panel_begin; panel < args.panel_end; ++panel) {
    for (int64_t row = 0; row < args.rows; row += kRowBlock) {
      PanelProduct product(args, tiles, panel, row, std::min(kRowBlock, args.rows - row));
      product.FitsOneTile() ? product.InOneTile() : product.ByPieces();
    }
  }
}

}  // namespace bellwether::kernels
