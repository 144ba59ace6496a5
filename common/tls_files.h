#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/tls_options.h"

namespace bellwether {

// The contents of TLS's files, in PEM; empty: there is none.
struct TlsFiles {
  std::string certificate, key, authority;
  bool operator==(const TlsFiles&) const = default;
};

// Reads and checks them, so that what is wrong is said by name and not by a handshake that fails. All errors
// are InvalidArgument and name the file: it cannot be read, is no PEM, the key is not the certificate's, or
// the certificate has ended or not begun.
absl::StatusOr<TlsFiles> ReadTlsFiles(const TlsOptions& options);
// The same for a listener, which must have a certificate.
absl::StatusOr<TlsFiles> ReadListenerTlsFiles(const TlsOptions& options);

// How often files are looked at for having been renewed. Connections that are there go on, new ones see the
// new files.
inline constexpr unsigned kTlsRenewalSeconds = 3;

}  // namespace bellwether
