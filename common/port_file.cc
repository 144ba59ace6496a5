#include "common/port_file.h"

#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace bellwether {

absl::Status WritePortFile(const std::string& path,
                           const std::vector<std::pair<std::string, std::string>>& ports) {
  if (path.empty()) return absl::OkStatus();
  // Whoever waits for the file never sees half of it.
  const std::string partial = path + ".partial";
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
