#include "coordinator/http_targets.h"

#include <utility>

#include "common/host_port.h"
#include "common/json.h"

namespace bellwether {
namespace {

Json Group(const std::string& target, bool tls, const char* program, const std::string& worker) {
  Json::Object labels = {{"__meta_bellwether_program", program}};
  if (tls) labels.emplace_back("__scheme__", "https");
  if (!worker.empty()) labels.emplace_back("__meta_bellwether_worker", worker);
  return Json::object({{"targets", Json::array({target})}, {"labels", std::move(labels)}});
}

}  // namespace

std::string TargetsJson(const std::string& self, bool tls, const ClusterSnapshot& cluster) {
  Json groups = Json::array();
  if (ParseHostPort(self).ok()) groups.push_back(Group(self, tls, "coordinator", ""));
  for (const ClusterSnapshot::Worker& worker : cluster.workers) {
    if (!worker.metrics_address.empty())
      groups.push_back(Group(worker.metrics_address, worker.metrics_tls, "worker", worker.name));
  }
  return WriteJson(groups, /*indent=*/2) + "\n";
}

HttpRoute TargetsRoute(bool tls, std::function<std::shared_ptr<const ClusterSnapshot>()> cluster) {
  return {"GET", "/http_sd",
          [tls, cluster = std::move(cluster)](const HttpRequest& request, const auto& exchange) {
            const std::string* host = FindHeader(request.headers, "Host");
            exchange->Respond({.headers = {{"Content-Type", "application/json"}},
                               .body = TargetsJson(host != nullptr ? *host : "", tls, *cluster())});
          }};
}

}  // namespace bellwether
