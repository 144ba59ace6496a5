#include "proto/tls.h"

#include <utility>
#include <vector>

#include "common/status.h"
#include "common/tls_files.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"
#include "proto/tls_file_copies.h"

namespace bellwether {
namespace {

using Provider = std::shared_ptr<grpc::experimental::CertificateProviderInterface>;

constexpr unsigned kWatcherSeconds = 1;  // the least that gRPC takes

absl::StatusOr<Provider> FollowFiles(const TlsOptions& options) {
  BW_ASSIGN_OR_RETURN(const TlsFileCopies* const copies, TlsFileCopies::Of(options));
  return std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      copies->key_and_certificate(), copies->key_and_certificate(), copies->authority(), kWatcherSeconds);
}

absl::StatusOr<Provider> ReadNow(const TlsOptions& options) {
  BW_ASSIGN_OR_RETURN(const TlsFiles pem, ReadTlsFiles(options));
  std::vector<grpc::experimental::IdentityKeyCertPair> own;
  if (!pem.certificate.empty()) own.push_back({pem.key, pem.certificate});
  return std::make_shared<grpc::experimental::StaticDataCertificateProvider>(pem.authority, own);
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> TlsServer(const TlsOptions& options) {
  BW_RETURN_IF_ERROR(CheckListener(options));
  BW_ASSIGN_OR_RETURN(const Provider files, FollowFiles(options));
  grpc::experimental::TlsServerCredentialsOptions tls(files);
  tls.watch_identity_key_cert_pairs();
  if (!options.authority.empty()) {
    tls.watch_root_certs();
    tls.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(tls);
}

absl::StatusOr<ChannelSecurity> TlsClient(const TlsOptions& options, bool follow_files) {
  if (!options.wanted()) return ChannelSecurity{};
  grpc::experimental::TlsChannelCredentialsOptions tls;
  if (!options.certificate.empty() || !options.key.empty() || !options.authority.empty()) {
    BW_ASSIGN_OR_RETURN(const Provider files, follow_files ? FollowFiles(options) : ReadNow(options));
    tls.set_certificate_provider(files);
  }
  if (!options.certificate.empty()) tls.watch_identity_key_cert_pairs();
  if (!options.authority.empty()) tls.watch_root_certs();
  return ChannelSecurity{.credentials = grpc::experimental::TlsCredentials(tls),
                         .server_name = options.server_name};
}

}  // namespace bellwether
