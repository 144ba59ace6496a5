#include "common/shared_secret.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <array>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/read_file.h"

namespace bellwether {
namespace {

constexpr size_t kBytesMin = 16, kBytesMax = 4096;

using Digest = std::array<unsigned char, SHA256_DIGEST_LENGTH>;

Digest DigestOf(std::string_view bytes) {
  Digest digest{};
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest.data());
  return digest;
}

}  // namespace

absl::StatusOr<SharedSecret> SharedSecret::Read(const std::string& path) {
  SharedSecret secret;
  if (path.empty()) return secret;
  absl::StatusOr<std::string> text = ReadFile(path, kBytesMax);
  if (!text.ok()) return absl::InvalidArgumentError(text.status().message());
  absl::StripTrailingAsciiWhitespace(&*text);
  if (text->size() < kBytesMin) {
    return absl::InvalidArgumentError(absl::StrCat(Printable(path), " holds a secret of ", text->size(),
                                                   " bytes, at least ", kBytesMin,
                                                   " are needed: openssl rand -hex 32 makes a good one"));
  }
  secret.bytes_ = *std::move(text);
  return secret;
}

bool SharedSecret::Matches(std::string_view said) const {
  if (bytes_.empty()) return true;
  // Of digests, which are equally long.
  const Digest ours = DigestOf(bytes_), theirs = DigestOf(said);
  return CRYPTO_memcmp(ours.data(), theirs.data(), ours.size()) == 0;
}

}  // namespace bellwether
