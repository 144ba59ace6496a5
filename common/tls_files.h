#pragma once

#include <functional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "common/tls_options.h"

namespace bellwether {

// The contents of TLS's files, written anew in PEM; empty: there is none.
struct TlsFiles {
  std::string certificate, key, authority;
  bool operator==(const TlsFiles&) const = default;
};

// Reads and checks them, so that what is wrong is said by name and not by a handshake that fails. All errors
// are InvalidArgument and name the file: it cannot be read, is no PEM, the key is not the certificate's, the
// certificate has ended or not begun (of several authorities: all of them), or OpenSSL takes one of them for
// too weak.
absl::StatusOr<TlsFiles> ReadTlsFiles(const TlsOptions& options);
// InvalidArgument: a listener must have a certificate.
absl::Status CheckListener(const TlsOptions& options);

// Files that are renewed while they are used: the last ones that were good. One thread.
class FollowedTlsFiles {
 public:
  // Errors: those of ReadTlsFiles.
  static absl::StatusOr<FollowedTlsFiles> Read(TlsOptions options);

  const TlsFiles& files() const { return files_; }
  // Reads them again; true if they are good and others than before. That they are no good is logged once,
  // until they are.
  bool Look();

 private:
  FollowedTlsFiles(TlsOptions options, TlsFiles files)
      : options_(std::move(options)), files_(std::move(files)) {}

  TlsOptions options_;
  TlsFiles files_;
  bool broken_ = false;
};

// Files are looked at every 3 seconds for having been renewed: `look` is called on a thread of its own until
// it returns false or the process ends. A file may lie on a drive that answers late or never, which so holds
// up nobody. Connections that are there go on, new ones see the new files.
void LookForRenewals(std::function<bool()> look);

}  // namespace bellwether
