#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/gpu/rows.h"
#include "kernels/gpu/tile_matmul.h"
#include "kernels/gpu/weights.h"
#include "kernels/packed_matrix.h"

// From a PackedMatrix, the CPU's form, to what GPU kernels read (weights.h). Pure host code.
//
// The segment rule. Segments belong to the model: a matrix that is not cut into slices has segments of 256
// columns, which add up from left to right; a slice is a segment, or several of 1024 columns if it is longer,
// which add up from left to right too; slices add up by the tree (common/slice_tree.h). So 256 columns are
// enough work for a warp at decode, and a prompt's kernel stops for a sum every 256 columns only.
//
// Where weights are quantised a segment is cut into sets where weight groups end, which are counted from the
// row's start whoever holds it: a slice of 672 columns may begin with the last 96 of a group of 128. Such a
// set is filled up with zeros, which moves no bit (but the sign of a zero). A 7B LLaMA's down projection in
// groups of 128 is 14 % larger for it; in return every kernel knows where sets end, and no matrix needs one
// of its own.

namespace bellwether::gpu {

inline constexpr int64_t kSegmentColumns = 256;
inline constexpr int64_t kSliceSegmentColumns = 1024;

// Of the form below, which files may hold: what reads an older one as something else has another.
inline constexpr int kDeviceFormVersion = 3;

// How a matrix of one shape lies on a GPU, the same for all its tiles.
struct DeviceForm {  // NOLINT(readability-identifier-naming): of the loop that copies `parts`
  WeightFormat format = WeightFormat::kF32;
  bool has_offset = false;
  bool half_scales = false;
  int64_t rows = 0, cols = 0;
  int32_t tiles = 0;

  std::vector<Segment> segments;
  std::vector<Root> roots;
  int32_t units = 0;  // of a tile
  int32_t sets = 0;
  std::vector<ColumnStep> steps;            // [packed columns / 16]: which columns they are
  std::vector<ColumnStep> set_columns;      // [sets]
  int32_t set_steps = 1;                    // of each set
  bool packed_columns_are_columns = false;  // and there is no padding

  // For tile_matmul with a stack of one and of two sums: the parts, and how their sums add up to the roots.
  struct PartSums {
    std::vector<Part> parts;
    std::vector<uint8_t> additions, ends;  // as SumTreeArgs'
  };
  PartSums parts[2];

  int64_t packed_cols() const { return static_cast<int64_t>(steps.size()) * kStepCols; }
  int64_t value_bytes() const;
  int64_t scale_bytes() const;  // of the scales; as many again of offsets if there are
  // Of them, in the order of the tiles.
  int64_t block_value_bytes() const { return int64_t{kBlockTiles} * units * UnitBytes(format); }
  int64_t tile_scale_bytes() const { return int64_t{sets} * kTileRows * (half_scales ? 2 : 4); }
};

// InvalidArgument where the spec is beyond what kernels take.
absl::StatusOr<DeviceForm> DeviceFormOf(const kernels::MatrixSpec& spec);

// Whether rows prepared for one serve the other.
bool SamePreparation(const DeviceForm& a, const DeviceForm& b);

// Where a tile goes, in memory that was zero before: of a whole matrix, or of some whole blocks of it.
struct TilePlace {
  char* values = nullptr;
  char* scales = nullptr;   // null if the format has none
  char* offsets = nullptr;  // likewise
  int64_t tile = 0;         // of those there
};
// Writes rows [16 tile, ...) of `matrix`, which may have some of the form's rows. Different tiles may be
// written by different threads.
void PackTile(const kernels::PackedMatrix& matrix, const DeviceForm& form, int64_t tile,
              const TilePlace& place);

}  // namespace bellwether::gpu
