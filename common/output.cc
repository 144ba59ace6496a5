#include "common/output.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "common/write_all.h"

namespace bellwether {

absl::Status WriteOutput(std::string_view text) {
  static int failed = 0;  // errno of the first failure
  if (failed == 0) failed = WriteAll(STDOUT_FILENO, text);
  return failed == 0 ? absl::OkStatus() : absl::ErrnoToStatus(failed, "cannot write to standard output");
}

}  // namespace bellwether
