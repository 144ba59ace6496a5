#pragma once

#include <memory>
#include <string>

#include "grpcpp/grpcpp.h"

namespace bellwether {

// Whether a channel may go through the HTTP proxy of the environment (common/config.h, ProxyVariable).
enum class Proxy {
  kNever,          // between the programs of a cluster, and on this machine
  kByEnvironment,  // gRPC's own rules, which take a proxy even for loopback
};

// A channel to `address`, a valid HOST:PORT (common/host_port.h), without encryption. The scheme is said, as
// gRPC takes a host that is called "unix" or "dns" for one.
inline std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, Proxy proxy = Proxy::kNever,
                                                  grpc::ChannelArguments arguments = {}) {
  if (proxy == Proxy::kNever) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel("dns:///" + address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace bellwether
