#include "worker/worker_server.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/descriptors.h"
#include "common/metrics/addresses.h"
#include "common/status.h"
#include "http/operations_server.h"

namespace bellwether {
namespace {

// Of the process's descriptors, beside those of links (worker/link/grpc_connector.cc).
constexpr double kDescriptors[] = {0.45, 0.5};

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerServer>> WorkerServer::Start(const std::string& listen,
                                                                  const TlsOptions& tls,
                                                                  const std::string& build_id) {
  auto server = std::unique_ptr<WorkerServer>(new WorkerServer(build_id));
  BW_ASSIGN_OR_RETURN(
      server->server_,
      StartOperationsServer({.listen = {.address = listen,
                                        .name = "monitoring",
                                        .descriptors = DescriptorsBetween(kDescriptors[0], kDescriptors[1])},
                             .tls = tls,
                             .default_address = kDefaultWorkerMetricsAddress},
                            {.metrics = [metrics = &server->metrics_] { return metrics->Text(); },
                             .ready = [server = server.get()] { return server->Ready(); }}));
  return server;
}

WorkerServer::WorkerServer(const std::string& build_id) : metrics_(build_id, [this] { return snapshot(); }) {}

void WorkerServer::Show(std::shared_ptr<const WorkerSession> session) {
  MutexLock lock(&mutex_);
  session_ = std::move(session);
}

WorkerSession::Snapshot WorkerServer::snapshot() const {
  std::shared_ptr<const WorkerSession> session;
  {
    MutexLock lock(&mutex_);
    session = session_;
  }
  return session != nullptr ? session->snapshot() : WorkerSession::Snapshot{};
}

absl::Status WorkerServer::Ready() const {
  if (!snapshot().joined) return absl::UnavailableError("no coordinator has taken this worker");
  return absl::OkStatus();
}

}  // namespace bellwether
