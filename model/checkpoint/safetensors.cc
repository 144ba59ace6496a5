#include "model/checkpoint/safetensors.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/status.h"

namespace bellwether {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr size_t kShownNameBytes = 200;

struct DtypeBits {
  const char* name;
  uint64_t bits;
};
constexpr DtypeBits kDtypes[] = {
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
};

std::string Quote(const std::string& name) {
  return absl::StrCat("'", name.substr(0, kShownNameBytes), name.size() > kShownNameBytes ? "..." : "", "'");
}

// Builds entries while the JSON is read, so that a huge header never becomes a tree of nodes.
class HeaderReader : public JsonEvents {
 public:
  std::vector<FileTensor> entries;
  std::string note;

  absl::Status Scalar(Json value) override;
  absl::Status BeginObject() override;
  absl::Status Key(std::string name) override;
  absl::Status EndObject() override;
  absl::Status BeginArray() override;
  absl::Status EndArray() override;

 private:
  enum class State { kStart, kTop, kMetadata, kEntry, kShape, kOffsets, kEnd };
  enum Field { kDtype = 1, kShapeField = 2, kOffsetsField = 4, kAllFields = 7 };

  absl::Status Fail(const std::string& what) const {
    return absl::InvalidArgumentError(
        entries.empty() ? absl::StrCat("unexpected ", what, " in the header")
                        : absl::StrCat("unexpected ", what, " at tensor ", Quote(entries.back().name)));
  }
  absl::Status Size(uint64_t value);

  State state_ = State::kStart;
  bool metadata_seen_ = false;
  bool note_next_ = false;      // the member of the metadata whose value comes next
  bool entry_pending_ = false;  // a tensor's name was read, its object not yet
  int fields_ = 0;              // of the current entry, seen so far
  int field_ = 0;               // the one whose value comes next
  std::vector<uint64_t> offsets_;
};

absl::Status HeaderReader::BeginObject() {
  if (state_ == State::kStart) {
    state_ = State::kTop;
    return absl::OkStatus();
  }
  if (state_ != State::kTop) return Fail("object");
  state_ = entry_pending_ ? State::kEntry : State::kMetadata;
  fields_ = 0;
  field_ = 0;
  return absl::OkStatus();
}

absl::Status HeaderReader::EndObject() {
  if (state_ == State::kTop) {
    state_ = State::kEnd;
    return absl::OkStatus();
  }
  if (state_ == State::kEntry && fields_ != kAllFields)
    return Fail("end: dtype, shape or data_offsets is missing");
  state_ = State::kTop;
  entry_pending_ = false;
  return absl::OkStatus();
}

absl::Status HeaderReader::Key(std::string name) {
  if (state_ == State::kMetadata) {
    note_next_ = name == kSafetensorsNote;
    return absl::OkStatus();
  }
  if (state_ == State::kTop) {
    if (name == "__metadata__") {
      if (metadata_seen_) return Fail("second __metadata__");
      metadata_seen_ = true;
      return absl::OkStatus();
    }
    if (entries.size() == kFileTensorsMax)
      return absl::InvalidArgumentError(absl::StrCat("more than ", kFileTensorsMax, " tensors"));
    entries.emplace_back().name = std::move(name);
    entry_pending_ = true;
    return absl::OkStatus();
  }
  field_ = name == "dtype"          ? kDtype
           : name == "shape"        ? kShapeField
           : name == "data_offsets" ? kOffsetsField
                                    : 0;
  if (field_ == 0) return Fail(absl::StrCat("field ", Quote(name)));
  if ((fields_ & field_) != 0) return Fail(absl::StrCat("second ", name));
  fields_ |= field_;
  return absl::OkStatus();
}

absl::Status HeaderReader::Scalar(Json value) {
  if (value.is_number_unsigned()) return Size(value.get<uint64_t>());
  if (!value.is_string()) return Fail(value.is_boolean() ? "true or false" : WriteJson(value));
  if (state_ == State::kMetadata) {
    if (note_next_) note = value.text().substr(0, kSafetensorsNoteBytesMax);
    return absl::OkStatus();
  }
  if (state_ != State::kEntry || field_ != kDtype) return Fail(absl::StrCat("string ", Quote(value.text())));
  entries.back().dtype = value.text();
  return absl::OkStatus();
}

absl::Status HeaderReader::BeginArray() {
  if (state_ != State::kEntry || (field_ != kShapeField && field_ != kOffsetsField)) return Fail("list");
  state_ = field_ == kShapeField ? State::kShape : State::kOffsets;
  offsets_.clear();
  return absl::OkStatus();
}

absl::Status HeaderReader::EndArray() {
  if (state_ == State::kOffsets) {
    if (offsets_.size() != 2 || offsets_[0] > offsets_[1]) return Fail("data_offsets that are no range");
    entries.back().offset = offsets_[0];
    entries.back().bytes = offsets_[1] - offsets_[0];
  }
  state_ = State::kEntry;
  return absl::OkStatus();
}

absl::Status HeaderReader::Size(uint64_t value) {
  if (value > uint64_t{INT64_MAX}) return Fail(absl::StrCat(value));
  if (state_ == State::kShape) {
    if (entries.back().shape.size() == kFileTensorRankMax) return Fail("shape of too many dimensions");
    entries.back().shape.push_back(static_cast<int64_t>(value));
    return absl::OkStatus();
  }
  if (state_ == State::kOffsets) {
    if (offsets_.size() == 2) return Fail("third of data_offsets");
    offsets_.push_back(value);
    return absl::OkStatus();
  }
  return Fail(absl::StrCat(value));
}

// Bytes of a tensor, or nothing if they are no whole number or overflow 64 bits.
std::optional<uint64_t> BytesOf(const FileTensor& entry, uint64_t bits) {
  uint64_t elements = 1;
  for (int64_t size : entry.shape) {
    if (__builtin_mul_overflow(elements, static_cast<uint64_t>(size), &elements)) return std::nullopt;
  }
  uint64_t total_bits = 0;
  if (__builtin_mul_overflow(elements, bits, &total_bits) || total_bits % 8 != 0) return std::nullopt;
  return total_bits / 8;
}

absl::Status CheckSize(const FileTensor& entry) {
  const auto* dtype = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                   [&](const DtypeBits& candidate) { return entry.dtype == candidate.name; });
  if (dtype == std::end(kDtypes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", Quote(entry.name), " has the unknown type ", Quote(entry.dtype)));
  }
  const std::optional<uint64_t> bytes = BytesOf(entry, dtype->bits);
  if (!bytes.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quote(entry.name), " has an impossible shape"));
  }
  if (*bytes != entry.bytes) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quote(entry.name), " has ", entry.bytes,
                                                   " bytes where its shape and type take ", *bytes));
  }
  return absl::OkStatus();
}

absl::Status CheckNamesDiffer(const std::vector<FileTensor>& entries) {
  std::vector<const std::string*> names;
  names.reserve(entries.size());
  for (const FileTensor& entry : entries) names.push_back(&entry.name);
  std::sort(names.begin(), names.end(), [](const auto* a, const auto* b) { return *a < *b; });
  const auto same =
      std::adjacent_find(names.begin(), names.end(), [](const auto* a, const auto* b) { return *a == *b; });
  if (same == names.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("tensor ", Quote(**same), " is there twice"));
}

// Sorts by offset and checks that the tensors follow each other without hole or overlap up to `data_bytes`.
absl::Status CheckCoverage(std::vector<FileTensor>& entries, uint64_t data_bytes) {
  std::sort(entries.begin(), entries.end(), [](const FileTensor& a, const FileTensor& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  });
  uint64_t next = 0;
  for (const FileTensor& entry : entries) {
    if (entry.offset != next) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Quote(entry.name), " begins at byte ",
                                                     entry.offset,
                                                     " of the data but the tensors before end at ", next));
    }
    if (entry.bytes > data_bytes - next) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Quote(entry.name), " ends at byte ",
                                                     next + entry.bytes, " of ", data_bytes,
                                                     "; the file may be cut short"));
    }
    next += entry.bytes;
  }
  if (next != data_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(data_bytes - next, " bytes follow the last tensor"));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsSafetensors(absl::Span<const std::byte> file) {
  uint64_t header_bytes = 0;
  if (file.size() <= sizeof(header_bytes)) return false;
  std::memcpy(&header_bytes, file.data(), sizeof(header_bytes));
  return header_bytes <= kSafetensorsHeaderBytesMax && file[sizeof(header_bytes)] == std::byte{'{'};
}

absl::StatusOr<std::vector<FileTensor>> ParseSafetensors(absl::Span<const std::byte> file,
                                                         std::string* note) {
  uint64_t header_bytes = 0;
  if (file.size() < kLengthBytes) return absl::InvalidArgumentError("shorter than a safetensors header");
  std::memcpy(&header_bytes, file.data(), kLengthBytes);
  if (header_bytes > kSafetensorsHeaderBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("a header of ", header_bytes, " bytes; at most ",
                                                   kSafetensorsHeaderBytesMax, " are possible"));
  }
  if (header_bytes > file.size() - kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a header of ", header_bytes, " bytes in a file of ", file.size()));
  }
  const char* header = reinterpret_cast<const char*>(file.data()) + kLengthBytes;
  if (header_bytes == 0 || header[0] != '{')
    return absl::InvalidArgumentError("the header does not begin with '{'");

  HeaderReader reader;
  BW_RETURN_IF_ERROR(Annotate(ReadJson({header, header_bytes}, reader), "the header"));
  std::vector<FileTensor> entries = std::move(reader.entries);
  BW_RETURN_IF_ERROR(CheckNamesDiffer(entries));
  for (const FileTensor& entry : entries) BW_RETURN_IF_ERROR(CheckSize(entry));
  const uint64_t data_start = kLengthBytes + header_bytes;
  BW_RETURN_IF_ERROR(CheckCoverage(entries, file.size() - data_start));
  for (FileTensor& entry : entries) entry.offset += data_start;
  if (note != nullptr) *note = std::move(reader.note);
  return entries;
}

}  // namespace bellwether
