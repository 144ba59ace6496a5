#include "worker/link/grpc_connector.h"

#include <grpcpp/grpcpp.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/descriptors.h"
#include "common/host_port.h"
#include "common/mutex.h"
#include "common/status.h"
#include "proto/bellwether/v1/link.grpc.pb.h"
#include "proto/grpc_channel.h"
#include "proto/grpc_server.h"
#include "proto/grpc_status.h"
#include "worker/link/grpc_stream.h"

namespace bellwether {
namespace {

// A peer whose host or network is gone without a word is noticed after the sum of the two.
constexpr int kKeepaliveTimeMs = 1000;
constexpr int kKeepaliveTimeoutMs = 2000;
constexpr int kMessageBytesMax = static_cast<int>(kFrameBytesMax) + 4096;
constexpr int kStreamsOfAConnectionMax = 16;
// Which of the process's descriptors accepted connections may take; the rest is for files, links over shared
// memory, and connections of our own.
constexpr double kLinkDescriptors[] = {0.5, 1.0};

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::UnavailableError("the peer has closed the stream");
  return ToAbsl(status);
}

// gRPC 1.51 breaks when one of its own threads destroys the last channel: it then waits for itself. So
// channels whose stream has ended in a callback are put down here, and cleared away by the next caller from
// outside.
class FinishedChannels {
 public:
  static void Add(std::shared_ptr<grpc::Channel> channel) {
    FinishedChannels& all = Instance();
    MutexLock lock(&all.mutex_);
    all.channels_.push_back(std::move(channel));
  }
  static void Clear() {
    std::vector<std::shared_ptr<grpc::Channel>> channels;  // destroyed after the lock is released
    FinishedChannels& all = Instance();
    MutexLock lock(&all.mutex_);
    channels.swap(all.channels_);
  }

 private:
  static FinishedChannels& Instance() {
    static auto* const instance = new FinishedChannels;
    return *instance;
  }
  Mutex mutex_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_ ABSL_GUARDED_BY(mutex_);
};

// The connecting end. Deletes itself when the stream has ended.
class ClientReactor final : public grpc::ClientBidiReactor<v1::LinkFrame, v1::LinkFrame>,
                            public GrpcStream::Reactor {
 public:
  static std::shared_ptr<GrpcStream> Start(const std::string& address, const ChannelSecurity& security) {
    auto* reactor = new ClientReactor(address, security);
    std::shared_ptr<GrpcStream> stream = reactor->stream_;  // before OnDone can delete the reactor
    reactor->stub_->async()->Connect(&reactor->context_, reactor);
    reactor->AddHold();  // operations come from outside of reactions, until Close or the stream breaks
    reactor->StartCall();
    stream->StartReading();
    return stream;
  }

  void Read(v1::LinkFrame* frame) override { StartRead(frame); }
  void Write(const v1::LinkFrame* frame) override { StartWrite(frame); }
  void Close(const absl::Status& reason, UnderWay under_way) override {
    if (reason.ok()) {
      StartWritesDone();
      // gRPC tells us of the end only when everything before it has been read.
      if (!under_way.reading) StartRead(stream_->incoming());
    } else {
      context_.TryCancel();
    }
    RemoveHold();
  }

  void OnReadDone(bool ok) override {
    if (stream_->OnReadDone(ok)) StartRead(stream_->incoming());
    if (!ok && stream_->Detach()) RemoveHold();
  }
  void OnWriteDone(bool ok) override { stream_->OnWriteDone(ok); }
  void OnDone(const grpc::Status& status) override {
    stream_->OnEnd(FromGrpc(status));
    std::shared_ptr<grpc::Channel> channel = std::move(channel_);
    delete this;  // the stub and the context hold the channel too
    FinishedChannels::Add(std::move(channel));
  }

 private:
  ClientReactor(const std::string& address, const ChannelSecurity& security) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
    arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
    channel_ = MakeChannel(address, Proxy::kNever, arguments, security);
    stub_ = v1::Link::NewStub(channel_);
  }

  const std::shared_ptr<GrpcStream> stream_ = std::make_shared<GrpcStream>(this);
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Link::Stub> stub_;
  grpc::ClientContext context_;
};

class OutgoingGrpc : public OutgoingPeer {
 public:
  OutgoingGrpc(std::shared_ptr<GrpcStream> stream, LinkEndOptions options)
      : stream_(std::move(stream)), options_(std::move(options)) {}
  ~OutgoingGrpc() override {
    if (stream_ != nullptr) stream_->Close(absl::CancelledError("the connection was given up"));
  }

  absl::StatusOr<std::unique_ptr<Link>> Poll(absl::Duration limit) override {
    const absl::StatusOr<v1::LinkFrame> answer = stream_->Receive(limit);
    if (absl::IsDeadlineExceeded(answer.status())) return nullptr;
    if (!answer.ok()) return Annotate(answer.status(), absl::StrCat(options_.peer, " gives no link"));
    return MakeGrpcLink(std::exchange(stream_, nullptr), options_);
  }

 private:
  std::shared_ptr<GrpcStream> stream_;
  const LinkEndOptions options_;
};

class IncomingGrpc : public IncomingPeer {
 public:
  IncomingGrpc(std::shared_ptr<GrpcStream> stream, LinkHello hello)
      : stream_(std::move(stream)), hello_(std::move(hello)) {}
  ~IncomingGrpc() override {
    if (stream_ != nullptr) stream_->Close(absl::CancelledError("the link is not wanted"));
  }

  const LinkHello& hello() const override { return hello_; }
  bool gone() const override { return stream_ == nullptr || stream_->ended(); }
  absl::StatusOr<std::unique_ptr<Link>> Accept(const LinkEndOptions& options) override {
    BW_RETURN_IF_ERROR(Annotate(stream_->Send(options.wait_limit, [](v1::LinkFrame&) {}), options.peer));
    stream_->StartReading();
    return MakeGrpcLink(std::exchange(stream_, nullptr), options);
  }
  void Refuse(const absl::Status& reason) override { stream_->Close(reason); }

 private:
  std::shared_ptr<GrpcStream> stream_;
  const LinkHello hello_;
};

// The accepting end. Deletes itself when the stream has ended.
class ServerReactor final : public grpc::ServerBidiReactor<v1::LinkFrame, v1::LinkFrame>,
                            public GrpcStream::Reactor {
 public:
  ServerReactor(grpc::CallbackServerContext* context, const IncomingPeerHandler& handler)
      : context_(context), handler_(handler) {
    StartRead(stream_->incoming());
  }

  void Read(v1::LinkFrame* frame) override { StartRead(frame); }
  void Write(const v1::LinkFrame* frame) override { StartWrite(frame); }
  void Close(const absl::Status& reason, UnderWay under_way) override {
    // A frame that the peer does not read must not keep us from ending.
    if (!reason.ok() && under_way.writing) context_->TryCancel();
    Finish(ToGrpc(reason));
  }

  void OnReadDone(bool ok) override {
    if (!ok) return Break(grpc::Status::OK);
    if (greeted_) {
      (void)stream_->OnReadDone(true);
      return;
    }
    const v1::LinkFrame frame = std::move(*stream_->incoming());
    stream_->incoming()->Clear();
    const v1::LinkHello& hello = frame.hello();
    if (!frame.has_hello() || hello.secret().size() > kLinkSecretBytesMax) {
      return Break(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "not a hello of a worker of this build"));
    }
    greeted_ = true;
    handler_(std::make_unique<IncomingGrpc>(
        stream_, LinkHello{{hello.epoch()}, hello.from(), hello.to(), hello.secret()}));
  }
  void OnWriteDone(bool ok) override { stream_->OnWriteDone(ok); }
  void OnCancel() override { Break(grpc::Status::CANCELLED); }
  void OnDone() override { delete this; }

 private:
  void Break(const grpc::Status& answer) {
    if (!stream_->Detach()) return;
    stream_->OnEnd(absl::UnavailableError("the peer has ended the stream, or its connection is gone"));
    Finish(answer);
  }

  grpc::CallbackServerContext* const context_;
  const IncomingPeerHandler& handler_;
  const std::shared_ptr<GrpcStream> stream_ = std::make_shared<GrpcStream>(this);
  bool greeted_ = false;
};

class LinkService final : public v1::Link::CallbackService {
 public:
  explicit LinkService(IncomingPeerHandler handler) : handler_(std::move(handler)) {}
  grpc::ServerBidiReactor<v1::LinkFrame, v1::LinkFrame>* Connect(
      grpc::CallbackServerContext* context) override {
    return new ServerReactor(context, handler_);
  }

 private:
  const IncomingPeerHandler handler_;
};

class GrpcLinkListenerImpl final : public GrpcLinkListener {
 public:
  explicit GrpcLinkListenerImpl(IncomingPeerHandler handler) : service_(std::move(handler)) {}
  ~GrpcLinkListenerImpl() override {
    server_ = nullptr;
    FinishedChannels::Clear();
  }

  absl::Status Listen(const std::string& listen_address, const TlsOptions& tls) {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    builder.SetMaxReceiveMessageSize(kMessageBytesMax);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsOfAConnectionMax);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 100);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
    absl::StatusOr<std::unique_ptr<GrpcServer>> server = GrpcServer::Start(
        &builder, {.listen = {.address = listen_address,
                              .name = "workers",
                              .descriptors = DescriptorsBetween(kLinkDescriptors[0], kLinkDescriptors[1])},
                   .tls = tls});
    if (!server.ok()) return absl::UnavailableError(absl::StrCat("links: ", server.status().message()));
    server_ = *std::move(server);
    return absl::OkStatus();
  }

  std::string address() const override { return server_->address(); }

 private:
  LinkService service_;
  std::unique_ptr<GrpcServer> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcLinkListener>> GrpcLinkListener::Start(const std::string& listen_address,
                                                                          IncomingPeerHandler handler,
                                                                          const TlsOptions& tls) {
  auto listener = std::make_unique<GrpcLinkListenerImpl>(std::move(handler));
  BW_RETURN_IF_ERROR(listener->Listen(listen_address, tls));
  return listener;
}

absl::StatusOr<std::shared_ptr<const ChannelSecurity>> LinkSecurity(const TlsOptions& tls) {
  BW_ASSIGN_OR_RETURN(ChannelSecurity security, TlsClient(tls, /*follow_files=*/true));
  return std::make_shared<const ChannelSecurity>(std::move(security));
}

absl::StatusOr<std::unique_ptr<OutgoingPeer>> ConnectGrpc(const std::string& address, const LinkHello& hello,
                                                          const LinkEndOptions& options,
                                                          const ChannelSecurity* security) {
  if (hello.secret.size() > kLinkSecretBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a link secret has at most ", kLinkSecretBytesMax, " bytes"));
  }
  BW_RETURN_IF_ERROR(Annotate(ParseHostPort(address).status(), options.peer));
  FinishedChannels::Clear();
  std::shared_ptr<GrpcStream> stream =
      ClientReactor::Start(address, security == nullptr ? ChannelSecurity{} : *security);
  auto outgoing = std::make_unique<OutgoingGrpc>(stream, options);
  // If the stream has broken already, Poll says why.
  (void)stream->Send(absl::ZeroDuration(), [&](v1::LinkFrame& frame) {
    frame.mutable_hello()->set_epoch(hello.epoch.value);
    frame.mutable_hello()->set_from(hello.from);
    frame.mutable_hello()->set_to(hello.to);
    frame.mutable_hello()->set_secret(hello.secret);
  });
  return outgoing;
}

}  // namespace bellwether
