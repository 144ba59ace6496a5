#include "model/checkpoint/sha256.h"

#include <openssl/evp.h>

#include "absl/strings/escaping.h"
#include "common/status.h"

namespace bellwether {

Sha256::Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
  ok_ = context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1;
}

void Sha256::Add(const void* data, size_t size) {
  ok_ = ok_ && EVP_DigestUpdate(context_.get(), data, size) == 1;
}

void Sha256::AddLine(const std::string& text) {
  Add(text.data(), text.size());
  Add("\n", 1);
}

absl::StatusOr<std::string> Sha256::HexDigest() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  ok_ = ok_ && EVP_DigestFinal_ex(context_.get(), digest, &size) == 1;
  if (!ok_) return absl::InternalError("SHA-256 is not available in this OpenSSL");
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), size));
}

absl::StatusOr<std::string> Sha256::ShortDigest() {
  constexpr size_t kDigits = 16;
  BW_ASSIGN_OR_RETURN(const std::string digest, HexDigest());
  return digest.substr(0, kDigits);
}

}  // namespace bellwether
