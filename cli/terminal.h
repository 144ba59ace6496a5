#pragma once

#include <string>

#include "absl/status/status.h"

namespace bellwether {

// What a person sees beside the answer, on stderr: one line that changes while something is awaited. On a
// terminal it is rewritten in place; elsewhere each change is a line.
class StatusLine {
 public:
  StatusLine();
  ~StatusLine() { Clear(); }
  void Show(const std::string& text);
  void Clear();
  // On a terminal, where a new line takes the place of the old.
  bool rewritten() const { return terminal_; }

 private:
  const bool terminal_;
  bool shown_ = false;
};

// Whether stdout and stderr are read in one place: a terminal, a file or a pipe.
bool OutputsMeet();

// "bellwether: " and the error's text on stderr; the exit code for it. What ^C or SIGTERM has cut short is
// "interrupted".
int ReportError(const absl::Status& status);

}  // namespace bellwether
