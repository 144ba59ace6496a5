#include "common/read_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {

constexpr size_t kPieceBytes = size_t{64} << 10;

absl::StatusOr<std::string> ReadAll(int file, const std::string& path, size_t bytes_max) {
  std::string bytes;
  while (true) {
    const size_t before = bytes.size();
    if (before > bytes_max) {
      return absl::ResourceExhaustedError(
          absl::StrCat(path, " has more than ", bytes_max, " bytes, which is as much as is read"));
    }
    bytes.resize(before + kPieceBytes);
    const ssize_t got = read(file, bytes.data() + before, kPieceBytes);
    const int error = errno;
    bytes.resize(before + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (got == 0) return bytes;
    if (got < 0 && error != EINTR) return absl::ErrnoToStatus(error, absl::StrCat("cannot read ", path));
  }
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t bytes_max) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  absl::StatusOr<std::string> bytes = ReadAll(file, path, bytes_max);
  close(file);
  return bytes;
}

}  // namespace bellwether
