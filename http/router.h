#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "http/exchange.h"

namespace bellwether {

struct HttpRoute {
  std::string method;  // "GET" answers HEAD too
  std::string path;    // "/v1/models", or "/v1/models/*" for all that is longer
  HttpHandler handler;
};

// Which handler a request is for. Immutable: any thread.
class HttpRouter {
 public:
  explicit HttpRouter(std::vector<HttpRoute> routes) : routes_(std::move(routes)) {}

  struct Match {
    const HttpHandler* handler = nullptr;  // lives as long as the router; null: none
    std::string allow;  // then: the methods that the path has, "GET, HEAD"; empty: no such path
  };
  // Of several routes the first one counts.
  Match Find(std::string_view method, std::string_view path) const;

 private:
  const std::vector<HttpRoute> routes_;
};

}  // namespace bellwether
