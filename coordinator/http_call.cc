#include "coordinator/http_call.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "coordinator/http_error.h"
#include "coordinator/trace_context.h"

namespace bellwether {
namespace {

constexpr char kRequestIdHeader[] = "x-request-id";
constexpr char kTimeoutHeader[] = "X-Request-Timeout";

// Without the header there is no deadline. InvalidArgument: it is no number of seconds.
absl::StatusOr<absl::Duration> TimeLeft(const HttpRequest& request) {
  const std::string* text = FindHeader(request.headers, kTimeoutHeader);
  if (text == nullptr) return absl::InfiniteDuration();
  double seconds = 0;
  if (absl::SimpleAtod(*text, &seconds) && seconds >= 0) return absl::Seconds(seconds);
  return absl::InvalidArgumentError(
      absl::StrCat(kTimeoutHeader, " is ", Quoted(*text), ", allowed is a number of seconds"));
}

}  // namespace

HttpCall::HttpCall(RequestService* service, HttpRequest request, std::shared_ptr<HttpExchange> exchange)
    : RequestCall(service, {.request_id = HeaderText(request.headers, kRequestIdHeader),
                            .authorization = HeaderText(request.headers, "Authorization"),
                            .traceparent = HeaderText(request.headers, kTraceparent),
                            .time_left = TimeLeft(request).value_or(absl::InfiniteDuration())}),
      body_(std::move(request.body)),
      timeout_status_(TimeLeft(request).status()),
      exchange_(std::move(exchange)) {}

void HttpCall::Begin() {
  const std::weak_ptr<RequestCall> weak = weak_from_this();
  exchange_->OnGone([weak] {
    if (const auto call = weak.lock()) call->Cancel();
  });
  Start(body_.size());
}

void HttpCall::Read() {
  const std::string text = std::move(body_);
  const absl::Status status = [&]() -> absl::Status {
    BW_RETURN_IF_ERROR(timeout_status_);
    const absl::StatusOr<Json> body = ParseJson(text);
    if (!body.ok()) return Annotate(body.status(), "the request is no JSON");
    return ReadBody(*body);
  }();
  if (!status.ok()) Refuse(status);
}

void HttpCall::End(const absl::Status& status) {
  LogEnd(status);
  Respond(ErrorResponse(status));
}

void HttpCall::Respond(HttpResponse response) {
  AddNames(&response.headers);
  exchange_->Respond(std::move(response));
}

void HttpCall::AddNames(HttpHeaders* headers) const {
  headers->push_back({kRequestIdHeader, request_id()});
  if (!traceparent().empty()) headers->push_back({kTraceparent, traceparent()});
}

}  // namespace bellwether
