#include "http/origin_rules.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/host_port.h"
#include "common/quote.h"

namespace bellwether {
namespace {

constexpr char kAnyOrigin[] = "*";
// Browsers ask again after so long.
constexpr char kPreflightSeconds[] = "600";

// "localhost:7480" is of this machine; without a port HTTP's own is meant.
bool NamesLoopback(std::string_view host) {
  for (const std::string& text : {std::string(host), absl::StrCat(std::string(host), ":80")}) {
    if (const auto address = ParseHostPort(text); address.ok()) return address->IsLoopback();
  }
  return false;
}

}  // namespace

OriginRules::OriginRules(std::vector<std::string> allowed, bool loopback)
    : allowed_(std::move(allowed)), loopback_(loopback) {}

absl::StatusOr<OriginRules> OriginRules::Parse(std::string_view allowed, bool loopback) {
  if (allowed.empty()) return OriginRules({}, loopback);
  std::vector<std::string> origins = absl::StrSplit(absl::string_view(allowed.data(), allowed.size()), ',');
  for (std::string& origin : origins) {
    absl::StripAsciiWhitespace(&origin);
    absl::AsciiStrToLower(&origin);  // as browsers do
    const size_t scheme = origin.find("://");
    const bool whole = scheme != std::string::npos && scheme > 0 && scheme + 3 < origin.size() &&
                       origin.find_first_of("/ ", scheme + 3) == std::string::npos;
    if (!whole && origin != kAnyOrigin) {
      return absl::InvalidArgumentError(
          absl::StrCat(Quoted(origin),
                       " is no web page's origin: write SCHEME://HOST or SCHEME://HOST:PORT, such as "
                       "https://chat.example.com, or * for all"));
    }
  }
  return OriginRules(std::move(origins), loopback);
}

bool OriginRules::IsListed(std::string_view origin) const {
  return std::any_of(allowed_.begin(), allowed_.end(),
                     [&](const std::string& it) { return it == kAnyOrigin || it == origin; });
}

bool OriginRules::Allows(std::string_view origin, std::string_view host) const {
  if (origin.empty() || IsListed(origin)) return true;
  const size_t scheme = origin.find("://");
  if (scheme == std::string_view::npos || origin.substr(scheme + 3) != host) return false;
  return !loopback_ || NamesLoopback(host);
}

HttpHeaders OriginRules::AnswerHeaders(std::string_view origin) const {
  if (origin.empty() || !IsListed(origin)) return {};
  return {{"Access-Control-Allow-Origin", std::string(origin)},
          {"Access-Control-Expose-Headers", "x-request-id, Retry-After"},
          {"Vary", "Origin"}};
}

HttpResponse OriginRules::Preflight(std::string_view headers) {
  HttpResponse response{.status = 204,
                        .headers = {{"Access-Control-Allow-Methods", "GET, POST"},
                                    {"Access-Control-Max-Age", kPreflightSeconds}}};
  if (!headers.empty()) response.headers.push_back({"Access-Control-Allow-Headers", std::string(headers)});
  return response;
}

}  // namespace bellwether
