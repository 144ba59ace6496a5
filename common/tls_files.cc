#include "common/tls_files.h"

#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
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

OpenSslPtr<X509> ReadCertificate(BIO* pem) {
  return OpenSslPtr<X509>(PEM_read_bio_X509(pem, nullptr, NoPassphrase, nullptr));
}

absl::Status CheckCertificate(const std::string& path, const X509* certificate) {
  if (certificate == nullptr) return Refuse(path, "no certificate in PEM");
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
    return Refuse(path, "the certificate has expired");
  if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
    return Refuse(path, "the certificate is not valid yet: is the clock right?");
  return absl::OkStatus();
}

// While an authority is replaced there are two in the file, and the old one's time may be over.
absl::Status CheckAuthorities(const std::string& path, const std::string& pem) {
  const OpenSslPtr<BIO> memory = Memory(pem);
  absl::Status status = CheckCertificate(path, ReadCertificate(memory.get()).get());
  while (!status.ok()) {
    const OpenSslPtr<X509> next = ReadCertificate(memory.get());
    if (next == nullptr) return status;
    status = CheckCertificate(path, next.get());
  }
  return status;
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
  if (!options.authority.empty()) BW_RETURN_IF_ERROR(CheckAuthorities(options.authority, pem.authority));
  if (options.certificate.empty()) return pem;
  const OpenSslPtr<X509> certificate = ReadCertificate(Memory(pem.certificate).get());
  BW_RETURN_IF_ERROR(CheckCertificate(options.certificate, certificate.get()));
  const OpenSslPtr<EVP_PKEY> key(
      PEM_read_bio_PrivateKey(Memory(pem.key).get(), nullptr, NoPassphrase, nullptr));
  if (key == nullptr) return Refuse(options.key, "no private key in PEM without a passphrase");
  if (X509_check_private_key(certificate.get(), key.get()) != 1)
    return Refuse(options.key, absl::StrCat("not the key of ", Printable(options.certificate)));
  return pem;
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

}  // namespace bellwether
