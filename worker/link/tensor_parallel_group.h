#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/link/link.h"

namespace bellwether {

// The tensor-parallel ranks of one stage, as one of them sees them. Collectives are called by all ranks in
// the same order, from their executor threads; each gives the same bits on every rank, for every number of
// ranks and whichever groups the ranks have.
//
// The floats lie in the memory of the rank's device (worker/device/device.h), and a collective takes its
// place among the operations asked of it: it sees what those before it have made. MessageTag::rows and ::cols
// are the shape of what is reduced or shared. Errors are those of a link, naming the peer, or of the device.
class TensorParallelGroup {
 public:
  virtual ~TensorParallelGroup() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Sums a row-parallel product over all slices in the order of the fixed tree. `roots` holds this
  // rank's subtree roots, SubtreeRoots(own slices) of them, each rows * cols floats; out: rows * cols floats,
  // may not overlap.
  virtual absl::Status AllReduce(MessageTag tag, absl::Span<const float> roots, absl::Span<float> out) = 0;

  // Row r of `rows` (cols floats each) is right on the rank owner[r] and is copied to all others.
  virtual absl::Status ShareRows(MessageTag tag, absl::Span<const int> owner, absl::Span<float> rows) = 0;

  // Rank 0 receives, for each of tag.rows rows, the columns [column_bounds[r], column_bounds[r + 1]) from
  // rank r (r > 0); other ranks send theirs. `data` is row-major with column_bounds.back() columns on rank 0
  // and, on rank r > 0, with just its own columns.
  virtual absl::Status GatherColumns(MessageTag tag, absl::Span<const int64_t> column_bounds,
                                     absl::Span<float> data) = 0;

  // From any thread: collectives fail with `reason` from now on, waiting ones included.
  virtual void Abort(const absl::Status& reason) = 0;
};

}  // namespace bellwether
