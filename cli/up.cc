#include "cli/up.h"

#include <cstdio>

#include "cli/stop.h"
#include "cli/terminal.h"
#include "common/service_notify.h"
#include "common/status.h"
#include "common/tls_options.h"

namespace bellwether {

absl::Status RunUp(const ClusterOptions& options) {
  WatchStopSignals();
  if (!options.insecure) {  // the coordinator would ask for flags that `up` has not
    BW_RETURN_IF_ERROR(CheckPlaintext("--listen", options.listen, kTlsForUp));
    BW_RETURN_IF_ERROR(CheckPlaintext("--worker-listen", options.worker_listen, kTlsForUp));
    BW_RETURN_IF_ERROR(CheckPlaintext("--http-listen", options.http_listen, kTlsForUp));
  }
  StatusLine line;
  BW_ASSIGN_OR_RETURN(const auto cluster,
                      ManagedCluster::Start(options, [&](const std::string& text) { line.Show(text); }));
  line.Clear();
  const ServedModel& model = cluster->model();
  std::fprintf(stderr, "%s is served at %s\n  %s, %s, weights %s, %d KV blocks, context %d tokens\n",
               model.name.c_str(), cluster->address().c_str(), model.layout.c_str(),
               model.kernel_level.c_str(), model.weights.c_str(), model.kv_blocks, model.context_tokens);
  if (!cluster->http_address().empty()) {
    std::fprintf(stderr, "  OpenAI's clients find it at http://%s/v1\n", cluster->http_address().c_str());
  }
  if (!cluster->metrics_address().empty()) {
    std::fprintf(stderr, "  Prometheus finds all metrics by http://%s/http_sd\n",
                 cluster->metrics_address().c_str());
  }
  std::fprintf(stderr, "  ^C ends it.\n");
  NotifyService("READY=1");
  BW_RETURN_IF_ERROR(cluster->Supervise(StopRequested));
  NotifyService("STOPPING=1");
  std::fprintf(stderr, "finishing what is running, ^C again ends it at once ...\n");
  return cluster->Stop();
}

}  // namespace bellwether
