#include "proto/tls.h"

#include <utility>
#include <vector>

#include "common/status.h"
#include "common/tls_files.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"

namespace bellwether {
namespace {

using Provider = std::shared_ptr<grpc::experimental::CertificateProviderInterface>;

Provider FollowFiles(const TlsOptions& options) {
  return std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      options.key, options.certificate, options.authority, kTlsRenewalSeconds);
}

Provider KeepRead(const TlsFiles& pem) {
  std::vector<grpc::experimental::IdentityKeyCertPair> own;
  if (!pem.certificate.empty()) own.push_back({pem.key, pem.certificate});
  return std::make_shared<grpc::experimental::StaticDataCertificateProvider>(pem.authority, own);
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> TlsServer(const TlsOptions& options) {
  BW_RETURN_IF_ERROR(ReadListenerTlsFiles(options).status());
  grpc::experimental::TlsServerCredentialsOptions tls(FollowFiles(options));
  tls.watch_identity_key_cert_pairs();
  if (!options.authority.empty()) {
    tls.watch_root_certs();
    tls.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(tls);
}

absl::StatusOr<ChannelSecurity> TlsClient(const TlsOptions& options, bool follow_files) {
  if (!options.wanted()) return ChannelSecurity{};
  BW_ASSIGN_OR_RETURN(const TlsFiles pem, ReadTlsFiles(options));
  grpc::experimental::TlsChannelCredentialsOptions tls;
  if (!options.certificate.empty() || !options.authority.empty())
    tls.set_certificate_provider(follow_files ? FollowFiles(options) : KeepRead(pem));
  if (!options.certificate.empty()) tls.watch_identity_key_cert_pairs();
  if (!options.authority.empty()) tls.watch_root_certs();
  return ChannelSecurity{.credentials = grpc::experimental::TlsCredentials(tls),
                         .server_name = options.server_name};
}

}  // namespace bellwether
