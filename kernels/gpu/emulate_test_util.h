#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/gpu/emulate.h"
#include "kernels/gpu/simt.h"

// For tests of the emulator: memory and launches without ceremony.

namespace bellwether::gpu {

// An array in an emulated GPU's memory.
template <typename T>
class DeviceArray {
 public:
  DeviceArray(EmulatedMemory& memory, int64_t count) : memory_(memory), count_(count) {
    data_ = static_cast<T*>(memory.Allocate(count * static_cast<int64_t>(sizeof(T))).value());
  }
  DeviceArray(EmulatedMemory& memory, const std::vector<T>& values)
      : DeviceArray(memory, static_cast<int64_t>(values.size())) {
    std::copy(values.begin(), values.end(), data_);
  }
  ~DeviceArray() { EXPECT_TRUE(memory_.Free(data_).ok()); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }
  std::vector<T> values() const { return {data_, data_ + count_}; }

 private:
  EmulatedMemory& memory_;
  int64_t count_;
  T* data_;
};

}  // namespace bellwether::gpu
