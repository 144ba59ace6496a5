#include "common/device_name.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/quote.h"

namespace bellwether {
namespace {

constexpr int kIndexMax = 1023;

}  // namespace

absl::StatusOr<DeviceName> ParseDeviceName(std::string_view given) {
  const absl::string_view name(given.data(), given.size());
  if (name == "cpu") return DeviceName{DeviceName::Kind::kCpu};
  if (name == "auto") return DeviceName{DeviceName::Kind::kAuto};
  if (name == "emulated") return DeviceName{DeviceName::Kind::kEmulated};
  int index = -1;
  const bool number = absl::SimpleAtoi(absl::StripPrefix(name, "cuda:"), &index);
  const bool itself = number && name == absl::StrCat("cuda:", index);  // no "cuda:+1"
  if (itself && index >= 0 && index <= kIndexMax) return DeviceName{DeviceName::Kind::kCuda, index};
  return absl::InvalidArgumentError(
      absl::StrCat("device is ", Quoted(given), ", expected cpu, auto or cuda:N such as cuda:0"));
}

}  // namespace bellwether
