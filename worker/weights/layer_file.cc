#include "worker/weights/layer_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/aligned_buffer.h"
#include "common/fast_hash.h"
#include "common/json.h"
#include "common/packed_row.h"
#include "common/status.h"

namespace bellwether {
namespace {

constexpr absl::string_view kMagic = "bellwether layer 1\n";
constexpr size_t kDigits = 16;
constexpr size_t kPreambleBytes = kMagic.size() + 2 * kDigits + 1;
constexpr int64_t kTextBytesMax = int64_t{16} << 20;
constexpr int64_t kImageBytesMax = int64_t{1} << 42;

std::string Hex(uint64_t value) { return absl::StrFormat("%016x", value); }
bool ParseHex(absl::string_view text, uint64_t* value) {
  return text.size() == kDigits && absl::SimpleHexAtoi(text, value);
}

uint64_t HashText(absl::string_view text) {
  return FastHash(absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()), text.size()), 0);
}

struct Preamble {
  int64_t text_bytes = 0;
  uint64_t text_hash = 0;
};
absl::StatusOr<Preamble> ParsePreamble(absl::string_view header) {
  if (header.size() < kPreambleBytes || header.substr(0, kMagic.size()) != kMagic)
    return absl::DataLossError("not a layer file of this version");
  uint64_t bytes = 0, hash = 0;
  if (!ParseHex(header.substr(kMagic.size(), kDigits), &bytes) ||
      !ParseHex(header.substr(kMagic.size() + kDigits, kDigits), &hash) ||
      header[kPreambleBytes - 1] != '\n' || bytes > static_cast<uint64_t>(kTextBytesMax)) {
    return absl::DataLossError("damaged before its description");
  }
  return Preamble{static_cast<int64_t>(bytes), hash};
}

// `bytes` at most from the file's begin; the system's cache is good enough for a few pages.
absl::StatusOr<std::string> ReadBeginning(int fd, int64_t bytes) {
  std::string text(static_cast<size_t>(bytes), '\0');
  size_t got = 0;
  while (got < text.size()) {
    const ssize_t read = pread(fd, text.data() + got, text.size() - got, static_cast<off_t>(got));
    if (read < 0 && errno == EINTR) continue;
    if (read < 0) return absl::ErrnoToStatus(errno, "cannot read");
    if (read == 0) break;
    got += static_cast<size_t>(read);
  }
  text.resize(got);
  return text;
}

absl::StatusOr<std::string> ReadHeader(int fd) {
  BW_ASSIGN_OR_RETURN(std::string header, ReadBeginning(fd, kLayerPageBytes));
  BW_ASSIGN_OR_RETURN(const int64_t bytes, LayerHeaderBytes(header));
  if (bytes > kLayerPageBytes) return ReadBeginning(fd, bytes);
  return header;
}

// Some file systems take the flag and refuse the read.
bool ReadsDirectly(int fd) {
  const absl::StatusOr<AlignedBuffer> page = AlignedBuffer::Allocate(kLayerPageBytes);
  return page.ok() && pread(fd, page->data(), kLayerPageBytes, 0) == kLayerPageBytes;
}

}  // namespace

LayerFileInfo DescribeImage(std::string key, absl::Span<const std::byte> image,
                            std::vector<WeightHash> hashes) {
  LayerFileInfo info{
      .key = std::move(key), .image_bytes = static_cast<int64_t>(image.size()), .hashes = std::move(hashes)};
  for (size_t begin = 0; begin < image.size(); begin += kLayerBlockBytes) {
    info.checksums.push_back(FastHash(image.subspan(begin, kLayerBlockBytes), info.checksums.size()));
  }
  return info;
}

std::string WriteLayerHeader(const LayerFileInfo& info) {
  Json json = Json::object({{"key", info.key}, {"image_bytes", info.image_bytes}});
  Json::Array checksums, hashes;
  for (const uint64_t checksum : info.checksums) checksums.emplace_back(Hex(checksum));
  for (const WeightHash& hash : info.hashes) hashes.push_back(Json::array({hash.what, Hex(hash.hash)}));
  json["checksums"] = std::move(checksums);
  json["hashes"] = std::move(hashes);
  const std::string text = WriteJson(json);
  std::string header = absl::StrCat(kMagic, Hex(text.size()), Hex(HashText(text)), "\n", text);
  header.resize(RoundUp(static_cast<int64_t>(header.size()), kLayerPageBytes), '\0');
  return header;
}

absl::StatusOr<LayerFileInfo> ParseLayerInfo(absl::string_view text) {
  const absl::Status damaged = absl::DataLossError("its description is not one of ours");
  const absl::StatusOr<Json> parsed = ParseJson({text.data(), text.size()});
  if (!parsed.ok()) return absl::DataLossError(parsed.status().message());
  const Json& json = *parsed;
  LayerFileInfo info{.key = json["key"].get<std::string>(),
                     .image_bytes = json["image_bytes"].get<int64_t>()};
  if (info.image_bytes <= 0 || info.image_bytes > kImageBytesMax || info.image_bytes % kLayerPageBytes != 0)
    return damaged;
  for (const Json& checksum : json["checksums"]) {
    if (!ParseHex(checksum.text(), &info.checksums.emplace_back())) return damaged;
  }
  const int64_t blocks = (info.image_bytes + kLayerBlockBytes - 1) / kLayerBlockBytes;
  if (static_cast<int64_t>(info.checksums.size()) != blocks) return damaged;
  for (const Json& pair : json["hashes"]) {
    WeightHash& hash = info.hashes.emplace_back();
    hash.what = pair[0].text();
    if (info.hashes.size() > kWeightHashesMax || hash.what.size() > kWeightHashNameBytesMax ||
        !ParseHex(pair[1].text(), &hash.hash)) {
      return damaged;
    }
  }
  return info;
}

absl::StatusOr<int64_t> LayerHeaderBytes(absl::string_view beginning) {
  BW_ASSIGN_OR_RETURN(const Preamble preamble, ParsePreamble(beginning));
  return RoundUp(static_cast<int64_t>(kPreambleBytes) + preamble.text_bytes, kLayerPageBytes);
}

absl::StatusOr<LayerFileInfo> ParseLayerHeader(absl::string_view header) {
  BW_ASSIGN_OR_RETURN(const Preamble preamble, ParsePreamble(header));
  const absl::string_view text = header.substr(kPreambleBytes, preamble.text_bytes);
  if (static_cast<int64_t>(text.size()) != preamble.text_bytes || HashText(text) != preamble.text_hash)
    return absl::DataLossError("its description is damaged");
  return ParseLayerInfo(text);
}

absl::StatusOr<std::string> ReadLayerKey(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  BW_ASSIGN_OR_RETURN(const std::string header, ReadHeader(fd.get()));
  BW_ASSIGN_OR_RETURN(LayerFileInfo info, ParseLayerHeader(header));
  return std::move(info.key);
}

absl::StatusOr<std::shared_ptr<const LayerFile>> LayerFile::Open(const std::string& path,
                                                                 const std::string& key, ReadAt read_at) {
  std::shared_ptr<LayerFile> file(new LayerFile);
  file->path_ = path;
  file->read_at_ = read_at ? std::move(read_at) : ReadAt(pread);
  file->fd_ = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const int fd = file->fd_.get();
  if (!file->fd_.valid()) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  const absl::StatusOr<std::string> header = ReadHeader(fd);
  if (!header.ok()) return Annotate(header.status(), path);
  absl::StatusOr<LayerFileInfo> info = ParseLayerHeader(*header);
  if (!info.ok()) return Annotate(info.status(), path);
  if (info->key != key)
    return absl::DataLossError(absl::StrCat(path, ": holds another layer than its name says"));
  file->info_ = *std::move(info);
  BW_ASSIGN_OR_RETURN(file->image_begin_, LayerHeaderBytes(*header));
  struct stat status;
  if (fstat(fd, &status) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot stat ", path));
  if (status.st_size != file->image_begin_ + file->info_.image_bytes)
    return absl::DataLossError(
        absl::StrCat(path, ": has ", status.st_size, " bytes, and not those that it describes"));
  // What was just written still lies in the system's cache, where nobody needs it.
  (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  file->direct_ = fcntl(fd, F_SETFL, O_DIRECT) == 0 && ReadsDirectly(fd);
  if (!file->direct_ && fcntl(fd, F_SETFL, 0) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  return std::shared_ptr<const LayerFile>(std::move(file));
}

absl::Status LayerFile::ReadPages(int64_t begin, int64_t end, std::byte* image) const {
  for (int64_t at = begin; at < end;) {
    const ssize_t read = read_at_(fd_.get(), image + at, end - at, image_begin_ + at);
    if (read < 0 && errno == EINTR) continue;
    if (read < 0)
      return absl::ErrnoToStatus(errno, absl::StrCat(path_, ": cannot read at ", image_begin_ + at));
    if (read == 0) return absl::DataLossError(absl::StrCat(path_, ": ends at ", image_begin_ + at));
    at += read;
  }
  if (!direct_) (void)posix_fadvise(fd_.get(), image_begin_ + begin, end - begin, POSIX_FADV_DONTNEED);
  return absl::OkStatus();
}

absl::Status LayerFile::ReadBlock(int64_t block, bool check, std::byte* image) const {
  const int64_t begin = block * kLayerBlockBytes;
  BW_RETURN_IF_ERROR(ReadPages(begin, begin + BytesOf(block), image));
  return check ? CheckBlock(block, image) : absl::OkStatus();
}

absl::Status LayerFile::CheckBlock(int64_t block, const std::byte* image) const {
  const int64_t begin = block * kLayerBlockBytes, end = begin + BytesOf(block);
  if (FastHash(absl::MakeConstSpan(image + begin, end - begin), block) == info_.checksums[block])
    return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(path_, ": damaged between bytes ", image_begin_ + begin, " and ", image_begin_ + end));
}

void LayerFile::Discard() const {
  if (!discarded_.exchange(true)) (void)unlink(path_.c_str());
}

}  // namespace bellwether
