#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <iterator>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/kernels.h"

namespace bellwether::kernels {
namespace {

constexpr std::string_view kNames[] = {"reference", "portable", "avx2", "avx512", "avx512_bf16"};
static_assert(std::size(kNames) == kKernelLevels);

const KernelTable* TableOf(KernelLevel level) {
  switch (level) {
    case KernelLevel::kReference:
      return ReferenceKernels();
    case KernelLevel::kPortable:
      return PortableKernels();
    case KernelLevel::kAvx2:
      return Avx2Kernels();
    case KernelLevel::kAvx512:
      return Avx512Kernels();
    case KernelLevel::kAvx512Bf16:
      return Avx512Bf16Kernels();
  }
  return nullptr;
}

#if defined(__x86_64__)
// Clang 14 does not know it by name.
bool HasF16c() {
  unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

// CPU features that `level` needs and that this CPU, or its operating system, does not offer.
std::vector<const char*> MissingFeatures(KernelLevel level) {
  std::vector<const char*> missing;
#if defined(__x86_64__)
  // The builtin knows only literals. It also asks whether the system saves the wide registers.
#define BW_REQUIRE(feature) \
  if (!__builtin_cpu_supports(feature)) missing.push_back(feature)
  if (level >= KernelLevel::kAvx2) {
    BW_REQUIRE("avx2");
    BW_REQUIRE("fma");
    if (!HasF16c()) missing.push_back("f16c");
  }
  if (level >= KernelLevel::kAvx512) {
    BW_REQUIRE("avx512f");
    BW_REQUIRE("avx512bw");
    BW_REQUIRE("avx512dq");
    BW_REQUIRE("avx512vl");
    BW_REQUIRE("avx512vnni");
  }
  if (level >= KernelLevel::kAvx512Bf16) BW_REQUIRE("avx512bf16");
#undef BW_REQUIRE
#else
  if (level >= KernelLevel::kAvx2) missing.push_back("x86-64");
#endif
  return missing;
}

}  // namespace

std::string_view Name(KernelLevel level) { return kNames[static_cast<int>(level)]; }

std::optional<KernelLevel> ParseKernelLevel(std::string_view name) {
  for (int level = 0; level < kKernelLevels; ++level) {
    if (kNames[level] == name) return static_cast<KernelLevel>(level);
  }
  return std::nullopt;
}

absl::StatusOr<const KernelTable*> GetKernels(KernelLevel level) {
  if (static_cast<int>(level) < 0 || static_cast<int>(level) >= kKernelLevels) {
    return absl::InvalidArgumentError(absl::StrCat("there is no kernel level ", static_cast<int>(level)));
  }
  const std::string name(Name(level));
  if (const std::vector<const char*> missing = MissingFeatures(level); !missing.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("kernel level ", name, " needs a CPU with ", absl::StrJoin(missing, ", ")));
  }
  const KernelTable* table = TableOf(level);
  if (table == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("kernel level ", name, " is not part of this build"));
  }
  return table;
}

std::vector<KernelLevel> AvailableKernelLevels() {
  std::vector<KernelLevel> levels;
  for (int level = 0; level < kKernelLevels; ++level) {
    if (GetKernels(static_cast<KernelLevel>(level)).ok()) levels.push_back(static_cast<KernelLevel>(level));
  }
  return levels;
}

}  // namespace bellwether::kernels
