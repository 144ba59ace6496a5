#pragma once

#include <string>
#include <string_view>

namespace bellwether {

// The header by which a request is known in traces: W3C Trace Context, level 1.
inline constexpr char kTraceparent[] = "traceparent";

// The trace's id in such a header, 32 hexadecimal digits; empty if it is none: two digits of a version, the
// id, the caller's span, flags, between hyphens, and after those of version 00 nothing.
std::string TraceIdOf(std::string_view traceparent);

}  // namespace bellwether
