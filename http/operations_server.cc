#include "http/operations_server.h"

#include <utility>

#include "common/host_port.h"
#include "common/log.h"

namespace bellwether {
namespace {

constexpr char kMetricsContentType[] = "text/plain; version=0.0.4; charset=utf-8";
// Of those who watch; a scrape is not worth more.
constexpr HttpLimits kLimits = {.body_bytes_max = 0,
                                .bodies_bytes_max = 0,
                                .stream_bytes_max = size_t{1} << 20,
                                .connections_max = 64,
                                .write_time = absl::Seconds(10)};

HttpResponse Answer(const absl::Status& status, std::string_view good) {
  if (status.ok()) return PlainResponse(200, good);
  return PlainResponse(503, std::string_view(status.message().data(), status.message().size()));
}

std::vector<HttpRoute> Routes(OperationsPages pages) {
  std::vector<HttpRoute> routes = std::move(pages.more);
  routes.push_back(
      {"GET", "/metrics", [metrics = std::move(pages.metrics)](const HttpRequest&, const auto& exchange) {
         exchange->Respond({.headers = {{"Content-Type", kMetricsContentType}}, .body = metrics()});
       }});
  const auto probe = [&](const char* path, std::function<absl::Status()> ask, const char* good) {
    routes.push_back({"GET", path, [ask = std::move(ask), good](const HttpRequest&, const auto& exchange) {
                        exchange->Respond(Answer(ask(), good));
                      }});
  };
  probe("/healthz", std::move(pages.alive), "ok");
  probe("/readyz", std::move(pages.ready), "ready");
  return routes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> StartOperationsServer(OperationsPort port,
                                                                  OperationsPages pages) {
  HttpServer::Options options{.listen = std::move(port.listen),
                              .routes = Routes(std::move(pages)),
                              .limits = kLimits,
                              .tls = std::move(port.tls)};
  auto server = HttpServer::Start(options);
  if (!absl::IsAlreadyExists(server.status()) || options.listen.address != port.default_address)
    return server;
  absl::StatusOr<HostPort> free = ParseHostPort(port.default_address);
  if (!free.ok()) return free.status();
  free->port = 0;
  options.listen.address = free->ToString();
  server = HttpServer::Start(options);
  if (server.ok()) LogInfo(port.default_address, " is taken: metrics are at ", (*server)->address());
  return server;
}

}  // namespace bellwether
