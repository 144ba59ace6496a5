#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/service_watchdog.h"
#include "common/tcp_listener.h"
#include "http/server.h"

namespace bellwether {

// What those ask a program for who run it: is it there, does it serve, how is it getting on. On a port of its
// own, so that clients neither see it nor get in its way.
struct OperationsPages {
  // /metrics: Prometheus' text format.
  std::function<std::string()> metrics;
  // /readyz: OK, or why not.
  std::function<absl::Status()> ready;
  // /healthz likewise: whether it is of no use to start the program anew.
  std::function<absl::Status()> alive = [] { return ServiceWatchdog::OfProcess()->Alive(); };
  std::vector<HttpRoute> more;
};

struct OperationsPort {
  TcpListener::Options listen;
  TlsOptions tls;  // none: in clear, as it says nothing of prompts and answers
  // If this one is taken it is no error: any free port is taken instead, as several programs on one machine
  // have the same default.
  std::string default_address;
};

// Starts the server. All functions are called from its one thread. Errors: HttpServer::Start's.
absl::StatusOr<std::unique_ptr<HttpServer>> StartOperationsServer(OperationsPort port, OperationsPages pages);

}  // namespace bellwether
