#include "worker/link/loopback.h"

#include <algorithm>
#include <deque>
#include <vector>

#include "common/clock.h"
#include "common/mutex.h"
#include "worker/link/message.h"

namespace bellwether {
namespace {

constexpr int64_t kPieceFloats = (64 << 10) / sizeof(float);

// One direction: a FIFO of at most kLinkFifoBytes.
struct Fifo {
  struct Piece {
    MessageHeader header;  // of the message that it is a piece of
    std::vector<float> floats;
  };
  Mutex mutex;
  std::deque<Piece> pieces ABSL_GUARDED_BY(mutex);
  int64_t bytes ABSL_GUARDED_BY(mutex) = 0;
  bool closed ABSL_GUARDED_BY(mutex) = false;      // by the end that writes or the end that reads
  absl::Status read_abort ABSL_GUARDED_BY(mutex);  // why the reading end was aborted
  absl::Status write_abort ABSL_GUARDED_BY(mutex);

  bool HasRoomFor(int64_t more) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return pieces.empty() || bytes + more <= kLinkFifoBytes;
  }
};

class LoopbackLink : public Link {
 public:
  LoopbackLink(std::shared_ptr<Fifo> out, std::shared_ptr<Fifo> in, std::string peer,
               absl::Duration wait_limit)
      : out_(std::move(out)), in_(std::move(in)), peer_(std::move(peer)), wait_limit_(wait_limit) {}

  ~LoopbackLink() override {
    for (Fifo* fifo : {out_.get(), in_.get()}) {
      MutexLock lock(&fifo->mutex);
      fifo->closed = true;
    }
  }

  absl::Status Send(const MessageTag& tag, absl::Span<const float> data) override {
    const MessageHeader header{tag, static_cast<int64_t>(data.size())};
    do {  // an empty message is one empty piece
      const absl::Span<const float> piece = data.subspan(0, kPieceFloats);
      data.remove_prefix(piece.size());
      if (absl::Status status = SendPiece(header, piece); !status.ok()) return status;
    } while (!data.empty());
    return absl::OkStatus();
  }

  absl::Status Receive(const MessageTag& tag, absl::Span<float> data) override {
    const MessageHeader header{tag, static_cast<int64_t>(data.size())};
    do {
      const absl::Span<float> piece = data.subspan(0, kPieceFloats);
      data.remove_prefix(piece.size());
      if (absl::Status status = ReceivePiece(header, piece); !status.ok()) return status;
    } while (!data.empty());
    return absl::OkStatus();
  }

  void SetWaitLimit(absl::Duration limit) override { wait_limit_ = limit; }

  void Abort(const absl::Status& reason) override {
    for (Fifo* fifo : {out_.get(), in_.get()}) {
      MutexLock lock(&fifo->mutex);
      absl::Status& abort = fifo == out_.get() ? fifo->write_abort : fifo->read_abort;
      if (abort.ok()) abort = reason;
      fifo->closed = true;
    }
  }

  std::string peer() const override { return peer_; }

 private:
  absl::Status SendPiece(const MessageHeader& header, absl::Span<const float> floats) {
    Fifo& fifo = *out_;
    MutexLock lock(&fifo.mutex);
    const absl::Duration start = Clock::Real()->Now();
    const int64_t piece_bytes = static_cast<int64_t>(floats.size() * sizeof(float));
    auto ready = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(fifo.mutex) {
      return fifo.closed || fifo.HasRoomFor(piece_bytes);
    };
    const bool in_time = fifo.mutex.AwaitFor(ready, wait_limit_);
    const absl::Duration waited = Clock::Real()->Now() - start;
    if (!fifo.write_abort.ok()) return fifo.write_abort;
    if (fifo.closed) return PeerGone(Direction::kSend, header.tag, peer_, waited);
    if (!in_time) return WaitedTooLong(Direction::kSend, header.tag, peer_, waited);
    fifo.bytes += piece_bytes;
    fifo.pieces.push_back({header, {floats.begin(), floats.end()}});
    return absl::OkStatus();
  }

  absl::Status ReceivePiece(const MessageHeader& header, absl::Span<float> floats) {
    Fifo& fifo = *in_;
    MutexLock lock(&fifo.mutex);
    const absl::Duration start = Clock::Real()->Now();
    auto ready = [&fifo]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(fifo.mutex) {
      return fifo.closed || !fifo.pieces.empty();
    };
    const bool in_time = fifo.mutex.AwaitFor(ready, wait_limit_);
    const absl::Duration waited = Clock::Real()->Now() - start;
    if (!fifo.read_abort.ok()) return fifo.read_abort;
    // What was sent before the peer closed is still received.
    if (fifo.pieces.empty() && fifo.closed) return PeerGone(Direction::kReceive, header.tag, peer_, waited);
    if (!in_time) return WaitedTooLong(Direction::kReceive, header.tag, peer_, waited);
    const Fifo::Piece& piece = fifo.pieces.front();
    if (absl::Status status = CheckHeader(header, piece.header, peer_); !status.ok()) return status;
    std::copy(piece.floats.begin(), piece.floats.end(), floats.begin());
    fifo.bytes -= floats.size() * sizeof(float);
    fifo.pieces.pop_front();
    return absl::OkStatus();
  }

  const std::shared_ptr<Fifo> out_, in_;
  const std::string peer_;
  absl::Duration wait_limit_;
};

}  // namespace

std::pair<std::unique_ptr<Link>, std::unique_ptr<Link>> MakeLoopbackLinks(const LoopbackOptions& options) {
  auto there = std::make_shared<Fifo>(), back = std::make_shared<Fifo>();
  return {
      std::make_unique<LoopbackLink>(there, back, options.second_name + " by loopback", options.wait_limit),
      std::make_unique<LoopbackLink>(back, there, options.first_name + " by loopback", options.wait_limit)};
}

}  // namespace bellwether
