#include "coordinator/request_error.h"

#include "absl/strings/cord.h"

namespace bellwether {
namespace {

constexpr char kField[] = "bellwether/field";
constexpr char kCode[] = "bellwether/code";

absl::Status With(absl::Status status, const char* kind, std::string_view value) {
  status.SetPayload(kind, absl::Cord(absl::string_view(value.data(), value.size())));
  return status;
}

std::string Of(const absl::Status& status, const char* kind) {
  const auto payload = status.GetPayload(kind);
  return payload ? std::string(*payload) : std::string();
}

}  // namespace

absl::Status WithField(absl::Status status, std::string_view field) {
  return With(std::move(status), kField, field);
}
absl::Status WithCode(absl::Status status, std::string_view code) {
  return With(std::move(status), kCode, code);
}
std::string FieldOf(const absl::Status& status) { return Of(status, kField); }
std::string CodeOf(const absl::Status& status) { return Of(status, kCode); }

}  // namespace bellwether
