#include "http/router.h"

#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {

bool PathFits(std::string_view pattern, std::string_view path) {
  if (!pattern.ends_with('*')) return path == pattern;
  pattern.remove_suffix(1);
  return path.size() > pattern.size() && path.starts_with(pattern);
}

bool MethodFits(std::string_view of_route, std::string_view method) {
  return of_route == method || (of_route == "GET" && method == "HEAD");
}

}  // namespace

HttpRouter::Match HttpRouter::Find(std::string_view method, std::string_view path) const {
  Match match;
  for (const HttpRoute& route : routes_) {
    if (!PathFits(route.path, path)) continue;
    if (MethodFits(route.method, method)) return {.handler = &route.handler, .allow = {}};
    absl::StrAppend(&match.allow, match.allow.empty() ? "" : ", ",
                    route.method == "GET" ? "GET, HEAD" : route.method);
  }
  return match;
}

}  // namespace bellwether
