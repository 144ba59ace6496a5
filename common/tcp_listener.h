#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "common/descriptors.h"
#include "common/log_limiter.h"
#include "common/unique_fd.h"

namespace bellwether {

// A TCP port that stays open: takes connections on a thread of its own and hands them on. Out of descriptors
// or memory it says so, pauses and goes on; connections for which its range of descriptors has no number left
// are closed at once, so their clients know.
class TcpListener {
 public:
  struct Options {
    std::string address;          // HOST:PORT, port 0 for any; a host of several addresses has them all
    std::string name;             // of those who connect, for messages: "clients"
    DescriptorRange descriptors;  // for the connections
  };
  // Connections wait until Run. AlreadyExists if the port is taken, InvalidArgument if the address is none,
  // else Unavailable.
  static absl::StatusOr<std::unique_ptr<TcpListener>> Bind(Options options);
  ~TcpListener();  // takes no more

  // As given, but with the port in use.
  const std::string& address() const { return options_.address; }

  // `listener`: the descriptor that `connection` came through. The connection does not block.
  using Handler = std::function<void(int listener, UniqueFd connection)>;
  // Called once. `handler` is called from one thread until Stop returns.
  void Run(Handler handler);
  void Stop();

  // How often it had to pause.
  int64_t pauses() const { return pauses_; }

 private:
  explicit TcpListener(Options options);
  absl::Status Open();
  void AcceptUntilStopped(const Handler& handler);
  // Takes one; false if there is a reason to pause.
  bool AcceptOne(int listener, const Handler& handler);

  Options options_;
  std::vector<UniqueFd> sockets_;
  UniqueFd stop_;  // an eventfd
  LogLimiter pause_lines_, refusal_lines_;
  std::atomic<int64_t> pauses_{0};
  std::thread thread_;
};

}  // namespace bellwether
