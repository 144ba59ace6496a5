#include "coordinator/http_error.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/json.h"
#include "coordinator/request_error.h"

namespace bellwether {
namespace {

// inference.proto has sampling options in a message of their own, OpenAI beside the others.
constexpr char kSampling[] = "sampling.";

struct ErrorKind {
  int http;
  const char* type;
  const char* code = nullptr;
  const char* retry_after = nullptr;  // seconds
};

ErrorKind KindOf(const absl::Status& status) {
  // Whatever a door in between calls it: the same request will never do.
  if (CodeOf(status) == kContextLengthExceeded) return {400, "invalid_request_error"};
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kFailedPrecondition:
      return {400, "invalid_request_error"};
    case absl::StatusCode::kUnauthenticated:
      return {401, "invalid_request_error", "invalid_api_key"};
    case absl::StatusCode::kNotFound:
      return {404, "invalid_request_error"};
    case absl::StatusCode::kResourceExhausted:
      return {429, "rate_limit_error", "rate_limit_exceeded", "1"};
    case absl::StatusCode::kUnavailable:
      return {503, "service_unavailable_error", nullptr, "5"};
    case absl::StatusCode::kDeadlineExceeded:
      return {504, "timeout_error"};
    default:
      return {500, "server_error"};
  }
}

Json TextOrNull(std::string_view text) { return text.empty() ? Json() : Json(text); }

std::string WriteError(std::string_view message, std::string_view type, std::string_view param,
                       std::string_view code) {
  return WriteJson(Json::object({{"error", Json::object({{"message", message},
                                                         {"type", type},
                                                         {"param", TextOrNull(param)},
                                                         {"code", TextOrNull(code)}})}}));
}

}  // namespace

std::string ErrorJson(const absl::Status& status) {
  const ErrorKind kind = KindOf(status);
  std::string code = CodeOf(status);
  if (code.empty() && kind.code != nullptr) code = kind.code;
  const std::string field = FieldOf(status);
  return WriteError(std::string(absl::StripPrefix(status.message(), kSampling)), kind.type,
                    std::string(absl::StripPrefix(field, kSampling)), code);
}

HttpResponse ErrorResponse(const absl::Status& status) {
  const ErrorKind kind = KindOf(status);
  HttpResponse response = JsonResponse(ErrorJson(status));
  response.status = kind.http;
  if (kind.http == 401) response.headers.push_back({"WWW-Authenticate", "Bearer"});
  if (kind.retry_after != nullptr) response.headers.push_back({"Retry-After", kind.retry_after});
  return response;
}

HttpResponse RefusalResponse(int status, std::string_view message) {
  HttpResponse response =
      JsonResponse(WriteError(message, status < 500 ? "invalid_request_error" : "server_error", "", ""));
  response.status = status;
  return response;
}

HttpResponse JsonResponse(std::string json) {
  return {.headers = {{"Content-Type", "application/json"}}, .body = std::move(json)};
}

}  // namespace bellwether
