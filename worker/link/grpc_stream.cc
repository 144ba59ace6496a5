#include "worker/link/grpc_stream.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/status.h"
#include "worker/link/message.h"

namespace bellwether {
namespace {

// Small enough to overlap sending with receiving, large enough that the cost of a frame does not show.
constexpr size_t kFrameFloats = (256 << 10) / sizeof(float);
static_assert(kFrameFloats * sizeof(float) <= kFrameBytesMax);
static_assert(std::endian::native == std::endian::little, "frames carry little-endian floats");

// What a frame weighs besides its floats: empty ones must not come in any number either.
int64_t FrameBytes(const v1::LinkFrame& frame) { return static_cast<int64_t>(frame.floats().size()) + 256; }

}  // namespace

bool GrpcStream::OnReadDone(bool ok) {
  MutexLock lock(&mutex_);
  reading_ = false;
  if (!ok) return false;
  if (closed_) return true;
  received_bytes_ += FrameBytes(incoming_);
  received_.push_back(std::move(incoming_));
  incoming_.Clear();
  ReadAheadLocked();
  return false;
}

void GrpcStream::OnWriteDone(bool) {
  MutexLock lock(&mutex_);
  writing_ = false;
}

bool GrpcStream::Detach() {
  MutexLock lock(&mutex_);
  return std::exchange(reactor_, nullptr) != nullptr;
}

void GrpcStream::OnEnd(const absl::Status& reason) {
  MutexLock lock(&mutex_);
  if (!ended_.has_value()) ended_ = reason;
}

bool GrpcStream::ended() const {
  MutexLock lock(&mutex_);
  return ended_.has_value();
}

void GrpcStream::StartReading() {
  MutexLock lock(&mutex_);
  read_ahead_ = true;
  ReadAheadLocked();
}

void GrpcStream::ReadAheadLocked() {
  if (!read_ahead_ || reading_ || reactor_ == nullptr || received_bytes_ >= kLinkFifoBytes) return;
  reading_ = true;
  reactor_->Read(&incoming_);
}

absl::StatusOr<v1::LinkFrame> GrpcStream::Receive(absl::Duration limit) {
  MutexLock lock(&mutex_);
  auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !received_.empty() || ended_.has_value() || !aborted_.ok();
  };
  const bool in_time = mutex_.AwaitFor(ready, limit);
  if (!aborted_.ok()) return aborted_;
  if (!in_time) return absl::DeadlineExceededError("");
  if (received_.empty()) return *ended_;
  v1::LinkFrame frame = std::move(received_.front());
  received_.pop_front();
  received_bytes_ -= FrameBytes(frame);
  ReadAheadLocked();
  return frame;
}

absl::Status GrpcStream::Send(absl::Duration limit, const std::function<void(v1::LinkFrame&)>& fill) {
  MutexLock lock(&mutex_);
  auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !writing_ || ended_.has_value() || !aborted_.ok();
  };
  const bool in_time = mutex_.AwaitFor(ready, limit);
  if (!aborted_.ok()) return aborted_;
  if (ended_.has_value()) return *ended_;
  if (!in_time) return absl::DeadlineExceededError("");
  if (reactor_ == nullptr) return absl::UnavailableError("the stream is closed");
  fill(outgoing_);
  writing_ = true;
  reactor_->Write(&outgoing_);
  return absl::OkStatus();
}

void GrpcStream::Close(const absl::Status& reason, absl::Duration limit) {
  Reactor* reactor = nullptr;
  Reactor::UnderWay under_way;
  {
    MutexLock lock(&mutex_);
    if (!reason.ok() && aborted_.ok()) aborted_ = reason;
    if (reason.ok()) {
      auto written = [this]()
                         ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !writing_ || reactor_ == nullptr; };
      mutex_.AwaitFor(written, limit);
    }
    std::swap(reactor, reactor_);
    closed_ = true;
    under_way = {.reading = reading_, .writing = writing_};
  }
  // Outside the lock: gRPC may end the stream from within. Whoever took the pointer is the only one to close.
  if (reactor != nullptr) reactor->Close(reason, under_way);
}

namespace {

class GrpcLink : public Link {
 public:
  GrpcLink(std::shared_ptr<GrpcStream> stream, const LinkEndOptions& options)
      : stream_(std::move(stream)), peer_(options.peer + " by gRPC"), wait_limit_(options.wait_limit) {}

  ~GrpcLink() override { stream_->Close(absl::OkStatus(), std::min(wait_limit_, absl::Seconds(1))); }

  absl::Status Send(const MessageTag& tag, absl::Span<const float> data) override {
    const MessageHeader header{tag, static_cast<int64_t>(data.size())};
    do {  // an empty message is one empty frame
      const absl::Span<const float> piece = data.subspan(0, kFrameFloats);
      data.remove_prefix(piece.size());
      const absl::Duration start = Clock::Real()->Now();
      const absl::Status status =
          stream_->Send(wait_limit_, [&](v1::LinkFrame& frame) { FillFrame(header, piece, frame); });
      if (!status.ok()) return Explain(Direction::kSend, tag, status, start);
    } while (!data.empty());
    return absl::OkStatus();
  }

  absl::Status Receive(const MessageTag& tag, absl::Span<float> data) override {
    const MessageHeader header{tag, static_cast<int64_t>(data.size())};
    do {
      const absl::Span<float> piece = data.subspan(0, kFrameFloats);
      data.remove_prefix(piece.size());
      const absl::Duration start = Clock::Real()->Now();
      absl::StatusOr<v1::LinkFrame> frame = stream_->Receive(wait_limit_);
      if (!frame.ok()) return Explain(Direction::kReceive, tag, frame.status(), start);
      BW_RETURN_IF_ERROR(CheckHeader(header, HeaderOf(*frame), peer_));
      if (frame->floats().size() != piece.size() * sizeof(float)) {
        return absl::DataLossError(absl::StrCat(DescribeTransfer(Direction::kReceive, tag, peer_),
                                                ": a frame of ", frame->floats().size(), " bytes where ",
                                                piece.size() * sizeof(float), " belong"));
      }
      if (!piece.empty()) std::memcpy(piece.data(), frame->floats().data(), frame->floats().size());
    } while (!data.empty());
    return absl::OkStatus();
  }

  void SetWaitLimit(absl::Duration limit) override { wait_limit_ = limit; }

  void Abort(const absl::Status& reason) override {
    {
      MutexLock lock(&abort_mutex_);
      aborted_ = true;
    }
    stream_->Close(reason);
  }

  std::string peer() const override { return peer_; }

 private:
  static void FillFrame(const MessageHeader& header, absl::Span<const float> floats, v1::LinkFrame& frame) {
    v1::LinkTag& tag = *frame.mutable_tag();
    tag.set_epoch(header.tag.epoch.value);
    tag.set_step(header.tag.step.value);
    tag.set_kind(static_cast<uint32_t>(header.tag.kind));
    tag.set_stage(header.tag.stage);
    tag.set_rank(header.tag.rank);
    tag.set_layer(header.tag.layer);
    tag.set_rows(header.tag.rows);
    tag.set_cols(header.tag.cols);
    frame.clear_hello();
    frame.set_message_floats(header.floats);
    frame.mutable_floats()->assign(reinterpret_cast<const char*>(floats.data()),
                                   floats.size() * sizeof(float));
  }

  static MessageHeader HeaderOf(const v1::LinkFrame& frame) {
    const v1::LinkTag& tag = frame.tag();
    return {.tag = {.epoch = {tag.epoch()},
                    .step = {tag.step()},
                    .kind = static_cast<MessageKind>(std::min(tag.kind(), 255u)),
                    .stage = tag.stage(),
                    .rank = tag.rank(),
                    .layer = tag.layer(),
                    .rows = tag.rows(),
                    .cols = tag.cols()},
            .floats = static_cast<int64_t>(frame.message_floats())};
  }

  absl::Status Explain(Direction direction, const MessageTag& tag, const absl::Status& status,
                       absl::Duration start) {
    {
      MutexLock lock(&abort_mutex_);
      if (aborted_) return status;
    }
    const absl::Duration waited = Clock::Real()->Now() - start;
    if (absl::IsDeadlineExceeded(status)) return WaitedTooLong(direction, tag, peer_, waited);
    return absl::UnavailableError(
        absl::StrCat(PeerGone(direction, tag, peer_, waited).message(), ": ", status.message()));
  }

  const std::shared_ptr<GrpcStream> stream_;
  const std::string peer_;
  absl::Duration wait_limit_;
  Mutex abort_mutex_;
  bool aborted_ ABSL_GUARDED_BY(abort_mutex_) = false;
};

}  // namespace

std::unique_ptr<Link> MakeGrpcLink(std::shared_ptr<GrpcStream> stream, const LinkEndOptions& options) {
  return std::make_unique<GrpcLink>(std::move(stream), options);
}

}  // namespace bellwether
