#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace bellwether {

struct BatchLine {
  int64_t number = 0;  // from 1; empty lines count, but are passed over
  std::string text;    // no byte-order mark before the first
};

// The lines of a batch's input, a window at a time: longest first within it, so that the last to be answered
// are short and the end of a batch does not wait for one that began late. One thread.
class BatchInput {
 public:
  static constexpr size_t kWindowLines = 1024;
  static constexpr size_t kLineBytesMax = size_t{64} << 20;

  static absl::StatusOr<BatchInput> Open(const std::string& path);

  // Lines that are not empty, in the whole file.
  int64_t lines() const { return lines_; }
  // The next window; empty at the end of the file. DataLoss: it cannot be read.
  absl::StatusOr<std::vector<BatchLine>> NextWindow();

 private:
  explicit BatchInput(std::string path) : path_(std::move(path)) {}
  // False at the end.
  absl::StatusOr<bool> NextLine(BatchLine& line);

  std::string path_;
  std::ifstream file_;
  int64_t number_ = 0;
  int64_t lines_ = 0;
};

}  // namespace bellwether
