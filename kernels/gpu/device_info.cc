#include "absl/strings/str_cat.h"
#include "kernels/gpu/runtime.h"

namespace bellwether::gpu {

std::string NumericClass(int major, int minor) {
  if (major >= 9) return "cuda_sm90";  // Hopper and Blackwell
  return major == 8 ? "cuda_sm80" : absl::StrCat("cuda_sm", major, minor);
}

bool IsSupported(const DeviceInfo& info) {
  return info.numeric_class == "cuda_sm80" || info.numeric_class == "cuda_sm90";
}

}  // namespace bellwether::gpu
