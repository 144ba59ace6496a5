#include "common/tls_files.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/stat.h>

#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/quote.h"
#include "common/read_file.h"
#include "common/status.h"

namespace bellwether {
namespace {

constexpr size_t kPemBytesMax = size_t{1} << 20;
constexpr absl::Duration kRenewalInterval = absl::Seconds(3);

struct FreeOpenSsl {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
template <typename T>
using OpenSslPtr = std::unique_ptr<T, FreeOpenSsl>;
using Certificates = std::vector<OpenSslPtr<X509>>;

absl::Status Refuse(const std::string& path, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(Printable(path), ": ", std::string(why)));
}
// With OpenSSL's own reason, which is then forgotten.
absl::Status RefuseByOpenSsl(const std::string& path, std::string_view what) {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  ERR_clear_error();
  return Refuse(
      path, absl::StrCat(std::string(what), reason == nullptr ? "" : ": ", reason == nullptr ? "" : reason));
}

absl::StatusOr<std::string> ReadPem(const std::string& path) {
  struct stat status = {};
  if (stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode))  // a pipe would be waited for
    return Refuse(path, "not a regular file");
  absl::StatusOr<std::string> text = ReadFile(path, kPemBytesMax);
  if (!text.ok()) return absl::InvalidArgumentError(text.status().message());
  return text;
}

OpenSslPtr<BIO> Memory(const std::string& text) {
  return OpenSslPtr<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// Nobody is asked for a passphrase.
int NoPassphrase(char*, int, int, void*) { return 0; }

// All certificates of a file, at least one.
absl::StatusOr<Certificates> ParseCertificates(const std::string& path, const std::string& pem) {
  ERR_clear_error();
  Certificates certificates;
  const OpenSslPtr<BIO> memory = Memory(pem);
  while (X509* next = PEM_read_bio_X509(memory.get(), nullptr, NoPassphrase, nullptr))
    certificates.emplace_back(next);
  if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
    return RefuseByOpenSsl(path, "a certificate in it is broken");
  ERR_clear_error();
  if (certificates.empty()) return Refuse(path, "no certificate in PEM");
  return certificates;
}

absl::StatusOr<OpenSslPtr<EVP_PKEY>> ParseKey(const std::string& path, const std::string& pem) {
  OpenSslPtr<EVP_PKEY> key(PEM_read_bio_PrivateKey(Memory(pem).get(), nullptr, NoPassphrase, nullptr));
  if (key == nullptr) return RefuseByOpenSsl(path, "no private key in PEM without a passphrase");
  return key;
}

absl::Status CheckDates(const std::string& path, const X509* certificate) {
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
    return Refuse(path, "the certificate has expired");
  if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
    return Refuse(path, "the certificate is not valid yet: is the clock right?");
  return absl::OkStatus();
}

// While an authority is replaced there are two in the file, and the old one's time may be over.
absl::Status CheckAuthorities(const std::string& path, const Certificates& authorities) {
  absl::Status status;
  for (const OpenSslPtr<X509>& authority : authorities) {
    status = CheckDates(path, authority.get());
    if (status.ok()) break;
  }
  return status;
}

// Whether OpenSSL would show them to others, by its own rules: of two that belong together one may be too
// short for it.
absl::Status CheckPair(const TlsOptions& options, const Certificates& chain, EVP_PKEY* key) {
  BW_RETURN_IF_ERROR(CheckDates(options.certificate, chain[0].get()));
  if (X509_check_private_key(chain[0].get(), key) != 1) {
    ERR_clear_error();
    return Refuse(options.key, absl::StrCat("not the key of ", Printable(options.certificate)));
  }
  const OpenSslPtr<SSL_CTX> context(SSL_CTX_new(TLS_method()));
  if (context == nullptr || SSL_CTX_use_certificate(context.get(), chain[0].get()) != 1)
    return RefuseByOpenSsl(options.certificate, "OpenSSL does not take the certificate");
  for (size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context.get(), chain[i].get()) != 1)
      return RefuseByOpenSsl(options.certificate,
                             "OpenSSL does not take those that lead up to its authority");
  }
  if (SSL_CTX_use_PrivateKey(context.get(), key) != 1)
    return RefuseByOpenSsl(options.key, "OpenSSL does not take the key");
  return absl::OkStatus();
}

// What was read and nothing else: around it a file may hold what others stumble over.
template <typename Write>
std::string Written(const Write& write) {
  const OpenSslPtr<BIO> memory(BIO_new(BIO_s_mem()));
  write(memory.get());
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(memory.get(), &bytes);  // NOLINT(google-runtime-int): OpenSSL's
  std::string text(bytes, static_cast<size_t>(size));
  OPENSSL_cleanse(bytes, static_cast<size_t>(size));
  return text;
}
std::string ToPem(const Certificates& certificates) {
  return Written([&](BIO* out) {
    for (const OpenSslPtr<X509>& it : certificates) PEM_write_bio_X509(out, it.get());
  });
}
std::string ToPem(const EVP_PKEY* key) {
  return Written(
      [&](BIO* out) { PEM_write_bio_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr); });
}

}  // namespace

absl::StatusOr<TlsFiles> ReadTlsFiles(const TlsOptions& options) {
  if (options.certificate.empty() != options.key.empty())
    return absl::InvalidArgumentError(
        "a certificate and its key belong together: only one of them was given");
  TlsFiles files;
  if (!options.certificate.empty()) {
    BW_ASSIGN_OR_RETURN(const std::string certificate_pem, ReadPem(options.certificate));
    BW_ASSIGN_OR_RETURN(const std::string key_pem, ReadPem(options.key));
    BW_ASSIGN_OR_RETURN(const Certificates chain, ParseCertificates(options.certificate, certificate_pem));
    BW_ASSIGN_OR_RETURN(const OpenSslPtr<EVP_PKEY> key, ParseKey(options.key, key_pem));
    BW_RETURN_IF_ERROR(CheckPair(options, chain, key.get()));
    files.certificate = ToPem(chain);
    files.key = ToPem(key.get());
  }
  if (!options.authority.empty()) {
    BW_ASSIGN_OR_RETURN(const std::string pem, ReadPem(options.authority));
    BW_ASSIGN_OR_RETURN(const Certificates authorities, ParseCertificates(options.authority, pem));
    BW_RETURN_IF_ERROR(CheckAuthorities(options.authority, authorities));
    files.authority = ToPem(authorities);
  }
  return files;
}

absl::Status CheckListener(const TlsOptions& options) {
  if (!options.certificate.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError("a listener needs a certificate and its key for TLS");
}

absl::StatusOr<FollowedTlsFiles> FollowedTlsFiles::Read(TlsOptions options) {
  BW_ASSIGN_OR_RETURN(TlsFiles files, ReadTlsFiles(options));
  return FollowedTlsFiles(std::move(options), std::move(files));
}

bool FollowedTlsFiles::Look() {
  absl::StatusOr<TlsFiles> files = ReadTlsFiles(options_);
  if (!files.ok() && !broken_)
    LogWarning("TLS goes on with the last files that were good: ", files.status().message());
  broken_ = !files.ok();
  if (broken_ || *files == files_) return false;
  files_ = *std::move(files);
  return true;
}

void LookForRenewals(std::function<bool()> look) {
  std::thread([look = std::move(look)] {
    Mutex mutex;
    MutexLock lock(&mutex);
    do {
      mutex.AwaitFor([] { return false; }, kRenewalInterval);
    } while (look());
  }).detach();
}

}  // namespace bellwether
