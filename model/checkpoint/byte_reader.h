#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

namespace bellwether {

// Reads little-endian numbers and texts from a file's front to its back, never beyond its end:
// InvalidArgument says at which byte it was cut short.
class ByteReader {
 public:
  // `file` must outlive this.
  explicit ByteReader(absl::Span<const std::byte> file) : file_(file) {}

  uint64_t position() const { return position_; }
  uint64_t left() const { return file_.size() - position_; }
  absl::Status CutShort() const {
    return absl::InvalidArgumentError(absl::StrCat("cut short at byte ", position_));
  }

  template <typename T>
  absl::Status Take(T& value) {
    if (left() < sizeof(T)) return CutShort();
    std::memcpy(&value, file_.data() + position_, sizeof(value));
    position_ += sizeof(T);
    return absl::OkStatus();
  }
  absl::Status Take(uint64_t length, std::string& text) {
    if (length > left()) return CutShort();
    text.assign(reinterpret_cast<const char*>(file_.data()) + position_, length);
    position_ += length;
    return absl::OkStatus();
  }
  absl::Status Skip(uint64_t bytes) {
    if (bytes > left()) return CutShort();
    position_ += bytes;
    return absl::OkStatus();
  }

 private:
  const absl::Span<const std::byte> file_;
  uint64_t position_ = 0;
};

}  // namespace bellwether
