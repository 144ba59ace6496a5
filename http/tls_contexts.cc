#include "http/tls_contexts.h"

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "boost/asio/buffer.hpp"
#include "common/log.h"
#include "common/status.h"

namespace bellwether {
namespace {

namespace ssl = boost::asio::ssl;
using ErrorCode = boost::system::error_code;

absl::Status ToStatus(const ErrorCode& error) {
  return error ? absl::InvalidArgumentError(absl::StrCat("TLS: ", error.message())) : absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<ssl::context>> MakeContext(const TlsFiles& files) {
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  // A session that goes on elsewhere would skip the look at the client's certificate.
  SSL_CTX_set_session_cache_mode(context->native_handle(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
  ErrorCode error;
  context->use_certificate_chain(boost::asio::buffer(files.certificate), error);
  BW_RETURN_IF_ERROR(ToStatus(error));
  context->use_private_key(boost::asio::buffer(files.key), ssl::context::pem, error);
  BW_RETURN_IF_ERROR(ToStatus(error));
  if (!files.authority.empty()) {
    context->add_certificate_authority(boost::asio::buffer(files.authority), error);
    BW_RETURN_IF_ERROR(ToStatus(error));
    context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert, error);
    BW_RETURN_IF_ERROR(ToStatus(error));
  }
  return context;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TlsContexts>> TlsContexts::Load(TlsOptions options, const Clock* clock) {
  BW_RETURN_IF_ERROR(CheckListener(options));
  BW_ASSIGN_OR_RETURN(FollowedTlsFiles files, FollowedTlsFiles::Read(std::move(options)));
  std::unique_ptr<TlsContexts> contexts(new TlsContexts(std::move(files), clock));
  BW_RETURN_IF_ERROR(contexts->Make());
  return contexts;
}

absl::Status TlsContexts::Make() {
  try {
    BW_ASSIGN_OR_RETURN(context_, MakeContext(files_.files()));
  } catch (const std::exception& error) {  // of Boost, where memory is short
    return absl::ResourceExhaustedError(absl::StrCat("TLS: ", error.what()));
  }
  return absl::OkStatus();
}

std::shared_ptr<ssl::context> TlsContexts::Current() {
  const absl::Duration now = clock_->Now();
  if (now < looked_at_ + absl::Seconds(kTlsRenewalSeconds)) return context_;
  looked_at_ = now;
  if (files_.Look()) {
    if (const absl::Status made = Make(); !made.ok()) {
      LogWarning("the last certificate is still shown: ", made.message());
    }
  }
  return context_;
}

}  // namespace bellwether
