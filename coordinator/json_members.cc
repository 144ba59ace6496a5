#include "coordinator/json_members.h"

#include "absl/strings/str_cat.h"
#include "coordinator/request_error.h"

namespace bellwether {
namespace {

std::string Between(double low, double high) { return absl::StrCat("from ", low, " to ", high); }

}  // namespace

absl::Status MustBe(std::string_view name, std::string_view what) {
  return WithField(
      absl::InvalidArgumentError(absl::StrCat(std::string(name), " must be ", std::string(what))), name);
}

bool ReadIds(const Json& value, std::vector<TokenId>* out) {
  if (!value.is_array()) return false;
  out->reserve(value.size());
  for (const Json& id : value) {
    if (!id.is_number_integer() || id.get<int64_t>() != static_cast<TokenId>(id.get<int64_t>())) return false;
    out->push_back(id.get<TokenId>());
  }
  return true;
}

const Json* JsonMembers::Find(std::string_view name) const {
  const Json* value = object_.find(name);
  return value != nullptr && value->is_null() ? nullptr : value;
}

absl::Status JsonMembers::Read(std::string_view name, bool* out) const {
  const Json* value = Find(name);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_boolean()) return MustBe(name, "true or false");
  *out = value->get<bool>();
  return absl::OkStatus();
}

absl::Status JsonMembers::Read(std::string_view name, std::string* out) const {
  const Json* value = Find(name);
  if (value == nullptr) return absl::OkStatus();
  if (!value->is_string()) return MustBe(name, "a string");
  *out = value->text();
  return absl::OkStatus();
}

absl::Status JsonMembers::Read(std::string_view name, std::vector<TokenId>* out) const {
  const Json* value = Find(name);
  if (value == nullptr || ReadIds(*value, out)) return absl::OkStatus();
  return MustBe(name, "a list of token ids");
}

absl::Status JsonMembers::ReadInteger(std::string_view name, int64_t low, int64_t high,
                                      std::optional<int32_t>* out) const {
  const Json* value = Find(name);
  if (value == nullptr) return absl::OkStatus();
  const bool fits = value->is_number_integer() && value->get<double>() >= static_cast<double>(low) &&
                    value->get<double>() <= static_cast<double>(high);
  if (!fits) return MustBe(name, absl::StrCat("a whole number from ", low, " to ", high));
  *out = value->get<int32_t>();
  return absl::OkStatus();
}

absl::Status JsonMembers::ReadNumber(std::string_view name, double low, double high,
                                     std::optional<double>* out) const {
  const Json* value = Find(name);
  if (value == nullptr) return absl::OkStatus();
  const bool fits = value->is_number() && value->get<double>() >= low && value->get<double>() <= high;
  if (!fits) return MustBe(name, absl::StrCat("a number ", Between(low, high)));
  *out = value->get<double>();
  return absl::OkStatus();
}

}  // namespace bellwether
