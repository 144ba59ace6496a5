#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/checkpoint/block_tensor.h"

namespace bellwether {

// Limits on what a file may claim.
inline constexpr uint64_t kGgufMetadataMax = 1 << 16;
inline constexpr uint64_t kGgufTensorsMax = 1 << 17;
inline constexpr uint64_t kGgufKeyBytesMax = 65535;
inline constexpr uint64_t kGgufAlignmentMax = 1 << 20;
inline constexpr int kGgufArrayDepthMax = 4;
inline constexpr uint32_t kGgufRankMax = 4;

// Types of metadata values, by their number in the file.
enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

// A metadata value, left in the file until asked for.
struct GgufValue {
  GgufType type = GgufType::kUint8;
  GgufType element = GgufType::kUint8;  // of arrays
  uint64_t count = 1;                   // of arrays
  absl::Span<const std::byte> bytes;  // of the value, or of the array's elements; strings with their lengths
};

// By its first bytes.
bool IsGguf(absl::Span<const std::byte> file);

// The header of a GGUF file: metadata and tensor table, with every length checked against the file.
class GgufFile {
 public:
  // `file` must outlive this. InvalidArgument says what is damaged, Unimplemented what is not supported (an
  // older version, the other byte order, a tensor type).
  static absl::StatusOr<GgufFile> Parse(absl::Span<const std::byte> file);

  const std::vector<BlockTensor>& tensors() const { return tensors_; }
  bool Has(const std::string& key) const { return metadata_.contains(key); }

  // A value, or nothing if the key is absent. InvalidArgument if it has another type.
  absl::StatusOr<std::optional<int64_t>> Integer(const std::string& key) const;
  absl::StatusOr<std::optional<double>> Number(const std::string& key) const;
  absl::StatusOr<std::optional<bool>> Bool(const std::string& key) const;
  absl::StatusOr<std::string> Text(const std::string& key) const;  // empty if absent
  // Arrays; empty if absent.
  absl::StatusOr<std::vector<std::string>> Texts(const std::string& key) const;
  absl::StatusOr<std::vector<int64_t>> Integers(const std::string& key) const;
  absl::StatusOr<std::vector<float>> Floats(const std::string& key) const;

 private:
  friend class GgufParser;
  absl::StatusOr<const GgufValue*> FindArray(const std::string& key) const;  // null if absent

  absl::flat_hash_map<std::string, GgufValue> metadata_;
  std::vector<BlockTensor> tensors_;
};

}  // namespace bellwether
