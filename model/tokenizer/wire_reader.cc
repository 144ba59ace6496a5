#include "model/tokenizer/wire_reader.h"

namespace bellwether {

bool WireReader::ReadVarint(uint64_t* value) {
  *value = 0;
  for (int i = 0; i < 10 && !rest_.empty(); ++i) {
    const uint8_t byte = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    *value |= uint64_t{byte & 0x7Fu} << (7 * i);
    if (byte < 0x80) return true;
  }
  return false;
}

bool WireReader::ReadFixed(size_t bytes, uint64_t* value) {
  if (rest_.size() < bytes) return false;
  *value = 0;
  for (size_t i = 0; i < bytes; ++i) *value |= uint64_t{static_cast<uint8_t>(rest_[i])} << (8 * i);
  rest_.remove_prefix(bytes);
  return true;
}

std::optional<WireReader::Field> WireReader::Next() {
  if (damaged_ || rest_.empty()) return std::nullopt;
  uint64_t tag = 0;
  Field field;
  bool good = ReadVarint(&tag) && (tag >> 3) > 0 && (tag >> 3) < (uint64_t{1} << 29);
  if (good) {
    field.number = static_cast<uint32_t>(tag >> 3);
    field.wire_type = static_cast<uint32_t>(tag & 7);
    uint64_t length = 0;
    switch (field.wire_type) {
      case 0:
        good = ReadVarint(&field.value);
        break;
      case 1:
        good = ReadFixed(8, &field.value);
        break;
      case 2:
        good = ReadVarint(&length) && length <= rest_.size();
        if (good) {
          field.bytes = rest_.substr(0, length);
          rest_.remove_prefix(length);
        }
        break;
      case 5:
        good = ReadFixed(4, &field.value);
        break;
      default:
        good = false;
    }
  }
  if (good) return field;
  damaged_ = true;
  return std::nullopt;
}

}  // namespace bellwether
