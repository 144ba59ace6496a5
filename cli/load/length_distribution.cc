#include "cli/load/length_distribution.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {

// The standard normal quantile by bisection of its distribution function: exact enough for whole tokens, and
// nobody waits for it.
double NormalQuantile(double uniform) {
  double low = -8, high = 8;
  for (int i = 0; i < 48; ++i) {
    const double middle = (low + high) / 2;
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < uniform ? low : high) = middle;
  }
  return low;
}

}  // namespace

absl::StatusOr<LengthDistribution> LengthDistribution::Parse(std::string_view text) {
  const size_t mark = text.find_first_of("-~");
  const std::string_view before = text.substr(0, mark);
  const std::string_view after = mark == std::string_view::npos ? before : text.substr(mark + 1);
  const bool normal = mark != std::string_view::npos && text[mark] == '~';
  int first = 0, second = 0;
  const bool numbers = absl::SimpleAtoi(absl::string_view(before.data(), before.size()), &first) &&
                       absl::SimpleAtoi(absl::string_view(after.data(), after.size()), &second);
  const bool in_order = normal ? second >= 0 : second >= first;
  if (!numbers || !in_order || first < 1 || first > kLengthMax || second > kLengthMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", absl::string_view(text.data(), text.size()),
                     "\" is no length: write 256, 100-300 (each as likely), or 256~64 (mean and deviation)"));
  }
  return LengthDistribution(normal ? Kind::kNormal : Kind::kUniform, first, second);
}

int LengthDistribution::At(double uniform) const {
  const double length = kind_ == Kind::kUniform
                            ? first_ + std::floor(uniform * (int64_t{second_} - first_ + 1))
                            : std::round(first_ + second_ * NormalQuantile(uniform));
  return static_cast<int>(std::clamp<double>(length, 1, kLengthMax));
}

}  // namespace bellwether
