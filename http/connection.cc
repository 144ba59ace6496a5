#include "http/connection.h"

#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "boost/asio/buffer.hpp"
#include "boost/asio/error.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/ssl/error.hpp"
#include "boost/beast/http/error.hpp"
#include "common/log.h"
#include "common/quote.h"
#include "common/tls_options.h"

namespace bellwether {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;

// Of the next request while an answer is under way; also what the parser may leave lying in the buffer.
constexpr size_t kReadAheadBytes = 64 << 10;
// After a refusal: so long what is still sent is thrown away, as closing at once would take the answer with
// it.
constexpr absl::Duration kLingerTime = absl::Seconds(2);
// What nginx calls an answer that its client did not wait for.
constexpr int kClientClosedRequest = 499;
// A browser asks whether a page of another site may send a request by that method.
constexpr char kPreflightMethod[] = "Access-Control-Request-Method";

std::string_view View(boost::beast::string_view text) { return {text.data(), text.size()}; }
std::string String(boost::beast::string_view text) { return std::string(text.data(), text.size()); }

int StatusOf(const boost::system::error_code& error) {
  if (error == http::error::header_limit) return 431;
  if (error == http::error::body_limit) return 413;
  if (error == http::error::bad_version) return 505;
  return 400;
}

}  // namespace

HttpConnection::HttpConnection(UniqueFd connection, HttpShared* shared)
    : shared_(shared),
      transport_(HttpTransport::Make(std::move(connection), shared->io,
                                     shared->tls == nullptr ? nullptr : shared->tls->Current())),
      remote_(transport_->Remote()),
      progress_(shared->clock->Now()) {}

void HttpConnection::Start() {
  deadline_ = shared_->clock->Now() + shared_->limits.header_time;
  transport_->Greet([self = shared_from_this()](const ErrorCode& error) { self->Greeted(error); });
}

void HttpConnection::Greeted(const ErrorCode& error) {
  if (phase_ == Phase::kClosed) return;
  if (error == asio::ssl::error::stream_truncated || error == asio::error::connection_reset) {
    return Close();  // a probe: whether anybody listens
  }
  if (error) {
    const std::string reason = error.message();
    return CutOff(absl::StrCat("no TLS with it: ", reason, HandshakeAdvice(reason)));
  }
  AwaitRequest();
  deadline_ = shared_->clock->Now() + shared_->limits.header_time;  // who comes has something to say
}

void HttpConnection::AwaitRequest() {
  phase_ = Phase::kReading;
  begun_ = header_done_ = false;
  parser_.emplace();
  parser_->eager(true);
  parser_->header_limit(static_cast<uint32_t>(shared_->limits.header_bytes_max));
  parser_->body_limit(shared_->limits.body_bytes_max);
  deadline_ = shared_->clock->Now() + shared_->limits.idle_time;
  Parse();
}

// -- Reading

void HttpConnection::Read() {
  if (reading_ || eof_ || phase_ == Phase::kClosed) return;
  if (in_.size() >= shared_->limits.header_bytes_max + kReadAheadBytes) return;
  reading_ = true;
  transport_->Read(
      asio::buffer(received_),
      [self = shared_from_this()](const ErrorCode& error, size_t bytes) { self->OnRead(error, bytes); });
}

void HttpConnection::OnRead(const ErrorCode& error, size_t bytes) {
  reading_ = false;
  if (phase_ == Phase::kClosed) return;
  if (error == asio::error::eof) return OnEnd();
  if (error) return Close();
  in_.commit(asio::buffer_copy(in_.prepare(bytes), asio::buffer(received_, bytes)));
  if (phase_ == Phase::kReading) return Parse();
  if (phase_ == Phase::kLingering) in_.consume(in_.size());
  Read();
}

void HttpConnection::OnEnd() {
  eof_ = true;
  // Who has been answered may still be taking the rest.
  if (phase_ != Phase::kAnswering || !exchange_->complete()) Close();
}

void HttpConnection::Parse() {
  if (!begun_ && in_.size() > 0) {
    begun_ = true;
    deadline_ = shared_->clock->Now() + shared_->limits.header_time;
  }
  ErrorCode error;
  while (in_.size() > 0 && !parser_->is_done() && !error) in_.consume(parser_->put(in_.data(), error));
  if (error && error != http::error::need_more) return Refuse(StatusOf(error), error.message());
  if (!header_done_ && parser_->is_header_done()) {
    header_done_ = true;
    deadline_ = shared_->clock->Now() + shared_->limits.body_time;
    if (const int status = CheckHeader(); status != 0) return Refuse(status, ReasonPhrase(status));
  }
  if (!CountBody()) return Refuse(503, "too many bytes of requests are under way; try again later");
  if (parser_->is_done()) return Dispatch();
  // Else the reader would wait for room that the parser never makes.
  if (in_.size() >= shared_->limits.header_bytes_max + kReadAheadBytes) {
    return Refuse(431, "a chunk's header is too long");
  }
  Read();
}

int HttpConnection::CheckHeader() {
  const auto& message = parser_->get();
  const auto hosts = message.equal_range(http::field::host);
  if (message.version() >= 11 && std::distance(hosts.first, hosts.second) != 1) return 400;
  // Whoever does not know where a body ends must not guess.
  if (message.count(http::field::transfer_encoding) > 0 && !parser_->chunked()) return 501;
  const auto expect = message.find(http::field::expect);
  if (expect == message.end()) return 0;
  if (!absl::EqualsIgnoreCase(String(expect->value()), "100-continue")) return 417;
  if (!parser_->is_done()) {
    out_ = "HTTP/1.1 100 Continue\r\n\r\n";
    Write();
  }
  return 0;
}

bool HttpConnection::CountBody() {
  const size_t bytes = parser_->get().body().size();
  shared_->bodies_bytes += bytes - body_bytes_;
  body_bytes_ = bytes;
  return shared_->bodies_bytes <= shared_->limits.bodies_bytes_max;
}

void HttpConnection::Dispatch() {
  absl::StatusOr<HttpTarget> target = ParseTarget(View(parser_->get().target()));
  const std::shared_ptr<QueuedExchange> exchange = BeginAnswer(parser_->keep_alive() && !shared_->draining);
  if (target.ok()) {
    Route(TakeRequest(*std::move(target)), exchange);
  } else {
    const absl::string_view message = target.status().message();
    exchange->Respond(shared_->refusal(400, {message.data(), message.size()}));
  }
  Read();
}

void HttpConnection::Route(HttpRequest request, const std::shared_ptr<QueuedExchange>& exchange) {
  const std::string origin = HeaderText(request.headers, "Origin");
  if (!shared_->origins.Allows(origin, HeaderText(request.headers, "Host"))) {
    return exchange->Respond(
        shared_->refusal(403, absl::StrCat("pages of ", Quoted(origin),
                                           " may not use this server unless it is told that they may")));
  }
  if (request.method == "OPTIONS" && !origin.empty() &&
      FindHeader(request.headers, kPreflightMethod) != nullptr) {
    return exchange->Respond(
        OriginRules::Preflight(HeaderText(request.headers, "Access-Control-Request-Headers")));
  }
  const HttpRouter::Match match = shared_->router.Find(request.method, request.path);
  if (match.handler != nullptr) {
    (*match.handler)(std::move(request), QueuedExchange::Handle(exchange));
  } else if (match.allow.empty()) {
    exchange->Respond(shared_->refusal(404, absl::StrCat("there is no ", request.path)));
  } else {
    HttpResponse refusal = shared_->refusal(405, absl::StrCat(request.path, " takes ", match.allow));
    refusal.headers.push_back({"Allow", match.allow});
    exchange->Respond(std::move(refusal));
  }
}

std::string HttpConnection::HeaderOf(std::string_view name) const {
  const auto& message = parser_->get();
  const auto found = message.find(boost::beast::string_view(name.data(), name.size()));
  return found == message.end() ? std::string() : String(found->value());
}

HttpRequest HttpConnection::TakeRequest(HttpTarget target) {
  Parser::value_type message = parser_->release();
  HttpRequest request{.method = String(message.method_string()),
                      .path = std::move(target.path),
                      .query = std::move(target.query),
                      .body = std::move(message.body()),
                      .remote = remote_};
  for (const auto& field : message) {
    request.headers.push_back({String(field.name_string()), String(field.value())});
  }
  return request;
}

// -- Answering

std::shared_ptr<QueuedExchange> HttpConnection::BeginAnswer(bool keep_alive) {
  shared_->bodies_bytes -= std::exchange(body_bytes_, 0);
  phase_ = Phase::kAnswering;
  complete_ = false;
  const auto pass_on = [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->Flush();
  };
  exchange_ = std::make_shared<QueuedExchange>(
      QueuedExchange::Options{.http11 = parser_->get().version() >= 11,
                              .keep_alive = keep_alive,
                              .head_only = parser_->get().method() == http::verb::head,
                              .headers = shared_->origins.AnswerHeaders(HeaderOf("Origin")),
                              .stream_bytes_max = shared_->limits.stream_bytes_max,
                              .refusal = shared_->refusal,
                              .wake = [io = &shared_->io, pass_on] { asio::post(*io, pass_on); }});
  return exchange_;
}

void HttpConnection::Refuse(int status, std::string_view message) {
  BeginAnswer(/*keep_alive=*/false)->Respond(shared_->refusal(status, message));
}

void HttpConnection::Flush() {
  if (writing_ || phase_ != Phase::kAnswering) return;
  out_.clear();
  const QueuedExchange::Progress progress = exchange_->Take(&out_);
  if (progress == QueuedExchange::Progress::kBroken) return CutOff(exchange_->broken_reason());
  complete_ = complete_ || progress == QueuedExchange::Progress::kComplete;
  if (!out_.empty()) return Write();
  if (complete_) AnswerDone();
}

void HttpConnection::Write() {
  if (!std::exchange(writing_, true)) {
    out_sent_ = 0;
    progress_ = shared_->clock->Now();
  }
  transport_->Write(
      asio::buffer(out_.data() + out_sent_, out_.size() - out_sent_),
      [self = shared_from_this()](const ErrorCode& error, size_t bytes) { self->OnWritten(error, bytes); });
}

void HttpConnection::OnWritten(const ErrorCode& error, size_t bytes) {
  if (phase_ == Phase::kClosed) return;
  if (error) return Close();
  progress_ = shared_->clock->Now();
  out_sent_ += bytes;
  if (out_sent_ < out_.size()) return Write();
  writing_ = false;
  Flush();
}

void HttpConnection::AnswerDone() {
  shared_->answered(exchange_->status());
  const bool again = exchange_->keep_alive() && !shared_->draining;
  exchange_->Detach();
  exchange_ = nullptr;
  if (eof_) return Close();
  if (!again) return Linger();
  AwaitRequest();
}

void HttpConnection::Linger() {
  transport_->FinishSending();
  phase_ = Phase::kLingering;
  deadline_ = shared_->clock->Now() + kLingerTime;
  in_.consume(in_.size());
  Read();
}

// -- Ending

void HttpConnection::Tick() {
  const absl::Duration now = shared_->clock->Now();
  if (writing_ && now >= progress_ + shared_->limits.write_time) {
    return CutOff(
        absl::StrCat("it has taken nothing for ", absl::FormatDuration(shared_->limits.write_time)));
  }
  if (phase_ == Phase::kAnswering && !writing_) return exchange_->BreakSilence(now - progress_);
  const bool waits = phase_ == Phase::kReading || phase_ == Phase::kLingering;
  if (!waits || now < deadline_) return;
  if (phase_ == Phase::kLingering || !begun_) return Close();
  Refuse(408, "the request did not arrive in time");
}

void HttpConnection::Drain() {
  if (phase_ == Phase::kReading) Close();
}

void HttpConnection::CutOff(std::string_view reason) {
  if (const auto more = shared_->cut_off_lines.Admit()) {
    LogWarning(shared_->address, " cuts off client ", remote_, ": ", std::string(reason), AndLikeIt(*more));
  }
  Close();
}

void HttpConnection::Close() {
  if (phase_ == Phase::kClosed) return;
  const std::shared_ptr<HttpConnection> self = shared_from_this();
  phase_ = Phase::kClosed;
  shared_->bodies_bytes -= std::exchange(body_bytes_, 0);
  if (exchange_ != nullptr) {
    if (!shared_->draining) shared_->answered(kClientClosedRequest);
    exchange_->Detach();
  }
  transport_->Close();
  shared_->connections.erase(self);
  if (shared_->draining && shared_->connections.empty()) shared_->drained();
}

}  // namespace bellwether
