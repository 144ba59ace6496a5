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

absl::StatusOr<std::shared_ptr<TlsContexts>> TlsContexts::Load(TlsOptions options) {
  BW_ASSIGN_OR_RETURN(std::shared_ptr<TlsContexts> contexts, Make(std::move(options)));
  LookForRenewals([weak = std::weak_ptr(contexts)] {
    const std::shared_ptr<TlsContexts> still_used = weak.lock();
    if (still_used != nullptr) still_used->Look();
    return still_used != nullptr;
  });
  return contexts;
}

absl::StatusOr<std::shared_ptr<TlsContexts>> TlsContexts::Make(TlsOptions options) {
  BW_RETURN_IF_ERROR(CheckListener(options));
  BW_ASSIGN_OR_RETURN(FollowedTlsFiles files, FollowedTlsFiles::Read(std::move(options)));
  std::shared_ptr<TlsContexts> contexts(new TlsContexts(std::move(files)));
  BW_RETURN_IF_ERROR(contexts->Renew());
  return contexts;
}

absl::Status TlsContexts::Renew() {
  try {
    BW_ASSIGN_OR_RETURN(std::shared_ptr<ssl::context> context, MakeContext(files_.files()));
    MutexLock lock(&mutex_);
    context_.swap(context);
  } catch (const std::exception& error) {  // of Boost, where memory is short
    return absl::ResourceExhaustedError(absl::StrCat("TLS: ", error.what()));
  }
  return absl::OkStatus();
}

void TlsContexts::Look() {
  if (!files_.Look()) return;
  if (const absl::Status made = Renew(); !made.ok()) {
    LogWarning("the last certificate is still shown: ", made.message());
  }
}

std::shared_ptr<ssl::context> TlsContexts::Current() const {
  MutexLock lock(&mutex_);
  return context_;
}

}  // namespace bellwether
