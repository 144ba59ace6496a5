#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/cluster_service.h"
#include "coordinator/request_service.h"
#include "http/router.h"

namespace bellwether {

// The door of the RequestService that speaks HTTP as OpenAI's clients expect it.
class HttpGateway {
 public:
  struct Options {
    std::vector<std::string> model_names;  // at least one; requests name one of them
    std::string weights;                   // "bf16", "int8" ...
    std::string version;                   // of the program
    RequestService* requests = nullptr;    // its threads end before the gateway does
    std::function<ClusterService::Status()> cluster_status;
  };
  explicit HttpGateway(Options options);

  // For a server, which ends before the gateway does.
  std::vector<HttpRoute> Routes();

  RequestService& requests() const { return *options_.requests; }
  // NotFound, with OpenAI's code, unless the model goes by that name.
  absl::Status CheckModel(const std::string& name) const;
  // Names what decides the bits of an answer besides the request: OpenAI's system_fingerprint.
  std::string Fingerprint() const;

 private:
  std::string ModelJson(const std::string& name) const;
  // Whether the client may ask; if not, it has been told.
  bool Allows(const HttpRequest& request, HttpExchange& exchange) const;
  void ListModels(HttpExchange& exchange) const;
  void GetModel(const std::string& name, HttpExchange& exchange) const;
  void TokenizerInfo(HttpExchange& exchange) const;
  void Health(HttpExchange& exchange) const;
  void Version(HttpExchange& exchange) const;
  void Page(HttpExchange& exchange) const;

  const Options options_;
  const int64_t created_;  // seconds since 1970
};

}  // namespace bellwether
