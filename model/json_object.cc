#include "model/json_object.h"

#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {

// At most this much of a wrong value is shown.
constexpr size_t kShownBytes = 40;

std::string Show(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kShownBytes) text = text.substr(0, kShownBytes) + "...";
  return text;
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(const std::string& text) {
  if (text.size() > kJsonBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(text.size(), " bytes of JSON where at most ", kJsonBytesMax, " are read"));
  }
  bool too_deep = false;
  const auto watch_depth = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    too_deep |= depth > kJsonDepthMax;
    return !too_deep;  // what lies deeper is dropped at once
  };
  nlohmann::json value = nlohmann::json::parse(text, watch_depth, /*allow_exceptions=*/false);
  if (too_deep) {
    return absl::InvalidArgumentError(absl::StrCat("JSON nested deeper than ", kJsonDepthMax, " levels"));
  }
  if (value.is_discarded()) return absl::InvalidArgumentError("not valid JSON");
  if (!value.is_object()) return absl::InvalidArgumentError("not a JSON object");
  return value;
}

bool JsonFields::Has(const char* name) const {
  const auto found = object_.find(name);
  return found != object_.end() && !found->is_null();
}

const nlohmann::json* JsonFields::Find(Names names) {
  const nlohmann::json* result = nullptr;
  const char* result_name = nullptr;
  for (const char* name : names) {
    const auto found = object_.find(name);
    if (found == object_.end() || found->is_null()) continue;
    if (result != nullptr && *result != *found) {
      Fail(absl::StrCat("'", result_name, "' is ", Show(*result), " but '", name, "' is ", Show(*found)));
    }
    if (result == nullptr) {
      result = &*found;
      result_name = name;
    }
  }
  return result;
}

int64_t JsonFields::Integer(Names names, std::optional<int64_t> absent) {
  const nlohmann::json* value = Find(names);
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
  const nlohmann::json* value = Find(names);
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
  const nlohmann::json* value = Find(names);
  if (value == nullptr) return absent;
  if (!value->is_boolean()) {
    Fail(absl::StrCat("'", *names.begin(), "' should be true or false, not ", Show(*value)));
    return absent;
  }
  return value->get<bool>();
}

std::string JsonFields::Text(Names names, const std::string& absent) {
  const nlohmann::json* value = Find(names);
  if (value == nullptr) return absent;
  if (!value->is_string()) {
    Fail(absl::StrCat("'", *names.begin(), "' should be a string, not ", Show(*value)));
    return absent;
  }
  return value->get<std::string>();
}

std::vector<int64_t> JsonFields::Integers(const char* name) {
  std::vector<int64_t> result;
  const nlohmann::json* value = Find({name});
  if (value == nullptr) return result;
  const auto add = [&](const nlohmann::json& element) {
    if (element.is_number_integer() &&
        !(element.is_number_unsigned() && element.get<uint64_t>() > uint64_t{INT64_MAX})) {
      result.push_back(element.get<int64_t>());
    } else {
      Fail(absl::StrCat("'", name, "' should be an integer or a list of integers, not ", Show(*value)));
    }
  };
  if (value->is_array()) {
    for (const nlohmann::json& element : *value) add(element);
  } else {
    add(*value);
  }
  return result;
}

void JsonFields::Fail(const std::string& message) {
  if (status_.ok()) status_ = absl::InvalidArgumentError(message);
}

}  // namespace bellwether
