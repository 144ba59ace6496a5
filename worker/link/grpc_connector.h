#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/link/rendezvous.h"

namespace bellwether {

// The listening half of links between hosts: a gRPC server whose streams become links. Streams that say a
// proper hello go to `handler`.
class GrpcLinkListener {
 public:
  // "host:port"; port 0: any that is free. Unavailable if it cannot be bound.
  static absl::StatusOr<std::unique_ptr<GrpcLinkListener>> Start(const std::string& listen_address,
                                                                 IncomingPeerHandler handler);
  virtual ~GrpcLinkListener() = default;    // ends all links that were accepted through it
  virtual std::string address() const = 0;  // with the port in use
};

// The connecting half. Never waits; what is wrong with the address shows in Poll.
absl::StatusOr<std::unique_ptr<OutgoingPeer>> ConnectGrpc(const std::string& address, const LinkHello& hello,
                                                          const LinkEndOptions& options);

}  // namespace bellwether
