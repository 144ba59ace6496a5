#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/mutex.h"
#include "proto/bellwether/v1/link.pb.h"
#include "worker/link/link.h"
#include "worker/link/rendezvous.h"

namespace bellwether {

// What the connecting and the accepting end of a gRPC stream of frames have in common: waiting with limits on
// top of gRPC's callbacks, and bounded memory. At most one write is under way; what was received and not yet
// taken is bounded by the FIFO of a link and one frame, since the next read starts only below that: HTTP/2's
// flow control does the rest.
//
// Shared by the gRPC reactor, which feeds it, and the link. The reactor deletes itself after Close.
class GrpcStream {
 public:
  class Reactor {
   public:
    // Starts an operation; its end is told by OnReadDone or OnWriteDone, never from within.
    virtual void Read(v1::LinkFrame* frame) = 0;
    virtual void Write(const v1::LinkFrame* frame) = 0;
    // Nothing follows. With an OK reason what was written is still delivered.
    struct UnderWay {
      bool reading = false, writing = false;
    };
    virtual void Close(const absl::Status& reason, UnderWay under_way) = 0;

   protected:
    virtual ~Reactor() = default;
  };

  explicit GrpcStream(Reactor* reactor) : reactor_(reactor) {}

  // By the reactor, from gRPC's threads.
  // True: the link is gone; read and drop what still comes.
  [[nodiscard]] bool OnReadDone(bool ok);
  void OnWriteDone(bool ok);
  // The stream breaks: no operation starts any more. False if that was known (then somebody else closes it).
  bool Detach();
  // Why it broke; after Detach.
  void OnEnd(const absl::Status& reason);
  bool ended() const;
  v1::LinkFrame* incoming() { return &incoming_; }  // for a read that the reactor itself starts

  // Begins to read ahead.
  void StartReading();
  // Waits up to `limit` for a frame. What the peer sent before it closed is received first.
  absl::StatusOr<v1::LinkFrame> Receive(absl::Duration limit);
  // Waits up to `limit` until the frame before is on its way, then lets `fill` write this one.
  absl::Status Send(absl::Duration limit, const std::function<void(v1::LinkFrame&)>& fill);
  // OK: delivers what was sent, within `limit`. Else: at once, and Send and Receive fail with `reason` from
  // now on.
  void Close(const absl::Status& reason, absl::Duration limit = absl::ZeroDuration());

 private:
  void ReadAheadLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable Mutex mutex_;
  Reactor* reactor_ ABSL_GUARDED_BY(mutex_);  // null once it is closed or broken
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;  // by this side
  bool read_ahead_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<v1::LinkFrame> received_ ABSL_GUARDED_BY(mutex_);
  int64_t received_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<absl::Status> ended_ ABSL_GUARDED_BY(mutex_);  // by the peer or the network
  absl::Status aborted_ ABSL_GUARDED_BY(mutex_);               // by this side
  v1::LinkFrame incoming_;                                     // gRPC's while reading_
  v1::LinkFrame outgoing_;                                     // gRPC's while writing_
};

// A link over a stream whose handshake is done.
std::unique_ptr<Link> MakeGrpcLink(std::shared_ptr<GrpcStream> stream, const LinkEndOptions& options);

}  // namespace bellwether
