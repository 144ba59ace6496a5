#include "model/checkpoint/zip.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"

namespace bellwether {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50;
constexpr uint32_t kCentralHeader = 0x02014b50;
constexpr uint32_t kEndRecord = 0x06054b50;
constexpr uint32_t kEnd64Record = 0x06064b50;
constexpr uint32_t kEnd64Locator = 0x07064b50;
constexpr uint64_t kLocalHeaderBytes = 30, kCentralHeaderBytes = 46, kEndRecordBytes = 22;
constexpr uint64_t kEnd64LocatorBytes = 20, kEnd64RecordBytes = 56;
constexpr uint64_t kCommentBytesMax = 65535;
constexpr uint16_t kZip64Extra = 1;
constexpr uint16_t kEncryptedFlag = 1;
constexpr uint32_t kIn64 = 0xffffffff;  // a field whose value stands in the ZIP64 part

template <typename T>
T LoadAt(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

class ZipParser {
 public:
  explicit ZipParser(absl::Span<const std::byte> file) : file_(file) {}
  absl::StatusOr<std::vector<ZipEntry>> Parse();

 private:
  // Where the central directory lies and how many entries it has.
  struct Directory {
    uint64_t entries = 0, bytes = 0, offset = 0;
  };
  // An entry of the central directory.
  struct Header {
    uint16_t flags = 0, method = 0;
    uint64_t packed = 0, bytes = 0, local = 0;
    std::string_view name;  // of the archive
  };

  bool Holds(uint64_t offset, uint64_t bytes) const {
    return offset <= file_.size() && bytes <= file_.size() - offset;
  }
  template <typename T>
  T At(uint64_t offset) const {
    return LoadAt<T>(file_.data() + offset);
  }
  absl::StatusOr<uint64_t> FindEnd() const;
  absl::StatusOr<Directory> FindDirectory() const;
  absl::StatusOr<Header> TakeHeader(uint64_t end);
  static absl::Status ReadZip64(absl::Span<const std::byte> extra, Header& header);
  absl::StatusOr<ZipEntry> Locate(const Header& header);

  const absl::Span<const std::byte> file_;
  uint64_t position_ = 0;  // in the central directory
  // Local headers and data, which must not overlap.
  std::vector<std::pair<uint64_t, uint64_t>> extents_;
};

// The end record is the last thing of an archive but for a comment.
absl::StatusOr<uint64_t> ZipParser::FindEnd() const {
  if (file_.size() < kEndRecordBytes) return absl::InvalidArgumentError("shorter than a zip archive");
  const uint64_t last = file_.size() - kEndRecordBytes;
  const uint64_t first = last > kCommentBytesMax ? last - kCommentBytesMax : 0;
  for (uint64_t at = last;; --at) {
    if (At<uint32_t>(at) == kEndRecord && At<uint16_t>(at + 20) == last - at) return at;
    if (at == first) break;
  }
  return absl::InvalidArgumentError("a zip archive without its end; the file may be cut short");
}

absl::StatusOr<ZipParser::Directory> ZipParser::FindDirectory() const {
  BW_ASSIGN_OR_RETURN(const uint64_t end, FindEnd());
  Directory directory{
      .entries = At<uint16_t>(end + 10), .bytes = At<uint32_t>(end + 12), .offset = At<uint32_t>(end + 16)};
  const bool in_64 = directory.entries == 0xffff || directory.bytes == kIn64 || directory.offset == kIn64;
  if (in_64 && end >= kEnd64LocatorBytes && At<uint32_t>(end - kEnd64LocatorBytes) == kEnd64Locator) {
    const uint64_t record = At<uint64_t>(end - kEnd64LocatorBytes + 8);
    if (!Holds(record, kEnd64RecordBytes) || At<uint32_t>(record) != kEnd64Record) {
      return absl::InvalidArgumentError("the ZIP64 end record is not where its locator says");
    }
    directory = {.entries = At<uint64_t>(record + 32),
                 .bytes = At<uint64_t>(record + 40),
                 .offset = At<uint64_t>(record + 48)};
  }
  if (directory.entries > kZipEntriesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(directory.entries, " entries; at most ", kZipEntriesMax, " are read"));
  }
  if (!Holds(directory.offset, directory.bytes) || directory.offset + directory.bytes > end) {
    return absl::InvalidArgumentError(absl::StrCat("a directory of ", directory.bytes, " bytes at ",
                                                   directory.offset, " in a file of ", file_.size(),
                                                   "; it may be cut short"));
  }
  return directory;
}

// Sizes and place, in this order, of those that the plain fields leave to the ZIP64 part.
absl::Status ZipParser::ReadZip64(absl::Span<const std::byte> extra, Header& header) {
  while (extra.size() >= 4) {
    const auto id = LoadAt<uint16_t>(extra.data()), size = LoadAt<uint16_t>(extra.data() + 2);
    extra.remove_prefix(4);
    if (size > extra.size()) break;
    absl::Span<const std::byte> field = extra.first(size);
    extra.remove_prefix(size);
    if (id != kZip64Extra) continue;
    for (uint64_t* value : {&header.bytes, &header.packed, &header.local}) {
      if (*value != kIn64) continue;
      if (field.size() < sizeof(uint64_t)) return absl::InvalidArgumentError("its ZIP64 part is too short");
      *value = LoadAt<uint64_t>(field.data());
      field.remove_prefix(sizeof(uint64_t));
    }
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::StatusOr<ZipParser::Header> ZipParser::TakeHeader(uint64_t end) {
  const uint64_t at = position_;
  if (end - at < kCentralHeaderBytes || At<uint32_t>(at) != kCentralHeader) {
    return absl::InvalidArgumentError(absl::StrCat("the directory is damaged at byte ", at));
  }
  Header header;
  header.flags = At<uint16_t>(at + 8);
  header.method = At<uint16_t>(at + 10);
  header.packed = At<uint32_t>(at + 20);
  header.bytes = At<uint32_t>(at + 24);
  header.local = At<uint32_t>(at + 42);
  const uint64_t name = At<uint16_t>(at + 28), extra = At<uint16_t>(at + 30), comment = At<uint16_t>(at + 32);
  if (name > kZipNameBytesMax || name + extra + comment > end - at - kCentralHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the directory is damaged at byte ", at));
  }
  header.name = {reinterpret_cast<const char*>(file_.data()) + at + kCentralHeaderBytes, name};
  BW_RETURN_IF_ERROR(Annotate(ReadZip64(file_.subspan(at + kCentralHeaderBytes + name, extra), header),
                              Quoted(header.name)));
  position_ = at + kCentralHeaderBytes + name + extra + comment;
  return header;
}

bool LeadsElsewhere(std::string_view name) {
  return name.starts_with('/') || name.find("..") != std::string_view::npos ||
         name.find('\\') != std::string_view::npos || name.find('\0') != std::string_view::npos;
}

absl::StatusOr<ZipEntry> ZipParser::Locate(const Header& header) {
  const auto wrong = [&](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("entry ", Quoted(header.name), " ", what));
  };
  if (LeadsElsewhere(header.name)) return wrong("has a name that leads out of the archive");
  if ((header.flags & kEncryptedFlag) != 0) return wrong("is encrypted");
  if (header.method != 0 || header.packed != header.bytes) {
    return wrong("is compressed; torch stores its entries as they are");
  }
  if (!Holds(header.local, kLocalHeaderBytes) || At<uint32_t>(header.local) != kLocalHeader) {
    return wrong("has no header where the directory says");
  }
  // The lengths of the local header count: its padding aligns the data.
  const uint64_t head = kLocalHeaderBytes + At<uint16_t>(header.local + 26) + At<uint16_t>(header.local + 28);
  if (!Holds(header.local, head) || !Holds(header.local + head, header.bytes)) {
    return wrong(absl::StrCat("of ", header.bytes, " bytes does not fit the file; it may be cut short"));
  }
  extents_.push_back({header.local, header.local + head + header.bytes});
  ZipEntry entry;
  entry.name = std::string(header.name);
  entry.offset = header.local + head;
  entry.bytes = header.bytes;
  return entry;
}

absl::StatusOr<std::vector<ZipEntry>> ZipParser::Parse() {
  BW_ASSIGN_OR_RETURN(const Directory directory, FindDirectory());
  position_ = directory.offset;
  std::vector<ZipEntry> entries;
  absl::flat_hash_set<std::string> names;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    BW_ASSIGN_OR_RETURN(const Header header, TakeHeader(directory.offset + directory.bytes));
    BW_ASSIGN_OR_RETURN(ZipEntry entry, Locate(header));
    if (!names.insert(entry.name).second) {
      return absl::InvalidArgumentError(absl::StrCat("entry ", Quoted(entry.name), " is there twice"));
    }
    entries.push_back(std::move(entry));
  }
  std::sort(extents_.begin(), extents_.end());
  for (size_t i = 1; i < extents_.size(); ++i) {
    if (extents_[i].first < extents_[i - 1].second) {
      return absl::InvalidArgumentError(absl::StrCat("entries overlap at byte ", extents_[i].first));
    }
  }
  if (!extents_.empty() && extents_.back().second > directory.offset) {
    return absl::InvalidArgumentError("an entry overlaps the directory");
  }
  std::sort(entries.begin(), entries.end(),
            [](const ZipEntry& a, const ZipEntry& b) { return a.offset < b.offset; });
  return entries;
}

}  // namespace

bool IsZip(absl::Span<const std::byte> file) {
  return file.size() >= sizeof(uint32_t) && LoadAt<uint32_t>(file.data()) == kLocalHeader;
}

absl::StatusOr<std::vector<ZipEntry>> ParseZip(absl::Span<const std::byte> file) {
  return ZipParser(file).Parse();
}

}  // namespace bellwether
