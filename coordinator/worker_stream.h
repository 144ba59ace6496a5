#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/ids.h"
#include "common/mutex.h"
#include "grpcpp/grpcpp.h"
#include "proto/bellwether/v1/cluster.grpc.pb.h"

namespace bellwether {

// The stream of one worker, from the coordinator's end: reads one message after another, and writes from a
// queue so that senders never wait. Lives until gRPC is done with it, whoever else still points to it.
class WorkerStream : public grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>,
                     public std::enable_shared_from_this<WorkerStream> {
 public:
  // Called from gRPC's threads; may not wait. `on_end` comes once, after the last message: from OnDone alone,
  // since a cancelled stream may still have a message on its way.
  struct Handler {
    std::function<void(WorkerStream&, const v1::WorkerMessage&)> on_message;
    std::function<void(WorkerStream&, const absl::Status&)> on_end;
  };
  static std::shared_ptr<WorkerStream> Start(grpc::CallbackServerContext* context, WorkerId id,
                                             Handler handler);

  WorkerId id() const { return id_; }
  // The other end, as gRPC writes it. While the stream lives.
  std::string peer() const { return context_->peer(); }

  // From any thread.
  void Send(std::shared_ptr<const v1::CoordinatorMessage> message);
  // Ends the stream once what was sent before is written; the worker may join again.
  void Close(const absl::Status& status);
  // Ends it at once, for a worker that does not read either.
  void Drop();

 private:
  WorkerStream(grpc::CallbackServerContext* context, WorkerId id, Handler handler)
      : context_(context), id_(id), handler_(std::move(handler)) {}
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  // Writes the next message or ends the stream if it is time.
  void Pump();
  // Why it ends; the first reason counts.
  void SetEnd(absl::string_view reason);

  grpc::CallbackServerContext* const context_;
  const WorkerId id_;
  const Handler handler_;
  v1::WorkerMessage incoming_;

  Mutex mutex_;  // never held while gRPC or the handler is called
  std::deque<std::shared_ptr<const v1::CoordinatorMessage>> queue_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const v1::CoordinatorMessage> writing_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> close_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelling_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);  // OK as long as it lives

  std::shared_ptr<WorkerStream> self_;  // until OnDone
};

}  // namespace bellwether
