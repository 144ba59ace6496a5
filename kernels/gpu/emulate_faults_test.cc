#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/gpu/emulate.h"
#include "kernels/gpu/emulate_test_util.h"
#include "kernels/gpu/simt.h"

// Kernels with a planted fault: the emulator finds it, by an error that says what and where, or by results
// that differ. Not modelled, so not here: a missing SyncWarp between lanes that some GPU would run in step,
// and the order of plain reads and writes.

namespace bellwether::gpu {
namespace {

using testing::HasSubstr;

constexpr int kSeeds = 20;
constexpr int kEnough = 19;

class FaultTest : public testing::Test {
 protected:
  template <auto kKernel, typename Args>
  absl::Status Launch(const LaunchShape& shape, const Args& args, uint64_t seed) {
    return EmulateLaunch<kKernel>(shape, {.memory = &memory_, .seed = seed}, args);
  }
  EmulatedMemory memory_{1 << 20};
};

// ---- Faults that are errors in every schedule

enum class Misuse {
  kNone,
  kReadBehind,
  kReadBefore,
  kWriteBehind,
  kMisaligned,
  kReadFreed,
  kPrefetchBehind,
  kCopyBehind,
  kCopyToMisaligned,
  kCopyBehindShared,
  kBarrierOfSomeLanes,
  kBarriersOfDifferentLines,
  kShuffleOfSomeLanes,
  kDifferentOperations,
  kTooFewInGroup,
  kGroupOfTwoSizes,
  kGroupOfHalfWarps,
  kWriteBehindShared,
  kBarrierNotInitialised,
  kBarrierOverwritten,
  kTooManyArrivals,
  kNobodyArrives,
  kBulkWithoutFence,
  kBulkMisaligned,
  kBulkBehind,
  kBulkBytesExpectedTooMany,
  kWgmmaWithoutFence,
  kWgmmaWithoutAsyncFence,
  kWgmmaOfSomeWarps,
  kWgmmaOutOfShared,
};

struct MisuseArgs {
  Misuse misuse;
  float* data;  // 128 floats
  float* freed;
};

constexpr int kMisuseShared = 4096;

void MisuseMemory(const MisuseArgs& args) {
  const bool one = ThreadIndex() == 37;
  switch (args.misuse) {
    case Misuse::kReadBehind:
      if (one) Store(args.data, Load(args.data + 128));
      break;
    case Misuse::kReadBefore:
      if (one) Store(args.data, Load(args.data - 1));
      break;
    case Misuse::kWriteBehind:
      if (one) Store(args.data + 128, 1.0f);
      break;
    case Misuse::kMisaligned:
      if (one) LoadStream(args.data + 1);
      break;
    case Misuse::kReadFreed:
      if (one) Load(args.freed);
      break;
    case Misuse::kPrefetchBehind:
      if (one) Prefetch64(args.data + 128);
      break;
    case Misuse::kCopyBehind:
      if (one) CopyAsync16(SharedMemory(), args.data + 128);
      break;
    case Misuse::kCopyToMisaligned:
      if (one) CopyAsync16(SharedMemory() + 8, args.data);
      break;
    case Misuse::kCopyBehindShared:
      if (one) CopyAsync16(SharedMemory() + kMisuseShared, args.data);
      break;
    case Misuse::kWriteBehindShared:
      if (one) SharedMemory()[kMisuseShared] = 1;
      break;
    default:
      break;
  }
}

void MisuseOrder(const MisuseArgs& args) {
  const int thread = ThreadIndex();
  switch (args.misuse) {
    case Misuse::kBarrierOfSomeLanes:
      if (thread % 2 == 0) {
        SyncBlock();
      } else {
        SyncBlock();
      }
      break;
    case Misuse::kBarriersOfDifferentLines:
      if (Warp() == 0) SyncBlock();
      SyncBlock();
      break;
    case Misuse::kShuffleOfSomeLanes:
      if (thread % 32 < 16) ShuffleXor(thread, 1);
      break;
    case Misuse::kDifferentOperations:
      if (thread % 32 < 16) {
        ShuffleXor(thread, 1);
      } else {
        SyncWarp();
      }
      break;
    case Misuse::kTooFewInGroup:
      if (Warp() < 2) SyncGroup(3, 96);
      break;
    case Misuse::kGroupOfTwoSizes:
      SyncGroup(3, Warp() == 0 ? 64 : 128);
      break;
    case Misuse::kGroupOfHalfWarps:
      if (thread % 32 < 16) SyncGroup(3, 64);
      SyncBlock();
      break;
    default:
      break;
  }
}

void MisuseBarriers(const MisuseArgs& args) {
  auto* bar = reinterpret_cast<uint64_t*>(SharedMemory() + 1024);
  const Misuse misuse = args.misuse;
  if (misuse == Misuse::kBarrierNotInitialised) BarrierWait(bar, 0);
  if (ThreadIndex() == 0) {
    BarrierInit(bar, 1);
    if (misuse != Misuse::kBulkWithoutFence) FenceBarrierInit();
  }
  SyncBlock();
  if (misuse == Misuse::kBarrierOverwritten && ThreadIndex() == 5) *bar = 0;
  SyncBlock();
  if (ThreadIndex() == 0) {
    const int bytes = misuse == Misuse::kBulkMisaligned ? 24 : misuse == Misuse::kBulkBehind ? 528 : 512;
    BarrierArriveExpect(bar, misuse == Misuse::kBulkBytesExpectedTooMany ? 528 : bytes);
    CopyBulk(SharedMemory(), args.data, bytes, bar);
    if (misuse == Misuse::kTooManyArrivals) {
      BarrierArriveExpect(bar, 16);
      BarrierArrive(bar);
    }
  }
  BarrierWait(bar, 0);
  if (misuse == Misuse::kNobodyArrives) BarrierWait(bar, 1);
}

void MisuseWgmma(const MisuseArgs& args) {
  const Misuse misuse = args.misuse;
  float d[4] = {};
  const uint32_t a[4] = {};
  auto* shared = reinterpret_cast<float*>(SharedMemory());
  const SharedTile tile = {
      misuse == Misuse::kWgmmaOutOfShared ? SharedMemory() + kMisuseShared - 128 : SharedMemory(), 128, 256};
  for (int i = 0; i < 2; ++i) {
    if (ThreadIndex() < 64) shared[ThreadIndex()] = static_cast<float>(i);
    if (misuse != Misuse::kWgmmaWithoutAsyncFence || i == 0) FenceAsyncShared();
    SyncBlock();
    if (misuse == Misuse::kWgmmaOfSomeWarps && Warp() == 3) return;
    if (misuse != Misuse::kWgmmaWithoutFence || i == 0) WgmmaFence();
    Wgmma<8>(d, a, tile, true);
    WgmmaCommit();
    WgmmaWait<0>();
    SyncBlock();
  }
  Store(args.data + ThreadIndex(), d[0]);
}

void MisuseKernel(const MisuseArgs& args) {
  const Misuse misuse = args.misuse;
  MisuseMemory(args);
  MisuseOrder(args);
  if (misuse >= Misuse::kBarrierNotInitialised && misuse < Misuse::kWgmmaWithoutFence) MisuseBarriers(args);
  if (misuse >= Misuse::kWgmmaWithoutFence || misuse == Misuse::kNone) MisuseWgmma(args);
}

struct Expectation {
  Misuse misuse;
  std::vector<std::string> words;  // of the message
};

class MisuseTest : public FaultTest, public testing::WithParamInterface<Expectation> {};

TEST_P(MisuseTest, IsAnErrorThatSaysWhatAndWhere) {
  for (int seed = 0; seed < kSeeds; ++seed) {
    const DeviceArray<float> data(memory_, std::vector<float>(128, 1.0f));
    float* freed = nullptr;
    {
      const DeviceArray<float> array(memory_, 128);
      freed = array.data();
    }
    const LaunchShape shape = {.grid_x = 2, .threads = 128, .shared_bytes = kMisuseShared, .name = "misuse"};
    const absl::Status status =
        Launch<MisuseKernel>(shape, MisuseArgs{GetParam().misuse, data.data(), freed}, seed);
    if (GetParam().misuse == Misuse::kNone) {
      EXPECT_TRUE(status.ok()) << status;
      continue;
    }
    ASSERT_TRUE(absl::IsInternal(status)) << status;
    EXPECT_THAT(status.message(), HasSubstr("misuse: block ("));
    for (const std::string& word : GetParam().words) EXPECT_THAT(status.message(), HasSubstr(word));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, MisuseTest,
    testing::Values(
        Expectation{Misuse::kNone, {}},
        Expectation{Misuse::kReadBehind,
                    {"thread 37: Load of 4 bytes out of bounds: byte 512 of an allocation of 512",
                     "emulate_faults_test.cc:"}},
        Expectation{Misuse::kReadBefore,
                    {"thread 37: Load of 4 bytes out of bounds: 4 bytes before an allocation of 512"}},
        Expectation{Misuse::kWriteBehind,
                    {"thread 37: Store of 4 bytes out of bounds: byte 512 of an allocation of 512"}},
        Expectation{Misuse::kMisaligned, {"thread 37: LoadStream of 16 bytes", "no multiple of 16"}},
        Expectation{Misuse::kReadFreed, {"thread 37: Load of 4 bytes out of bounds"}},
        Expectation{Misuse::kPrefetchBehind, {"thread 37: Prefetch64 of 1 bytes out of bounds"}},
        Expectation{Misuse::kCopyBehind, {"thread 37: CopyAsync16 of 16 bytes out of bounds"}},
        Expectation{Misuse::kCopyToMisaligned,
                    {"CopyAsync16 at byte 8 of shared memory", "no multiple of 16"}},
        Expectation{Misuse::kCopyBehindShared,
                    {"CopyAsync16 of 16 bytes at byte 4096 of 4096 of shared memory"}},
        Expectation{Misuse::kBarrierOfSomeLanes, {"divergent SyncBlock"}},
        Expectation{Misuse::kBarriersOfDifferentLines, {"divergent SyncBlock"}},
        Expectation{Misuse::kShuffleOfSomeLanes,
                    {"deadlock: ", "threads 0-15 wait at ShuffleXor", "threads 16-31 ended"}},
        Expectation{Misuse::kDifferentOperations, {"divergent S"}},
        Expectation{Misuse::kTooFewInGroup,
                    {"deadlock: threads 0-63 wait at SyncGroup 3", "threads 64-127 ended"}},
        Expectation{Misuse::kGroupOfTwoSizes, {"SyncGroup 3 among "}},
        Expectation{Misuse::kGroupOfHalfWarps, {"divergent SyncGroup 3"}},
        Expectation{Misuse::kWriteBehindShared, {"wrote behind the 4096 bytes of shared memory"}},
        Expectation{Misuse::kBarrierNotInitialised, {"BarrierWait on a barrier that was not initialised"}},
        Expectation{Misuse::kBarrierOverwritten, {" on a barrier that was overwritten"}},
        Expectation{Misuse::kTooManyArrivals, {"BarrierArrive"}},
        Expectation{Misuse::kNobodyArrives,
                    {"deadlock: threads 0-127 wait at BarrierWait for parity 1 of the barrier at byte 1024, "
                     "which lacks 1 arrivals and 0 bytes"}},
        Expectation{Misuse::kBulkWithoutFence, {"CopyBulk on a barrier without FenceBarrierInit"}},
        Expectation{Misuse::kBulkMisaligned, {"thread 0: CopyBulk of 24 bytes"}},
        Expectation{Misuse::kBulkBehind, {"thread 0: CopyBulk of 528 bytes out of bounds"}},
        Expectation{Misuse::kBulkBytesExpectedTooMany, {"deadlock", "lacks 0 arrivals and 16 bytes"}},
        Expectation{Misuse::kWgmmaWithoutFence, {"Wgmma without a WgmmaFence"}},
        Expectation{Misuse::kWgmmaWithoutAsyncFence, {"without FenceAsyncShared"}},
        Expectation{Misuse::kWgmmaOfSomeWarps, {"deadlock: threads 0-95 wait at WgmmaWait"}},
        Expectation{Misuse::kWgmmaOutOfShared, {"Wgmma of 256 bytes at byte 3968 of 4096"}}));

// ---- Kernels that begin while the one before runs

enum class Overlap { kNone, kReadsBefore, kCopiesBefore, kWritesBefore, kNeverWaits, kOneNeverWaits };

struct OverlapArgs {
  Overlap overlap;
  const float* settled;
  const float* unsettled;
  float* out;
};

void OverlapKernel(const OverlapArgs& args) {
  const bool one = ThreadIndex() == 37;
  LetNextKernelStart();
  float value = Load(args.settled);
  if (args.overlap == Overlap::kReadsBefore && one) value += Load(args.unsettled);
  if (args.overlap == Overlap::kCopiesBefore && one) CopyAsync16(SharedMemory(), args.unsettled);
  if (args.overlap == Overlap::kWritesBefore && one) Store(args.out, value);
  if (args.overlap == Overlap::kNeverWaits || (args.overlap == Overlap::kOneNeverWaits && one)) return;
  WaitForPreviousKernel();
  Store(args.out + ThreadIndex(), value + Load(args.unsettled));
}

TEST_F(FaultTest, OverlapsWithTheKernelBefore) {
  const DeviceArray<float> settled(memory_, std::vector<float>(128, 1.0f)),
      unsettled(memory_, std::vector<float>(128, 2.0f)), out(memory_, 128);
  const auto run = [&](Overlap overlap, bool overlaps, uint64_t seed) {
    memory_.Settle();
    memory_.Unsettle(unsettled.data() + 5);
    return std::string(
        EmulateLaunch<OverlapKernel>({.threads = 64, .shared_bytes = 16, .name = "overlap"},
                                     {.memory = &memory_, .seed = seed, .overlaps = overlaps},
                                     OverlapArgs{overlap, settled.data(), unsettled.data(), out.data()})
            .message());
  };
  for (int seed = 0; seed < kSeeds; ++seed) {
    EXPECT_EQ(run(Overlap::kNone, true, seed), "");
    EXPECT_TRUE(memory_.Unsettled(out.data())) << "by its writing";
    EXPECT_EQ(run(Overlap::kWritesBefore, false, seed), "") << "where it does not overlap";
    for (const auto& [overlap, words] :
         {std::pair{Overlap::kReadsBefore,
                    "thread 37: Load before WaitForPreviousKernel of what was written"},
          {Overlap::kCopiesBefore, "thread 37: CopyAsync16 before WaitForPreviousKernel of what was written"},
          {Overlap::kWritesBefore, "thread 37: Store before WaitForPreviousKernel"},
          {Overlap::kOneNeverWaits, "thread 37: ended without WaitForPreviousKernel"},
          {Overlap::kNeverWaits, ": ended without WaitForPreviousKernel"}}) {
      const std::string message = run(overlap, true, seed);
      EXPECT_THAT(message, HasSubstr(words));
      EXPECT_THAT(message, HasSubstr("overlap: block (0, 0, 0) thread "));
    }
  }
}

// ---- Faults that show in the results, in nearly every schedule

// Each flag plants one.
struct Faults {
  bool no_barrier_before_reading = false;
  bool no_barrier_after_reading = false;
  bool no_copy_wait = false;
  bool waits_for_too_few = false;
  bool no_initial_value = false;
  bool wrong_full_parity = false;
  bool wrong_empty_parity = false;
  bool releases_before_reading = false;
  bool no_wgmma_wait = false;
  bool overwrites_before_wgmma_wait = false;
};

struct SumArgs {
  const float* from;
  float* to;
  Faults faults;
};

constexpr int kTiles = 6;
constexpr int kTileFloats = 64;

// Sums tiles, each of which the threads write to shared memory and read elsewhere.
void SumThroughShared(const SumArgs& args) {
  auto* shared = reinterpret_cast<float*>(SharedMemory());
  const int thread = ThreadIndex();
  if (!args.faults.no_initial_value) shared[kTileFloats + thread] = 0;
  for (int tile = 0; tile < kTiles; ++tile) {
    shared[thread] = Load(args.from + tile * kTileFloats + thread);
    if (!args.faults.no_barrier_before_reading) SyncBlock();
    shared[kTileFloats + thread] += shared[kTileFloats - 1 - thread];
    if (!args.faults.no_barrier_after_reading) SyncBlock();
  }
  Store(args.to + thread, shared[kTileFloats + thread]);
}

// The same with asynchronous copies into two buffers.
void SumCopiedAhead(const SumArgs& args) {
  auto* shared = reinterpret_cast<float*>(SharedMemory());
  const int thread = ThreadIndex();
  const auto copy = [&](int tile) {
    if (tile < kTiles && thread < kTileFloats / 4)
      CopyAsync16(shared + tile % 2 * kTileFloats + thread * 4, args.from + tile * kTileFloats + thread * 4);
    CopyAsyncCommit();
  };
  float sum = 0;
  copy(0);
  for (int tile = 0; tile < kTiles; ++tile) {
    copy(tile + 1);
    if (!args.faults.no_copy_wait) {
      if (args.faults.waits_for_too_few) {
        CopyAsyncWait<2>();
      } else {
        CopyAsyncWait<1>();
      }
    }
    if (!args.faults.no_barrier_before_reading) SyncBlock();
    sum += shared[tile % 2 * kTileFloats + kTileFloats - 1 - thread];
    if (!args.faults.no_barrier_after_reading) SyncBlock();
  }
  Store(args.to + thread, sum);
}

// The same by a third warp that copies tiles into two stages.
void SumStages(const SumArgs& args) {
  constexpr int kStages = 2;
  auto* shared = reinterpret_cast<float*>(SharedMemory());
  auto* full = reinterpret_cast<uint64_t*>(shared + kStages * kTileFloats);
  uint64_t* empty = full + kStages;
  if (ThreadIndex() == 0) {
    for (int i = 0; i < kStages; ++i) {
      BarrierInit(full + i, 1);
      BarrierInit(empty + i, kTileFloats);
    }
    FenceBarrierInit();
  }
  SyncBlock();
  if (ThreadIndex() >= kTileFloats) {
    for (int tile = 0; tile < kTiles && Lane() == 0; ++tile) {
      const int stage = tile % kStages;
      const int parity = (tile / kStages + (args.faults.wrong_empty_parity ? 0 : 1)) % 2;
      if (tile >= kStages) BarrierWait(empty + stage, parity);
      BarrierArriveExpect(full + stage, kTileFloats * 4);
      CopyBulk(shared + stage * kTileFloats, args.from + tile * kTileFloats, kTileFloats * 4, full + stage);
    }
    return;
  }
  float sum = 0;
  for (int tile = 0; tile < kTiles; ++tile) {
    const int stage = tile % kStages;
    BarrierWait(full + stage, (tile / kStages + (args.faults.wrong_full_parity ? 1 : 0)) % 2);
    if (args.faults.releases_before_reading) BarrierArrive(empty + stage);
    sum += shared[stage * kTileFloats + ThreadIndex()];
    if (!args.faults.releases_before_reading) BarrierArrive(empty + stage);
  }
  Store(args.to + ThreadIndex(), sum);
}

// Wgmma with ones for A: each output is the sum of a column of the tile.
void SumByWgmma(const SumArgs& args) {
  auto* shared = reinterpret_cast<uint32_t*>(SharedMemory());
  const bool early = args.faults.overwrites_before_wgmma_wait;
  const auto write = [&](int tile) {
    if (ThreadIndex() >= kTileFloats || tile >= kTiles) return;
    const float value = Load(args.from + tile * kTileFloats + ThreadIndex());
    shared[ThreadIndex()] = PackBF16(value, value);
    FenceAsyncShared();
  };
  const uint32_t ones[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
  float sum[2] = {};
  float d[4] = {};
  write(0);
  for (int tile = 0; tile < kTiles; ++tile) {
    SyncBlock();
    WgmmaFence();
    Wgmma<8>(d, ones, SharedTile{shared, 128, 256}, false);
    WgmmaCommit();
    if (early) write(tile + 1);
    if (!args.faults.no_wgmma_wait) WgmmaWait<0>();
    for (int i = 0; i < 2; ++i) sum[i] += d[i];
    WgmmaWait<0>();
    if (!early) write(tile + 1);
  }
  if (Warp() == 0 && Lane() < 4) {
    for (int i = 0; i < 2; ++i) Store(args.to + Lane() * 2 + i, sum[i]);
  }
}

class SumTest : public FaultTest {
 protected:
  // In how many of the schedules the fault shows.
  template <auto kKernel>
  int Found(const LaunchShape& shape, const Faults& faults) {
    std::vector<float> values(kTiles * kTileFloats);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * i % 113);
    const DeviceArray from(memory_, values);
    const auto run = [&](const Faults& planted, uint64_t seed, std::vector<float>& result) {
      const DeviceArray<float> to(memory_, std::vector<float>(kTileFloats));
      const absl::Status status = Launch<kKernel>(shape, SumArgs{from.data(), to.data(), planted}, seed);
      result = to.values();
      return status.ok();
    };
    std::vector<float> expected, result;
    EXPECT_TRUE(run({}, 1000, expected));
    int found = 0;
    for (int seed = 0; seed < kSeeds; ++seed) {
      EXPECT_TRUE(run({}, seed, result) && result == expected) << "without a fault, seed " << seed;
      if (!run(faults, seed, result) || result != expected) ++found;
    }
    return found;
  }
};

constexpr LaunchShape kTwoWarps = {.threads = kTileFloats, .shared_bytes = 2 * kTileFloats * 4};
constexpr LaunchShape kThreeWarps = {.threads = kTileFloats + 32, .shared_bytes = 2 * kTileFloats * 4 + 32};
constexpr LaunchShape kWarpgroup = {.threads = 128, .shared_bytes = kTileFloats * 4};

TEST_F(SumTest, RemovedBarriers) {
  EXPECT_GE(Found<SumThroughShared>(kTwoWarps, {.no_barrier_before_reading = true}), kEnough);
  EXPECT_GE(Found<SumThroughShared>(kTwoWarps, {.no_barrier_after_reading = true}), kEnough);
  EXPECT_GE(Found<SumCopiedAhead>(kTwoWarps, {.no_barrier_before_reading = true}), kEnough);
  EXPECT_GE(Found<SumCopiedAhead>(kTwoWarps, {.no_barrier_after_reading = true}), kEnough);
}

TEST_F(SumTest, MissingWaitsForCopies) {
  EXPECT_GE(Found<SumCopiedAhead>(kTwoWarps, {.no_copy_wait = true}), kEnough);
  EXPECT_GE(Found<SumCopiedAhead>(kTwoWarps, {.waits_for_too_few = true}), kEnough);
}

TEST_F(SumTest, UninitialisedSharedMemory) {
  EXPECT_EQ(Found<SumThroughShared>(kTwoWarps, {.no_initial_value = true}), kSeeds);
}

TEST_F(SumTest, BarriersOfAPipeline) {
  EXPECT_GE(Found<SumStages>(kThreeWarps, {.wrong_full_parity = true}), kEnough);
  EXPECT_GE(Found<SumStages>(kThreeWarps, {.wrong_empty_parity = true}), kEnough);
  EXPECT_GE(Found<SumStages>(kThreeWarps, {.releases_before_reading = true}), kEnough);
}

TEST_F(SumTest, MissingWgmmaWait) {
  EXPECT_GE(Found<SumByWgmma>(kWarpgroup, {.no_wgmma_wait = true}), kEnough);
  EXPECT_GE(Found<SumByWgmma>(kWarpgroup, {.overwrites_before_wgmma_wait = true}), kEnough);
}

void NeverWaits(const SumArgs& args) {
  float d[4] = {};
  const uint32_t a[4] = {};
  if (ThreadIndex() < kTileFloats) reinterpret_cast<float*>(SharedMemory())[ThreadIndex()] = 0;
  FenceAsyncShared();
  SyncBlock();
  WgmmaFence();
  Wgmma<8>(d, a, SharedTile{SharedMemory(), 128, 256}, false);
  WgmmaCommit();
  Store(args.to + ThreadIndex() % kTileFloats, d[0]);
}

void NeverWaitsForBulk(const SumArgs& args) {
  auto* bar = reinterpret_cast<uint64_t*>(SharedMemory() + 512);
  if (ThreadIndex() != 0) return;
  BarrierInit(bar, 1);
  FenceBarrierInit();
  BarrierArriveExpect(bar, 512);
  CopyBulk(SharedMemory(), args.from, 512, bar);
}

// What is still under way when its threads end.
TEST_F(FaultTest, EndsTooEarly) {
  const DeviceArray<float> data(memory_, std::vector<float>(128));
  int found = 0, found_bulk = 0;
  for (int seed = 0; seed < kSeeds; ++seed) {
    const SumArgs args = {data.data(), data.data(), {}};
    const absl::Status status = Launch<NeverWaits>(kWarpgroup, args, seed);
    found += absl::StrContains(status.message(), "ended before it waited for a Wgmma");
    const absl::Status bulk = Launch<NeverWaitsForBulk>({.shared_bytes = 528}, args, seed);
    found_bulk += absl::StrContains(bulk.message(), "ended before a CopyBulk had landed");
  }
  EXPECT_GE(found, kSeeds / 4);
  EXPECT_GE(found_bulk, kSeeds / 2);
}

}  // namespace
}  // namespace bellwether::gpu
