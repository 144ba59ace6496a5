// The emulated GPU does its work late, in its order, as a card does: who relies on work that nobody has
// waited for is found out. Each fault is planted here, and found in some of the orders of events that seeds
// give.

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "kernels/gpu/runtime.h"

namespace bellwether::gpu {
namespace {

constexpr int kSeeds = 40;
constexpr int kFloats = 64;
constexpr int64_t kBytes = kFloats * 4;

// A GPU, and pinned memory.
class Machine {
 public:
  explicit Machine(uint64_t seed) : runtime_(MakeEmulatedRuntime({.seed = seed})) {}
  ~Machine() {
    for (float* memory : pinned_) runtime_->FreeHost(memory);
  }
  Runtime& runtime() { return *runtime_; }
  void Wait() { EXPECT_TRUE(runtime_->Synchronize().ok()); }

  float* Pinned(float value) {
    pinned_.push_back(static_cast<float*>(runtime_->AllocateHost(kBytes).value()));
    std::fill_n(pinned_.back(), kFloats, value);
    return pinned_.back();
  }
  float* OnDevice() { return static_cast<float*>(runtime_->Allocate(kBytes).value()); }
  // `sum` becomes a + b.
  void Add(const float* a, const float* b, float* sum) {
    LaunchList list;
    list.Add(Kernel::add, {.threads = kFloats},
             AddArgs{.before = a, .sum = b, .out = sum, .rows = 1, .cols = kFloats});
    runtime_->Run(list);
  }
  float Value(const float* device) {
    std::vector<float> values(kFloats);
    runtime_->CopyToHost(values.data(), device, kBytes);
    Wait();
    return values[0];
  }

 private:
  const std::unique_ptr<Runtime> runtime_;
  std::vector<float*> pinned_;
};

// In how many of the seeds it is so.
template <typename Seen>
int Count(const Seen& seen) {
  int count = 0;
  for (int seed = 0; seed < kSeeds; ++seed) count += seen(seed);
  return count;
}

TEST(EmulatedRuntimeTest, WorkIsDoneInItsOrder) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    Machine machine(seed);
    float *one = machine.OnDevice(), *sum = machine.OnDevice();
    machine.runtime().CopyToDevice(one, machine.Pinned(1), kBytes);
    machine.Add(one, one, sum);
    machine.Add(sum, sum, one);
    machine.runtime().CopyOnDevice(sum, one, kBytes);
    EXPECT_EQ(machine.Value(sum), 4);
  }
}

TEST(EmulatedRuntimeTest, AHostThatReusesABufferTooEarlyIsFoundOut) {
  const auto spoiled = [](bool waits) {
    return Count([=](int seed) {
      Machine machine(seed);
      float *const device = machine.OnDevice(), *const host = machine.Pinned(1);
      machine.runtime().CopyToDevice(device, host, kBytes);
      if (waits) machine.Wait();
      std::fill_n(host, kFloats, 2.0f);
      return machine.Value(device) != 1;
    });
  };
  EXPECT_EQ(spoiled(true), 0);
  EXPECT_GE(spoiled(false), kSeeds / 4);
  EXPECT_LT(spoiled(false), kSeeds) << "nor is it always late";
}

TEST(EmulatedRuntimeTest, AHostThatReadsTooEarlyIsFoundOut) {
  const auto stale = [](bool waits) {
    return Count([=](int seed) {
      Machine machine(seed);
      float *const device = machine.OnDevice(), *const host = machine.Pinned(1);
      machine.runtime().CopyToHost(host, device, kBytes);
      if (waits) machine.Wait();
      return host[0] != 0;
    });
  };
  EXPECT_EQ(stale(true), 0);
  EXPECT_GE(stale(false), kSeeds / 4);
}

// New memory is cleared in the order of work, of which a lane knows nothing.
TEST(EmulatedRuntimeTest, ACopyBesideTheWorkThatRunsBeforeAClearingIsFoundOut) {
  const auto cleared = [](bool waits) {
    return Count([=](int seed) {
      Machine machine(seed);
      float *const device = machine.OnDevice(), *const host = machine.Pinned(1);
      if (waits) machine.Wait();
      const auto lane = *machine.runtime().MakeCopyLane(1);
      lane->Fill(0, device, host, kBytes);
      while (!*lane->Filled(0)) {
      }
      lane->Use(0);
      return machine.Value(device) != 1;
    });
  };
  EXPECT_EQ(cleared(true), 0);
  // Mostly the clearing has been done meanwhile, as on a card.
  EXPECT_GE(cleared(false), 1);
}

// What was asked for before a slot's release reads what the slot held; what comes after the next use what
// came; and a use that is left out is found out.
TEST(EmulatedRuntimeTest, ASlotIsFilledBetweenItsUses) {
  const auto wrong = [](bool uses) {
    return Count([=](int seed) {
      Machine machine(seed);
      float *const slot = machine.OnDevice(), *const first = machine.OnDevice(),
                   *const second = machine.OnDevice(), *const zero = machine.OnDevice();
      machine.Wait();
      const auto lane = *machine.runtime().MakeCopyLane(1);
      lane->Fill(0, slot, machine.Pinned(1), kBytes);
      lane->Use(0);
      machine.Add(slot, zero, first);
      lane->Release(0);
      lane->Fill(0, slot, machine.Pinned(2), kBytes);
      if (uses) lane->Use(0);
      machine.Add(slot, zero, second);
      EXPECT_EQ(machine.Value(first), 1);
      const float value = machine.Value(second);
      return value != 2;
    });
  };
  EXPECT_EQ(wrong(true), 0);
  EXPECT_GE(wrong(false), kSeeds / 4);
}

// As cudaMemcpyAsync does.
TEST(EmulatedRuntimeTest, WhatIsNotPinnedIsTakenAndGivenAtOnce) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    Machine machine(seed);
    float* const device = machine.OnDevice();
    std::vector<float> host(kFloats, 1);
    machine.runtime().CopyToDevice(device, host.data(), kBytes);
    host.assign(kFloats, 2);
    machine.runtime().CopyToHost(host.data(), device, kBytes);
    EXPECT_EQ(host[0], 1);
  }
}

TEST(EmulatedRuntimeTest, WorkGetsOnWhileTheHostLooks) {
  const int at_once = Count([](int seed) {
    Machine machine(seed);
    float *const device = machine.OnDevice(), *const host = machine.Pinned(1);
    for (int i = 0; i < 5; ++i) machine.runtime().CopyToHost(host, device, kBytes);
    int looks = 1;
    while (!*machine.runtime().Done()) ++looks;
    EXPECT_EQ(host[0], 0);
    return looks == 1;
  });
  EXPECT_GT(at_once, 0);
  EXPECT_LT(at_once, kSeeds);
}

TEST(EmulatedRuntimeTest, PinnedMemoryThatGoesBeforeItsCopyIsSpoiled) {
  const int spoiled = Count([](int seed) {
    Machine machine(seed);
    float* const device = machine.OnDevice();
    void* const host = *machine.runtime().AllocateHost(kBytes);
    std::memset(host, 0, kBytes);
    machine.runtime().CopyToDevice(device, host, kBytes);
    machine.runtime().FreeHost(host);
    uint32_t word = 0;
    machine.runtime().CopyToHost(&word, device, 4);
    return word != 0;
  });
  EXPECT_GE(spoiled, kSeeds / 4);
}

TEST(EmulatedRuntimeTest, AGraphThatGoesWhileItRunsIsFoundOut) {
  const int told = Count([](int seed) {
    Machine machine(seed);
    float* const device = machine.OnDevice();
    LaunchList list;
    list.Add(Kernel::add, {.threads = kFloats},
             AddArgs{.before = device, .sum = device, .out = device, .rows = 1, .cols = kFloats});
    auto graph = *machine.runtime().MakeGraph(list);
    machine.runtime().Run(*graph);
    graph.reset();
    const absl::Status status = machine.runtime().Synchronize();
    EXPECT_TRUE(status.ok() || absl::StrContains(status.message(), "a graph goes while it runs")) << status;
    return !status.ok();
  });
  EXPECT_GE(told, kSeeds / 4);
}

// A card refuses blocks of more threads than a kernel is compiled for.
TEST(EmulatedRuntimeTest, BlocksOfMoreThreadsThanAKernelHasRegistersForAreFoundOut) {
  Machine machine(1);
  float* const device = machine.OnDevice();
  LaunchList list;
  list.Add(Kernel::add, {.threads = 288},
           AddArgs{.before = device, .sum = device, .out = device, .rows = 1, .cols = kFloats});
  machine.runtime().Run(list);
  EXPECT_EQ(machine.runtime().Synchronize().message(), "add is compiled for blocks of 256 threads, not 288");
}

}  // namespace
}  // namespace bellwether::gpu
