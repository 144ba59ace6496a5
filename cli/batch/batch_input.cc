#include "cli/batch/batch_input.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "common/utf8.h"

namespace bellwether {

absl::StatusOr<BatchInput> BatchInput::Open(const std::string& path, Order order) {
  BatchInput input(path, order);
  input.file_ = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info = {};
  if (!input.file_.valid() || fstat(input.file_.get(), &info) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", Printable(path)));
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(Printable(path), " is not a file: a batch reads its input twice"));
  }
  BW_RETURN_IF_ERROR(input.Rewind());
  BatchLine line;
  while (true) {
    BW_ASSIGN_OR_RETURN(const bool more, input.NextLine(line));
    if (!more) break;
    ++input.lines_;
  }
  BW_RETURN_IF_ERROR(input.Rewind());
  return input;
}

absl::Status BatchInput::Rewind() {
  if (lseek(file_.get(), 0, SEEK_SET) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", Printable(path_)));
  reader_ = std::make_unique<LineReader>(file_.get(), path_, kLineBytesMax);
  return absl::OkStatus();
}

bool BatchInput::IsSameFile(int fd) const {
  struct stat ours = {}, theirs = {};
  return fstat(file_.get(), &ours) == 0 && fstat(fd, &theirs) == 0 && ours.st_dev == theirs.st_dev &&
         ours.st_ino == theirs.st_ino;
}

absl::StatusOr<bool> BatchInput::NextLine(BatchLine& line) {
  while (true) {
    BW_ASSIGN_OR_RETURN(const bool more, reader_->Next(line.text));
    if (!more) return false;
    line.number = reader_->number();
    if (line.number == 1) line.text = WithoutByteOrderMark(line.text);
    if (line.text.find_first_not_of(" \t\r") != std::string::npos) return true;
  }
}

absl::StatusOr<std::vector<BatchLine>> BatchInput::NextWindow() {
  std::vector<BatchLine> window;
  size_t bytes = 0;
  for (BatchLine line; window.size() < kWindowLines && bytes < kWindowBytes;) {
    BW_ASSIGN_OR_RETURN(const bool more, NextLine(line));
    if (!more) break;
    bytes += line.text.size();
    window.push_back(std::move(line));
  }
  if (order_ == Order::kLongestFirst) {
    std::stable_sort(window.begin(), window.end(),
                     [](const BatchLine& a, const BatchLine& b) { return a.text.size() > b.text.size(); });
  }
  return window;
}

}  // namespace bellwether
