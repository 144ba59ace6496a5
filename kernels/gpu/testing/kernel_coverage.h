#pragma once

#include <string>
#include <string_view>

#include "gtest/gtest.h"
#include "kernels/gpu/testing/emulated_gpu.h"

// Which test program shows each kernel to be right. A program that names itself here fails if it has not
// launched all kernels that are its own; kernel_list_test fails if a kernel is nobody's.

namespace bellwether::gpu {

struct KernelOwner {
  std::string_view prefix;   // of the kernels' names
  std::string_view program;  // kernels/gpu/PROGRAM.cc
};
inline constexpr KernelOwner kKernelOwners[] = {
    {"stream_", "products_test"},   {"tile_", "products_test"},
    {"mma_tile_", "products_test"}, {"prepare", "products_test"},
    {"set_sums", "products_test"},  {"sum_tree", "products_test"},
    {"attend_", "attention_test"},  {"store_kv", "attention_test"},
    {"norm", "rows_test"},          {"activate", "rows_test"},
    {"add", "rows_test"},           {"pick_rows", "rows_test"},
    {"largest", "rows_test"},       {"embed", "rows_test"},
    {"fill_random", "rows_test"},   {"tensor_core_", "tensor_core_test"},
};

inline std::string_view OwnerOf(std::string_view kernel) {
  for (const KernelOwner& owner : kKernelOwners) {
    if (kernel.starts_with(owner.prefix)) return owner.program;
  }
  return {};
}

class KernelCoverage : public ::testing::Environment {
 public:
  explicit KernelCoverage(std::string_view program) : program_(program) {}
  void TearDown() override {
    if (GTEST_FLAG_GET(filter) != "*") return;  // a part of the program
    for (int kernel = 0; kernel < kKernelCount; ++kernel) {
      const std::string name = kKernels[kernel].name;
      if (OwnerOf(name) != program_) continue;
      if (kKernels[kernel].hopper_only && !EmulatedGpu().info().hopper) continue;
      EXPECT_GT(EmulatedGpu::launches(static_cast<Kernel>(kernel)), 0)
          << "no test of this program launches " << name;
    }
  }

 private:
  const std::string_view program_;
};
inline const ::testing::Environment* CheckCoverage(std::string_view program) {
  return ::testing::AddGlobalTestEnvironment(new KernelCoverage(program));
}

}  // namespace bellwether::gpu
