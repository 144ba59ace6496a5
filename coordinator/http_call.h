#pragma once

#include <memory>
#include <string>

#include "common/json.h"
#include "coordinator/request_call.h"
#include "http/exchange.h"

namespace bellwether {

// A RequestCall that came by HTTP, with JSON: its name from x-request-id, its deadline from X-Request-Timeout
// (seconds), the trace that it is part of from traceparent, and its end if the client closes the connection.
class HttpCall : public RequestCall {
 public:
  HttpCall(RequestService* service, HttpRequest request, std::shared_ptr<HttpExchange> exchange);

  // Has it read on the pool.
  void Begin();

 protected:
  // On the pool: `body` is what the client sent. An error is answered.
  virtual absl::Status ReadBody(const Json& body) = 0;
  void End(const absl::Status& status) override;

  // Answers whole, with the request's name.
  void Respond(HttpResponse response);
  HttpExchange& exchange() const { return *exchange_; }
  // What the request is called, in the client's own words.
  void AddNames(HttpHeaders* headers) const;

 private:
  void Read() final;

  std::string body_;
  absl::Status timeout_status_;  // of what the client gave as one
  const std::shared_ptr<HttpExchange> exchange_;
};

}  // namespace bellwether
