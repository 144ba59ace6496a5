#include "coordinator/trace_context.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "common/quote.h"

namespace bellwether {
namespace {

constexpr size_t kBytesMax = 512;  // later versions may append fields

bool IsHex(absl::string_view text, size_t digits) {
  const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return text.size() == digits && std::all_of(text.begin(), text.end(), is_digit);
}
// Zeros alone stand for nobody.
bool IsId(absl::string_view text, size_t digits) {
  return IsHex(text, digits) && text.find_first_not_of('0') != absl::string_view::npos;
}

}  // namespace

std::string TraceIdOf(std::string_view traceparent) {
  // It is echoed in headers, and gRPC ends the process that gives it bytes which are not allowed there.
  if (traceparent.size() > kBytesMax || !IsPlainWord(traceparent)) return {};
  const absl::string_view text(traceparent.data(), traceparent.size());
  const std::vector<absl::string_view> fields = absl::StrSplit(text, '-');
  if (fields.size() < 4 || !IsHex(fields[0], 2) || fields[0] == "ff") return {};
  if (fields[0] == "00" && fields.size() != 4) return {};
  if (!IsId(fields[1], 32) || !IsId(fields[2], 16) || !IsHex(fields[3], 2)) return {};
  return std::string(fields[1]);
}

}  // namespace bellwether
