#include "worker/link/staged_group.h"

#include <utility>

#include "common/check.h"
#include "common/status.h"

namespace bellwether {

absl::StatusOr<std::unique_ptr<StagedGroup>> StagedGroup::Create(HostGroup::Options options,
                                                                 const Limits& limits, DeviceOps* ops) {
  const auto roots =
      static_cast<int64_t>(SubtreeRoots(options.rank_slices[options.rank], options.slices_total).size());
  const int64_t floats =
      std::max({(roots + 1) * limits.reduce_floats, limits.share_floats, limits.gather_floats});
  absl::StatusOr<float*> buffer = ops->AllocateHost(floats);
  if (!buffer.ok()) return Annotate(buffer.status(), "messages between ranks");
  return std::unique_ptr<StagedGroup>(new StagedGroup(std::move(options), floats, *buffer, ops));
}

absl::StatusOr<absl::Span<float>> StagedGroup::Fetch(absl::Span<const float> data) {
  BW_CHECK_GE(buffer_floats_, static_cast<int64_t>(data.size()));
  const absl::Span<float> host(buffer_, data.size());
  BW_RETURN_IF_ERROR(ops_.Read(data.data(), host));
  return host;
}

absl::Status StagedGroup::AllReduce(MessageTag tag, absl::Span<const float> roots, absl::Span<float> out) {
  BW_CHECK_GE(buffer_floats_, static_cast<int64_t>(roots.size() + out.size()));
  BW_ASSIGN_OR_RETURN(const absl::Span<float> host_roots, Fetch(roots));
  const absl::Span<float> host_out(buffer_ + roots.size(), out.size());
  BW_RETURN_IF_ERROR(host_.AllReduce(tag, host_roots, host_out));
  return ops_.WriteLater(host_out, out.data());
}

absl::Status StagedGroup::ShareRows(MessageTag tag, absl::Span<const int> owner, absl::Span<float> rows) {
  BW_ASSIGN_OR_RETURN(const absl::Span<float> host_rows, Fetch(rows));
  BW_RETURN_IF_ERROR(host_.ShareRows(tag, owner, host_rows));
  return ops_.WriteLater(host_rows, rows.data());
}

absl::Status StagedGroup::GatherColumns(MessageTag tag, absl::Span<const int64_t> column_bounds,
                                        absl::Span<float> data) {
  BW_ASSIGN_OR_RETURN(const absl::Span<float> host_data, Fetch(data));
  BW_RETURN_IF_ERROR(host_.GatherColumns(tag, column_bounds, host_data));
  if (rank() > 0) return absl::OkStatus();  // it has sent, not received
  return ops_.WriteLater(host_data, data.data());
}

}  // namespace bellwether
