#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "model/assignment.h"
#include "model/config.h"
#include "worker/device/device.h"
#include "worker/link/link.h"
#include "worker/link/nccl_agreement.h"
#include "worker/link/nccl_communicator.h"
#include "worker/link/nccl_group.h"
#include "worker/link/tensor_parallel_group.h"
#include "worker/watched_link.h"

namespace bellwether {

// What one executor and its peers tell each other, and by which way: links between the processes, with copies
// to the host and back where the device keeps its memory to itself, or NCCL between the GPUs that agree on
// it. The bits are the same. For the executor's thread, but for Abort.
class StageLinks {
 public:
  struct Options {
    const Assignment* assignment = nullptr;  // these outlive this
    const ModelConfig* config = nullptr;
    DeviceOps* ops = nullptr;
    ExecutorProgress* progress = nullptr;
    int64_t layer_rows = 0;  // of a layer at once
    bool in_place = true;    // the host works on the device's memory
    // To every worker in flat order; null where there is none to talk to.
    std::vector<std::unique_ptr<Link>> links;
    NcclUse nccl;
  };
  // ResourceExhausted if there is no memory for messages.
  static absl::StatusOr<std::unique_ptr<StageLinks>> Create(Options options);

  // Before the first step: GPU workers agree on NCCL and join. Waits for all peers, which may load still;
  // ends by Abort.
  absl::Status Start();

  // Room for a step's residual on the host, for who works there between messages; null where the host works
  // on the device's memory.
  float* host_rows() const { return host_buffer_; }

  // Of the ranks of this stage.
  TensorParallelGroup& group() { return nccl_group_ != nullptr ? *nccl_group_ : *host_group_; }

  // The residual between stages, rows without gaps. All ranks of a stage hold the same, so rank r takes it
  // from rank r mod T of the stage before. The tag is that of a step; these fill in the rest.
  absl::Status ReceiveResidual(MessageTag tag, MutableRows residual);
  absl::Status SendResidual(MessageTag tag, MutableRows residual);

  // After an error that may be NCCL's, which names nobody: unless somebody has been blamed, blames a peer
  // whose process is gone, else kSomePeer if it was NCCL's. The links are of no use any more.
  void BlameWhoIsGone();

  // From any thread: what waits, and all that follows, fails with `reason`.
  void Abort(const absl::Status& reason);

 private:
  explicit StageLinks(Options options);
  absl::Status AllocateHostBuffer();
  absl::Status MakeHostGroup();
  absl::Status MakeNcclGroup(GpuOps* ops);
  std::vector<int> NcclPeers() const;
  std::vector<Link*> LinkPointers() const;
  void SetWaitLimits(absl::Duration limit);
  // Whether NCCL copies between this worker and that one.
  bool ByNccl(int index) const { return nccl_ != nullptr && nccl_->connected() && members_.Has(index); }
  absl::Status FailIfRequired(const NcclAgreement& agreement) const;

  const Assignment& assignment_;
  const ModelConfig& config_;
  DeviceOps& ops_;
  ExecutorProgress* const progress_;
  const int64_t layer_rows_;
  const int own_index_;
  const NcclUse nccl_use_;
  const NcclMembers members_;
  std::vector<std::unique_ptr<WatchedLink>> links_;  // flat order
  float* host_buffer_ = nullptr;  // a step's residual on the host; null where that works in place
  std::unique_ptr<TensorParallelGroup> host_group_;
  // Where the device is a GPU and there is NCCL here. The communicator ends before the memory that it uses,
  // which belongs to ops.
  std::unique_ptr<NcclCommunicator> nccl_;
  std::unique_ptr<NcclGroup> nccl_group_;
};

}  // namespace bellwether
