#include "cli/batch/batch_input.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/quote.h"
#include "common/status.h"
#include "common/utf8.h"

namespace bellwether {

absl::StatusOr<BatchInput> BatchInput::Open(const std::string& path) {
  BatchInput input(path);
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", Printable(path)));
  if (!S_ISREG(info.st_mode))
    return absl::InvalidArgumentError(
        absl::StrCat(Printable(path), " is not a file: a batch reads its input twice"));
  input.file_.open(path, std::ios::binary);
  if (!input.file_) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", Printable(path)));
  BatchLine line;
  while (true) {
    BW_ASSIGN_OR_RETURN(const bool more, input.NextLine(line));
    if (!more) break;
    ++input.lines_;
  }
  input.file_.clear();
  input.file_.seekg(0);
  input.number_ = 0;
  return input;
}

absl::StatusOr<bool> BatchInput::NextLine(BatchLine& line) {
  while (std::getline(file_, line.text)) {
    line.number = ++number_;
    if (line.text.size() > kLineBytesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat(Printable(path_), ": line ", number_, " is longer than ", kLineBytesMax, " bytes"));
    }
    if (number_ == 1) line.text = WithoutByteOrderMark(line.text);
    if (line.text.find_first_not_of(" \t\r") != std::string::npos) return true;
  }
  if (file_.bad()) return absl::DataLossError(absl::StrCat("cannot read ", Printable(path_), " to its end"));
  return false;
}

absl::StatusOr<std::vector<BatchLine>> BatchInput::NextWindow() {
  std::vector<BatchLine> window;
  for (BatchLine line; window.size() < kWindowLines;) {
    BW_ASSIGN_OR_RETURN(const bool more, NextLine(line));
    if (!more) break;
    window.push_back(std::move(line));
  }
  std::stable_sort(window.begin(), window.end(),
                   [](const BatchLine& a, const BatchLine& b) { return a.text.size() > b.text.size(); });
  return window;
}

}  // namespace bellwether
