#include "common/tls_files.h"

#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/read_file.h"
#include "common/status.h"

namespace bellwether {
namespace {

constexpr size_t kPemBytesMax = size_t{1} << 20;

struct FreeOpenSsl {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
template <typename T>
using OpenSslPtr = std::unique_ptr<T, FreeOpenSsl>;

absl::StatusOr<std::string> ReadPem(const std::string& path) {
  if (path.empty()) return std::string();
  absl::StatusOr<std::string> text = ReadFile(path, kPemBytesMax);
  if (!text.ok()) return absl::InvalidArgumentError(text.status().message());
  return text;
}

OpenSslPtr<BIO> Memory(const std::string& text) {
  return OpenSslPtr<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// Nobody is asked for a passphrase.
int NoPassphrase(char*, int, int, void*) { return 0; }

absl::Status Refuse(const std::string& path, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(Printable(path), ": ", std::string(why)));
}

absl::Status CheckCertificate(const std::string& path, const X509* certificate) {
  if (certificate == nullptr) return Refuse(path, "no certificate in PEM");
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
    return Refuse(path, "the certificate has expired");
  if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
    return Refuse(path, "the certificate is not valid yet: is the clock right?");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TlsFiles> ReadTlsFiles(const TlsOptions& options) {
  if (options.certificate.empty() != options.key.empty())
    return absl::InvalidArgumentError(
        "a certificate and its key belong together: only one of them was given");
  TlsFiles pem;
  BW_ASSIGN_OR_RETURN(pem.certificate, ReadPem(options.certificate));
  BW_ASSIGN_OR_RETURN(pem.key, ReadPem(options.key));
  BW_ASSIGN_OR_RETURN(pem.authority, ReadPem(options.authority));
  const auto read = [](const std::string& text) {
    return OpenSslPtr<X509>(PEM_read_bio_X509(Memory(text).get(), nullptr, NoPassphrase, nullptr));
  };
  if (!options.authority.empty())
    BW_RETURN_IF_ERROR(CheckCertificate(options.authority, read(pem.authority).get()));
  if (options.certificate.empty()) return pem;
  const OpenSslPtr<X509> certificate = read(pem.certificate);
  BW_RETURN_IF_ERROR(CheckCertificate(options.certificate, certificate.get()));
  const OpenSslPtr<EVP_PKEY> key(
      PEM_read_bio_PrivateKey(Memory(pem.key).get(), nullptr, NoPassphrase, nullptr));
  if (key == nullptr) return Refuse(options.key, "no private key in PEM without a passphrase");
  if (X509_check_private_key(certificate.get(), key.get()) != 1)
    return Refuse(options.key, absl::StrCat("not the key of ", Printable(options.certificate)));
  return pem;
}

absl::StatusOr<TlsFiles> ReadListenerTlsFiles(const TlsOptions& options) {
  if (options.certificate.empty())
    return absl::InvalidArgumentError("a listener needs a certificate and its key for TLS");
  return ReadTlsFiles(options);
}

}  // namespace bellwether
