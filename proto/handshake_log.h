#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"

namespace bellwether {

// Tells whose TLS handshakes with a port have failed, and why. gRPC 1.51 does not: it names nobody, or says
// nothing at all, but for a trace of every handshake, which is what this goes by (proto/grpc_log.h).
class HandshakeLog {
 public:
  explicit HandshakeLog(std::string address);

  // `hand_over` gives gRPC a connection of `peer`'s. If they do not agree it becomes a warning, a few at a
  // time for each port; who leaves or says nothing is passed over. Any thread.
  void Follow(std::string peer, absl::FunctionRef<void()> hand_over) const;

  // A line of the trace. Any thread.
  static void Hear(std::string_view line);

 private:
  struct Port;
  struct Handshake;
  struct All;
  static All& TheAll();

  const std::shared_ptr<Port> port_;
};

}  // namespace bellwether
