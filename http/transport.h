#pragma once

#include <functional>
#include <memory>
#include <string>

#include "boost/asio/buffer.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ssl/context.hpp"
#include "boost/system/error_code.hpp"
#include "common/unique_fd.h"

namespace bellwether {

// The bytes of one connection, in clear or under TLS. On the thread of its io_context; at most one read and
// one write are under way. Callbacks come later, never from within a call, and hear of an error once Close
// was called.
class HttpTransport {
 public:
  using ErrorCode = boost::system::error_code;
  using Done = std::function<void(const ErrorCode& error, size_t bytes)>;

  // Without `tls` in clear.
  static std::unique_ptr<HttpTransport> Make(UniqueFd connection, boost::asio::io_context& io,
                                             std::shared_ptr<boost::asio::ssl::context> tls);
  virtual ~HttpTransport() = default;

  // HOST:PORT of the other side; empty if it has gone already.
  virtual std::string Remote() = 0;
  // First of all, once.
  virtual void Greet(std::function<void(const ErrorCode&)> done) = 0;
  // Some bytes; asio::error::eof where the client sends no more.
  virtual void Read(boost::asio::mutable_buffer into, Done done) = 0;
  virtual void Write(boost::asio::const_buffer bytes, Done done) = 0;
  // Tells the client that nothing more will come.
  virtual void FinishSending() = 0;
  virtual void Close() = 0;
};

}  // namespace bellwether
