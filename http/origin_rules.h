#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "http/message.h"

namespace bellwether {

// Which web pages may use a server from within a browser, by what that says of them: the headers Origin and
// Host, and the CORS protocol of the Fetch standard. Immutable: any thread.
//
// Browsers let any page send requests anywhere, and only keep the answers from it; so a page of another site
// could have a model at 127.0.0.1 compute. And a site whose name resolves to 127.0.0.1 (DNS rebinding) is for
// a browser the server's own.
class OriginRules {
 public:
  // `allowed`: origins as browsers write them, "https://chat.example.com", or "*" for all. `loopback`: the
  // server listens on this machine alone.
  OriginRules() = default;  // no page is allowed but the server's own, which listens on any address
  OriginRules(std::vector<std::string> allowed, bool loopback);
  // With a list as people write it, with commas. InvalidArgument: an entry that no browser would send.
  static absl::StatusOr<OriginRules> Parse(std::string_view allowed, bool loopback);

  // Whether the request comes from no page (`origin` is empty), from an allowed one, or from one of the
  // server's own: its origin is `host`, and on loopback that is a name of the loopback.
  bool Allows(std::string_view origin, std::string_view host) const;
  // What lets an allowed page read the answer; none for others.
  HttpHeaders AnswerHeaders(std::string_view origin) const;
  // The answer to what browsers ask before they send another site's request, which would have `headers`
  // besides the simple ones.
  static HttpResponse Preflight(std::string_view headers);

 private:
  bool IsListed(std::string_view origin) const;

  std::vector<std::string> allowed_;
  bool loopback_ = false;
};

}  // namespace bellwether
