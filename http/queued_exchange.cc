#include "http/queued_exchange.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace bellwether {
namespace {

std::string DateNow() {
  return absl::FormatTime("%a, %d %b %E4Y %H:%M:%S GMT", absl::Now(), absl::UTCTimeZone());
}

// A value that came from elsewhere must not begin a header of its own.
std::string OneLine(std::string value) {
  std::replace_if(
      value.begin(), value.end(), [](char c) { return absl::ascii_iscntrl(c); }, ' ');
  return value;
}

bool HasNoBody(int status) { return status < 200 || status == 204 || status == 304; }

}  // namespace

QueuedExchange::QueuedExchange(Options options)
    : options_(std::move(options)), keep_alive_(options_.keep_alive) {}

std::shared_ptr<HttpExchange> QueuedExchange::Handle(std::shared_ptr<QueuedExchange> exchange) {
  HttpExchange* const self = exchange.get();
  return std::shared_ptr<HttpExchange>(
      self, [exchange = std::move(exchange)](HttpExchange*) { exchange->Abandon(); });
}

void QueuedExchange::Respond(HttpResponse response) {
  std::function<void()> let_go;
  MutexLock lock(&mutex_);
  if (state_ != State::kAwaited) return;
  RespondLocked(response);
  let_go = std::move(gone_);
}

void QueuedExchange::RespondLocked(const HttpResponse& response) {
  const bool no_body = HasNoBody(response.status);
  AppendHead(response.status, response.headers,
             no_body ? "" : absl::StrCat("Content-Length: ", response.body.size(), "\r\n"));
  if (!no_body && !options_.head_only) pending_ += response.body;
  state_ = State::kComplete;
  Wake();
}

void QueuedExchange::BeginStream(HttpStream stream) {
  MutexLock lock(&mutex_);
  if (state_ != State::kAwaited) return;
  keep_alive_ = keep_alive_ && options_.http11;
  AppendHead(stream.status, stream.headers, options_.http11 ? "Transfer-Encoding: chunked\r\n" : "");
  silence_max_ = stream.silence_max;
  filler_ = std::move(stream.filler);
  state_ = State::kStreaming;
  Wake();
}

bool QueuedExchange::Write(std::string_view piece) {
  MutexLock lock(&mutex_);
  if (state_ != State::kStreaming) return false;
  // Not by what comes now: a piece may be as long as it likes for who takes it.
  if (pending_.size() > options_.stream_bytes_max) {
    Break(absl::StrCat("it reads too slowly: more than ", options_.stream_bytes_max,
                       " bytes are waiting for it"));
    return false;
  }
  AppendPiece(piece);
  return true;
}

void QueuedExchange::Finish() {
  std::function<void()> let_go;
  MutexLock lock(&mutex_);
  if (state_ != State::kStreaming) return;
  if (options_.http11 && !options_.head_only) pending_ += "0\r\n\r\n";
  state_ = State::kComplete;
  let_go = std::move(gone_);
  Wake();
}

void QueuedExchange::OnGone(std::function<void()> gone) {
  {
    MutexLock lock(&mutex_);
    if (state_ == State::kComplete) return;
    if (!detached_) {
      std::swap(gone_, gone);
      return;
    }
  }
  gone();
}

void QueuedExchange::Abandon() {
  std::function<void()> let_go;
  MutexLock lock(&mutex_);
  if (state_ == State::kAwaited) RespondLocked(options_.refusal(500, "nobody has answered this request"));
  if (state_ == State::kStreaming) Break("nobody has ended the answer");
  let_go = std::move(gone_);
}

QueuedExchange::Progress QueuedExchange::Take(std::string* out) {
  MutexLock lock(&mutex_);
  if (state_ == State::kBroken) return Progress::kBroken;
  out->swap(pending_);
  if (state_ == State::kComplete) return Progress::kComplete;
  if (out->empty()) awake_ = false;
  return Progress::kUnderWay;
}

void QueuedExchange::BreakSilence(absl::Duration silence) {
  MutexLock lock(&mutex_);
  if (state_ == State::kStreaming && silence >= silence_max_) AppendPiece(filler_);
}

void QueuedExchange::Detach() {
  std::function<void()> gone;
  {
    MutexLock lock(&mutex_);
    detached_ = true;
    pending_.clear();
    if (state_ == State::kComplete) return;
    state_ = State::kBroken;
    gone = std::move(gone_);
  }
  if (gone) gone();
}

int QueuedExchange::status() const {
  MutexLock lock(&mutex_);
  return status_;
}

bool QueuedExchange::complete() const {
  MutexLock lock(&mutex_);
  return state_ == State::kComplete;
}

bool QueuedExchange::keep_alive() const {
  MutexLock lock(&mutex_);
  return keep_alive_;
}

std::string QueuedExchange::broken_reason() const {
  MutexLock lock(&mutex_);
  return broken_reason_;
}

void QueuedExchange::AppendHead(int status, const HttpHeaders& headers, std::string_view framing) {
  status_ = status;
  absl::StrAppend(&pending_, "HTTP/1.1 ", status, " ", std::string(ReasonPhrase(status)),
                  "\r\nDate: ", DateNow(), "\r\n");
  for (const HttpHeaders* these : {&headers, &options_.headers}) {
    for (const HttpHeader& header : *these) {
      absl::StrAppend(&pending_, header.name, ": ", OneLine(header.value), "\r\n");
    }
  }
  if (!keep_alive_) {
    pending_ += "Connection: close\r\n";
  } else if (!options_.http11) {
    pending_ += "Connection: keep-alive\r\n";
  }
  absl::StrAppend(&pending_, std::string(framing), "\r\n");
}

void QueuedExchange::AppendPiece(std::string_view piece) {
  if (piece.empty() || options_.head_only) return;  // an empty chunk would be the last one
  if (options_.http11) {
    absl::StrAppend(&pending_, absl::Hex(piece.size()), "\r\n");
    pending_.append(piece).append("\r\n");
  } else {
    pending_.append(piece);
  }
  Wake();
}

void QueuedExchange::Break(std::string reason) {
  state_ = State::kBroken;
  pending_.clear();
  broken_reason_ = std::move(reason);
  Wake();
}

void QueuedExchange::Wake() {
  if (awake_ || detached_) return;
  awake_ = true;
  options_.wake();
}

}  // namespace bellwether
