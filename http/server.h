#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/tcp_listener.h"
#include "common/tls_options.h"
#include "http/exchange.h"
#include "http/origin_rules.h"
#include "http/router.h"

namespace bellwether {

// What strangers may cost. Times are looked at a few times a second, so they are not exact.
struct HttpLimits {
  size_t header_bytes_max = 16 << 10;           // first line and headers; beyond: 431
  size_t body_bytes_max = size_t{16} << 20;     // beyond: 413
  size_t bodies_bytes_max = size_t{256} << 20;  // of all that are being received; beyond: 503
  size_t stream_bytes_max = size_t{1} << 20;    // that a stream's client has not taken; beyond: it is cut off
  int connections_max = 4096;                   // beyond: closed at once
  // For the headers from their first byte, beyond: 408; and for the first byte of a new connection, beyond:
  // closed.
  absl::Duration header_time = absl::Seconds(10);
  absl::Duration body_time = absl::Seconds(60);   // for the body; beyond: 408
  absl::Duration idle_time = absl::Seconds(75);   // between requests; beyond: closed
  absl::Duration write_time = absl::Seconds(30);  // in which a client takes nothing; beyond: closed
};

// An HTTP/1.1 server: one thread for all connections (and the listener's). Keep-alive, bodies by length or in
// chunks, Expect: 100-continue, HEAD. Requests that are sent ahead (pipelining) wait for their turn. It
// answers by itself what is not HTTP (400), what no route is for (404, 405), and what is beyond a limit.
class HttpServer {
 public:
  struct Options {
    TcpListener::Options listen;
    std::vector<HttpRoute> routes;
    HttpLimits limits;
    // What the server's own refusals look like.
    std::function<HttpResponse(int status, std::string_view message)> refusal = PlainResponse;
    TlsOptions tls;       // none: nothing is encrypted
    OriginRules origins;  // which web pages may use it; others get 403
    // A request has been answered with that status; 499: its client had gone before it had all of the answer.
    // From the server's thread.
    std::function<void(int status)> answered = [](int) {};
    const Clock* clock = Clock::Real();
  };
  // Errors: TcpListener::Bind's, and those of common/tls_files.h.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(Options options);
  ~HttpServer();  // shuts down at once

  // HOST:PORT as given, but with the port in use.
  const std::string& address() const;

  // Takes no more connections and requests; answers under way may go on for `grace`, then they are cut off.
  // No handler and no `gone` is called after it returns; exchanges that are still held do nothing.
  void Shutdown(absl::Duration grace);

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bellwether
