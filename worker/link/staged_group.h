#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/device/device.h"
#include "worker/link/host_group.h"
#include "worker/link/tensor_parallel_group.h"

namespace bellwether {

// The group of ranks whose device keeps its memory to itself: what a collective reads goes to the host,
// through a HostGroup, and back. Works with every device, and says what a faster way must give.
class StagedGroup : public TensorParallelGroup {
 public:
  // The most that collectives are called with.
  struct Limits {
    int64_t reduce_floats = 0;  // rows * cols of AllReduce
    int64_t share_floats = 0;   // of ShareRows
    int64_t gather_floats = 0;  // of `data` of GatherColumns
  };
  // `ops` outlives the group. ResourceExhausted if the host has no memory.
  static absl::StatusOr<std::unique_ptr<StagedGroup>> Create(HostGroup::Options options, const Limits& limits,
                                                             DeviceOps* ops);

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  absl::Status AllReduce(MessageTag tag, absl::Span<const float> roots, absl::Span<float> out) override;
  absl::Status ShareRows(MessageTag tag, absl::Span<const int> owner, absl::Span<float> rows) override;
  absl::Status GatherColumns(MessageTag tag, absl::Span<const int64_t> column_bounds,
                             absl::Span<float> data) override;
  void Abort(const absl::Status& reason) override { host_.Abort(reason); }

 private:
  StagedGroup(HostGroup::Options options, int64_t buffer_floats, float* buffer, DeviceOps* ops)
      : host_(std::move(options)), buffer_floats_(buffer_floats), buffer_(buffer), ops_(*ops) {}
  // The first of the buffer's floats, with the device's `data` in them. What the device was to be given of
  // the buffer it has then.
  absl::StatusOr<absl::Span<float>> Fetch(absl::Span<const float> data);

  HostGroup host_;
  const int64_t buffer_floats_;
  float* const buffer_;
  DeviceOps& ops_;
};

}  // namespace bellwether
