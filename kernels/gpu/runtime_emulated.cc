#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <new>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/mutex.h"
#include "common/status.h"
#include "kernels/gpu/emulate.h"
#include "kernels/gpu/runtime.h"

namespace bellwether::gpu {
namespace {

class EmulatedCopyLane;

// Work is done in its order, each piece at a random moment from when it is asked for till somebody waits for
// it: whoever writes too early to what it gave, or looks too early at what it asked for, has wrong numbers.
class EmulatedRuntime : public Runtime {
 public:
  explicit EmulatedRuntime(const EmulatedRuntimeOptions& options)
      : options_(options), memory_(options.memory_bytes), seed_(options.seed), random_(options.seed) {
    info_.name = "emulated GPU";
    info_.uuid = "emulated";
    info_.numeric_class = options.card.numeric_class;
    info_.multiprocessors = options.card.multiprocessors;
    info_.shared_bytes = options.card.shared_bytes;
    info_.memory_bytes = options.memory_bytes;
    info_.free_bytes = options.memory_bytes;
    info_.hopper = options.card.hopper;
    DrawPace();
  }
  ~EmulatedRuntime() override { DropFreedHost(); }

  const DeviceInfo& info() const override { return info_; }
  absl::StatusOr<int64_t> FreeBytes() override { return options_.memory_bytes - memory_.bytes_allocated(); }

  absl::StatusOr<void*> Allocate(int64_t bytes) override {
    BW_ASSIGN_OR_RETURN(void* memory, memory_.Allocate(bytes));
    Ask([=, this] {
      std::memset(memory, 0, bytes);
      memory_.Unsettle(memory);
    });
    return memory;
  }
  void Free(void* memory) override {
    WaitFor(asked_);  // as a card's does
    Keep(memory_.Free(memory));
  }
  absl::StatusOr<void*> AllocateHost(int64_t bytes) override {
    void* memory = ::operator new(bytes, kPage);
    const MutexLock lock(&host_mutex_);
    host_[static_cast<char*>(memory)] = bytes;
    return memory;
  }
  // What is still copied of it is spoiled.
  void FreeHost(void* memory) override {
    const MutexLock lock(&host_mutex_);
    const auto found = host_.find(static_cast<char*>(memory));
    std::memset(memory, 0xff, found->second);
    host_.erase(found);
    freed_host_.push_back(memory);
  }

  // Of memory that is not pinned a card takes what is to be copied before the call returns, and into such
  // memory it has copied then.
  void CopyToDevice(void* to, const void* from, int64_t bytes) override {
    if (bytes <= 0 || !Check(to, bytes)) return;  // of nothing, `from` may be null
    if (IsPinned(from)) return Ask([=, this] { Copy(to, from, bytes); });
    const auto* first = static_cast<const char*>(from);
    Ask([this, to, taken = std::vector<char>(first, first + bytes)] {
      Copy(to, taken.data(), static_cast<int64_t>(taken.size()));
    });
  }
  void CopyToHost(void* to, const void* from, int64_t bytes) override {
    if (bytes <= 0 || !Check(from, bytes)) return;
    Ask([=] { std::memcpy(to, from, bytes); });
    if (!IsPinned(to)) WaitFor(asked_);
  }
  void CopyOnDevice(void* to, const void* from, int64_t bytes) override {
    if (bytes > 0 && Check(to, bytes) && Check(from, bytes)) Ask([=, this] { Copy(to, from, bytes); });
  }
  void Run(const LaunchList& list) override { RunShared(std::make_shared<const LaunchList>(list)); }
  absl::StatusOr<std::unique_ptr<Graph>> MakeGraph(const LaunchList& list) override;
  void Run(Graph& graph) override;
  absl::StatusOr<std::unique_ptr<CopyLane>> MakeCopyLane(int slots) override;

  absl::Status Synchronize() override {
    WaitFor(asked_);
    Settle();
    return status_;
  }
  absl::StatusOr<bool> Done() override {
    GetOn();
    BW_RETURN_IF_ERROR(status_);
    if (!work_.empty()) return false;
    Settle();
    return true;
  }
  // Who adds work to it does that at once.
  void* stream() override {
    WaitFor(asked_);
    return nullptr;
  }

 private:
  friend class EmulatedGraph;
  friend class EmulatedCopyLane;
  static constexpr std::align_val_t kPage{4096};
  static constexpr uint32_t kPaceMax = 4;

  void Ask(std::function<void()> work) {
    if (!status_.ok()) return;
    work_.push_back(std::move(work));
    ++asked_;
    while (!work_.empty() && random_() % kPaceMax < pace_) DoNext();
  }
  // Nothing till somebody waits, now and then, or all at once.
  void DrawPace() { pace_ = random_() % 3 * (kPaceMax / 2); }
  void DoNext();
  void WaitFor(uint64_t count) {
    while (done_ < count) DoNext();
  }
  // As a card would, while the host looks at it from time to time.
  void GetOn() {
    do {
      if (!work_.empty()) DoNext();
    } while (!work_.empty() && random_() % 2 == 0);
  }
  // All work is known to be done.
  void Settle() {
    memory_.Settle();
    DropFreedHost();
    DrawPace();
  }
  void DropFreedHost() {
    const MutexLock lock(&host_mutex_);
    for (void* memory : freed_host_) ::operator delete(memory, kPage);
    freed_host_.clear();
  }
  bool IsPinned(const void* p) {
    const MutexLock lock(&host_mutex_);
    const auto* byte = static_cast<const char*>(p);
    const auto after = host_.upper_bound(const_cast<char*>(byte));
    return after != host_.begin() && byte < std::prev(after)->first + std::prev(after)->second;
  }

  void Copy(void* to, const void* from, int64_t bytes) {
    std::memcpy(to, from, bytes);
    memory_.Unsettle(to);
  }
  void RunShared(const std::shared_ptr<const LaunchList>& list) {
    for (const LaunchList::Launch& launch : list->launches())
      Ask([this, list, &launch] { RunOne(*list, launch); });
  }
  void RunOne(const LaunchList& list, const LaunchList::Launch& launch) {
    const KernelInfo& kernel = kKernels[static_cast<int>(launch.kernel)];
    if (kernel.hopper_only && !info_.hopper)
      return Keep(absl::InternalError(absl::StrCat(kernel.name, " is compiled for Hopper only")));
    if (launch.shape.threads > kernel.threads_max) {
      return Keep(
          absl::InternalError(absl::StrCat(kernel.name, " is compiled for blocks of ", kernel.threads_max,
                                           " threads, not ", launch.shape.threads)));
    }
    const auto run = [&](uint64_t seed, BarrierTrial* barriers) {
      return EmulateLaunch({.grid_x = launch.shape.grid_x,
                            .grid_y = launch.shape.grid_y,
                            .grid_z = launch.shape.grid_z,
                            .threads = launch.shape.threads,
                            .shared_bytes = launch.shape.shared_bytes,
                            .name = kernel.name},
                           {.memory = &memory_,
                            .seed = seed,
                            .threads = options_.threads,
                            .tensor_core = options_.card.tensor_core,
                            .overlaps = true,
                            .shared_bytes_max = options_.card.shared_bytes,
                            .barriers = barriers},
                           EmulatedBody(launch.kernel), list.args(launch));
    };
    ++seed_;
    if (options_.around == nullptr) return Keep(run(seed_, nullptr));
    Keep(options_.around->Launch(launch.kernel, seed_, memory_,
                                 [&](uint64_t seed, BarrierTrial& trial) { return run(seed, &trial); }));
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

  std::mt19937_64 random_;
  uint32_t pace_ = 0;  // the chance in kPaceMax that the next piece of work is done
  std::deque<std::function<void()>> work_;
  uint64_t asked_ = 0, done_ = 0;  // pieces of work
  std::vector<EmulatedCopyLane*> lanes_;

  Mutex host_mutex_;
  std::map<char*, int64_t> host_ ABSL_GUARDED_BY(host_mutex_);  // pinned memory, and its bytes
  std::vector<void*> freed_host_
      ABSL_GUARDED_BY(host_mutex_);  // since it was last known that nothing is copied
};

class EmulatedGraph : public Graph {
 public:
  EmulatedGraph(EmulatedRuntime* runtime, const LaunchList& launched)
      : list(std::make_shared<const LaunchList>(launched)), runtime_(*runtime) {}
  ~EmulatedGraph() override {
    if (list.use_count() > 1) runtime_.Keep(absl::InternalError("a graph goes while it runs"));
  }
  const std::shared_ptr<const LaunchList> list;

 private:
  EmulatedRuntime& runtime_;  // outlives this
};

absl::StatusOr<std::unique_ptr<Graph>> EmulatedRuntime::MakeGraph(const LaunchList& list) {
  return std::make_unique<EmulatedGraph>(this, list);
}
void EmulatedRuntime::Run(Graph& graph) { RunShared(static_cast<EmulatedGraph&>(graph).list); }

// Copies begin, one after the other, when what came before their slot's last release is done, and land at a
// random moment till they are used. In between the slot is full of values that spoil whatever is made of
// them, and of what `from` holds when it lands is what the slot gets: whoever uses, releases or reuses too
// early gets wrong numbers, or is told.
class EmulatedCopyLane : public CopyLane {
 public:
  EmulatedCopyLane(EmulatedRuntime* runtime, int slots, uint64_t seed)
      : runtime_(*runtime), random_(seed), slots_(slots) {
    runtime_.lanes_.push_back(this);
  }
  ~EmulatedCopyLane() override {
    runtime_.WaitFor(last_use_);
    while (!copies_.empty()) Land();
    std::erase(runtime_.lanes_, this);
  }

  void Fill(int slot, void* to, const void* from, int64_t bytes) override {
    if (slots_[slot].state != State::kReleased) return Fail("filled", slot);
    slots_[slot].state = State::kFilled;
    if (!runtime_.Check(to, bytes)) return;
    copies_.push_back({slots_[slot].released, to, from, bytes});
    slots_[slot].copies = ++filled_;
    Begin();
    LandSome();
  }
  void Use(int slot) override {
    if (slots_[slot].state != State::kFilled) return Fail("used", slot);
    slots_[slot].state = State::kUsed;
    runtime_.Ask([this, copies = slots_[slot].copies] {
      while (landed_ < copies) Land();
    });
    last_use_ = runtime_.asked_;
    LandSome();
  }
  void Release(int slot) override {
    if (slots_[slot].state != State::kUsed) return Fail("released", slot);
    slots_[slot].state = State::kReleased;
    slots_[slot].released = runtime_.asked_;
    LandSome();
  }
  absl::StatusOr<bool> Filled(int slot) override {
    runtime_.GetOn();
    LandSome();
    BW_RETURN_IF_ERROR(runtime_.status_);
    return landed_ >= slots_[slot].copies;
  }
  // Copies that nothing holds up any more.
  void Begin() {
    for (Copy& copy : copies_) {
      if (copy.begun || copy.after > runtime_.done_) continue;
      std::memset(copy.to, 0xff, copy.bytes);
      copy.begun = true;
    }
  }

 private:
  enum class State : uint8_t { kReleased, kFilled, kUsed };
  struct Slot {
    State state = State::kReleased;
    uint64_t released = 0;  // work that the next copy waits for
    uint64_t copies = 0;    // of the lane, up to its last one
  };
  struct Copy {
    uint64_t after;
    void* to;
    const void* from;
    int64_t bytes;
    bool begun = false;
  };
  void Land() {
    runtime_.WaitFor(copies_.front().after);
    std::memcpy(copies_.front().to, copies_.front().from, copies_.front().bytes);
    copies_.pop_front();
    ++landed_;
  }
  void LandSome() {
    while (!copies_.empty() && copies_.front().begun && random_() % 4 == 0) Land();
  }
  void Fail(const char* what, int slot) {
    runtime_.Keep(absl::InternalError(absl::StrCat("slot ", slot, " of weights is ", what, " out of turn")));
  }

  EmulatedRuntime& runtime_;  // outlives this
  std::mt19937_64 random_;
  std::vector<Slot> slots_;
  std::deque<Copy> copies_;
  uint64_t filled_ = 0, landed_ = 0;  // copies
  uint64_t last_use_ = 0;             // work
};

void EmulatedRuntime::DoNext() {
  const std::function<void()> work = std::move(work_.front());
  work_.pop_front();
  if (status_.ok()) work();
  ++done_;
  for (EmulatedCopyLane* lane : lanes_) lane->Begin();
}

absl::StatusOr<std::unique_ptr<CopyLane>> EmulatedRuntime::MakeCopyLane(int slots) {
  return std::make_unique<EmulatedCopyLane>(this, slots, ++seed_);
}

}  // namespace

std::unique_ptr<Runtime> MakeEmulatedRuntime(const EmulatedRuntimeOptions& options) {
  return std::make_unique<EmulatedRuntime>(options);
}

}  // namespace bellwether::gpu
