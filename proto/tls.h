#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/tls_options.h"
#include "grpcpp/grpcpp.h"

namespace bellwether {

// gRPC's credentials from files. TLS 1.2 or newer. All errors are those of common/tls_files.h, or
// TlsFileCopies'.

// Of a listener: presents the certificate; with an authority it asks who connects for one of that. The files
// are followed when they change (tls_file_copies.h): connections that are there go on, new ones see the new
// files, or the last that were good.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> TlsServer(const TlsOptions& options);

// Of who connects. `follow_files`: as above; else they are read now, once.
struct ChannelSecurity {
  std::shared_ptr<grpc::ChannelCredentials> credentials;  // null: nothing is encrypted
  std::string server_name;                                // empty: the host's
};
absl::StatusOr<ChannelSecurity> TlsClient(const TlsOptions& options, bool follow_files);

}  // namespace bellwether
