#include "coordinator/worker_stream.h"

#include <utility>

#include "proto/grpc_status.h"

namespace bellwether {
namespace {

// Steps in flight and a few words besides; a worker that leaves more unread has stopped reading.
constexpr size_t kQueuedMessagesMax = 1024;

}  // namespace

std::shared_ptr<WorkerStream> WorkerStream::Start(grpc::CallbackServerContext* context, WorkerId id,
                                                  Handler handler) {
  std::shared_ptr<WorkerStream> stream(new WorkerStream(context, id, std::move(handler)));
  stream->self_ = stream;
  stream->StartRead(&stream->incoming_);
  return stream;
}

void WorkerStream::OnReadDone(bool ok) {
  if (!ok) {
    SetEnd("its connection closed");
    Close(absl::OkStatus());
    return;
  }
  handler_.on_message(*this, incoming_);
  StartRead(&incoming_);
}

void WorkerStream::Send(std::shared_ptr<const v1::CoordinatorMessage> message) {
  bool too_many = false;
  {
    MutexLock lock(&mutex_);
    if (close_ || finished_) return;
    too_many = queue_.size() >= kQueuedMessagesMax;
    if (!too_many) queue_.push_back(std::move(message));
  }
  if (too_many) {
    Drop();
  } else {
    Pump();
  }
}

void WorkerStream::Close(const absl::Status& status) {
  {
    MutexLock lock(&mutex_);
    if (!close_) close_ = status;
  }
  Pump();
}

void WorkerStream::Drop() {
  {
    MutexLock lock(&mutex_);
    queue_.clear();
    if (!close_) close_ = absl::UnavailableError("dropped by the coordinator");
    if (finished_ || cancelling_) return;
    cancelling_ = true;  // no Finish meanwhile, so the context lives
  }
  context_->TryCancel();
  {
    MutexLock lock(&mutex_);
    cancelling_ = false;
  }
  Pump();
}

void WorkerStream::OnWriteDone(bool ok) {
  {
    MutexLock lock(&mutex_);
    writing_ = nullptr;
    if (!ok) {
      queue_.clear();
      if (!close_) close_ = absl::UnavailableError("the worker is gone");
    }
  }
  Pump();
}

void WorkerStream::OnCancel() {
  SetEnd("its connection broke");
  Close(absl::CancelledError("cancelled"));
}

void WorkerStream::OnDone() {
  SetEnd("its stream ended");
  absl::Status reason;
  {
    MutexLock lock(&mutex_);
    reason = end_;
  }
  handler_.on_end(*this, reason);
  const std::shared_ptr<WorkerStream> last = std::move(self_);
}

void WorkerStream::SetEnd(absl::string_view reason) {
  MutexLock lock(&mutex_);
  if (end_.ok()) end_ = absl::UnavailableError(reason);
}

void WorkerStream::Pump() {
  const v1::CoordinatorMessage* message = nullptr;
  absl::Status status;
  {
    MutexLock lock(&mutex_);
    if (writing_ != nullptr || finished_ || cancelling_) return;
    if (!queue_.empty()) {
      writing_ = std::move(queue_.front());
      queue_.pop_front();
      message = writing_.get();
    } else if (close_) {
      finished_ = true;
      status = *close_;
    } else {
      return;
    }
  }
  // The flags let one thread through until OnWriteDone, and none after Finish.
  if (message != nullptr) {
    StartWrite(message);
  } else {
    Finish(ToGrpc(status));
  }
}

}  // namespace bellwether
