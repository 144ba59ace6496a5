#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/json.h"

namespace bellwether {

// Largest configuration file that is read: config.json is some KB, a sharded index a few hundred.
inline constexpr size_t kJsonBytesMax = size_t{16} << 20;

// The JSON object in `text`. InvalidArgument: longer than `bytes_max`, not JSON (common/json.h) or not an
// object.
absl::StatusOr<Json> ParseJsonObject(std::string_view text, size_t bytes_max = kJsonBytesMax);

// Typed access to the fields of a JSON object whose writers spell keys in several ways. `names` are aliases:
// none need be there, and two that contradict each other are an error. null counts as absent. The first error
// is kept and later calls give defaults, so that a caller reads all fields and checks status() once.
class JsonFields {
 public:
  using Names = std::initializer_list<const char*>;

  // `object` must outlive this.
  explicit JsonFields(const Json& object) : object_(object) {}

  bool Has(const char* name) const;
  int64_t Integer(Names names, std::optional<int64_t> absent);  // absent without a value: an error
  double Number(Names names, std::optional<double> absent);     // finite
  bool Bool(Names names, bool absent);
  std::string Text(Names names, const std::string& absent);
  // An integer or a list of integers; empty if absent.
  std::vector<int64_t> Integers(const char* name);

  // Keeps the first error of all.
  void Fail(const std::string& message);
  const absl::Status& status() const { return status_; }

 private:
  // Null if no name is there or a value is null.
  const Json* Find(Names names);

  const Json& object_;
  absl::Status status_;
};

}  // namespace bellwether
