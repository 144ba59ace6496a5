#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "common/ids.h"
#include "common/json.h"

namespace bellwether {

// The members of a JSON object that a client wrote, read by name. Absent and null leave `out` as it is.
// Errors are InvalidArgument, say what is allowed, and carry the member as their field.
class JsonMembers {
 public:
  explicit JsonMembers(const Json& object) : object_(object) {}  // which outlives this

  // Null pointer: absent or null.
  const Json* Find(std::string_view name) const;

  absl::Status Read(std::string_view name, bool* out) const;
  absl::Status Read(std::string_view name, std::string* out) const;
  absl::Status Read(std::string_view name, std::vector<TokenId>* out) const;  // a list of 32-bit numbers
  absl::Status ReadInteger(std::string_view name, int64_t low, int64_t high,
                           std::optional<int32_t>* out) const;
  absl::Status ReadNumber(std::string_view name, double low, double high, std::optional<double>* out) const;

 private:
  const Json& object_;
};

// "NAME must be ...", with its field.
absl::Status MustBe(std::string_view name, std::string_view what);
// Whether `value` is a list of numbers that a TokenId holds, which are put into `out`.
bool ReadIds(const Json& value, std::vector<TokenId>* out);

}  // namespace bellwether
