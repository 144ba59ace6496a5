#include "common/service_notify.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>
#include <string>

#include "common/config.h"
#include "common/log.h"
#include "common/unique_fd.h"

namespace bellwether {

void NotifyService(std::string_view state) {
  const std::string path = ServiceSocket();
  sockaddr_un address = {};
  if (path.empty()) return;
  if ((path[0] != '/' && path[0] != '@') || path.size() >= sizeof(address.sun_path)) {
    LogWarning("NOTIFY_SOCKET is no path of a socket: the service manager is not told of ",
               std::string(state));
    return;
  }
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (path[0] == '@') address.sun_path[0] = '\0';  // an abstract name
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  const UniqueFd socket_fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket_fd.valid() ||
      sendto(socket_fd.get(), state.data(), state.size(), MSG_NOSIGNAL,
             reinterpret_cast<const sockaddr*>(&address), length) != static_cast<ssize_t>(state.size())) {
    LogWarning("the service manager cannot be told of ", std::string(state), ": ", std::strerror(errno));
  }
}

}  // namespace bellwether
