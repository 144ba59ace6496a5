#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <new>
#include <random>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "kernels/gpu/emulate.h"
#include "kernels/gpu/runtime.h"

namespace bellwether::gpu {
namespace {

std::array<std::atomic<int64_t>, kKernelCount> launches;

class EmulatedGraph : public Graph {
 public:
  explicit EmulatedGraph(LaunchList launched) : list(std::move(launched)) {}
  const LaunchList list;
};

// Work is done when it is asked for.
class EmulatedRuntime : public Runtime {
 public:
  explicit EmulatedRuntime(const EmulatedRuntimeOptions& options)
      : options_(options), memory_(options.memory_bytes), seed_(options.seed) {
    info_.name = "emulated GPU";
    info_.uuid = "emulated";
    info_.numeric_class = options.card.numeric_class;
    info_.multiprocessors = options.card.multiprocessors;
    info_.shared_bytes = options.card.shared_bytes;
    info_.memory_bytes = options.memory_bytes;
    info_.free_bytes = options.memory_bytes;
    info_.hopper = options.card.hopper;
  }

  const DeviceInfo& info() const override { return info_; }
  absl::StatusOr<int64_t> FreeBytes() override { return options_.memory_bytes - memory_.bytes_allocated(); }

  absl::StatusOr<void*> Allocate(int64_t bytes) override {
    BW_ASSIGN_OR_RETURN(void* memory, memory_.Allocate(bytes));
    std::memset(memory, 0, bytes);
    memory_.Unsettle(memory);
    return memory;
  }
  void Free(void* memory) override { Keep(memory_.Free(memory)); }
  absl::StatusOr<void*> AllocateHost(int64_t bytes) override { return ::operator new(bytes, kPage); }
  void FreeHost(void* memory) override { ::operator delete(memory, kPage); }

  void CopyToDevice(void* to, const void* from, int64_t bytes) override {
    if (bytes > 0 && Check(to, bytes)) CopyTo(to, from, bytes);  // of nothing, `from` may be null
  }
  void CopyToHost(void* to, const void* from, int64_t bytes) override {
    if (bytes > 0 && Check(from, bytes)) std::memcpy(to, from, bytes);
  }
  void CopyOnDevice(void* to, const void* from, int64_t bytes) override {
    if (bytes > 0 && Check(to, bytes) && Check(from, bytes)) CopyTo(to, from, bytes);
  }
  void Run(const LaunchList& list) override {
    for (const LaunchList::Launch& launch : list.launches()) {
      if (!status_.ok()) return;
      const KernelInfo& kernel = kKernels[static_cast<int>(launch.kernel)];
      if (kernel.hopper_only && !info_.hopper)
        return Keep(absl::InternalError(absl::StrCat(kernel.name, " is compiled for Hopper only")));
      ++launches[static_cast<int>(launch.kernel)];
      Keep(EmulateLaunch({.grid_x = launch.shape.grid_x,
                          .grid_y = launch.shape.grid_y,
                          .grid_z = launch.shape.grid_z,
                          .threads = launch.shape.threads,
                          .shared_bytes = launch.shape.shared_bytes,
                          .name = kernel.name},
                         {.memory = &memory_,
                          .seed = ++seed_,
                          .threads = options_.threads,
                          .tensor_core = options_.card.tensor_core,
                          .overlaps = true,
                          .shared_bytes_max = options_.card.shared_bytes},
                         EmulatedBody(launch.kernel), list.args(launch)));
    }
  }
  absl::StatusOr<std::unique_ptr<Graph>> MakeGraph(const LaunchList& list) override {
    return std::make_unique<EmulatedGraph>(list);
  }
  void Run(Graph& graph) override { Run(static_cast<EmulatedGraph&>(graph).list); }
  absl::StatusOr<std::unique_ptr<CopyLane>> MakeCopyLane(int slots) override;
  absl::Status Synchronize() override {
    memory_.Settle();
    return status_;
  }
  absl::StatusOr<bool> Done() override {
    memory_.Settle();
    BW_RETURN_IF_ERROR(status_);
    return true;
  }

 private:
  friend class EmulatedCopyLane;
  static constexpr std::align_val_t kPage{4096};

  void CopyTo(void* to, const void* from, int64_t bytes) {
    std::memcpy(to, from, bytes);
    memory_.Unsettle(to);
  }
  void Keep(const absl::Status& status) { status_.Update(status); }
  bool Check(const void* p, int64_t bytes) {
    if (status_.ok() && !memory_.Contains(p, bytes)) {
      Keep(absl::InternalError(absl::StrCat("a copy of ", bytes, " bytes touches ", memory_.Describe(p))));
    }
    return status_.ok();
  }

  const EmulatedRuntimeOptions options_;
  EmulatedMemory memory_;
  DeviceInfo info_;
  uint64_t seed_;
  absl::Status status_;
};

// Copies land at a random moment between Fill and Use, one after the other. Till then the slot is full of
// values that spoil whatever is made of them, and of what `from` holds then is what the slot gets: whoever
// uses, releases or reuses too early gets wrong numbers, or is told.
class EmulatedCopyLane : public CopyLane {
 public:
  EmulatedCopyLane(EmulatedRuntime* runtime, int slots, uint64_t seed)
      : runtime_(*runtime), random_(seed), states_(slots, State::kReleased) {}
  ~EmulatedCopyLane() override { LandAll(); }

  void Fill(int slot, void* to, const void* from, int64_t bytes) override {
    if (states_[slot] != State::kReleased) return Fail("filled", slot);
    states_[slot] = State::kFilled;
    if (!runtime_.Check(to, bytes)) return;
    std::memset(to, 0xff, bytes);
    copies_.push_back({slot, to, from, bytes});
    LandSome();
  }
  void Use(int slot) override {
    if (states_[slot] != State::kFilled) return Fail("used", slot);
    states_[slot] = State::kUsed;
    while (Waits(slot)) Land();
    LandSome();
  }
  void Release(int slot) override {
    if (states_[slot] != State::kUsed) return Fail("released", slot);
    states_[slot] = State::kReleased;
    LandSome();
  }
  absl::StatusOr<bool> Filled(int slot) override {
    LandSome();
    BW_RETURN_IF_ERROR(runtime_.status_);
    return !Waits(slot);
  }

 private:
  enum class State : uint8_t { kReleased, kFilled, kUsed };
  struct Copy {
    int slot;
    void* to;
    const void* from;
    int64_t bytes;
  };
  bool Waits(int slot) const {
    return std::any_of(copies_.begin(), copies_.end(), [&](const Copy& copy) { return copy.slot == slot; });
  }
  void Land() {
    std::memcpy(copies_.front().to, copies_.front().from, copies_.front().bytes);
    copies_.pop_front();
  }
  void LandAll() {
    while (!copies_.empty()) Land();
  }
  void LandSome() {
    while (!copies_.empty() && random_() % 4 == 0) Land();
  }
  void Fail(const char* what, int slot) {
    runtime_.Keep(absl::InternalError(absl::StrCat("slot ", slot, " of weights is ", what, " out of turn")));
  }

  EmulatedRuntime& runtime_;  // outlives this
  std::minstd_rand random_;
  std::vector<State> states_;
  std::deque<Copy> copies_;
};

absl::StatusOr<std::unique_ptr<CopyLane>> EmulatedRuntime::MakeCopyLane(int slots) {
  return std::make_unique<EmulatedCopyLane>(this, slots, ++seed_);
}

}  // namespace

std::unique_ptr<Runtime> MakeEmulatedRuntime(const EmulatedRuntimeOptions& options) {
  return std::make_unique<EmulatedRuntime>(options);
}

int64_t EmulatedLaunches(Kernel kernel) { return launches[static_cast<int>(kernel)]; }

}  // namespace bellwether::gpu
