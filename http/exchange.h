#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "http/message.h"

namespace bellwether {

// How an answer in pieces begins.
struct HttpStream {
  int status = 200;
  HttpHeaders headers;  // as in HttpResponse
  // After so long without a piece the server writes `filler` itself, as a sign of life for whoever is in
  // between.
  absl::Duration silence_max = absl::InfiniteDuration();
  std::string filler;
};

// The answer to one request, whole or in pieces: from any thread, and no call waits. What is called out of
// its turn (a second answer, a piece after the end) does nothing.
//
// Whoever lets go of an exchange without an answer leaves a 500 behind; in the middle of a stream, a
// connection that ends without the stream's end, which clients report.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;

  // Answers whole.
  virtual void Respond(HttpResponse response) = 0;

  // Or in pieces: the head goes out at once.
  virtual void BeginStream(HttpStream stream) = 0;
  // False: nobody reads any more, or so slowly that more than the server's limit is waiting; the stream is
  // over then, which the server's log says.
  virtual bool Write(std::string_view piece) = 0;
  virtual void Finish() = 0;

  // `gone` is called once if the answer cannot be completed, as the client has closed its connection (its
  // writing half is enough), reads too slowly, or the server stops: at once if that has happened, else from
  // the server's thread. It may not wait. After the end of the answer it is let go of.
  virtual void OnGone(std::function<void()> gone) = 0;
};

// What answers a route's requests. Called from the server's only thread, so it may not wait: what takes
// longer than a moment moves the request and the exchange to a thread of its own.
using HttpHandler = std::function<void(HttpRequest, std::shared_ptr<HttpExchange>)>;

}  // namespace bellwether
