#pragma once

#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "worker/link/rendezvous.h"
#include "worker/link/unix_socket.h"

namespace bellwether {

// The listening half of shared memory links: takes connections on a Unix socket with a name of its own and
// hands those that say a proper hello, and bring a shared memory, to `handler`.
class ShmListener {
 public:
  static absl::StatusOr<std::unique_ptr<ShmListener>> Start(IncomingPeerHandler handler);
  ~ShmListener();  // no call of the handler after this
  const std::string& name() const { return name_; }

 private:
  ShmListener(std::string name, UniqueFd socket, UniqueFd stop_read, UniqueFd stop_write,
              IncomingPeerHandler handler);
  void Run();

  const std::string name_;
  const UniqueFd socket_;
  const UniqueFd stop_read_;
  UniqueFd stop_write_;  // closing it ends the thread
  const IncomingPeerHandler handler_;
  std::thread thread_;
};

// The connecting half: creates the memory and sends it along with the hello. Never waits. Unavailable if no
// process on this host listens on `name`.
absl::StatusOr<std::unique_ptr<OutgoingPeer>> ConnectShm(const std::string& name, const LinkHello& hello,
                                                         const LinkEndOptions& options);

}  // namespace bellwether
