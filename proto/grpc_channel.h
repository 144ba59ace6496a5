#pragma once

#include <memory>
#include <string>

#include "grpcpp/grpcpp.h"
#include "proto/tls.h"

namespace bellwether {

// Whether a channel may go through the HTTP proxy of the environment (common/config.h, ProxyVariable).
enum class Proxy {
  kNever,          // between the programs of a cluster, and on this machine
  kByEnvironment,  // gRPC's own rules, which take a proxy even for loopback
};

// A channel to `address`, a valid HOST:PORT (common/host_port.h). The scheme is said, as gRPC takes a host
// that is called "unix" or "dns" for one.
inline std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, Proxy proxy = Proxy::kNever,
                                                  grpc::ChannelArguments arguments = {},
                                                  const ChannelSecurity& security = {}) {
  if (proxy == Proxy::kNever) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (!security.server_name.empty()) arguments.SetSslTargetNameOverride(security.server_name);
  const bool tls = security.credentials != nullptr;
  return grpc::CreateCustomChannel(
      "dns:///" + address, tls ? security.credentials : grpc::InsecureChannelCredentials(), arguments);
}

// A channel whose calls all fail.
inline std::shared_ptr<grpc::Channel> RefusedChannel() {
  return grpc::CreateCustomChannel("", nullptr, grpc::ChannelArguments());
}

}  // namespace bellwether
