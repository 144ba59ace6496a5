#include "model/json_object.h"

#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"

namespace bellwether {
namespace {

// At most this much of a wrong value is shown.
constexpr size_t kShownBytes = 40;

std::string Show(const Json& value) {
  if (value.is_not_finite()) return "a number that is not finite";
  const std::string text = WriteJson(value);
  return text.size() <= kShownBytes ? text : std::string(CutText(text, kShownBytes)) + "...";
}

}  // namespace

absl::StatusOr<Json> ParseJsonObject(std::string_view text, size_t bytes_max) {
  if (text.size() > bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrCat(text.size(), " bytes of JSON where at most ", bytes_max, " are read"));
  }
  BW_ASSIGN_OR_RETURN(Json value, ParseJson(text));
  if (!value.is_object()) return absl::InvalidArgumentError("not a JSON object");
  return value;
}

bool JsonFields::Has(const char* name) const { return !object_[name].is_null(); }

const Json* JsonFields::Find(Names names) {
  const Json* result = nullptr;
  const char* result_name = nullptr;
  for (const char* name : names) {
    const Json& found = object_[name];
    if (found.is_null()) continue;
    if (result != nullptr && *result != found) {
      Fail(absl::StrCat("'", result_name, "' is ", Show(*result), " but '", name, "' is ", Show(found)));
    }
    if (result == nullptr) {
      result = &found;
      result_name = name;
    }
  }
  return result;
}

int64_t JsonFields::Integer(Names names, std::optional<int64_t> absent) {
  const Json* value = Find(names);
  if (value == nullptr) {
    if (!absent.has_value()) Fail(absl::StrCat("'", *names.begin(), "' is missing"));
    return absent.value_or(0);
  }
  if (!value->is_number_integer() ||
      (value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{INT64_MAX})) {
    Fail(absl::StrCat("'", *names.begin(), "' should be an integer, not ", Show(*value)));
    return absent.value_or(0);
  }
  return value->get<int64_t>();
}

double JsonFields::Number(Names names, std::optional<double> absent) {
  const Json* value = Find(names);
  if (value == nullptr) {
    if (!absent.has_value()) Fail(absl::StrCat("'", *names.begin(), "' is missing"));
    return absent.value_or(0);
  }
  if (!value->is_number()) {
    Fail(absl::StrCat("'", *names.begin(), "' should be a number, not ", Show(*value)));
    return absent.value_or(0);
  }
  return value->get<double>();
}

bool JsonFields::Bool(Names names, bool absent) {
  const Json* value = Find(names);
  if (value == nullptr) return absent;
  if (!value->is_boolean()) {
    Fail(absl::StrCat("'", *names.begin(), "' should be true or false, not ", Show(*value)));
    return absent;
  }
  return value->get<bool>();
}

std::string JsonFields::Text(Names names, const std::string& absent) {
  const Json* value = Find(names);
  if (value == nullptr) return absent;
  if (!value->is_string()) {
    Fail(absl::StrCat("'", *names.begin(), "' should be a string, not ", Show(*value)));
    return absent;
  }
  return value->get<std::string>();
}

std::vector<int64_t> JsonFields::Integers(const char* name) {
  std::vector<int64_t> result;
  const Json* value = Find({name});
  if (value == nullptr) return result;
  const auto add = [&](const Json& element) {
    if (element.is_number_integer() &&
        !(element.is_number_unsigned() && element.get<uint64_t>() > uint64_t{INT64_MAX})) {
      result.push_back(element.get<int64_t>());
    } else {
      Fail(absl::StrCat("'", name, "' should be an integer or a list of integers, not ", Show(*value)));
    }
  };
  if (value->is_array()) {
    for (const Json& element : *value) add(element);
  } else {
    add(*value);
  }
  return result;
}

void JsonFields::Fail(const std::string& message) {
  if (status_.ok()) status_ = absl::InvalidArgumentError(message);
}

}  // namespace bellwether
