#include "http/message.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"

namespace bellwether {
namespace {

// -1: not a hexadecimal digit.
int HexValue(char c) {
  if (absl::ascii_isdigit(c)) return c - '0';
  if (absl::ascii_isxdigit(c)) return absl::ascii_tolower(c) - 'a' + 10;
  return -1;
}

absl::Status Refuse(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(Quoted(text), " is no request target: ", std::string(why)));
}

// Of "http://HOST:PORT/path" the part from the path on; empty if `text` is of no such form.
std::string_view AfterAuthority(std::string_view text) {
  constexpr std::string_view kScheme = "http://";
  if (!absl::StartsWithIgnoreCase(absl::string_view(text.data(), text.size()), "http://")) return {};
  const size_t end = text.find_first_of("/?", kScheme.size());
  return end == std::string_view::npos ? "/" : text.substr(end);
}

}  // namespace

const std::string* FindHeader(const HttpHeaders& headers, std::string_view name) {
  const auto found = std::find_if(headers.begin(), headers.end(), [&](const HttpHeader& header) {
    return absl::EqualsIgnoreCase(header.name, absl::string_view(name.data(), name.size()));
  });
  return found == headers.end() ? nullptr : &found->value;
}

std::string HeaderText(const HttpHeaders& headers, std::string_view name) {
  const std::string* value = FindHeader(headers, name);
  return value == nullptr ? std::string() : *value;
}

HttpResponse PlainResponse(int status, std::string_view text) {
  return {.status = status,
          .headers = {{"Content-Type", "text/plain; charset=utf-8"}},
          .body = absl::StrCat(std::string(text), "\n")};
}

std::string_view ReasonPhrase(int status) {
  constexpr std::pair<int, std::string_view> kPhrases[] = {
      {100, "Continue"},
      {200, "OK"},
      {204, "No Content"},
      {304, "Not Modified"},
      {400, "Bad Request"},
      {401, "Unauthorized"},
      {403, "Forbidden"},
      {404, "Not Found"},
      {405, "Method Not Allowed"},
      {408, "Request Timeout"},
      {409, "Conflict"},
      {413, "Content Too Large"},
      {417, "Expectation Failed"},
      {429, "Too Many Requests"},
      {431, "Request Header Fields Too Large"},
      {500, "Internal Server Error"},
      {501, "Not Implemented"},
      {503, "Service Unavailable"},
      {504, "Gateway Timeout"},
      {505, "HTTP Version Not Supported"},
  };
  for (const auto& [known, phrase] : kPhrases) {
    if (known == status) return phrase;
  }
  return "Unknown";
}

absl::StatusOr<HttpTarget> ParseTarget(std::string_view text) {
  const std::string_view rest = text.starts_with('/') ? text : AfterAuthority(text);
  if (rest.empty()) return Refuse(text, "it does not begin with '/'");
  const size_t mark = rest.find('?');
  const std::string_view path = rest.substr(0, mark);
  HttpTarget target;
  if (mark != std::string_view::npos) target.query = std::string(rest.substr(mark + 1));
  for (size_t i = 0; i < path.size(); ++i) {
    char byte = path[i];
    if (byte == '%') {
      const int high = i + 2 < path.size() ? HexValue(path[i + 1]) : -1;
      const int low = i + 2 < path.size() ? HexValue(path[i + 2]) : -1;
      if (high < 0 || low < 0) return Refuse(text, "a '%' has no two hexadecimal digits after it");
      byte = static_cast<char>(16 * high + low);
      i += 2;
    }
    if (absl::ascii_iscntrl(byte)) return Refuse(text, "its path holds a control character");
    target.path += byte;
  }
  if (target.path.empty()) target.path.push_back('/');
  return target;
}

}  // namespace bellwether
