#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace bellwether {

// "HOST:PORT", as flags, peers and files spell an address. Read here and nowhere else: gRPC's own reading
// takes "127.0.0.1" for port 443, 99999 for port 34463, and a host that is called "unix" for a path.
struct HostPort {
  std::string host;  // a name, an IPv4 address, or an IPv6 address (without brackets)
  int port = 0;

  // Of this machine alone, whatever the network.
  bool IsLoopback() const;
  // "host:port", an IPv6 address in brackets.
  std::string ToString() const;
};

// HOST is a name, an IPv4 address or an IPv6 address in brackets; PORT is 1 to 65535, or 0 too where
// `any_port` says so (a listener then takes a free one). InvalidArgument, with what to write instead.
absl::StatusOr<HostPort> ParseHostPort(std::string_view text, bool any_port = false);

}  // namespace bellwether
