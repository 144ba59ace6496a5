#include "common/host_port.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"

namespace bellwether {
namespace {

constexpr size_t kHostBytesMax = 253;  // of a name in DNS
constexpr int kPortMax = 65535;

bool IsAddress(int family, const std::string& host) {
  unsigned char bytes[sizeof(in6_addr)];
  return inet_pton(family, host.c_str(), bytes) == 1;
}

// Labels of letters, digits, '-' and '_' with dots between them. Digits and dots alone are an IPv4 address or
// nothing.
bool IsHost(std::string_view host) {
  const auto fits = [](char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.'; };
  if (host.empty() || host.size() > kHostBytesMax || !std::all_of(host.begin(), host.end(), fits))
    return false;
  if (host.front() == '.' || host.front() == '-' || host.find("..") != std::string_view::npos) return false;
  if (host.find_first_not_of("0123456789.") != std::string_view::npos) return true;
  return IsAddress(AF_INET, std::string(host));
}

// -1: none. Digits alone, without a sign or blanks.
int ParsePort(std::string_view text) {
  if (text.empty() || text.size() > 5) return -1;
  int port = 0;
  for (const char c : text) {
    if (!absl::ascii_isdigit(c)) return -1;
    port = 10 * port + (c - '0');
  }
  return port <= kPortMax ? port : -1;
}

absl::Status Refuse(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(Quoted(text), " is no address: ", std::string(why),
                                                 "; write HOST:PORT, such as 127.0.0.1:7400 or [::1]:7400"));
}

}  // namespace

bool HostPort::IsLoopback() const {
  return host == "::1" || absl::EqualsIgnoreCase(host, "localhost") ||
         (host.starts_with("127.") && IsAddress(AF_INET, host));
}

std::string HostPort::ToString() const {
  const bool v6 = host.find(':') != std::string::npos;
  return absl::StrCat(v6 ? "[" : "", host, v6 ? "]:" : ":", port);
}

absl::StatusOr<HostPort> ParseHostPort(std::string_view text, bool any_port) {
  const bool bracket = text.starts_with('[');
  const size_t colon = bracket ? text.find(']') + 1 : text.find(':');  // npos + 1 is 0
  if (colon >= text.size() || text[colon] != ':') return Refuse(text, "it has no port");
  HostPort address{.host = std::string(bracket ? text.substr(1, colon - 2) : text.substr(0, colon))};
  const std::string_view port = text.substr(colon + 1);
  if (bracket && !IsAddress(AF_INET6, address.host))
    return Refuse(text, "no IPv6 address is in its brackets");
  if (!bracket && port.find(':') != std::string_view::npos)
    return Refuse(text, "an IPv6 address stands in brackets");
  if (!bracket && !IsHost(address.host))
    return Refuse(text, "its host is neither a name nor an IPv4 address");
  address.port = ParsePort(port);
  const int least = any_port ? 0 : 1;
  if (address.port < least) return Refuse(text, absl::StrCat("its port is not ", least, " to ", kPortMax));
  return address;
}

}  // namespace bellwether
