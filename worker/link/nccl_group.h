#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/slice_tree.h"
#include "worker/device/gpu_ops.h"
#include "worker/link/link.h"
#include "worker/link/nccl_communicator.h"
#include "worker/link/tensor_parallel_group.h"

namespace bellwether {

// The group of ranks that all compute on GPUs and share a communicator. NCCL copies the subtree roots between
// them, DeviceOps::SumRoots adds them in the order of the tree. Until the communicator is connected, and for
// good if it will not be, everything goes through `fallback`.
//
// NCCL's messages carry no tags: the ranks show each other the tag of a step's first collective over their
// links, and what follows in a step is the same code on all of them.
class NcclGroup : public TensorParallelGroup {
 public:
  // The most that collectives are called with.
  struct Limits {
    int64_t reduce_floats = 0;  // rows * cols of AllReduce
    int64_t share_cols = 0;     // of ShareRows; 0: it is not called
  };
  struct Options {
    int stage = 0;
    int rank = 0;
    int slices_total = 1;
    std::vector<SliceRange> rank_slices;  // of every rank, in order, covering [0, slices_total)
    std::vector<Link*> links;             // to every rank; null for this one
    int first_member = 0;                 // of the stage's rank 0, in the communicator
    // Outlive the group.
    NcclCommunicator* communicator = nullptr;
    GpuOps* ops = nullptr;
    TensorParallelGroup* fallback = nullptr;
  };
  // ResourceExhausted if the device has no memory for what is received.
  static absl::StatusOr<std::unique_ptr<NcclGroup>> Create(Options options, const Limits& limits);

  int rank() const override { return options_.rank; }
  int size() const override { return static_cast<int>(options_.rank_slices.size()); }
  absl::Status AllReduce(MessageTag tag, absl::Span<const float> roots, absl::Span<float> out) override;
  absl::Status ShareRows(MessageTag tag, absl::Span<const int> owner, absl::Span<float> rows) override;
  absl::Status GatherColumns(MessageTag tag, absl::Span<const int64_t> column_bounds,
                             absl::Span<float> data) override;
  void Abort(const absl::Status& reason) override;

  // Up to so many floats of all ranks' roots go to everyone: one group of copies instead of two. To be
  // measured.
  static constexpr int64_t kFlatFloatsMax = (1 << 20) / sizeof(float);

 private:
  explicit NcclGroup(Options options);
  absl::Status AgreeOnTag(MessageTag tag, MessageKind kind);
  absl::Status ReduceFlat(absl::Span<const float> roots, absl::Span<float> out);
  absl::Status ReduceScattered(absl::Span<const float> roots, absl::Span<float> out);
  absl::Status ShareBlock(absl::Span<const int> owner, int64_t cols, float* rows);
  void SumReceived(int64_t count, float* out);

  int Roots() const { return first_root_.back(); }
  int RootsOf(int rank) const { return first_root_[rank + 1] - first_root_[rank]; }
  // The i-th of the other ranks.
  int Other(int i) const { return (rank() + 1 + i) % size(); }
  void Send(int rank, const float* from, int64_t floats) {
    if (floats > 0) transfers_.push_back({options_.first_member + rank, from, nullptr, floats});
  }
  void Receive(int rank, float* to, int64_t floats) {
    if (floats > 0) transfers_.push_back({options_.first_member + rank, nullptr, to, floats});
  }
  // What has been collected by Send and Receive.
  absl::Status Exchange();

  const Options options_;
  NcclCommunicator& communicator_;
  GpuOps& ops_;
  std::vector<int> first_root_;  // of each rank, among the roots of all; one more at the end
  int64_t received_floats_ = 0;
  float* received_ = nullptr;  // on the device: roots of all ranks, or rows ordered by their owners
  StepId agreed_;              // the last step whose first tag has been shown to all
  std::vector<NcclCommunicator::Transfer> transfers_;
  std::vector<const float*> root_pointers_;
  std::vector<int32_t> own_picks_, places_;
};

}  // namespace bellwether
