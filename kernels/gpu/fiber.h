#pragma once

#include <cstddef>

#include "absl/status/statusor.h"

// Threads of control that take turns on one OS thread: a stack each, and a switch of a few instructions.

namespace bellwether::gpu {

// A fiber that has not been started stands for the OS thread itself: switch away from it, and back to it.
class Fiber {
 public:
  Fiber() = default;
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next switch to this fiber begins `entry`, which must never return, at the upper end of the stack.
  // What ran there before is forgotten; no destructor runs.
  void Start(char* stack, size_t bytes, void (*entry)());
  // Stops here and goes on where `next` stopped. Returns when another fiber switches to this one.
  void SwitchTo(Fiber& next);
  // First thing in `entry`; `from` is the fiber of the OS thread. For the sanitizers.
  static void Entered(Fiber& from);

 private:
  void* stack_pointer_ = nullptr;
  const void* stack_ = nullptr;
  size_t stack_bytes_ = 0;
  static constexpr int kStartsOfState = 256;
  void* sanitizer_state_ = nullptr;
  int starts_ = 0;
};

// Memory for the stacks of many fibers, each above a page that must not be touched: overflow is a fault at
// once. Costs memory only where it is used.
class FiberStacks {
 public:
  static constexpr size_t kBytes = 128 << 10;

  FiberStacks() = default;
  ~FiberStacks();
  FiberStacks(const FiberStacks&) = delete;
  FiberStacks& operator=(const FiberStacks&) = delete;

  // ResourceExhausted if the system refuses.
  absl::Status Reserve(int count);
  char* stack(int index) const { return memory_ + index * kSlotBytes + (kSlotBytes - kBytes); }

 private:
  void Free();

  static constexpr size_t kSlotBytes = kBytes + 4096;
  char* memory_ = nullptr;
  int count_ = 0;
};

}  // namespace bellwether::gpu
