#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/slice_tree.h"
#include "worker/link/link.h"
#include "worker/link/tensor_parallel_group.h"
#include "worker/link/tree_sum.h"

namespace bellwether {

// The group of ranks whose floats lie in this process's memory, over links. Small reductions go flat to
// everyone; large ones are scattered by columns, summed, and gathered.
class HostGroup : public TensorParallelGroup {
 public:
  struct Options {
    int stage = 0;
    int rank = 0;
    int slices_total = 1;
    std::vector<SliceRange> rank_slices;       // of every rank, in order, covering [0, slices_total)
    std::vector<std::unique_ptr<Link>> links;  // to every rank; null for this one
    int64_t cols_max = 0;                      // of rows to share
  };
  explicit HostGroup(Options options);

  int rank() const override { return options_.rank; }
  int size() const override { return static_cast<int>(options_.rank_slices.size()); }
  absl::Status AllReduce(MessageTag tag, absl::Span<const float> roots, absl::Span<float> out) override;
  absl::Status ShareRows(MessageTag tag, absl::Span<const int> owner, absl::Span<float> rows) override;
  absl::Status GatherColumns(MessageTag tag, absl::Span<const int64_t> column_bounds,
                             absl::Span<float> data) override;
  void Abort(const absl::Status& reason) override;

 private:
  // `tag` as rank `sender` of this stage gives it to its messages of `kind`.
  MessageTag TagOf(MessageTag tag, MessageKind kind, int sender) const;
  // The i-th of the other ranks, starting after this one so that not everyone talks to rank 0 first.
  int Other(int i) const { return (rank() + 1 + i) % size(); }
  int RootsOf(int rank) const { return first_root_[rank + 1] - first_root_[rank]; }

  absl::Status ReduceFlat(const MessageTag& tag, absl::Span<const float> roots, absl::Span<float> out);
  absl::Status ReduceScattered(const MessageTag& tag, absl::Span<const float> roots, absl::Span<float> out);
  absl::Status ReduceChunk(const MessageTag& tag, const float* own_roots, int64_t root_stride,
                           absl::Span<float> out);

  Options options_;
  std::vector<int> first_root_;  // of each rank, among the roots of all; one more at the end
  int roots_max_ = 0;            // of any rank
  TreeSum tree_sum_;
  std::vector<const float*> root_pointers_;
  std::vector<float> scratch_;  // what is received, or rows of one rank
};

}  // namespace bellwether
