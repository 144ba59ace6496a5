#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/random.h"
#include "kernels/gpu/emulated_memory.h"
#include "kernels/gpu/fiber.h"
#include "kernels/gpu/tensor_core.h"

// One block of an emulated GPU kernel: its threads as fibers of one OS thread, its shared memory, its
// barriers and its asynchronous copies. The words of simt.h (simt_emulated.h) are calls to the block that
// runs.
//
// Time. A thread runs until a word makes it wait, or gives way. Which warp goes on, which lane of it first,
// and when an asynchronous operation takes effect (at any moment from its issue to the wait for it) is drawn
// from the seed: the same seed gives the same schedule, on any machine.
//
// Faults. A kernel that does what a GPU does not define, or cannot finish, makes Run fail with a message that
// names thread, word and source line. Not modelled: order of memory accesses other than by the words, bank
// conflicts, other blocks that run. Kernels do not overlap, but what a kernel must leave to the time after
// WaitForPreviousKernel is a fault before it.

namespace bellwether::gpu {

// Where a word stands in a kernel: std::source_location, which not every compiler of ours has.
class Where {
 public:
  static constexpr Where current(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return Where(file, line);
  }
  constexpr Where() = default;
  const char* file_name() const { return file_; }
  uint32_t line() const { return static_cast<uint32_t>(line_); }

 private:
  constexpr Where(const char* file, int line) : file_(file), line_(line) {}
  const char* file_ = "";
  int line_ = 0;
};

// Which barriers, waits and fences a kernel passes; and one of them that does nothing, to see whether that is
// found.
struct BarrierTrial {
  std::optional<Where> skipped;
  std::vector<Where> passed;
};

struct LaunchShape {
  int grid_x = 1;
  int grid_y = 1;
  int grid_z = 1;
  int threads = 32;      // of a block: whole warps, at most 1024
  int shared_bytes = 0;  // dynamic shared memory, at most 227 KiB
  const char* name = "kernel";
};

// The k16 x n operand B of Wgmma in shared memory: "core matrices" of 8 columns (n) of 8 values (k) each, 16
// bytes a column, 128 contiguous bytes in all.
struct SharedTile {
  const void* start;  // 16-byte aligned
  int k_stride;       // bytes from one core matrix to the next along k (8 values)
  int n_stride;       // and along n (8 columns)
};

namespace emulated {

class Block;

// Each place once.
void AddPlace(const Where& where, std::vector<Where>& places);

// What the thread that runs on this OS thread sees.
struct Running {
  Block* block = nullptr;
  int thread = 0;
  int block_threads = 0;
  int block_x = 0, block_y = 0, block_z = 0;
  int grid_x = 0, grid_y = 0, grid_z = 0;
  char* shared = nullptr;
};
extern constinit thread_local Running running;

class Block {
 public:
  static constexpr int kWarpsMax = 32;
  static constexpr int kThreadsMax = 32 * kWarpsMax;
  static constexpr int kSharedBytesMax = 227 << 10;

  struct Task {
    LaunchShape shape;
    const EmulatedMemory* memory = nullptr;
    TensorCoreClass tensor_core = kHopperTensorCore;
    bool overlaps = false;  // with the kernel before
    BarrierTrial* barriers = nullptr;
    void (*body)(const void* args) = nullptr;
    const void* args = nullptr;
  };

  Block();

  // What the block that ran last has passed, if its task wants to know.
  const std::vector<Where>& passed() const { return passed_; }

  // Runs block number `index` (x fastest) of the task. May be called again, with any task.
  absl::Status Run(const Task& task, int64_t index, uint64_t seed);

  // -- The words, for the thread that runs. `word` names the caller in messages.

  // Of memory that kernels may touch, or the block ends.
  void CheckGlobal(const void* p, int bytes, int alignment, const char* word, const Where& where) {
    const auto address = reinterpret_cast<uintptr_t>(p);
    const EmulatedMemory::Range& range = recent_ranges_[address / kRecentBytes % kRecentRanges];
    if (address >= range.begin && address + bytes <= range.end && address % alignment == 0 && to_wait_ == 0)
      return;
    FindGlobal(p, bytes, alignment, word, where);
  }
  // Likewise, for writing.
  void CheckStore(const void* p, int bytes, int alignment, const Where& where) {
    CheckGlobal(p, bytes, alignment, "Store", where);
    if (task_.overlaps && !recent_written_[reinterpret_cast<uintptr_t>(p) / kRecentBytes % kRecentRanges])
      Written(p, where);
  }
  void WaitForPreviousKernel(const Where& where);
  // Barrier 0 takes all threads that have not ended, whatever `threads` is.
  void SyncGroup(int id, int threads, const char* word, const Where& where);
  // Waits for the other lanes; the last to come performs the operation on what all of them gave.
  using LaneOperands = std::array<void*, 32>;
  void WarpOperation(const char* word, void* operand, void (*perform)(Block&, const LaneOperands&),
                     const Where& where);
  void SyncWarp(const Where& where);

  void CopyAsync16(void* shared, const void* global, const Where& where);
  void CopyAsyncCommit();
  void CopyAsyncWait(int groups, const Where& where);

  void BarrierInit(uint64_t* bar, int arrivals, const Where& where);
  void BarrierArrive(uint64_t* bar, int bytes, const char* word, const Where& where);
  void BarrierWait(uint64_t* bar, int parity, const Where& where);
  void FenceBarrierInit(const Where& where);
  void CopyBulk(void* shared, const void* global, int bytes, uint64_t* bar, const Where& where);
  void FenceAsyncShared(const Where& where);

  struct WgmmaOperand {
    float* d;
    const uint32_t* a;
    SharedTile b;
    int columns;
    bool accumulate;
  };
  void Wgmma(WgmmaOperand operand, const Where& where);
  void WgmmaFence(const Where& where);
  void WgmmaCommit(const Where& where);
  void WgmmaWait(int groups, const Where& where);

  const TensorCoreClass& tensor_core() const { return task_.tensor_core; }
  // Ends the block. Of the thread that runs, unless another one is named. Nothing that lives on the thread's
  // stack is destroyed, so `what` must be moved in, and nothing else own memory.
  [[noreturn]] void Fail(std::string what, const Where& where, int thread = -1);

 private:
  // What a thread that is not ready waits for.
  enum class State : uint8_t { kWarp, kGroup, kBarrier, kWgmma, kEnded };
  struct PendingCopy {
    void* to;
    const void* from;
    int group;
  };
  // What every switch reads and writes comes first, in one line of the cache.
  struct alignas(64) Thread {
    Fiber fiber;
    State state = State::kWarp;
    int detail = 0;         // a barrier's parity, or a group's number
    const char* word = "";  // that it waits in
    Where where;
    bool waited = false;              // for the kernel before
    const void* object = nullptr;     // a barrier in shared memory
    std::vector<PendingCopy> copies;  // CopyAsync16 not landed yet
    int copy_groups = 0;              // committed
  };
  struct PendingWgmma {
    WgmmaOperand operand;  // lane 0's; b, columns and accumulate are those of all
    std::array<float*, 32> d;
    std::array<std::array<uint32_t, 4>, 32> a;
    Where where;
    int group;
  };
  struct Warp {
    uint32_t live = 0;   // lanes that have not ended
    uint32_t ready = 0;  // lanes that may run
    // The operation that lanes have come to.
    uint32_t arrived = 0;
    const char* word = "";
    Where where;
    LaneOperands operands;
    // Of Wgmma.
    std::vector<PendingWgmma>
        wgmmas;            // in order; they begin when all warps of the warpgroup have issued them
    int wgmma_groups = 0;  // committed
    bool wgmma_fenced = false;
  };
  struct Group {
    int expected = 0;
    int arrived = 0;
    Where where;  // of the first to come
    int first = 0;
    std::array<uint32_t, kWarpsMax> waiting;  // lanes of each warp
    std::array<uint32_t, kWarpsMax> lines;    // where the warp's lanes wait
  };
  struct Barrier {
    uint64_t* at = nullptr;
    int arrivals = 0;
    int pending = 0;
    int64_t bytes = 0;  // still to land; negative if they landed before they were announced
    int phase = 0;
    int initialised_by = 0;
    bool fenced = false;
  };
  struct PendingBulk {
    char* to;
    const char* from;
    int bytes;
    uint64_t* bar;
  };
  static constexpr int kGroups = 16;
  static constexpr int kRangesKept = 8;
  static constexpr int kRecentRanges = 256;
  static constexpr int kRecentBytes = 256;

  static void ThreadEntry();

  absl::Status Prepare(const Task& task, int64_t index, uint64_t seed);
  absl::Status Finish();
  uint32_t Random();
  // True with a chance of `numerator` in 256.
  bool Chance(uint32_t numerator) { return (Random() & 255) < numerator; }

  int warps() const { return task_.shape.threads / 32; }
  int warpgroups() const { return task_.shape.threads / 128; }
  Thread& thread(int index) { return threads_[index]; }
  Thread& current() { return threads_[running.thread]; }
  Warp& current_warp() { return warps_[static_cast<uint32_t>(running.thread) / 32]; }

  // Scheduling.
  void Wait(State state, const char* word, const Where& where);
  void GiveWay();
  void SwitchToNext();
  int NextThread();
  int NextOfTurn();
  bool BeginTurn();
  bool ChooseWarp(int first);
  void DrawMood();
  void EndThread();
  void Leave();
  bool WakeWaiting(int index, State state, const void* object);

  void Release(int id);
  [[noreturn]] void FailDivergent(const char* word, const char* other, const Where& there,
                                  const Where& where);
  Barrier& FindBarrier(uint64_t* bar, const char* word, const Where& where);
  void CompletePhase(Barrier& barrier);
  void LandBulk(size_t index);
  void LandSome();
  bool PerformWgmma(int warpgroup);
  void CheckFenced(const PendingWgmma& op, int thread);
  void MultiplyAdd(const PendingWgmma& op) const;
  bool Skips(const Where& where) { return task_.barriers != nullptr && SkipsThis(where); }
  bool SkipsThis(const Where& where);
  void Written(const void* p, const Where& where);
  void FindGlobal(const void* p, int bytes, int alignment, const char* word, const Where& where);
  void CheckShared(const void* p, int64_t bytes, int alignment, const char* word, const Where& where);
  std::string DescribeWaits() const;

  Task task_;
  std::vector<Where> passed_;
  std::string failure_;
  int failed_thread_ = -1;

  FiberStacks stacks_;
  std::optional<Fiber> main_;
  std::unique_ptr<Thread[]> threads_;
  std::array<Warp, kWarpsMax> warps_;
  std::array<Group, kGroups> groups_;
  std::vector<Barrier> barriers_;
  std::vector<PendingBulk> bulks_;
  // What each operand of Wgmma held when it was last read, by its start, and asynchronous_writes_ then.
  struct SeenTile {
    uint64_t hash = 0;
    int64_t writes = 0;
  };
  std::map<const void*, SeenTile> tiles_;
  int64_t asynchronous_writes_ = 0;  // bulk copies landed, and FenceAsyncShared
  std::unique_ptr<char[]> shared_storage_;
  char* shared_ = nullptr;
  int shared_used_ = 0;  // by the block before
  int live_ = 0;
  int pending_copies_ = 0;  // of all threads
  int pending_wgmmas_ = 0;  // of all warps
  int to_wait_ = 0;         // threads that have not waited for the kernel before

  // The warp whose turn it is, and which of its lanes come next.
  int turn_warp_ = 0;
  int turn_position_ = 32;
  int turn_first_ = 0;
  int turn_step_ = 1;
  uint32_t turn_lanes_ = ~0u;
  // How turns are given, for a while.
  struct Mood {
    int turns = 0;            // left
    uint32_t stay = 0;        // chance in 256 that a warp has another turn
    uint32_t land = 0;        // chance in 128 that an asynchronous operation lands before a turn
    int slow_warp = -1;       // has no turn while others can run
    uint32_t slow_lanes = 0;  // likewise, of every warp
  };
  Mood mood_;
  int hurried_warp_ = -1;  // has the next turn

  // Allocations that were found before, all and by some bits of the address.
  std::array<EmulatedMemory::Range, kRangesKept> ranges_;
  std::array<EmulatedMemory::Range, kRecentRanges> recent_ranges_;
  std::array<bool, kRecentRanges> recent_written_;  // and known to be unsettled
  int next_range_ = 0;

  std::array<uint32_t, 2> random_key_ = {};
  std::array<uint32_t, 4> random_words_ = {};
  uint32_t random_counter_ = 0;
};

}  // namespace emulated
}  // namespace bellwether::gpu
