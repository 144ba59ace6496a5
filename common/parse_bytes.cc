#include "common/parse_bytes.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {

constexpr double kBytesMax = 1e15;  // sums of a thousand fit an int64

}  // namespace

absl::StatusOr<double> ParseBytes(absl::string_view text, double least) {
  absl::string_view digits = text.substr(0, text.find_first_not_of("0123456789.e+"));
  absl::string_view unit = text.substr(digits.size());
  double value = 0;
  const std::pair<absl::string_view, double> units[] = {
      {"", 1},      {"B", 1},        {"kB", 1e3},        {"MB", 1e6},          {"GB", 1e9},
      {"TB", 1e12}, {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}};
  for (const auto& [name, factor] : units) {
    if (unit != name && unit != absl::StrCat(name, "/s")) continue;
    if (!absl::SimpleAtod(digits, &value)) break;
    if (value * factor >= least && value * factor <= kBytesMax) return value * factor;
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\": allowed is ", least, "B to 1000TB"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is not a size: write 16GB, 512MiB or 40GB/s"));
}

}  // namespace bellwether
