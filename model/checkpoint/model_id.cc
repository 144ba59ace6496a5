#include <openssl/evp.h>

#include <algorithm>
#include <memory>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/contents.h"
#include "model/checkpoint/expected_tensors.h"

namespace bellwether {
namespace {

// A tensor is sampled in this many pieces, spread evenly from its first byte to its last.
constexpr uint64_t kSamplePieces = 4;
constexpr uint64_t kPieceBytes = 1024;

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    ok_ = context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1;
  }
  void Add(const void* data, size_t size) { ok_ = ok_ && EVP_DigestUpdate(context_.get(), data, size) == 1; }
  void AddLine(const std::string& text) {
    Add(text.data(), text.size());
    Add("\n", 1);
  }
  absl::StatusOr<std::string> HexDigest() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    ok_ = ok_ && EVP_DigestFinal_ex(context_.get(), digest, &size) == 1;
    if (!ok_) return absl::InternalError("SHA-256 is not available in this OpenSSL");
    return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), size));
  }

 private:
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
  bool ok_ = false;
};

void AddSample(const StoredTensor& tensor, Sha256& hash) {
  const std::byte* data = tensor.file->bytes().data() + tensor.offset;
  if (tensor.bytes <= kSamplePieces * kPieceBytes) return hash.Add(data, tensor.bytes);
  for (uint64_t piece = 0; piece < kSamplePieces; ++piece) {
    hash.Add(data + (tensor.bytes - kPieceBytes) / (kSamplePieces - 1) * piece, kPieceBytes);
  }
}

}  // namespace

absl::StatusOr<std::string> Checkpoint::ModelId() const {
  Sha256 hash;
  hash.AddLine(CanonicalText(contents_->config));
  for (const ExpectedTensor& expected : ExpectedTensors(contents_->config)) {
    const StoredTensor& tensor = contents_->tensors.at(expected.key);
    const bool in_file = tensor.file != nullptr;
    hash.AddLine(absl::StrCat(
        Name(expected.key), " ", tensor.info.rows, " ", tensor.info.cols, " ",
        in_file ? std::string(Name(tensor.storage)) : absl::StrCat("random ", tensor.random.seed), " ",
        std::string(Name(tensor.info.format.format))));
    if (in_file) AddSample(tensor, hash);
  }
  return hash.HexDigest();
}

}  // namespace bellwether
