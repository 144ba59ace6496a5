#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/tls_options.h"
#include "worker/link/rendezvous.h"

namespace bellwether {

// The listening half of links between hosts: a gRPC server whose streams become links. Streams that say a
// proper hello go to `handler`.
class GrpcLinkListener {
 public:
  // "host:port"; port 0: any that is free. Unavailable if it cannot be bound, and what TlsServer says
  // (proto/tls.h).
  static absl::StatusOr<std::unique_ptr<GrpcLinkListener>> Start(const std::string& listen_address,
                                                                 IncomingPeerHandler handler,
                                                                 const TlsOptions& tls = {});
  virtual ~GrpcLinkListener() = default;    // ends all links that were accepted through it
  virtual std::string address() const = 0;  // with the port in use
};

// How the connecting half is encrypted; follows the files. Errors: TlsClient's.
struct ChannelSecurity;
absl::StatusOr<std::shared_ptr<const ChannelSecurity>> LinkSecurity(const TlsOptions& tls);

// The connecting half. Never waits; what is wrong with the address or the certificates shows in Poll.
// `security`: null for none.
absl::StatusOr<std::unique_ptr<OutgoingPeer>> ConnectGrpc(const std::string& address, const LinkHello& hello,
                                                          const LinkEndOptions& options,
                                                          const ChannelSecurity* security = nullptr);

}  // namespace bellwether
