#include "model/checkpoint/encrypted_file.h"

#include <algorithm>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/new_file.h"
#include "common/status.h"
#include "model/checkpoint/sha256.h"

namespace bellwether {
namespace {

constexpr std::string_view kSuffix = ".enc";
constexpr size_t kHashBytes = 32;
constexpr size_t kHexDigits = 2 * kHashBytes;
constexpr size_t kStep = size_t{1} << 20;  // divides a block

absl::Status GoOn(const ByteProgress& progress, size_t done) {
  if (!progress || progress(static_cast<int64_t>(done))) return absl::OkStatus();
  return absl::CancelledError("stopped");
}

// Whether a file that is there has this hash.
absl::StatusOr<bool> HasHash(const std::string& path, const std::string& sha256,
                             const ByteProgress& progress) {
  Sha256 hash;
  std::error_code error;
  if (std::filesystem::file_size(path, error) > 0 && !error) {
    BW_ASSIGN_OR_RETURN(const auto file, FileMapping::Open(path));
    const absl::Span<const std::byte> bytes = file->bytes();
    for (size_t at = 0; at < bytes.size(); at += kStep) {
      const size_t count = std::min(kStep, bytes.size() - at);
      hash.Add(bytes.data() + at, count);
      file->DropPages(at, count);
      BW_RETURN_IF_ERROR(GoOn(progress, at + count));
    }
  }
  BW_ASSIGN_OR_RETURN(const std::string found, hash.HexDigest());
  return found == sha256;
}

// What the header says, which the name must say too.
absl::StatusOr<std::string> HashOf(const std::string& path, absl::Span<const std::byte> bytes) {
  const auto name = ParseEncryptedName(std::filesystem::path(path).filename().string());
  if (!name.has_value())
    return absl::InvalidArgumentError(absl::StrCat(path, " is not called NAME.<64 hex digits>.enc"));
  if (bytes.size() < kHashBytes)
    return absl::InvalidArgumentError(absl::StrCat(path, " has ", bytes.size(), " bytes, less than a hash"));
  const std::string header =
      absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(bytes.data()), kHashBytes));
  if (header == name->sha256) return header;
  return absl::InvalidArgumentError(absl::StrCat(path, " begins with the hash ", header,
                                                 ", its name has another: it is damaged, or was renamed"));
}

}  // namespace

std::optional<EncryptedName> ParseEncryptedName(std::string_view name) {
  if (!name.ends_with(kSuffix)) return std::nullopt;
  name.remove_suffix(kSuffix.size());
  if (name.size() < kHexDigits + 2 || name[name.size() - kHexDigits - 1] != '.') return std::nullopt;
  const std::string_view hex = name.substr(name.size() - kHexDigits);
  if (hex.find_first_not_of("0123456789abcdef") != std::string_view::npos) return std::nullopt;
  return EncryptedName{std::string(name.substr(0, name.size() - kHexDigits - 1)), std::string(hex)};
}

absl::StatusOr<XorKey> XorKey::Open(const std::string& path) {
  BW_ASSIGN_OR_RETURN(std::shared_ptr<const FileMapping> file, FileMapping::Open(path));
  return XorKey(std::move(file));
}

void XorKey::Apply(int64_t offset, absl::Span<std::byte> data) const {
  const absl::Span<const std::byte> key = file_->bytes();
  const auto key_bytes = static_cast<int64_t>(key.size());
  const int64_t key_blocks = (key_bytes + kBlockBytes - 1) / kBlockBytes;
  while (!data.empty()) {
    const int64_t within = offset % kBlockBytes;
    const int64_t begin = offset / kBlockBytes % key_blocks * kBlockBytes;
    const int64_t length = std::min(kBlockBytes, key_bytes - begin);
    const int64_t phase = within % length;
    const int64_t count = std::min({static_cast<int64_t>(data.size()), length - phase, kBlockBytes - within});
    const std::byte* source = key.data() + begin + phase;
    for (int64_t i = 0; i < count; ++i) data[i] ^= source[i];
    data.remove_prefix(count);
    offset += count;
  }
}

absl::Status DecryptFile(const std::string& input, const XorKey& key, const std::string& output,
                         const ByteProgress& progress) {
  BW_ASSIGN_OR_RETURN(const auto file, FileMapping::Open(input));
  BW_ASSIGN_OR_RETURN(const std::string sha256, HashOf(input, file->bytes()));
  std::error_code error;
  const bool exists = std::filesystem::exists(output, error);
  if (error) return absl::UnavailableError(absl::StrCat("cannot read ", output, ": ", error.message()));
  if (exists) {
    BW_ASSIGN_OR_RETURN(const bool done, HasHash(output, sha256, progress));
    if (done) return absl::AlreadyExistsError(absl::StrCat(output, " is done"));
    return absl::InvalidArgumentError(
        absl::StrCat(output, " is there and is not the plain ", input, "; it is not overwritten"));
  }
  BW_ASSIGN_OR_RETURN(NewFile plain, NewFile::Create(output));
  const absl::Span<const std::byte> encrypted = file->bytes().subspan(kHashBytes);
  Sha256 hash;
  std::vector<std::byte> step(kStep);
  for (size_t at = 0; at < encrypted.size(); at += kStep) {
    const size_t count = std::min(kStep, encrypted.size() - at);
    std::copy_n(encrypted.data() + at, count, step.data());
    const absl::Span<std::byte> bytes = absl::MakeSpan(step).first(count);
    key.Apply(static_cast<int64_t>(at), bytes);
    hash.Add(bytes.data(), count);
    BW_RETURN_IF_ERROR(plain.Append(bytes));
    file->DropPages(kHashBytes + at, count);
    BW_RETURN_IF_ERROR(GoOn(progress, at + count));
  }
  BW_ASSIGN_OR_RETURN(const std::string found, hash.HexDigest());
  if (found == sha256) return plain.Finish();
  return absl::InvalidArgumentError(
      absl::StrCat(input,
                   ": what comes out has not the hash that it should have: the base is not the file that "
                   "it was encrypted with, or one of the two is damaged"));
}

}  // namespace bellwether
