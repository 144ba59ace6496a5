#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace bellwether {

// A file mapped read-only as a whole. Pages are read when touched.
class FileMapping {
 public:
  ~FileMapping();
  FileMapping(const FileMapping&) = delete;
  FileMapping& operator=(const FileMapping&) = delete;

  // NotFound, PermissionDenied ... naming the path; InvalidArgument for what is not a regular file, or is
  // empty.
  static absl::StatusOr<std::shared_ptr<const FileMapping>> Open(const std::string& path);

  const std::string& path() const { return path_; }
  absl::Span<const std::byte> bytes() const { return {data_, size_}; }
  // Size, inode and times of the last changes, as words: another if the file has changed since.
  const std::string& identity() const { return identity_; }
  // Gives the pages of a byte range (within the file) back; they are read again if touched again.
  void DropPages(uint64_t offset, uint64_t size) const;

 private:
  FileMapping(std::string path, std::string identity, const std::byte* data, size_t size)
      : path_(std::move(path)), identity_(std::move(identity)), data_(data), size_(size) {}

  const std::string path_, identity_;
  const std::byte* const data_;
  const size_t size_;
};

// Whether there is anything of this name, a file or a directory.
bool FileExists(const std::string& path);

// The whole text of a small file. ResourceExhausted if it is longer than `bytes_max`.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t bytes_max);

}  // namespace bellwether
