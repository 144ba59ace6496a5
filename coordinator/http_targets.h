#pragma once

#include <functional>
#include <memory>
#include <string>

#include "coordinator/cluster_snapshot.h"
#include "http/router.h"

namespace bellwether {

// GET /http_sd: where Prometheus finds the metrics of the whole cluster, so that one entry in its
// settings is enough. The coordinator itself, at the address by which it was asked, and every worker that
// says where its metrics are, each with the scheme that it speaks.
// `__meta_bellwether_program` and `__meta_bellwether_worker` are there for relabelling.
// `tls`: the coordinator's own are served by TLS.
HttpRoute TargetsRoute(bool tls, std::function<std::shared_ptr<const ClusterSnapshot>()> cluster);

// What it answers: the text of JSON. `self`: HOST:PORT of the coordinator's own metrics; left out if it is
// none.
std::string TargetsJson(const std::string& self, bool tls, const ClusterSnapshot& cluster);

}  // namespace bellwether
