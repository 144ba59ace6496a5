#include "kernels/gpu/emulate.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <set>
#include <vector>

#include "common/dtype.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/gpu/emulate_test_util.h"
#include "kernels/gpu/simt.h"

// Every word of simt.h in a kernel that uses it rightly: the results are right in every schedule.

namespace bellwether::gpu {
namespace {

constexpr int kSeeds = 20;

class EmulateTest : public testing::Test {
 protected:
  template <auto kKernel, typename Args>
  void Launch(const LaunchShape& shape, const Args& args, uint64_t seed, int threads = 1) {
    const absl::Status status =
        EmulateLaunch<kKernel>(shape, {.memory = &memory_, .seed = seed, .threads = threads}, args);
    ASSERT_TRUE(status.ok()) << status;
  }
  EmulatedMemory memory_{1 << 24};
};

struct Copy {
  const float* from;
  float* to;
};

void Reverse(const Copy& args) {
  auto* shared = reinterpret_cast<float*>(SharedMemory());
  shared[ThreadIndex()] = Load(args.from + BlockX() * BlockThreads() + ThreadIndex());
  SyncBlock();
  Store(args.to + BlockX() * BlockThreads() + ThreadIndex(), shared[BlockThreads() - 1 - ThreadIndex()]);
}

TEST_F(EmulateTest, ReversesBlocksOnOneAndSeveralHostThreads) {
  std::vector<float> values(4 * 128);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const DeviceArray from(memory_, values);
  const DeviceArray<float> to(memory_, 4 * 128);
  for (int seed = 0; seed < kSeeds; ++seed) {
    Launch<Reverse>({.grid_x = 4, .threads = 128, .shared_bytes = 512}, Copy{from.data(), to.data()}, seed,
                    1 + seed % 3);
    for (int i = 0; i < 512; ++i) ASSERT_EQ(to.values()[i], i / 128 * 128 + 127 - i % 128);
  }
}

void WriteIndices(int32_t* const& out) {
  const int block = (BlockZ() * GridY() + BlockY()) * GridX() + BlockX();
  const int index = block * BlockThreads() + ThreadIndex();
  Store(out + index, (((BlockZ() * 10 + BlockY()) * 10 + BlockX()) * 10 + Warp()) * 100 + Lane());
}

TEST_F(EmulateTest, ThreadsKnowWhereTheyAre) {
  const DeviceArray<int32_t> out(memory_, 2 * 3 * 4 * 64);
  Launch<WriteIndices>({.grid_x = 4, .grid_y = 3, .grid_z = 2, .threads = 64}, out.data(), 1);
  const std::vector<int32_t> values = out.values();
  for (int i = 0; i < 2 * 3 * 4 * 64; ++i) {
    const int block = i / 64;
    ASSERT_EQ(values[i],
              (((block / 12 * 10 + block / 4 % 3) * 10 + block % 4) * 10 + i % 64 / 32) * 100 + i % 32);
  }
}

struct Exchange {
  float* floats;
  int* ints;
  uint32_t* transposed;
};

void ExchangeInWarps(const Exchange& args) {
  const int lane = Lane();
  float sum = static_cast<float>(ThreadIndex());
  for (int mask = 1; mask < 32; mask *= 2) sum += ShuffleXor(sum, mask);
  Store(args.floats + ThreadIndex(), sum);
  Store(args.ints + ThreadIndex(), Shuffle(-ThreadIndex(), (lane * 7 + 3) % 32));
  const uint32_t row = lane / 4, column = lane % 4 * 2;
  Store(args.transposed + ThreadIndex(), Transpose8x8((row * 16 + column) | (row * 16 + column + 1) << 16));
}

TEST_F(EmulateTest, LanesExchangeValues) {
  const DeviceArray<float> floats(memory_, 64);
  const DeviceArray<int> ints(memory_, 64);
  const DeviceArray<uint32_t> transposed(memory_, 64);
  for (int seed = 0; seed < kSeeds; ++seed) {
    Launch<ExchangeInWarps>({.threads = 64}, Exchange{floats.data(), ints.data(), transposed.data()}, seed);
    for (int i = 0; i < 64; ++i) {
      const uint32_t lane = i % 32, row = lane / 4, column = lane % 4 * 2;
      ASSERT_EQ(floats.values()[i], i < 32 ? 31 * 16 : 31 * 16 + 32 * 32);
      ASSERT_EQ(ints.values()[i], -static_cast<int>(i / 32 * 32 + (lane * 7 + 3) % 32));
      ASSERT_EQ(transposed.values()[i], (column * 16 + row) | ((column + 1) * 16 + row) << 16);
    }
  }
}

// ---- Values

TEST(EmulatedValues, FmaRoundsOnce) {
  std::mt19937 random(5);
  for (int i = 0; i < 200000; ++i) {
    const auto value = [&] {
      const auto bits = static_cast<uint32_t>(random());
      // Near 1 half of the time, so that sums cancel.
      return std::bit_cast<float>(i % 2 == 0 ? bits : (bits & 0x80ffffffu) | 0x3f000000u);
    };
    const float a = value(), b = value();
    const float c = i % 4 == 1 ? -a * b : value();
    const float exact = std::fma(a, b, c);
    for (const float fused : {Fma(a, b, c), emulated::FusedInDouble(a, b, c)}) {
      if (exact != exact) {
        ASSERT_NE(fused, fused);
      } else {
        ASSERT_EQ(FloatBits(fused), FloatBits(exact)) << a << " " << b << " " << c;
      }
    }
  }
}

TEST(EmulatedValues, Conversions) {
  EXPECT_EQ(PackBF16(1.0f, -2.0f), 0xc0003f80u);
  EXPECT_EQ(PackBF16(BitsFloat(0x3f808000u), BitsFloat(0x3f818000u)), 0x3f823f80u);  // ties to even
  EXPECT_EQ(PackBF16(__builtin_nanf("5"), BitsFloat(0x7f7fffffu)), 0x7f807fffu);
  EXPECT_EQ(SubBF16(0x43004301u, 0x3f804300u), 0x42fe3f80u);  // 128 - 1, 129 - 128
  EXPECT_EQ(SubBF16(0x3f803f80u, 0x3f807fc0u), 0x00007fffu);
  EXPECT_EQ(HalfToFloat(0x3c00), 1.0f);
  EXPECT_EQ(HalfToFloat(0x0001), 0x1p-24f);
  EXPECT_EQ(FloatBits(HalfToFloat(0xfe00)), 0x7fffffffu);
  EXPECT_EQ(FloatToHalf(1.0f), 0x3c00);
  EXPECT_EQ(FloatToHalf(1.0f + 0x1p-11f), 0x3c00);  // a tie, to even
  EXPECT_EQ(FloatToHalf(-65520.0f), 0xfc00);
  EXPECT_EQ(FloatToHalf(__builtin_nanf("")), 0x7fff);
  EXPECT_EQ(Sqrt(2.0f), 1.41421356f);
}

// Rounding to fp32 and then to bf16 is rounding once.
TEST(EmulatedValues, SubBF16RoundsOnce) {
  std::mt19937 random(6);
  for (int i = 0; i < 200000; ++i) {
    const auto a = static_cast<uint16_t>(random()), b = static_cast<uint16_t>(random());
    const float x = F32FromBF16(a), y = F32FromBF16(b);
    if (!std::isfinite(x) || !std::isfinite(y)) continue;
    const uint16_t difference = SubBF16(a, b) & 0xffffu;
    const double exact = static_cast<double>(x) - y;  // but for what is far below the rounding
    const double error = std::abs(F32FromBF16(difference) - exact);
    if (!std::isfinite(F32FromBF16(difference))) continue;
    for (const auto other : {static_cast<uint16_t>(difference - 1), static_cast<uint16_t>(difference + 1)}) {
      if (!std::isfinite(F32FromBF16(other))) continue;
      EXPECT_LE(error, std::abs(F32FromBF16(other) - exact));
    }
  }
}

// ---- Tensor cores

uint16_t Value(int row, int k) {
  return BF16FromF32(static_cast<float>((row * 37 + k * 11) % 29 - 14) * 0.125f);
}
uint32_t Pair(int row, int k) { return Value(row, k) | uint32_t{Value(row, k + 1)} << 16; }

// Row `row` of A times column `column` of B, where A[row][k] = Value(row, k) and B[k][column] = Value(column
// + 50, k).
float Expected(int row, int column, float c) {
  uint16_t a[16], b[16];
  for (int k = 0; k < 16; ++k) {
    a[k] = Value(row, k);
    b[k] = Value(column + 50, k);
  }
  return TensorCoreDot(kHopperTensorCore, a, b, c);
}

void OneMma(float* const& out) {  // out[row][column]
  const int g = Lane() / 4, t = Lane() % 4;
  const uint32_t a[4] = {Pair(g, 2 * t), Pair(g + 8, 2 * t), Pair(g, 2 * t + 8), Pair(g + 8, 2 * t + 8)};
  const uint32_t b[2] = {Pair(g + 50, 2 * t), Pair(g + 50, 2 * t + 8)};
  float c[4] = {1, 2, 3, 4};
  Mma(c, a, b);
  for (int i = 0; i < 4; ++i) Store(out + (g + i / 2 * 8) * 8 + 2 * t + i % 2, c[i]);
}

TEST_F(EmulateTest, MmaTakesFragments) {
  const DeviceArray<float> out(memory_, 128);
  Launch<OneMma>({}, out.data(), 3);
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 8; ++column)
      ASSERT_EQ(out.values()[row * 8 + column],
                Expected(row, column, static_cast<float>(row / 8 * 2 + column % 2 + 1)));
}

// Two accumulating steps, B written by the threads: core matrices of 64 columns, those along k next to each
// other.
void TwoWgmmas(float* const& out) {  // out[row][column], 64 x 64
  auto* shared = reinterpret_cast<uint16_t*>(SharedMemory());
  for (int i = ThreadIndex(); i < 64 * 16; i += BlockThreads()) {
    const int column = i / 16, k = i % 16;
    shared[column / 8 * 128 + k / 8 * 64 + column % 8 * 8 + k % 8] = Value(column + 50, k);
  }
  FenceAsyncShared();
  SyncBlock();
  const int g = Lane() / 4, t = Lane() % 4, row = Warp() * 16 + g;
  float d[32];
  WgmmaFence();
  for (int step = 0; step < 2; ++step) {
    const uint32_t a[4] = {Pair(row, 2 * t), Pair(row + 8, 2 * t), Pair(row, 2 * t + 8),
                           Pair(row + 8, 2 * t + 8)};
    Wgmma<64>(d, a, SharedTile{shared, 128, 256}, step > 0);
  }
  WgmmaCommit();
  WgmmaWait<0>();
  for (int i = 0; i < 32; ++i) Store(out + (row + i % 4 / 2 * 8) * 64 + i / 4 * 8 + 2 * t + i % 2, d[i]);
}

TEST_F(EmulateTest, WgmmaReadsSharedMemoryAndAccumulates) {
  const DeviceArray<float> out(memory_, 64 * 64);
  for (int seed = 0; seed < kSeeds; ++seed) {
    Launch<TwoWgmmas>({.threads = 128, .shared_bytes = 2048}, out.data(), seed);
    const std::vector<float> values = out.values();
    for (int row = 0; row < 64; ++row)
      for (int column = 0; column < 64; ++column)
        ASSERT_EQ(values[row * 64 + column], Expected(row, column, Expected(row, column, 0)));
  }
}

// ---- Asynchronous copies

constexpr int kTiles = 12;
constexpr int kTileFloats = 128;

// Each thread's sum over all tiles of its own and its opposite value, with two buffers.
void SumTilesAsync(const Copy& args) {
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
    CopyAsyncWait<1>();
    SyncBlock();
    const float* buffer = shared + tile % 2 * kTileFloats;
    sum += buffer[thread] - 2 * buffer[kTileFloats - 1 - thread];
    SyncBlock();
  }
  Store(args.to + thread, sum);
}

// The same by one warp that copies and four that add up.
void SumTilesBulk(const Copy& args) {
  constexpr int kStages = 2;
  auto* shared = reinterpret_cast<float*>(SharedMemory());
  auto* full = reinterpret_cast<uint64_t*>(shared + kStages * kTileFloats);
  uint64_t* empty = full + kStages;
  if (ThreadIndex() == 0) {
    for (int i = 0; i < kStages; ++i) {
      BarrierInit(full + i, 1);
      BarrierInit(empty + i, 4);
    }
    FenceBarrierInit();
  }
  SyncBlock();
  if (Warp() == 4) {
    for (int tile = 0; tile < kTiles && Lane() == 0; ++tile) {
      const int stage = tile % kStages;
      if (tile >= kStages) BarrierWait(empty + stage, (tile / kStages - 1) % 2);
      BarrierArriveExpect(full + stage, kTileFloats * 4);
      CopyBulk(shared + stage * kTileFloats, args.from + tile * kTileFloats, kTileFloats * 4, full + stage);
    }
    return;
  }
  float sum = 0;
  for (int tile = 0; tile < kTiles; ++tile) {
    const int stage = tile % kStages;
    BarrierWait(full + stage, tile / kStages % 2);
    const float* buffer = shared + stage * kTileFloats;
    sum += buffer[ThreadIndex()] - 2 * buffer[kTileFloats - 1 - ThreadIndex()];
    SyncWarp();
    if (Lane() == 0) BarrierArrive(empty + stage);
  }
  SyncGroup(1, 128);
  Store(args.to + ThreadIndex(), sum);
}

TEST_F(EmulateTest, PipelinesOfCopies) {
  std::vector<float> values(kTiles * kTileFloats);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * i % 1009);
  std::vector<float> expected(kTileFloats);
  for (int i = 0; i < kTiles * kTileFloats; ++i) {
    const int at = i % kTileFloats;
    expected[at] += values[i] - 2 * values[i - at + kTileFloats - 1 - at];
  }
  const DeviceArray from(memory_, values);
  const DeviceArray<float> to(memory_, kTileFloats);
  for (int seed = 0; seed < 5 * kSeeds; ++seed) {
    Launch<SumTilesAsync>({.threads = 128, .shared_bytes = 1024}, Copy{from.data(), to.data()}, seed);
    ASSERT_EQ(to.values(), expected);
    Launch<SumTilesBulk>({.threads = 160, .shared_bytes = 1024 + 32}, Copy{from.data(), to.data()}, seed);
    ASSERT_EQ(to.values(), expected);
  }
}

// ---- Schedules

struct Log {
  int32_t* count;
  int32_t* order;
};

void LogOrder(const Log& args) {
  for (int i = 0; i < 4; ++i) {
    SyncWarp();
    const int at = Load(args.count);
    Store(args.count, at + 1);
    Store(args.order + at, ThreadIndex());
  }
}

TEST_F(EmulateTest, TheSeedGivesTheSchedule) {
  const DeviceArray<int32_t> order(memory_, 4 * 96);
  std::set<std::vector<int32_t>> schedules;
  for (int seed = 0; seed < kSeeds; ++seed) {
    std::vector<int32_t> first;
    for (int run = 0; run < 2; ++run) {
      const DeviceArray<int32_t> count(memory_, std::vector<int32_t>{0});
      Launch<LogOrder>({.threads = 96}, Log{count.data(), order.data()}, seed);
      if (run == 0) first = order.values();
    }
    EXPECT_EQ(order.values(), first);
    schedules.insert(first);
  }
  EXPECT_EQ(schedules.size(), size_t{kSeeds});
}

void SyncWithoutTheLastWarp(float* const& out) {
  if (Warp() == 2) return;
  SyncBlock();
  Store(out + ThreadIndex(), 1.0f);
}

TEST_F(EmulateTest, BarriersDoNotWaitForThreadsThatHaveEnded) {
  const DeviceArray<float> out(memory_, std::vector<float>(96));
  for (int seed = 0; seed < kSeeds; ++seed) Launch<SyncWithoutTheLastWarp>({.threads = 96}, out.data(), seed);
  EXPECT_EQ(out.values()[63], 1);
  EXPECT_EQ(out.values()[64], 0);
}

TEST_F(EmulateTest, RefusesShapesThatNoGpuTakes) {
  const auto refused = [&](const LaunchShape& shape) {
    const DeviceArray<float> out(memory_, 96);
    return absl::IsInvalidArgument(
        EmulateLaunch<SyncWithoutTheLastWarp>(shape, {.memory = &memory_}, out.data()));
  };
  EXPECT_TRUE(refused({.threads = 0}));
  EXPECT_TRUE(refused({.threads = 48}));
  EXPECT_TRUE(refused({.threads = 1056}));
  EXPECT_TRUE(refused({.shared_bytes = (227 << 10) + 1}));
  EXPECT_TRUE(refused({.grid_x = 0}));
  EXPECT_TRUE(refused({.grid_y = 65536}));
  EXPECT_TRUE(absl::IsInvalidArgument(EmulateLaunch(
      {}, {}, [](const void*) {}, nullptr)));
}

}  // namespace
}  // namespace bellwether::gpu
