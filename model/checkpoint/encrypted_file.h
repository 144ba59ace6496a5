#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/checkpoint/file_mapping.h"

namespace bellwether {

// The files that BELLE publishes of LLaMA models: each is 32 bytes, the SHA-256 of the plain file, and then
// the plain file XORed with Meta's consolidated.00.pth (docs/formats.md).

// "config.json.<64 hex digits>.enc"
struct EncryptedName {
  std::string plain;   // "config.json"
  std::string sha256;  // of the plain file
};
// Nothing if the name has not this form.
std::optional<EncryptedName> ParseEncryptedName(std::string_view name);

// The key file's bytes as they are laid over the plain file's. Both are taken in blocks of 10 MiB in step.
// The last block of the key may be shorter: it is repeated within the block of data that it meets, and the
// next one meets the key's first block again. So this is no cyclic XOR.
class XorKey {
 public:
  static constexpr int64_t kBlockBytes = int64_t{10} << 20;

  static absl::StatusOr<XorKey> Open(const std::string& path);
  // XORs `data`, which begins at byte `offset` of the plain file.
  void Apply(int64_t offset, absl::Span<std::byte> data) const;

 private:
  explicit XorKey(std::shared_ptr<const FileMapping> file) : file_(std::move(file)) {}
  std::shared_ptr<const FileMapping> file_;
};

// Called with the bytes that are done; false ends the work with Cancelled.
using ByteProgress = std::function<bool(int64_t done)>;

// Writes the plain file of `input` to `output`, which appears once its hash is right. AlreadyExists: `output`
// is there and holds the right bytes. InvalidArgument: it holds others; the two hashes of `input` differ; or
// the result has another, so that the key is not the one that it was encrypted with, or a file is damaged.
absl::Status DecryptFile(const std::string& input, const XorKey& key, const std::string& output,
                         const ByteProgress& progress);

}  // namespace bellwether
