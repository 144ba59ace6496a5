#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

namespace bellwether {

// Walks over the fields of one protobuf message, within its bounds. Only what sentencepiece models use:
// groups are taken for damage.
class WireReader {
 public:
  struct Field {
    uint32_t number = 0;
    uint32_t wire_type = 0;  // 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes
    uint64_t value = 0;      // wire types 0, 1 and 5
    std::string_view bytes;  // wire type 2; a view into the message
    float AsFloat() const {  // of wire type 5
      const uint32_t bits = static_cast<uint32_t>(value);
      float result;
      std::memcpy(&result, &bits, sizeof(result));
      return result;
    }
  };

  explicit WireReader(std::string_view message) : rest_(message) {}

  // The next field; nothing at the end and at damage: then `damaged` tells which.
  std::optional<Field> Next();
  bool damaged() const { return damaged_; }

 private:
  bool ReadVarint(uint64_t* value);
  bool ReadFixed(size_t bytes, uint64_t* value);

  std::string_view rest_;
  bool damaged_ = false;
};

}  // namespace bellwether
