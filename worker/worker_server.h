#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/mutex.h"
#include "http/server.h"
#include "worker/session.h"
#include "worker/worker_metrics.h"

namespace bellwether {

// What a worker shows to those who run it: /metrics, /healthz and /readyz (http/operations_server.h).
class WorkerServer {
 public:
  // Before there is a session, which needs to know the address. Errors: HttpServer::Start's.
  static absl::StatusOr<std::unique_ptr<WorkerServer>> Start(const std::string& listen, const TlsOptions& tls,
                                                             const std::string& build_id);

  const std::string& address() const { return server_->address(); }
  // From now on it tells of this session.
  void Show(std::shared_ptr<const WorkerSession> session);

 private:
  explicit WorkerServer(const std::string& build_id);
  WorkerSession::Snapshot snapshot() const;
  absl::Status Ready() const;

  const WorkerMetrics metrics_;
  mutable Mutex mutex_;
  std::shared_ptr<const WorkerSession> session_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<HttpServer> server_;  // last: it asks the rest
};

}  // namespace bellwether
