#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/batch/line_reader.h"
#include "common/unique_fd.h"

namespace bellwether {

struct BatchLine {
  int64_t number = 0;  // from 1; empty lines count, but are passed over
  std::string text;    // no byte-order mark before the first
};

// The lines of a batch's input, a window at a time. One thread.
class BatchInput {
 public:
  static constexpr size_t kWindowLines = 1024, kWindowBytes = size_t{64} << 20;
  static constexpr size_t kLineBytesMax = size_t{64} << 20;

  // Longest first within a window: the last to be answered are short, and the end of a batch does not wait
  // for one that began late.
  enum class Order { kLongestFirst, kAsWritten };
  // Reads the whole file once. InvalidArgument: not a file, or a line that is too long.
  static absl::StatusOr<BatchInput> Open(const std::string& path, Order order);

  // Lines that are not empty, in the whole file.
  int64_t lines() const { return lines_; }
  // Whether `fd` is this very file.
  bool IsSameFile(int fd) const;
  // The next window; empty at the end of the file.
  absl::StatusOr<std::vector<BatchLine>> NextWindow();

 private:
  BatchInput(std::string path, Order order) : path_(std::move(path)), order_(order) {}
  absl::Status Rewind();
  // False at the end.
  absl::StatusOr<bool> NextLine(BatchLine& line);

  std::string path_;
  Order order_;
  UniqueFd file_;
  std::unique_ptr<LineReader> reader_;
  int64_t lines_ = 0;
};

}  // namespace bellwether
