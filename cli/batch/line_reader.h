#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace bellwether {

// Lines of a file, none of them held longer than is allowed. One thread.
class LineReader {
 public:
  // `fd` is read from where it stands and outlives this; `path` is for messages.
  LineReader(int fd, std::string path, size_t line_bytes_max)
      : fd_(fd), path_(std::move(path)), line_bytes_max_(line_bytes_max) {}

  // Without its end. False at the end of the file. InvalidArgument, with its number: a line that is too long;
  // else what the system says.
  absl::StatusOr<bool> Next(std::string& line);
  // Whether the last line had an end; only the file's last may lack one.
  bool ended() const { return ended_; }
  int64_t number() const { return number_; }          // of the last line, from 1
  int64_t bytes_read() const { return bytes_read_; }  // with the ends of lines

 private:
  const int fd_;
  const std::string path_;
  const size_t line_bytes_max_;
  std::string buffer_;
  size_t used_ = 0;  // of the buffer
  bool ended_ = false;
  int64_t number_ = 0, bytes_read_ = 0;
};

}  // namespace bellwether
