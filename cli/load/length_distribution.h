#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace bellwether {

// How many tokens requests of a load have: "256" (always), "100-300" (each as likely) or "256~64" (normal:
// mean and standard deviation, at least 1).
class LengthDistribution {
 public:
  static constexpr int kLengthMax = 1 << 24;
  // InvalidArgument: none of those, or out of [1, kLengthMax].
  static absl::StatusOr<LengthDistribution> Parse(std::string_view text);

  // The length at which a share of `uniform`, in [0, 1), of all requests is shorter.
  int At(double uniform) const;

 private:
  enum class Kind { kUniform, kNormal };
  LengthDistribution(Kind kind, int first, int second) : kind_(kind), first_(first), second_(second) {}

  Kind kind_;
  int first_, second_;  // uniform: the least and the most; normal: mean and deviation
};

}  // namespace bellwether
