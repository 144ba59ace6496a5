#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "worker/executor_progress.h"
#include "worker/link/link.h"

namespace bellwether {

// A link that tells the heartbeat whom the executor waits for and how long, what goes over it, and whose link
// failed first.
class WatchedLink : public Link {
 public:
  WatchedLink(std::unique_ptr<Link> link, int peer_index, ExecutorProgress* progress)
      : link_(std::move(link)), peer_index_(peer_index), progress_(progress) {}

  absl::Status Send(const MessageTag& tag, absl::Span<const float> data) override {
    progress_->meter.CountSent(UseOf(tag), Bytes(data));
    return Watch(UseOf(tag), [&] { return link_->Send(tag, data); });
  }
  absl::Status Receive(const MessageTag& tag, absl::Span<float> data) override {
    progress_->meter.CountReceived(UseOf(tag), Bytes(data));
    return Watch(UseOf(tag), [&] { return link_->Receive(tag, data); });
  }
  void SetWaitLimit(absl::Duration limit) override { link_->SetWaitLimit(limit); }
  void Abort(const absl::Status& reason) override { link_->Abort(reason); }
  std::string peer() const override { return link_->peer(); }

  // Blames the peer if its end is closed within `limit` and nobody has been blamed. The end of this link.
  void BlameIfGone(absl::Duration limit) {
    if (progress_->failed_peer != -1) return;
    int32_t nobody = -1;
    link_->SetWaitLimit(limit);
    if (!absl::IsUnavailable(link_->Receive({}, {}))) return;
    progress_->failed_peer.compare_exchange_strong(nobody, peer_index_);
  }

 private:
  static StepMeter::Use UseOf(const MessageTag& tag) {
    return tag.kind == MessageKind::kResidual ? StepMeter::Use::kPipeline : StepMeter::Use::kCollective;
  }
  static int64_t Bytes(absl::Span<const float> data) {
    return static_cast<int64_t>(data.size() * sizeof(float));
  }

  template <typename Operation>
  absl::Status Watch(StepMeter::Use use, Operation operation) {
    progress_->waiting_for.store(peer_index_, std::memory_order_relaxed);
    absl::Status status;
    {
      const MeasuredWait wait(&progress_->meter, StepMeter::WaitOf(use), peer_index_);
      status = operation();
    }
    progress_->waiting_for.store(-1, std::memory_order_relaxed);
    progress_->counter.fetch_add(1, std::memory_order_relaxed);
    int32_t nobody = -1;
    if (!status.ok()) progress_->failed_peer.compare_exchange_strong(nobody, peer_index_);
    return status;
  }

  const std::unique_ptr<Link> link_;
  const int peer_index_;
  ExecutorProgress* const progress_;
};

}  // namespace bellwether
