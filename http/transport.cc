#include "http/transport.h"

#include <sys/socket.h>

#include <utility>

#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/ssl/stream.hpp"
#include "common/host_port.h"

namespace bellwether {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

tcp FamilyOf(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  (void)getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  return address.ss_family == AF_INET6 ? tcp::v6() : tcp::v4();
}

tcp::socket Take(UniqueFd connection, asio::io_context& io) {
  tcp::socket socket(io);
  ErrorCode error;
  socket.assign(FamilyOf(connection.get()), connection.get(), error);
  if (!error) (void)connection.Release();  // else what follows fails, and `connection` closes
  return socket;
}

std::string RemoteOf(const tcp::socket& socket) {
  ErrorCode error;
  const tcp::endpoint remote = socket.remote_endpoint(error);
  return error ? std::string() : HostPort{remote.address().to_string(), remote.port()}.ToString();
}

class ClearTransport : public HttpTransport {
 public:
  ClearTransport(UniqueFd connection, asio::io_context& io) : socket_(Take(std::move(connection), io)) {}

  std::string Remote() override { return RemoteOf(socket_); }
  void Greet(std::function<void(const ErrorCode&)> done) override {
    asio::post(socket_.get_executor(), [done = std::move(done)] { done({}); });
  }
  void Read(asio::mutable_buffer into, Done done) override { socket_.async_read_some(into, std::move(done)); }
  void Write(asio::const_buffer bytes, Done done) override {
    socket_.async_write_some(bytes, std::move(done));
  }
  void FinishSending() override {
    ErrorCode ignored;  // the read that follows tells
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
  }
  void Close() override {
    ErrorCode ignored;
    socket_.close(ignored);
  }

 private:
  tcp::socket socket_;
};

// What Asio does for a stream it does later too, so the stream lives as long as anything is under way.
class TlsTransport : public HttpTransport {
 public:
  TlsTransport(UniqueFd connection, asio::io_context& io, std::shared_ptr<asio::ssl::context> context)
      : state_(std::make_shared<State>(Take(std::move(connection), io), std::move(context))) {}

  std::string Remote() override { return RemoteOf(socket()); }
  void Greet(std::function<void(const ErrorCode&)> done) override {
    stream().async_handshake(asio::ssl::stream_base::server, [state = state_, done = std::move(done)](
                                                                 const ErrorCode& error) { done(error); });
  }
  void Read(asio::mutable_buffer into, Done done) override {
    stream().async_read_some(into, Keeping(std::move(done)));
  }
  void Write(asio::const_buffer bytes, Done done) override {
    stream().async_write_some(bytes, Keeping(std::move(done)));
  }
  void FinishSending() override {
    stream().async_shutdown([state = state_](const ErrorCode&) {});
  }
  void Close() override {
    ErrorCode ignored;
    socket().close(ignored);
  }

 private:
  struct State {
    State(tcp::socket socket, std::shared_ptr<asio::ssl::context> context_in)
        : context(std::move(context_in)), stream(std::move(socket), *context) {}
    const std::shared_ptr<asio::ssl::context> context;
    asio::ssl::stream<tcp::socket> stream;
  };
  asio::ssl::stream<tcp::socket>& stream() { return state_->stream; }
  tcp::socket& socket() { return state_->stream.next_layer(); }
  std::function<void(const ErrorCode&, size_t)> Keeping(Done done) {
    return [state = state_, done = std::move(done)](const ErrorCode& error, size_t bytes) {
      done(error, bytes);
    };
  }

  const std::shared_ptr<State> state_;
};

}  // namespace

std::unique_ptr<HttpTransport> HttpTransport::Make(UniqueFd connection, asio::io_context& io,
                                                   std::shared_ptr<asio::ssl::context> tls) {
  if (tls == nullptr) return std::make_unique<ClearTransport>(std::move(connection), io);
  return std::make_unique<TlsTransport>(std::move(connection), io, std::move(tls));
}

}  // namespace bellwether
