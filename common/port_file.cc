#include "common/port_file.h"

#include <sys/stat.h>

#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace bellwether {
namespace {

// A rename would put the file in the place of a pipe, a device or a link such as /dev/stdout.
absl::Status CheckReplaceable(const std::string& path) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0 || S_ISREG(info.st_mode)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(path, " is there and is no regular file: it is not replaced by one"));
}

}  // namespace

absl::Status WritePortFile(const std::string& path,
                           const std::vector<std::pair<std::string, std::string>>& ports) {
  if (path.empty()) return absl::OkStatus();
  // Whoever waits for the file never sees half of it.
  const std::string partial = path + ".partial";
  for (const std::string& file : {path, partial}) BW_RETURN_IF_ERROR(CheckReplaceable(file));
  {
    std::ofstream file(partial);
    for (const auto& [name, address] : ports) {
      if (!address.empty()) file << name << " " << address << "\n";
    }
    if (!file.flush()) return absl::UnavailableError(absl::StrCat("cannot write ", partial));
  }
  if (std::rename(partial.c_str(), path.c_str()) == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot write ", path));
}

}  // namespace bellwether
