#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace bellwether {

inline constexpr uint64_t kZipEntriesMax = 1 << 18;
inline constexpr uint64_t kZipNameBytesMax = 1024;

// A file in an archive, stored as it is.
struct ZipEntry {
  std::string name;
  uint64_t offset = 0;  // of its first byte, from the start of the archive
  uint64_t bytes = 0;
};

// Whether `file` begins like an archive.
bool IsZip(absl::Span<const std::byte> file);

// The table of a whole archive, ZIP64 too, in the order of the data, with every length checked against the
// archive: entries that overlap, a name twice, compressed or encrypted ones and names that lead elsewhere are
// InvalidArgument, with what is wrong and with which entry.
absl::StatusOr<std::vector<ZipEntry>> ParseZip(absl::Span<const std::byte> file);

}  // namespace bellwether
