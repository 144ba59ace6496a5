#pragma once

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "boost/asio/ssl/context.hpp"
#include "common/clock.h"
#include "common/tls_files.h"

namespace bellwether {

// What a listener shows under TLS (1.2 or newer), by files that are followed when they change. One thread.
class TlsContexts {
 public:
  // Errors: those of common/tls_files.h. With an authority clients must have a certificate of it.
  static absl::StatusOr<std::unique_ptr<TlsContexts>> Load(TlsOptions options,
                                                           const Clock* clock = Clock::Real());

  // For a new connection, which keeps it.
  std::shared_ptr<boost::asio::ssl::context> Current();

 private:
  TlsContexts(FollowedTlsFiles files, const Clock* clock)
      : files_(std::move(files)), clock_(clock), looked_at_(clock->Now()) {}
  // Makes the context anew.
  absl::Status Make();

  FollowedTlsFiles files_;
  const Clock* const clock_;
  absl::Duration looked_at_;
  std::shared_ptr<boost::asio::ssl::context> context_;
};

}  // namespace bellwether
