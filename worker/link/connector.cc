#include "worker/link/connector.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/clock.h"
#include "common/status.h"
#include "worker/link/grpc_connector.h"
#include "worker/link/rendezvous.h"
#include "worker/link/shm_connector.h"

namespace bellwether {
namespace {

// How long a wait for an answer goes without a look at Cancel.
constexpr absl::Duration kPollSlice = absl::Milliseconds(50);

class LinkListenerImpl : public LinkListener {
 public:
  absl::Status Listen(const Options& options) {
    auto offer = [this](std::unique_ptr<IncomingPeer> peer) { rendezvous_.Offer(std::move(peer)); };
    BW_ASSIGN_OR_RETURN(shm_, ShmListener::Start(offer));
    if (!options.grpc_listen_address.empty()) {
      BW_ASSIGN_OR_RETURN(grpc_, GrpcLinkListener::Start(options.grpc_listen_address, offer, options.tls));
    }
    BW_ASSIGN_OR_RETURN(security_, LinkSecurity(options.tls));
    return absl::OkStatus();
  }

  std::string unix_socket() const override { return shm_->name(); }
  std::string grpc_address() const override { return grpc_ == nullptr ? "" : grpc_->address(); }

  absl::StatusOr<std::vector<std::unique_ptr<Link>>> Connect(const Request& request) override;
  void Cancel(Epoch epoch) override { rendezvous_.Cancel(epoch); }

 private:
  static LinkHello Hello(const Request& request, int from, int to) {
    return {request.epoch, from, to, request.secret};
  }
  static LinkEndOptions EndOptions(const Request& request, const LinkPeer& peer) {
    return {.peer = peer.name, .wait_limit = request.wait_limit, .spin_pauses = request.spin_pauses};
  }
  absl::StatusOr<std::unique_ptr<OutgoingPeer>> Open(const Request& request, const LinkPeer& peer) const;
  absl::StatusOr<std::unique_ptr<Link>> Accept(const Request& request, const LinkPeer& peer,
                                               absl::Duration deadline);
  absl::StatusOr<std::unique_ptr<Link>> Await(const Request& request, const LinkPeer& peer,
                                              OutgoingPeer& outgoing, absl::Duration deadline) const;

  Rendezvous rendezvous_;  // outlives those who offer
  std::unique_ptr<ShmListener> shm_;
  std::unique_ptr<GrpcLinkListener> grpc_;
  std::shared_ptr<const ChannelSecurity> security_;  // of links to other hosts
};

// Shared memory if the socket opens, which proves one host; else gRPC.
absl::StatusOr<std::unique_ptr<OutgoingPeer>> LinkListenerImpl::Open(const Request& request,
                                                                     const LinkPeer& peer) const {
  const LinkHello hello = Hello(request, request.own_index, peer.index);
  absl::StatusOr<std::unique_ptr<OutgoingPeer>> outgoing = absl::UnavailableError("it has no Unix socket");
  if (!peer.unix_socket.empty()) outgoing = ConnectShm(peer.unix_socket, hello, EndOptions(request, peer));
  if (outgoing.ok() || !absl::IsUnavailable(outgoing.status())) return outgoing;
  if (!peer.grpc_address.empty())
    return ConnectGrpc(peer.grpc_address, hello, EndOptions(request, peer), security_.get());
  return absl::UnavailableError(
      absl::StrCat(peer.name, " is not on this host (", outgoing.status().message(),
                   ") and does not listen for other hosts: give it a link address"));
}

absl::StatusOr<std::unique_ptr<Link>> LinkListenerImpl::Accept(const Request& request, const LinkPeer& peer,
                                                               absl::Duration deadline) {
  absl::StatusOr<std::unique_ptr<IncomingPeer>> incoming =
      rendezvous_.Take(Hello(request, peer.index, request.own_index), deadline - Clock::Real()->Now());
  if (!incoming.ok())
    return Annotate(incoming.status(), absl::StrCat("waiting for ", peer.name, " to connect"));
  return (*incoming)->Accept(EndOptions(request, peer));
}

absl::StatusOr<std::unique_ptr<Link>> LinkListenerImpl::Await(const Request& request, const LinkPeer& peer,
                                                              OutgoingPeer& outgoing,
                                                              absl::Duration deadline) const {
  for (;;) {
    if (rendezvous_.cancelled(request.epoch)) {
      return absl::CancelledError(absl::StrCat("epoch ", request.epoch.value, " is over"));
    }
    const absl::Duration left = deadline - Clock::Real()->Now();
    absl::StatusOr<std::unique_ptr<Link>> link =
        outgoing.Poll(std::clamp(left, absl::ZeroDuration(), kPollSlice));
    if (!link.ok() || *link != nullptr) return link;
    if (left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(
          absl::StrCat(peer.name, " has not answered within ", absl::FormatDuration(request.connect_limit)));
    }
  }
}

absl::StatusOr<std::vector<std::unique_ptr<Link>>> LinkListenerImpl::Connect(const Request& request) {
  const absl::Duration deadline = Clock::Real()->Now() + request.connect_limit;
  rendezvous_.Begin(request.epoch);
  std::vector<std::unique_ptr<Link>> links(request.peers.size());
  std::vector<std::unique_ptr<OutgoingPeer>> outgoing(request.peers.size());
  // Nobody waits before all its connections are opened, so there is no circle of waiting workers.
  for (size_t i = 0; i < request.peers.size(); ++i) {
    if (request.own_index > request.peers[i].index) continue;
    BW_ASSIGN_OR_RETURN(outgoing[i], Open(request, request.peers[i]));
  }
  for (size_t i = 0; i < request.peers.size(); ++i) {
    if (request.own_index < request.peers[i].index) continue;
    BW_ASSIGN_OR_RETURN(links[i], Accept(request, request.peers[i], deadline));
  }
  for (size_t i = 0; i < request.peers.size(); ++i) {
    if (outgoing[i] == nullptr) continue;
    BW_ASSIGN_OR_RETURN(links[i], Await(request, request.peers[i], *outgoing[i], deadline));
  }
  return links;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LinkListener>> LinkListener::Start(const Options& options) {
  auto listener = std::make_unique<LinkListenerImpl>();
  BW_RETURN_IF_ERROR(listener->Listen(options));
  return listener;
}

}  // namespace bellwether
