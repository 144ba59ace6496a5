#include "http/server.h"

#include <chrono>
#include <exception>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "boost/asio/executor_work_guard.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/steady_timer.hpp"
#include "common/log.h"
#include "common/mutex.h"
#include "common/status.h"
#include "http/connection.h"

namespace bellwether {
namespace {

namespace asio = boost::asio;

// How often connections are looked at for what takes too long.
constexpr std::chrono::milliseconds kTick(200);

}  // namespace

class HttpServer::Impl {
 public:
  explicit Impl(Options options)
      : shared_(&options), work_(asio::make_work_guard(shared_.io)), timer_(shared_.io) {
    shared_.drained = [this] {
      MutexLock lock(&mutex_);
      drained_ = true;
    };
  }

  absl::Status Start(TcpListener::Options listen, const TlsOptions& tls);
  const std::string& address() const { return shared_.address; }
  void Shutdown(absl::Duration grace);

 private:
  void Run();
  void Accept(UniqueFd connection);
  void TickLater();
  void Drain();
  void CloseAll();
  // Connections leave the set while it is walked.
  std::vector<std::shared_ptr<HttpConnection>> Connections() const {
    return {shared_.connections.begin(), shared_.connections.end()};
  }

  HttpShared shared_;
  // The thread's own:
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  asio::steady_timer timer_;
  bool ticking_ = false;
  LogLimiter full_lines_{1, absl::Seconds(10)};

  Mutex mutex_;
  bool drained_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<TcpListener> listener_;
  std::thread thread_;
};

absl::Status HttpServer::Impl::Start(TcpListener::Options listen, const TlsOptions& tls) {
  if (tls.wanted()) {
    BW_ASSIGN_OR_RETURN(shared_.tls, TlsContexts::Load(tls));
  }
  BW_ASSIGN_OR_RETURN(listener_, TcpListener::Bind(std::move(listen)));
  shared_.address = listener_->address();
  thread_ = std::thread([this] { Run(); });
  listener_->Run([this](int, UniqueFd connection) {
    asio::post(shared_.io,
               [this, connection = std::move(connection)]() mutable { Accept(std::move(connection)); });
  });
  return absl::OkStatus();
}

void HttpServer::Impl::Run() {
  while (!shared_.io.stopped()) {
    try {
      shared_.io.run();
    } catch (const std::exception& error) {  // of Boost or the standard library, out of memory above all
      LogError(shared_.address, ": ", error.what());
    }
  }
}

void HttpServer::Impl::Accept(UniqueFd connection) {
  if (shared_.draining) return;
  if (shared_.connections.size() >= static_cast<size_t>(shared_.limits.connections_max)) {
    if (const auto more = full_lines_.Admit()) {
      LogWarning(shared_.address, " refuses a connection: clients may have ", shared_.limits.connections_max,
                 " at once", AndLikeIt(*more));
    }
    return;
  }
  auto added = std::make_shared<HttpConnection>(std::move(connection), &shared_);
  shared_.connections.insert(added);
  added->Start();
  if (!ticking_) TickLater();
}

void HttpServer::Impl::TickLater() {
  ticking_ = !shared_.connections.empty();
  if (!ticking_) return;
  timer_.expires_after(kTick);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (error) return;
    for (const auto& connection : Connections()) connection->Tick();
    TickLater();
  });
}

void HttpServer::Impl::Drain() {
  shared_.draining = true;
  for (const auto& connection : Connections()) connection->Drain();
  if (shared_.connections.empty()) shared_.drained();
}

void HttpServer::Impl::CloseAll() {
  for (const auto& connection : Connections()) connection->Close();
  timer_.cancel();
  work_.reset();  // then the thread ends
}

void HttpServer::Impl::Shutdown(absl::Duration grace) {
  if (!thread_.joinable()) return;
  listener_->Stop();
  asio::post(shared_.io, [this] { Drain(); });
  {
    MutexLock lock(&mutex_);
    mutex_.AwaitFor([this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return drained_; }, grace);
  }
  asio::post(shared_.io, [this] { CloseAll(); });
  thread_.join();
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() { Shutdown(absl::ZeroDuration()); }

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(Options options) {
  TcpListener::Options listen = std::move(options.listen);
  const TlsOptions tls = std::move(options.tls);
  auto impl = std::make_unique<Impl>(std::move(options));
  BW_RETURN_IF_ERROR(impl->Start(std::move(listen), tls));
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

const std::string& HttpServer::address() const { return impl_->address(); }
void HttpServer::Shutdown(absl::Duration grace) { impl_->Shutdown(grace); }

}  // namespace bellwether
