#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tcp_listener.h"
#include "http/server.h"

namespace bellwether {

// What those ask a program for who run it: is it there, does it serve, how is it getting on. On a port of its
// own, so that clients neither see it nor get in its way.
struct OperationsPages {
  // /metrics: Prometheus' text format.
  std::function<std::string()> metrics;
  // /readyz: OK, or why not. /healthz is fine as long as the server answers.
  std::function<absl::Status()> ready;
  std::vector<HttpRoute> more;
};

// Starts the server. A port of `default_address` that is taken is no error: any free one is taken instead, as
// several programs on one machine have the same default. All functions are called from the server's one
// thread. Errors: HttpServer::Start's.
absl::StatusOr<std::unique_ptr<HttpServer>> StartOperationsServer(TcpListener::Options listen,
                                                                  const std::string& default_address,
                                                                  OperationsPages pages);

}  // namespace bellwether
