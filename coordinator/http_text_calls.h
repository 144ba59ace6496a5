#pragma once

#include <memory>
#include <utility>

#include "coordinator/http_call.h"
#include "coordinator/http_gateway.h"

namespace bellwether {

// The calls that only read texts, in vLLM's words.

// {"model"?, "prompt", "add_special_tokens"?, "return_token_strs"?} -> {"count", "max_model_len", "tokens",
// "token_strs"}
class HttpTokenize : public HttpCall {
 public:
  HttpTokenize(const HttpGateway* gateway, HttpRequest request, std::shared_ptr<HttpExchange> exchange)
      : HttpCall(&gateway->requests(), std::move(request), std::move(exchange)), gateway_(gateway) {}

 private:
  absl::Status ReadBody(const Json& body) override;
  const HttpGateway* const gateway_;
};

// {"model"?, "tokens"} -> {"prompt"}
class HttpDetokenize : public HttpCall {
 public:
  HttpDetokenize(const HttpGateway* gateway, HttpRequest request, std::shared_ptr<HttpExchange> exchange)
      : HttpCall(&gateway->requests(), std::move(request), std::move(exchange)), gateway_(gateway) {}

 private:
  absl::Status ReadBody(const Json& body) override;
  const HttpGateway* const gateway_;
};

}  // namespace bellwether
