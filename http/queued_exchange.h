#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "common/mutex.h"
#include "http/exchange.h"

namespace bellwether {

// The answer between whoever gives it and the connection that sends it: any thread puts bytes in, as HTTP/1.1
// frames them, and the server's thread takes them out.
class QueuedExchange : public HttpExchange {
 public:
  struct Options {
    bool http11 = true;      // else 1.0: the end of a stream is the end of the connection
    bool keep_alive = true;  // the connection may go on after the answer
    bool head_only = false;  // asked by HEAD: the body is left out
    HttpHeaders headers;     // that the answer has besides its own
    size_t stream_bytes_max = 0;
    std::function<HttpResponse(int status, std::string_view message)> refusal = PlainResponse;
    // There is something to take: once until Take finds nothing. May be called from any thread and with a
    // lock held, so it only passes the word on.
    std::function<void()> wake;
  };
  explicit QueuedExchange(Options options);

  // What a handler gets: an exchange that ends as exchange.h says when the last copy is let go of.
  static std::shared_ptr<HttpExchange> Handle(std::shared_ptr<QueuedExchange> exchange);

  void Respond(HttpResponse response) override;
  void BeginStream(HttpStream stream) override;
  bool Write(std::string_view piece) override;
  void Finish() override;
  void OnGone(std::function<void()> gone) override;

  // -- The server's thread

  enum class Progress {
    kUnderWay,
    kComplete,  // with what has been taken
    kBroken,    // it can be no more: broken_reason()
  };
  // Moves what is to be sent to `out`, which is empty.
  Progress Take(std::string* out);
  // Writes the stream's sign of life if it is due after `silence`.
  void BreakSilence(absl::Duration silence);
  // The connection takes nothing any more: `gone` is called unless the answer is complete.
  void Detach();

  int status() const;  // of its head; 0 before that
  bool complete() const;
  bool keep_alive() const;  // once it is complete
  std::string broken_reason() const;

 private:
  enum class State { kAwaited, kStreaming, kComplete, kBroken };

  void RespondLocked(const HttpResponse& response) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AppendHead(int status, const HttpHeaders& headers, std::string_view framing)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AppendPiece(std::string_view piece) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Break(std::string reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Wake() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Abandon();

  const Options options_;
  mutable Mutex mutex_;  // never held while `gone` is called or destroyed
  State state_ ABSL_GUARDED_BY(mutex_) = State::kAwaited;
  int status_ ABSL_GUARDED_BY(mutex_) = 0;
  bool keep_alive_ ABSL_GUARDED_BY(mutex_);
  bool awake_ ABSL_GUARDED_BY(mutex_) = false;     // the connection knows that there is something
  bool detached_ ABSL_GUARDED_BY(mutex_) = false;  // there is no connection to wake
  std::string pending_ ABSL_GUARDED_BY(mutex_);
  absl::Duration silence_max_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteDuration();
  std::string filler_ ABSL_GUARDED_BY(mutex_);
  std::string broken_reason_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> gone_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bellwether
