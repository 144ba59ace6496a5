#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/slice_tree.h"
#include "worker/link/link.h"
#include "worker/link/tree_sum.h"

namespace bellwether {

// The tensor-parallel ranks of one stage, as one of them sees them. Collectives are called by all ranks in
// the same order, from their executor threads; each gives the same bits on every rank and for every number of
// ranks.
class TensorParallelGroup {
 public:
  // Adds count floats: out = a + b, out may be a. From the kernel table.
  using AddFunction = TreeSum::AddFunction;

  struct Options {
    int stage = 0;
    int rank = 0;
    int slices_total = 1;
    std::vector<SliceRange> rank_slices;       // of every rank, in order, covering [0, slices_total)
    std::vector<std::unique_ptr<Link>> links;  // to every rank; null for this one
    AddFunction add = nullptr;
  };
  explicit TensorParallelGroup(Options options);

  int rank() const { return options_.rank; }
  int size() const { return static_cast<int>(options_.rank_slices.size()); }

  // Sums a row-parallel product over all slices in the order of the fixed tree (DESIGN 5). `roots` holds this
  // rank's subtree roots, SubtreeRoots(own slices) of them, each rows * cols floats; out: rows * cols floats,
  // may not overlap. Small messages go flat to everyone; large ones are scattered by columns, summed, and
  // gathered.
  absl::Status AllReduce(MessageTag tag, absl::Span<const float> roots, absl::Span<float> out);

  // Row r of `rows` (cols floats each) is right on the rank owner[r] and is copied to all others.
  absl::Status ShareRows(MessageTag tag, absl::Span<const int> owner, absl::Span<float> rows);

  // Rank 0 receives, for each of tag.rows rows, the columns [column_bounds[r], column_bounds[r + 1]) from
  // rank r (r > 0); other ranks send theirs. `data` is row-major with column_bounds.back() columns on rank 0
  // and, on rank r > 0, with just its own columns.
  absl::Status GatherColumns(MessageTag tag, absl::Span<const int64_t> column_bounds, absl::Span<float> data);

  void Abort(const absl::Status& reason);

 private:
  // `tag` as rank `sender` of this stage gives it to its messages of `kind`.
  MessageTag TagOf(MessageTag tag, MessageKind kind, int sender) const;
  // The i-th of the other ranks, starting after this one so that not everyone talks to rank 0 first.
  int Other(int i) const { return (rank() + 1 + i) % size(); }
  int RootsOf(int rank) const { return first_root_[rank + 1] - first_root_[rank]; }
  float* Scratch(int64_t floats);

  absl::Status ReduceFlat(const MessageTag& tag, absl::Span<const float> roots, absl::Span<float> out);
  absl::Status ReduceScattered(const MessageTag& tag, absl::Span<const float> roots, absl::Span<float> out);
  absl::Status ReduceChunk(const MessageTag& tag, const float* own_roots, int64_t root_stride,
                           absl::Span<float> out);

  Options options_;
  std::vector<int> first_root_;  // of each rank, among the roots of all; one more at the end
  int roots_max_ = 0;            // of any rank
  TreeSum tree_sum_;
  std::vector<const float*> root_pointers_;
  std::vector<float> scratch_;  // grows to the largest message and stays
};

}  // namespace bellwether
