#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "boost/asio/io_context.hpp"
#include "boost/beast/core/flat_buffer.hpp"
#include "boost/beast/http/parser.hpp"
#include "boost/beast/http/string_body.hpp"
#include "common/clock.h"
#include "common/log_limiter.h"
#include "common/unique_fd.h"
#include "http/queued_exchange.h"
#include "http/router.h"
#include "http/server.h"
#include "http/tls_contexts.h"
#include "http/transport.h"

namespace bellwether {

class HttpConnection;

// What the connections of a server share. All but `io` belongs to the server's thread once that runs.
struct HttpShared {
  explicit HttpShared(HttpServer::Options* options)
      : limits(options->limits),
        router(std::move(options->routes)),
        refusal(std::move(options->refusal)),
        origins(std::move(options->origins)),
        answered(std::move(options->answered)),
        clock(options->clock) {}

  const HttpLimits limits;
  const HttpRouter router;
  const std::function<HttpResponse(int, std::string_view)> refusal;
  const OriginRules origins;
  const std::function<void(int)> answered;
  const Clock* const clock;
  std::shared_ptr<TlsContexts> tls;  // null: nothing is encrypted
  std::string address;               // of the listener, for messages

  boost::asio::io_context io{/*concurrency_hint=*/1};
  absl::flat_hash_set<std::shared_ptr<HttpConnection>> connections;
  size_t bodies_bytes = 0;        // of requests that are being received
  bool draining = false;          // no more requests
  std::function<void()> drained;  // the last connection has ended since
  LogLimiter cut_off_lines{20, absl::Seconds(2)};
};

// One connection: requests and their answers, one after the other. Lives on the server's thread.
//
// It always reads, also while an answer is under way: to learn that the client has gone. What it reads then
// is the next request, of which it takes only so much ahead.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(UniqueFd connection, HttpShared* shared);  // which outlives it

  void Start();
  // Time has passed: ends what has taken too long.
  void Tick();
  // Ends as soon as no answer is under way.
  void Drain();
  // Ends now. The server lets go of it.
  void Close();

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  using ErrorCode = boost::system::error_code;
  enum class Phase { kReading, kAnswering, kLingering, kClosed };

  // TLS, where there is some, has been agreed on, or not.
  void Greeted(const ErrorCode& error);
  void AwaitRequest();
  void Read();
  void OnRead(const ErrorCode& error, size_t bytes);
  void OnEnd();
  void Parse();
  // What can be told from the headers; an HTTP status other than 0 refuses the request.
  int CheckHeader();
  bool CountBody();
  void Dispatch();
  // By what its page is allowed, its path and its method.
  void Route(HttpRequest request, const std::shared_ptr<QueuedExchange>& exchange);
  HttpRequest TakeRequest(HttpTarget target);
  std::string HeaderOf(std::string_view name) const;  // of the request that is being read; empty: none
  // Answers a request that is not read to its end, after which nothing more can be read.
  void Refuse(int status, std::string_view message);
  std::shared_ptr<QueuedExchange> BeginAnswer(bool keep_alive);

  void Flush();
  void Write();
  void OnWritten(const ErrorCode& error, size_t bytes);
  void AnswerDone();
  void Linger();
  void CutOff(std::string_view reason);

  HttpShared* const shared_;
  const std::unique_ptr<HttpTransport> transport_;
  const std::string remote_;
  Phase phase_ = Phase::kReading;

  std::array<char, 8192> received_;  // by the read under way
  boost::beast::flat_buffer in_;     // read and not yet parsed
  bool reading_ = false;             // a read is under way
  bool eof_ = false;                 // the client sends no more
  std::optional<Parser> parser_;
  bool begun_ = false;        // the first byte of a request is here
  bool header_done_ = false;  // its headers are
  size_t body_bytes_ = 0;     // of it, as counted in shared_
  absl::Duration deadline_;   // of what is being read, or of lingering

  std::shared_ptr<QueuedExchange> exchange_;  // while kAnswering
  bool complete_ = false;                     // the rest of its answer is in out_
  std::string out_;
  size_t out_sent_ = 0;      // bytes of it
  bool writing_ = false;     // a write is under way
  absl::Duration progress_;  // when the client last took something
};

}  // namespace bellwether
