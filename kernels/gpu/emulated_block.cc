#include "kernels/gpu/emulated_block.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace bellwether::gpu::emulated {

constinit thread_local Running running;

namespace {

constexpr int kSharedAlignment = 1024;
constexpr int kSharedGuardBytes = 1024;  // behind shared memory, checked when the block has ended

std::string At(const Where& where) {
  return where.line() == 0 ? "its end" : absl::StrCat(where.file_name(), ":", where.line());
}

bool SamePlace(const Where& a, const Where& b) {
  // One file's name is nearly always one literal; this is asked for every lane of every warp operation.
  return a.line() == b.line() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

}  // namespace

void AddPlace(const Where& where, std::vector<Where>& places) {
  for (const Where& place : places) {
    if (SamePlace(place, where)) return;
  }
  places.push_back(where);
}

Block::Block()
    : threads_(std::make_unique<Thread[]>(kThreadsMax)),
      shared_storage_(std::make_unique<char[]>(kSharedBytesMax + kSharedGuardBytes + kSharedAlignment)) {
  const auto start = reinterpret_cast<uintptr_t>(shared_storage_.get());
  shared_ = shared_storage_.get() + (kSharedAlignment - start % kSharedAlignment) % kSharedAlignment;
}

// ---- Run

absl::Status Block::Prepare(const Task& task, int64_t index, uint64_t seed) {
  task_ = task;
  failure_.clear();
  passed_.clear();
  const LaunchShape& shape = task.shape;
  if (absl::Status status = stacks_.Reserve(shape.threads); !status.ok()) return status;
  random_key_ = {static_cast<uint32_t>(seed),
                 static_cast<uint32_t>(seed >> 32) ^ static_cast<uint32_t>(index)};
  random_counter_ = 0;

  running = {.block = this,
             .block_threads = shape.threads,
             .block_x = static_cast<int>(index % shape.grid_x),
             .block_y = static_cast<int>(index / shape.grid_x % shape.grid_y),
             .block_z = static_cast<int>(index / shape.grid_x / shape.grid_y),
             .grid_x = shape.grid_x,
             .grid_y = shape.grid_y,
             .grid_z = shape.grid_z,
             .shared = shared_};
  // What the block before left behind is out of bounds now, too.
  Poison(shared_, std::max(shape.shared_bytes, shared_used_) + kSharedGuardBytes);
  shared_used_ = shape.shared_bytes;
  for (int i = 0; i < shape.threads; ++i) {
    Thread& thread = threads_[i];
    thread.fiber.Start(stacks_.stack(i), FiberStacks::kBytes - i % 32 * 128, ThreadEntry);
    thread.copies.clear();
    thread.copy_groups = 0;
    thread.waited = !task.overlaps;
  }
  to_wait_ = task.overlaps ? shape.threads : 0;
  for (int i = 0; i < warps(); ++i) {
    Warp& warp = warps_[i];
    warp.live = warp.ready = ~0u;
    warp.arrived = 0;
    warp.wgmmas.clear();
    warp.wgmma_groups = 0;
    warp.wgmma_fenced = false;
  }
  for (Group& group : groups_) {
    group.arrived = 0;
    group.waiting.fill(0);
  }
  barriers_.clear();
  bulks_.clear();
  tiles_.clear();
  asynchronous_writes_ = 0;
  live_ = shape.threads;
  pending_copies_ = pending_wgmmas_ = 0;
  turn_position_ = 32;
  turn_warp_ = 0;
  mood_ = {};
  hurried_warp_ = -1;
  ranges_.fill({});
  recent_ranges_.fill({});
  recent_written_.fill(false);
  main_.emplace();
  return absl::OkStatus();
}

absl::Status Block::Run(const Task& task, int64_t index, uint64_t seed) {
  if (absl::Status status = Prepare(task, index, seed); !status.ok()) return status;
  if (const int first = NextThread(); first >= 0) {
    running.thread = first;
    main_->SwitchTo(threads_[first].fiber);
  }
  absl::Status status = Finish();
  running = {};
  return status;
}

absl::Status Block::Finish() {
  if (failure_.empty()) {
    const char* guard = shared_ + task_.shape.shared_bytes;
    std::array<char, kSharedGuardBytes> untouched;
    Poison(untouched.data(), untouched.size());
    // The pattern continues from shared memory's first byte.
    const bool odd = task_.shape.shared_bytes % 2 != 0;
    if (std::memcmp(guard + odd, untouched.data(), kSharedGuardBytes - 1) != 0) {
      failed_thread_ = -1;
      failure_ = absl::StrCat("wrote behind the ", task_.shape.shared_bytes, " bytes of shared memory");
    }
  }
  if (failure_.empty()) return absl::OkStatus();
  std::string place =
      absl::StrCat("block (", running.block_x, ", ", running.block_y, ", ", running.block_z, ")");
  if (failed_thread_ >= 0) absl::StrAppend(&place, " thread ", failed_thread_);
  return absl::InternalError(absl::StrCat(task_.shape.name, ": ", place, ": ", failure_));
}

void Block::Fail(std::string what, const Where& where, int thread) {
  failure_ = absl::StrCat(what, " (", At(where), ")");
  failed_thread_ = thread >= 0 ? thread : running.thread;
  std::string().swap(what);
  Leave();
  __builtin_unreachable();
}

// Back to Run, for good.
void Block::Leave() { current().fiber.SwitchTo(*main_); }

uint32_t Block::Random() {
  const uint32_t at = random_counter_++;
  if (at % 4 == 0) random_words_ = Philox4x32({at / 4, 0, 0, 0}, random_key_);
  return random_words_[at % 4];
}

// ---- Threads take turns

// -1 if all lanes have had their turn.
inline int Block::NextOfTurn() {
  const uint32_t ready = warps_[turn_warp_].ready & turn_lanes_;
  while (turn_position_ < 32) {
    const int lane = (turn_first_ + turn_step_ * turn_position_++) & 31;
    if ((ready >> lane & 1) != 0) return turn_warp_ * 32 + lane;
  }
  return -1;
}

inline void Block::SwitchToNext() {
  const int from = running.thread;
  int next = NextOfTurn();
  if (next < 0) next = NextThread();
  if (next == from) return;
  if (next < 0) {
    Leave();
    return;
  }
  running.thread = next;
  threads_[from].fiber.SwitchTo(threads_[next].fiber);
}

void Block::ThreadEntry() {
  Block* block = running.block;
  Fiber::Entered(*block->main_);
  block->task_.body(block->task_.args);
  block->EndThread();
}

void Block::EndThread() {
  const int index = running.thread;
  Thread& thread = threads_[index];
  Warp& warp = current_warp();
  const uint32_t bit = 1u << (index % 32);
  thread.state = State::kEnded;
  warp.live &= ~bit;
  warp.ready &= ~bit;
  --live_;
  pending_copies_ -= static_cast<int>(thread.copies.size());
  thread.copies.clear();
  // The next kernel waits for this one only, which would be done before the one before it is.
  if (!thread.waited) Fail("ended without WaitForPreviousKernel", Where());
  if (!warp.wgmmas.empty()) Fail("ended before it waited for a Wgmma", warp.wgmmas.front().where);
  // Threads that have ended are not waited for.
  Group& all = groups_[0];
  if (all.arrived > 0 && all.arrived == live_) Release(0);
  SwitchToNext();
}

bool Block::WakeWaiting(int index, State state, const void* object) {
  const Thread& thread = threads_[index];
  const uint32_t bit = 1u << (index % 32);
  Warp& warp = warps_[index / 32];
  const bool wakes = (warp.live & ~warp.ready & bit) != 0 && thread.state == state &&
                     (object == nullptr || thread.object == object);
  if (wakes) warp.ready |= bit;
  return wakes;
}

void Block::Wait(State state, const char* word, const Where& where) {
  Thread& thread = current();
  thread.state = state;
  thread.word = word;
  thread.where = where;
  current_warp().ready &= ~(1u << (running.thread & 31));
  SwitchToNext();
}

// Lets others run first, sometimes: for words that do not wait, but after which others may go ahead. Whoever
// was woken by it goes first of all.
void Block::GiveWay() {
  if (hurried_warp_ >= 0) turn_position_ = 32;
  if (hurried_warp_ >= 0 || Chance(128)) SwitchToNext();
}

// -1 if the block has ended.
int Block::NextThread() {
  while (true) {
    if (const int next = NextOfTurn(); next >= 0) return next;
    if (live_ == 0) {
      if (!bulks_.empty()) failure_ = "ended before a CopyBulk had landed";
      failed_thread_ = -1;
      return -1;
    }
    if (BeginTurn()) continue;
    // Nobody can run: something must land first.
    if (bulks_.empty()) {
      failure_ = absl::StrCat("deadlock: ", DescribeWaits());
      failed_thread_ = -1;
      return -1;
    }
    LandBulk(Random() % bulks_.size());
  }
}

// Schedules that differ as much as they may: warps in turn, or one far ahead; one warp or some lanes far
// behind, until nobody else can run; copies that land soon, or at their wait.
void Block::DrawMood() {
  const uint32_t random = Random();
  constexpr uint32_t kStay[] = {0, 128, 240, 256};
  constexpr uint32_t kLand[] = {0, 0, 32, 96};
  mood_.turns = 4 + static_cast<int>(random & 15);
  mood_.stay = kStay[random >> 4 & 3];
  mood_.land = kLand[random >> 6 & 3];
  mood_.slow_warp = (random >> 8 & 1) != 0 ? static_cast<int>((random >> 16) % warps()) : -1;
  mood_.slow_lanes = (random >> 9 & 3) == 0 ? Random() & Random() : 0;
}

// Chooses a warp and the order of its lanes. False if no thread can run.
bool Block::BeginTurn() {
  if (mood_.turns-- == 0) DrawMood();
  if (pending_copies_ + pending_wgmmas_ + static_cast<int>(bulks_.size()) > 0) LandSome();
  const uint32_t random = Random();
  turn_first_ = random & 31;
  turn_step_ = (random >> 5 & 31) | 1;
  turn_position_ = 0;
  if (const int hurried = std::exchange(hurried_warp_, -1); hurried >= 0) {
    turn_warp_ = hurried;
    turn_lanes_ = ~0u;
    if (warps_[hurried].ready != 0) return true;
  }
  const bool stay = (random >> 10 & 255) < mood_.stay;
  if (ChooseWarp(stay ? turn_warp_ : static_cast<int>((random >> 18) % warps()))) return true;
  mood_.slow_warp = -1;
  mood_.slow_lanes = 0;
  return ChooseWarp(static_cast<int>((random >> 18) % warps()));
}

// The first warp from `first` on that may run.
bool Block::ChooseWarp(int first) {
  turn_lanes_ = ~mood_.slow_lanes;
  for (int i = first, end = first + warps(); i < end; ++i) {
    turn_warp_ = i < warps() ? i : i - warps();
    if ((warps_[turn_warp_].ready & turn_lanes_) != 0 && turn_warp_ != mood_.slow_warp) return true;
  }
  return false;
}

// "threads 0-31 wait at SyncBlock (x.h:12); threads 32-63 have ended"
std::string Block::DescribeWaits() const {
  std::vector<std::string> parts;
  const auto text_of = [&](const Thread& thread) {
    if (thread.state == State::kEnded) return std::string("ended");
    std::string text = absl::StrCat("wait at ", thread.word);
    if (thread.state == State::kGroup && thread.detail != 0) absl::StrAppend(&text, " ", thread.detail);
    if (thread.state == State::kBarrier) {
      const Barrier* barrier = nullptr;
      for (const Barrier& b : barriers_) barrier = b.at == thread.object ? &b : barrier;
      absl::StrAppend(&text, " for parity ", thread.detail, " of the barrier at byte ",
                      static_cast<const char*>(thread.object) - shared_);
      if (barrier != nullptr)
        absl::StrAppend(&text, ", which lacks ", barrier->pending, " arrivals and ", barrier->bytes,
                        " bytes");
    }
    return absl::StrCat(text, " (", At(thread.where), ")");
  };
  for (int begin = 0; begin < task_.shape.threads;) {
    const std::string text = text_of(threads_[begin]);
    int end = begin + 1;
    while (end < task_.shape.threads && text_of(threads_[end]) == text) ++end;
    parts.push_back(end - begin == 1 ? absl::StrCat("thread ", begin, " ", text)
                                     : absl::StrCat("threads ", begin, "-", end - 1, " ", text));
    begin = end;
  }
  return absl::StrJoin(parts, "; ");
}

// ---- Barriers of threads

void Block::SyncGroup(int id, int threads, const char* word, const Where& where) {
  if (Skips(where)) return;
  if (id < 0 || id >= kGroups) Fail(absl::StrCat(word, " with barrier number ", id), where);
  if (id != 0 && (threads <= 0 || threads % 32 != 0 || threads > task_.shape.threads))
    Fail(absl::StrCat(word, " among ", threads, " threads"), where);
  Group& group = groups_[id];
  const int warp = running.thread / 32;
  if (group.arrived == 0) {
    group.expected = threads;
    group.where = where;
    group.first = running.thread;
  } else if (group.expected != threads) {
    std::string what = absl::StrCat(word, " ", id, " among ", threads, " threads, but ", group.expected,
                                    " for thread ", group.first, " (", At(group.where), ")");
    Fail(std::move(what), where);
  }
  // All threads of a warp must come to the same barrier of the program; for SyncBlock, all of the block.
  const bool same =
      id == 0 ? SamePlace(group.where, where) : group.waiting[warp] == 0 || group.lines[warp] == where.line();
  if (!same) FailDivergent(word, word, group.where, where);
  group.lines[warp] = where.line();
  group.waiting[warp] |= 1u << (running.thread % 32);
  ++group.arrived;
  current().detail = id;
  if (group.arrived == (id == 0 ? live_ : group.expected)) {
    Release(id);
    turn_position_ = 32;
    SwitchToNext();
  } else {
    Wait(State::kGroup, word, where);
  }
}

// Out of the way of those who come to the right place.
[[gnu::noinline]] void Block::FailDivergent(const char* word, const char* other, const Where& there,
                                            const Where& where) {
  std::string what = absl::StrCat("divergent ", word, ": another thread is at ", other, " (", At(there), ")");
  Fail(std::move(what), where);
}

void Block::Release(int id) {
  Group& group = groups_[id];
  for (int i = 0; i < warps(); ++i) {
    if (group.waiting[i] == 0) continue;
    if (group.waiting[i] != warps_[i].live)
      Fail(absl::StrCat("divergent SyncGroup ", id, ": not all threads of warp ", i, " came to it"),
           group.where);
    warps_[i].ready |= group.waiting[i];
    group.waiting[i] = 0;
  }
  group.arrived = 0;
}

void Block::WarpOperation(const char* word, void* operand, void (*perform)(Block&, const LaneOperands&),
                          const Where& where) {
  Warp& warp = current_warp();
  const int lane = running.thread & 31;
  if (warp.arrived == 0) {
    warp.word = word;
    warp.where = where;
  } else if (!SamePlace(warp.where, where)) {
    FailDivergent(word, warp.word, warp.where, where);
  }
  warp.operands[lane] = operand;
  warp.arrived |= 1u << lane;
  if (warp.arrived != ~0u) {
    Wait(State::kWarp, word, where);
    return;
  }
  warp.arrived = 0;
  if (perform != nullptr) perform(*this, warp.operands);
  warp.ready = ~0u;
  turn_position_ = 32;
  SwitchToNext();
}

void Block::SyncWarp(const Where& where) {
  if (!Skips(where)) WarpOperation("SyncWarp", nullptr, nullptr, where);
}

// ---- Memory

bool Block::SkipsThis(const Where& where) {
  AddPlace(where, passed_);
  const std::optional<Where>& skipped = task_.barriers->skipped;
  return skipped.has_value() && SamePlace(*skipped, where);
}

void Block::WaitForPreviousKernel(const Where& where) {
  if (Skips(where)) return;
  bool& waited = current().waited;
  if (!waited) --to_wait_;
  waited = true;
}

void Block::Written(const void* p, const Where& where) {
  if (!current().waited) Fail("Store before WaitForPreviousKernel", where);
  task_.memory->Unsettle(p);
  recent_written_[reinterpret_cast<uintptr_t>(p) / kRecentBytes % kRecentRanges] = true;
}

void Block::FindGlobal(const void* p, int bytes, int alignment, const char* word, const Where& where) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  if (address % alignment != 0)
    Fail(absl::StrCat(word, " of ", bytes, " bytes at an address that is no multiple of ", alignment), where);
  if (!current().waited && task_.memory->Unsettled(p)) {
    Fail(absl::StrCat(word, " before WaitForPreviousKernel of what was written since the host last waited: ",
                      task_.memory->Describe(p)),
         where);
  }
  const auto slot = address / kRecentBytes % kRecentRanges;
  EmulatedMemory::Range& recent = recent_ranges_[slot];
  if (address >= recent.begin && address + bytes <= recent.end) return;
  recent_written_[slot] = false;
  for (const EmulatedMemory::Range& range : ranges_) {
    if (address < range.begin || address + bytes > range.end) continue;
    recent = range;
    return;
  }
  const EmulatedMemory::Range range = task_.memory->Find(p);
  if (range.end == 0 || address + bytes > range.end) {
    std::string what = absl::StrCat(word, " of ", bytes, " bytes out of bounds: ", task_.memory->Describe(p));
    Fail(std::move(what), where);
  }
  recent = ranges_[next_range_] = range;
  next_range_ = (next_range_ + 1) % kRangesKept;
}

void Block::CheckShared(const void* p, int64_t bytes, int alignment, const char* word, const Where& where) {
  const int64_t offset = static_cast<const char*>(p) - shared_;
  if (offset < 0 || offset + bytes > task_.shape.shared_bytes)
    Fail(absl::StrCat(word, " of ", bytes, " bytes at byte ", offset, " of ", task_.shape.shared_bytes,
                      " of shared memory"),
         where);
  if (offset % alignment != 0)
    Fail(absl::StrCat(word, " at byte ", offset, " of shared memory, which is no multiple of ", alignment),
         where);
}

}  // namespace bellwether::gpu::emulated
