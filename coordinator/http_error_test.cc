#include "coordinator/http_error.h"

#include "common/json.h"
#include "coordinator/request_error.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

struct Case {
  absl::Status status;
  int http;
  const char* type;
  const char* code;  // "": null
};

TEST(HttpError, HasOpenAisShapeAndTheRightStatus) {
  for (const Case& each : std::initializer_list<Case>{
           {absl::InvalidArgumentError("x"), 400, "invalid_request_error", ""},
           {absl::FailedPreconditionError("x"), 400, "invalid_request_error", ""},
           {absl::UnauthenticatedError("x"), 401, "invalid_request_error", "invalid_api_key"},
           {WithCode(absl::NotFoundError("x"), "model_not_found"), 404, "invalid_request_error",
            "model_not_found"},
           {absl::ResourceExhaustedError("x"), 429, "rate_limit_error", "rate_limit_exceeded"},
           {WithCode(absl::ResourceExhaustedError("x"), kContextLengthExceeded), 400, "invalid_request_error",
            kContextLengthExceeded},
           {absl::UnavailableError("x"), 503, "service_unavailable_error", ""},
           {absl::DeadlineExceededError("x"), 504, "timeout_error", ""},
           {absl::InternalError("x"), 500, "server_error", ""}}) {
    const HttpResponse response = ErrorResponse(each.status);
    EXPECT_EQ(response.status, each.http) << each.status;
    const auto json = ParseJson(response.body);
    ASSERT_TRUE(json.ok()) << response.body;
    const Json& error = (*json)["error"];
    EXPECT_EQ(error["message"].text(), "x");
    EXPECT_EQ(error["type"].text(), each.type) << each.status;
    EXPECT_EQ(error["code"].text(), each.code) << each.status;
    const bool retry = each.http == 429 || each.http == 503;
    EXPECT_EQ(FindHeader(response.headers, "Retry-After") != nullptr, retry) << each.status;
  }
}

TEST(HttpError, NamesTheMemberAsOpenAiSpellsIt) {
  const absl::Status status =
      WithField(absl::InvalidArgumentError("sampling.top_k is -2, allowed is 0 or more"), "sampling.top_k");
  const auto json = ParseJson(ErrorJson(status));
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)["error"]["param"].text(), "top_k");
  EXPECT_EQ((*json)["error"]["message"].text(), "top_k is -2, allowed is 0 or more");
}

}  // namespace
}  // namespace bellwether
