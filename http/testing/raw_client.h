#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <string>
#include <string_view>

#include "common/host_port.h"
#include "common/unique_fd.h"

namespace bellwether {

// For tests: a TCP client that sends any bytes. Every wait has an end, after which it gives what there is.
class RawClient {
 public:
  explicit RawClient(const std::string& address) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const auto to = ParseHostPort(address);
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_port = htons(static_cast<uint16_t>(to.ok() ? to->port : 0));
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_.get(), reinterpret_cast<const sockaddr*>(&where), sizeof(where)) == 0;
  }
  bool connected() const { return connected_; }

  // False: the server has closed the connection.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  void FinishSending() { shutdown(fd_.get(), SHUT_WR); }

  // What comes until `end` is among it, which it is cut after; the rest stays for the next call.
  std::string ReadUntil(std::string_view end) {
    size_t at;
    while ((at = buffer_.find(end)) == std::string::npos && Receive()) {
    }
    const size_t bytes = at == std::string::npos ? buffer_.size() : at + end.size();
    std::string read = buffer_.substr(0, bytes);
    buffer_.erase(0, bytes);
    return read;
  }
  // What comes until the server closes the connection.
  std::string ReadAll() {
    while (Receive()) {
    }
    return std::exchange(buffer_, {});
  }
  bool closed() const { return closed_; }  // by the server, as far as has been read

 private:
  static constexpr int kPatienceMs = 60000;

  bool Receive() {
    pollfd entry{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    if (poll(&entry, 1, kPatienceMs) <= 0) return false;
    char bytes[4096];
    const ssize_t count = recv(fd_.get(), bytes, sizeof(bytes), 0);
    closed_ = count <= 0;
    if (count > 0) buffer_.append(bytes, static_cast<size_t>(count));
    return count > 0;
  }

  UniqueFd fd_;
  bool connected_ = false;
  bool closed_ = false;
  std::string buffer_;
};

}  // namespace bellwether
