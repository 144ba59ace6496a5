#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/random.h"
#include "gtest/gtest.h"
#include "kernels/gpu/runtime.h"
#include "kernels/gpu/tensor_core.h"
#include "kernels/gpu/testing/removed_barriers.h"
#include "kernels/gpu/testing/test_runtime.h"

// For tests of kernels: the emulated GPU without ceremony, and numbers. With BELLWETHER_TEST_CUDA the same
// tests run on the machine's first card.

namespace bellwether::gpu {

class TestRandom {
 public:
  explicit TestRandom(uint64_t seed) : seed_(seed) {}

  int Below(int count) { return static_cast<int>(Uniform() * count); }
  float Between(float low, float high) { return static_cast<float>(low + Uniform() * (high - low)); }
  // Of either sign, over many powers of two.
  float Wide() { return Between(-1, 1) * static_cast<float>(1 << Below(16)) * 0x1p-8f; }
  std::vector<float> Wide(int64_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = Wide();
    return values;
  }

 private:
  double Uniform() { return UniformFromCounter(seed_, 0, position_++); }

  const uint64_t seed_;
  int64_t position_ = 0;
};

class EmulatedGpu {
 public:
  // What outputs hold before they are written; a NaN that no kernel makes, in fp32 and in either half.
  static constexpr uint32_t kUntouched = 0x7fc17fc1;

  explicit EmulatedGpu(uint64_t seed = 1, const EmulatedCard& card = kEmulatedHopper)
      : runtime_(MakeTestRuntime({.seed = seed, .card = card, .around = RemovedBarriers::Trials()})) {}
  // One that is emulated in any case, for a card to be compared with.
  enum Always { kEmulated };
  explicit EmulatedGpu(Always, const EmulatedCard& card = kEmulatedHopper)
      : runtime_(MakeEmulatedRuntime({.card = card})) {}
  EmulatedGpu(const EmulatedGpu&) = delete;
  EmulatedGpu& operator=(const EmulatedGpu&) = delete;
  ~EmulatedGpu() {
    for (void* memory : memory_) runtime_->Free(memory);
  }

  const DeviceInfo& info() const { return runtime_->info(); }
  const TensorCoreClass& tensor_core() const { return TensorCoreOf(info().numeric_class); }
  bool on_card() const { return runtime_->stream() != nullptr; }

  // Every array has memory of its own, so that the emulator finds a step beyond its end. Kept until the end.
  template <typename T>
  T* Put(const std::vector<T>& values) {
    if (values.empty()) return nullptr;
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    auto* memory = static_cast<T*>(runtime_->Allocate(bytes).value());
    memory_.push_back(memory);
    runtime_->CopyToDevice(memory, values.data(), bytes);
    EXPECT_TRUE(runtime_->Synchronize().ok());
    return memory;
  }
  template <typename T = float>
  T* Untouched(int64_t count) {
    const std::vector<uint32_t> words(count, kUntouched);
    return reinterpret_cast<T*>(Put(words));
  }
  template <typename T>
  std::vector<T> Get(const T* from, int64_t count) {
    std::vector<T> values(count);
    runtime_->CopyToHost(values.data(), from, count * static_cast<int64_t>(sizeof(T)));
    EXPECT_TRUE(runtime_->Synchronize().ok());
    return values;
  }

  template <typename Args>
  absl::Status TryLaunch(Kernel kernel, const LaunchList::Shape& shape, const Args& args) {
    ++counts_[static_cast<int>(kernel)];
    LaunchList list;
    list.Add(kernel, shape, args);
    runtime_->Run(list);
    return runtime_->Synchronize();
  }
  template <typename Args>
  void Launch(Kernel kernel, const LaunchList::Shape& shape, const Args& args) {
    const absl::Status status = TryLaunch(kernel, shape, args);
    ASSERT_TRUE(status.ok()) << status;
  }
  // Of this program so far.
  static int64_t launches(Kernel kernel) { return counts_[static_cast<int>(kernel)]; }

 private:
  static inline std::array<int64_t, kKernelCount> counts_{};
  const std::unique_ptr<Runtime> runtime_;
  std::vector<void*> memory_;
};

inline int32_t BlocksOf(int64_t count, int64_t each) {
  return static_cast<int32_t>((count + each - 1) / each);
}

}  // namespace bellwether::gpu
