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

void AddSample(absl::Span<const std::byte> data, Sha256& hash) {
  if (data.size() <= kSamplePieces * kPieceBytes) return hash.Add(data.data(), data.size());
  for (uint64_t piece = 0; piece < kSamplePieces; ++piece) {
    hash.Add(data.data() + (data.size() - kPieceBytes) / (kSamplePieces - 1) * piece, kPieceBytes);
  }
}

// What is hashed of a tensor beside its samples.
std::string StorageText(const StoredTensor& tensor) {
  if (tensor.linear != nullptr) return Describe(*tensor.linear);
  if (tensor.file != nullptr) return std::string(Name(tensor.storage));
  return absl::StrCat("random ", tensor.random.seed);
}

void AddSamples(const StoredTensor& tensor, Sha256& hash) {
  if (tensor.file != nullptr) AddSample(tensor.file->bytes().subspan(tensor.offset, tensor.bytes), hash);
  if (tensor.linear == nullptr) return;
  AddSample(tensor.linear->weights.data(), hash);
  AddSample(tensor.linear->zeros.data(), hash);
  AddSample(tensor.linear->scales.data(), hash);
}

}  // namespace

absl::StatusOr<std::string> Checkpoint::ModelId() const {
  Sha256 hash;
  hash.AddLine(CanonicalText(contents_->config));
  for (const ExpectedTensor& expected : ExpectedTensors(contents_->config)) {
    const StoredTensor& tensor = contents_->tensors.at(expected.key);
    hash.AddLine(absl::StrCat(Name(expected.key), " ", tensor.info.rows, " ", tensor.info.cols, " ",
                              StorageText(tensor), " ", std::string(Name(tensor.info.format.format))));
    AddSamples(tensor, hash);
  }
  return hash.HexDigest();
}

}  // namespace bellwether
