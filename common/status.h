#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

// The world's errors travel as absl::Status; these two macros hand them to the caller.

#define BW_RETURN_IF_ERROR(expression)                                            \
  do {                                                                            \
    if (absl::Status bw_status = (expression); !bw_status.ok()) return bw_status; \
  } while (false)

#define BW_CONCAT_INNER(a, b) a##b
#define BW_CONCAT(a, b) BW_CONCAT_INNER(a, b)

// BW_ASSIGN_OR_RETURN(auto x, F()): x is the value of F(), or the enclosing function returns F()'s error.
#define BW_ASSIGN_OR_RETURN(lhs, expression) \
  BW_ASSIGN_OR_RETURN_INNER(BW_CONCAT(bw_or_, __LINE__), lhs, expression)
#define BW_ASSIGN_OR_RETURN_INNER(result, lhs, expression) \
  auto result = (expression);                              \
  if (!result.ok()) return std::move(result).status();     \
  lhs = *std::move(result)

namespace bellwether {

// The same error with `context` in front: "worker 2, stage 1: no such file".
inline absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(context, ": ", status.message()));
}

}  // namespace bellwether
