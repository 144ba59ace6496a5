#pragma once

#include <sys/types.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/unique_fd.h"
#include "model/weight_hash.h"

namespace bellwether {

// A file with the packed matrices of a layer, as WeightStore::image() has them:
//   "bellwether layer 1\n"
//   the length of the text below in bytes, then its FastHash, 16 hexadecimal digits each, "\n"
//   the text: LayerFileInfo as JSON
//   zeros, up to a multiple of kLayerPageBytes
//   the image, whose size is a multiple of it too
// So the image can be read past the system's cache (O_DIRECT), in blocks that each have a checksum.
inline constexpr int64_t kLayerPageBytes = 4096;
inline constexpr int64_t kLayerBlockBytes = int64_t{2} << 20;

struct LayerFileInfo {
  std::string key;  // all that decides on the bytes
  int64_t image_bytes = 0;
  std::vector<uint64_t> checksums;  // FastHash of each block, with its number for a seed
  std::vector<WeightHash> hashes;   // of what was packed
};

// Checksums included.
LayerFileInfo DescribeImage(std::string key, absl::Span<const std::byte> image,
                            std::vector<WeightHash> hashes);

// The text of the description alone; DataLoss if it is none of ours.
absl::StatusOr<LayerFileInfo> ParseLayerInfo(absl::string_view text);

// All that stands before the image. `header` as it was written, or more of the file; DataLoss with the
// reason.
std::string WriteLayerHeader(const LayerFileInfo& info);
absl::StatusOr<LayerFileInfo> ParseLayerHeader(absl::string_view header);
// Of the whole header, from its first kLayerPageBytes (or all of the file, if that is less); DataLoss.
absl::StatusOr<int64_t> LayerHeaderBytes(absl::string_view beginning);

// The key of the layer file at `path`, without reading the rest. DataLoss: it is damaged.
absl::StatusOr<std::string> ReadLayerKey(const std::string& path);

// As pread: tests have one that fails.
using ReadAt = std::function<ssize_t(int fd, void* to, size_t bytes, off_t offset)>;

// An opened one. Const methods may be called from several threads. It is read on after its name has gone.
class LayerFile {
 public:
  // NotFound: there is none. DataLoss: it is damaged, or holds something else than `key`.
  static absl::StatusOr<std::shared_ptr<const LayerFile>> Open(const std::string& path,
                                                               const std::string& key,
                                                               ReadAt read_at = nullptr);

  const std::string& path() const { return path_; }
  const LayerFileInfo& info() const { return info_; }
  int64_t blocks() const { return static_cast<int64_t>(info_.checksums.size()); }
  int64_t BytesOf(int64_t block) const {
    return std::min(kLayerBlockBytes, info_.image_bytes - block * kLayerBlockBytes);
  }
  // Whether reads go past the system's cache; some file systems do not know how.
  bool direct() const { return direct_; }

  // Block `block` of the image to where it stands in it. `image` [image_bytes] is aligned to kLayerPageBytes.
  // DataLoss: it ends early, or (if it is to be checked) its checksum is wrong. Others: what the system says.
  absl::Status ReadBlock(int64_t block, bool check, std::byte* image) const;
  // The bytes [begin, end) of the image, unchecked; the bounds are multiples of kLayerPageBytes.
  absl::Status ReadPages(int64_t begin, int64_t end, std::byte* image) const;
  // Of one that has been read unchecked. DataLoss: its checksum is wrong.
  absl::Status CheckBlock(int64_t block, const std::byte* image) const;
  // Takes its name away, so that another is written: it cannot be read.
  void Discard() const;
  bool discarded() const { return discarded_; }

 private:
  LayerFile() = default;

  std::string path_;
  UniqueFd fd_;
  ReadAt read_at_;
  LayerFileInfo info_;
  int64_t image_begin_ = 0;
  bool direct_ = false;
  mutable std::atomic<bool> discarded_{false};
};

}  // namespace bellwether
