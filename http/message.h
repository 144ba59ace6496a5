#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bellwether {

// What HTTP says, as plain structs.

struct HttpHeader {
  std::string name;  // compared without case
  std::string value;
};
using HttpHeaders = std::vector<HttpHeader>;  // in their order, names may repeat

// The first value under that name; null if there is none. Lives as long as `headers`.
const std::string* FindHeader(const HttpHeaders& headers, std::string_view name);

// The same as text; empty if there is none.
std::string HeaderText(const HttpHeaders& headers, std::string_view name);

struct HttpRequest {
  std::string method;  // "GET"; case counts
  std::string path;    // begins with '/', percent-decoded, without the query
  std::string query;   // what followed the '?', as it was sent
  HttpHeaders headers;
  std::string body;
  std::string remote;  // HOST:PORT of who asks
};

struct HttpResponse {
  int status = 200;
  // Besides those that the server adds: Date, Content-Length, Transfer-Encoding, Connection. Control
  // characters in a value are written as spaces.
  HttpHeaders headers;
  std::string body;
};
// A response of plain text, which ends with a line feed.
HttpResponse PlainResponse(int status, std::string_view text);

// "Not Found" for 404; "Unknown" for a number that nobody has named.
std::string_view ReasonPhrase(int status);

// What follows the method in a request's first line.
struct HttpTarget {
  std::string path;   // as in HttpRequest
  std::string query;  // likewise
};
// "/v1/models?a=b", or the same after "http://HOST" as proxies are asked. InvalidArgument: neither, a '%'
// without two hexadecimal digits after it, or a path that holds a control character.
absl::StatusOr<HttpTarget> ParseTarget(std::string_view text);

}  // namespace bellwether
