#include "cli/batch/line_reader.h"

#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "common/quote.h"

namespace bellwether {
namespace {
constexpr size_t kReadBytes = size_t{256} << 10;
}  // namespace

absl::StatusOr<bool> LineReader::Next(std::string& line) {
  size_t looked = used_;
  while (true) {
    if (const size_t end = buffer_.find('\n', looked); end != std::string::npos) {
      line.assign(buffer_, used_, end - used_);
      used_ = end + 1;
      ended_ = true;
      break;
    }
    buffer_.erase(0, used_);
    used_ = 0;
    looked = buffer_.size();
    if (buffer_.size() > line_bytes_max_) {
      return absl::InvalidArgumentError(absl::StrCat(Printable(path_), ": line ", number_ + 1,
                                                     " is longer than ", line_bytes_max_, " bytes"));
    }
    buffer_.resize(looked + kReadBytes);
    const ssize_t got = read(fd_, buffer_.data() + looked, kReadBytes);
    buffer_.resize(looked + static_cast<size_t>(got < 0 ? 0 : got));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", Printable(path_)));
    if (got > 0) continue;
    if (buffer_.empty()) return false;
    line = std::move(buffer_);
    buffer_.clear();
    ended_ = false;
    break;
  }
  ++number_;
  bytes_read_ += static_cast<int64_t>(line.size()) + (ended_ ? 1 : 0);
  return true;
}

}  // namespace bellwether
