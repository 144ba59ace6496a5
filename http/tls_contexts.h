#pragma once

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "boost/asio/ssl/context.hpp"
#include "common/mutex.h"
#include "common/tls_files.h"

namespace bellwether {

// What a listener shows under TLS (1.2 or newer), by files that are followed when they change.
class TlsContexts {
 public:
  // Follows the files as long as it lives. Errors: those of common/tls_files.h. With an authority clients
  // must have a certificate of it.
  static absl::StatusOr<std::shared_ptr<TlsContexts>> Load(TlsOptions options);

  // As above, but they are looked at when told.
  static absl::StatusOr<std::shared_ptr<TlsContexts>> Make(TlsOptions options);
  void Look();

  // For a new connection, which keeps it. Never waits for a file. Any thread.
  std::shared_ptr<boost::asio::ssl::context> Current() const;

 private:
  explicit TlsContexts(FollowedTlsFiles files) : files_(std::move(files)) {}
  absl::Status Renew();

  FollowedTlsFiles files_;  // of who looks
  mutable Mutex mutex_;
  std::shared_ptr<boost::asio::ssl::context> context_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bellwether
