#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

#include "common/exact_math.h"
#include "common/step.h"
#include "kernels/kernel_level_test.h"

namespace bellwether::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF16};
constexpr int kTile = 64;

// A KV cache of one head whose every byte is NaN until it is written. Blocks lie in a shuffled order, among
// blocks that belong to nobody.
class Cache {
 public:
  Cache(DType type, int head_dim, int positions, uint32_t shuffle) {
    const int blocks = (positions + kKvBlockTokens - 1) / kKvBlockTokens;
    std::vector<int32_t> order(2 * blocks + 1);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(shuffle));
    table_.assign(order.begin(), order.begin() + blocks);
    const int64_t stride = 2 * SizeOf(type) * head_dim * kKvBlockTokens + 64;
    memory_.assign(stride * static_cast<int64_t>(order.size()), std::byte{0xff});
    head_ = {memory_.data(), stride, table_.data(), type, head_dim};
  }
  Cache(const Cache&) = delete;

  void Write(const KernelTable& kernels, int position, const float* key, const float* value) {
    kernels.write_kv(head_, position, key, value);
  }
  const KvHead& head() const { return head_; }
  const std::vector<std::byte>& memory() const { return memory_; }
  // As the header documents the block.
  double key(int position, int d) const { return Element(position, int64_t{d} * 32 + position % 32); }
  double value(int position, int d) const {
    return Element(position, 32 * head_.head_dim + position % 32 * int64_t{head_.head_dim} + d);
  }

 private:
  double Element(int position, int64_t index) const {
    const std::byte* block = memory_.data() + table_[position / 32] * head_.block_stride;
    if (head_.dtype == DType::kF32) {
      float value;
      std::memcpy(&value, block + index * 4, sizeof(value));
      return value;
    }
    uint16_t bits;
    std::memcpy(&bits, block + index * 2, sizeof(bits));
    return head_.dtype == DType::kBF16 ? F32FromBF16(bits) : F32FromF16(bits);
  }
  std::vector<std::byte> memory_;
  std::vector<int32_t> table_;
  KvHead head_;
};

// Keys, values and a query for each position of one sequence.
struct Sequence {
  Sequence(int head_dim, int positions, uint32_t seed, float query_magnitude = 3)
      : head_dim(head_dim), positions(positions) {
    TestRandom random(seed);
    keys = random.floats(int64_t{positions} * head_dim);
    values = random.floats(int64_t{positions} * head_dim, 2);
    queries = random.floats(int64_t{positions} * head_dim, query_magnitude);
    scale = 1.0f / Sqrt(static_cast<float>(head_dim));
  }
  void WriteAll(const KernelTable& kernels, Cache& cache) const {
    for (int p = 0; p < positions; ++p) Write(kernels, cache, p);
  }
  void Write(const KernelTable& kernels, Cache& cache, int p) const {
    cache.Write(kernels, p, &keys[int64_t{p} * head_dim], &values[int64_t{p} * head_dim]);
  }
  // Outputs of the queries at positions [begin, end), `group` at a time.
  std::vector<float> Attend(const KernelTable& kernels, const Cache& cache, int begin, int end,
                            int group) const {
    std::vector<float> out(int64_t{end - begin} * head_dim, kNaN);
    for (int first = begin; first < end; first += group) {
      std::vector<AttentionQuery> batch;
      for (int p = first; p < std::min(end, first + group); ++p) {
        batch.push_back({&queries[int64_t{p} * head_dim], &out[int64_t{p - begin} * head_dim], p, slope});
      }
      kernels.attention(cache.head(), batch.data(), static_cast<int>(batch.size()), scale);
    }
    return out;
  }

  int head_dim, positions;
  std::vector<float> keys, values, queries;
  float scale = 1, slope = 0;
};

// What softmax(scale q.k + slope p) v is in exact arithmetic, and how far a level may be off.
//
// u = kRoundoff. A score is off by delta <= (head_dim + 2) u scale sum|q k| + 3 u slope p, and by u times the
// range of scores each time a maximum is subtracted (once for its own weight; over all corrections of the
// running maximum the differences add up to at most the range): 2 u range. An exponential is off by a share
// of 4 u (2 units in the last place) besides, once for the weight and once a tile for the correction. So
// weights are off by a share of e = delta + 4 u (tiles + 1), in the numerator and in the denominator, and
// summing `n` of them, rescaled once a tile, adds (n + 2 tiles + 4) u to each.
struct Exact {
  std::vector<double> out, tolerance;
};
Exact ComputeExactly(const Sequence& sequence, const Cache& cache, int position) {
  const int dim = sequence.head_dim, n = position + 1;
  const float* q = &sequence.queries[int64_t{position} * dim];
  std::vector<double> scores(n);
  double delta = 0;
  for (int p = 0; p < n; ++p) {
    double dot = 0, magnitude = 0;
    for (int d = 0; d < dim; ++d) {
      dot += q[d] * cache.key(p, d);
      magnitude += std::abs(q[d] * cache.key(p, d));
    }
    scores[p] = sequence.scale * dot + double{sequence.slope} * p;
    delta = std::max(delta, kRoundoff * ((dim + 2) * sequence.scale * magnitude + 3 * sequence.slope * p));
  }
  const auto [lowest, highest] = std::minmax_element(scores.begin(), scores.end());
  const double tiles = position / kTile + 1;
  delta += 2 * kRoundoff * (*highest - *lowest);
  const double share = 2 * (delta + kRoundoff * (4 * (tiles + 1) + n + 2 * tiles + 4));
  Exact exact{std::vector<double>(dim), std::vector<double>(dim)};
  double sum = 0;
  const double maximum = *highest;
  for (double& score : scores) sum += score = Exp(score - maximum);
  for (int d = 0; d < dim; ++d) {
    double magnitude = 0;
    for (int p = 0; p < n; ++p) {
      exact.out[d] += scores[p] / sum * cache.value(p, d);
      magnitude += scores[p] / sum * std::abs(cache.value(p, d));
    }
    exact.tolerance[d] = share * magnitude + 0x1p-120;
  }
  return exact;
}

class AttentionTest : public KernelLevelTest {};
BW_INSTANTIATE_FOR_KERNEL_LEVELS(AttentionTest);

void ExpectNearExact(const KernelTable& kernels, const Sequence& sequence, DType type) {
  SCOPED_TRACE(std::string(Name(type)) + " head_dim " + std::to_string(sequence.head_dim));
  Cache cache(type, sequence.head_dim, sequence.positions, 5);
  sequence.WriteAll(kernels, cache);
  const std::vector<float> out = sequence.Attend(kernels, cache, 0, sequence.positions, kAttentionQueriesMax);
  for (int p = 0; p < sequence.positions; ++p) {
    const Exact exact = ComputeExactly(sequence, cache, p);
    for (int d = 0; d < sequence.head_dim; ++d) {
      ASSERT_TRUE(Within(out[int64_t{p} * sequence.head_dim + d], exact.out[d], exact.tolerance[d]))
          << "position " << p << " dimension " << d;
    }
  }
}

TEST_P(AttentionTest, StaysWithinTheDerivedBound) {
  for (DType type : kTypes) {
    for (int head_dim : {2, 16, 20, 64, 80, 128})
      ExpectNearExact(kernels(), Sequence(head_dim, 200, 1), type);
    for (int head_dim : {1, 3, 7, 31, 33, 40, 96, 100, 256, kHeadDimMax}) {
      ExpectNearExact(kernels(), Sequence(head_dim, 70, 2), type);
    }
  }
}

TEST_P(AttentionTest, StaysWithinTheBoundWithAlibi) {
  for (DType type : kTypes) {
    for (float slope : {0x1p-8f, 0.7071f}) {
      Sequence sequence(32, 300, 3);
      sequence.slope = slope;
      ExpectNearExact(kernels(), sequence, type);
    }
  }
}

TEST_P(AttentionTest, LargeScoresDoNotOverflow) {
  for (DType type : kTypes) ExpectNearExact(kernels(), Sequence(16, 150, 4, 3000), type);
}

TEST_P(AttentionTest, TheFirstPositionReturnsItsValue) {
  for (int head_dim : {1, 5, 64, 100}) {
    const Sequence sequence(head_dim, 1, 5);
    Cache cache(DType::kF32, head_dim, 1, 1);
    sequence.WriteAll(kernels(), cache);
    EXPECT_TRUE(SameBits(sequence.Attend(kernels(), cache, 0, 1, 1), sequence.values));
  }
}

// Alone or with others, chunk by chunk as the cache fills (what follows is still NaN), whatever block holds
// what.
TEST_P(AttentionTest, AQueryDependsOnNothingButItsSequence) {
  for (DType type : kTypes) {
    for (int head_dim : {20, 64, 100, 128}) {
      SCOPED_TRACE(std::string(Name(type)) + " head_dim " + std::to_string(head_dim));
      Sequence sequence(head_dim, 210, 6);
      sequence.slope = head_dim == 20 ? 0.25f : 0;
      Cache full(type, head_dim, sequence.positions, 7);
      sequence.WriteAll(kernels(), full);
      const std::vector<float> expected =
          sequence.Attend(kernels(), full, 0, sequence.positions, kAttentionQueriesMax);
      for (int chunk : {1, 2, 3, 5, 7, 16, 33, 64, 100, 210}) {
        Cache cache(type, head_dim, sequence.positions, 100 + chunk);
        for (int begin = 0; begin < sequence.positions; begin += chunk) {
          const int end = std::min(sequence.positions, begin + chunk);
          for (int p = begin; p < end; ++p) sequence.Write(kernels(), cache, p);
          const std::vector<float> out =
              sequence.Attend(kernels(), cache, begin, end, std::min(chunk, kAttentionQueriesMax));
          ASSERT_TRUE(
              SameBits(out.data(), &expected[int64_t{begin} * head_dim], int64_t{end - begin} * head_dim))
              << "chunk " << chunk << " at " << begin;
        }
      }
    }
  }
}

// Queries of several heads that share the KV head, in any order and with slopes of their own.
TEST_P(AttentionTest, QueriesOfAGroupDoNotMix) {
  const Sequence sequence(48, 140, 8);
  Cache cache(DType::kBF16, 48, 140, 9);
  sequence.WriteAll(kernels(), cache);
  TestRandom random(10);
  std::vector<AttentionQuery> queries;
  std::vector<float> together(64 * 48), alone(64 * 48);
  for (int i = 0; i < kAttentionQueriesMax; ++i) {
    const float slope = random.integer(0, 1) ? 0.5f * random.uniform() : 0;
    queries.push_back(
        {&sequence.queries[random.integer(0, 139) * 48], &together[i * 48], random.integer(0, 139), slope});
  }
  kernels().attention(cache.head(), queries.data(), kAttentionQueriesMax, sequence.scale);
  for (int i = 0; i < kAttentionQueriesMax; ++i) {
    queries[i].out = &alone[i * 48];
    kernels().attention(cache.head(), &queries[i], 1, sequence.scale);
  }
  EXPECT_TRUE(SameBits(together, alone));
}

TEST_P(AttentionTest, PointersNeedNoAlignment) {
  const Sequence sequence(33, 100, 11);
  Cache cache(DType::kF32, 33, 100, 12);
  sequence.WriteAll(kernels(), cache);
  const std::vector<float> expected = sequence.Attend(kernels(), cache, 99, 100, 1);
  std::vector<float> q(sequence.queries.end() - 33, sequence.queries.end()), out(34, -7.0f), shifted(1);
  shifted.insert(shifted.end(), q.begin(), q.end());
  // One float before and after `out` must survive.
  out.push_back(-7);
  const AttentionQuery query{shifted.data() + 1, out.data() + 1, 99, 0};
  kernels().attention(cache.head(), &query, 1, sequence.scale);
  EXPECT_TRUE(SameBits(out.data() + 1, expected.data(), 33));
  EXPECT_EQ(out.front(), -7);
  EXPECT_EQ(out.back(), -7);
}

TEST_P(AttentionTest, NonFiniteInputsStayWhereTheyAreRead) {
  for (DType type : kTypes) {
    const Sequence clean(64, 150, 13);
    Sequence dirty = clean;
    dirty.queries[20 * 64 + 5] = kNaN;
    dirty.queries[21 * 64 + 6] = kInfinity;
    dirty.values[90 * 64 + 7] = kNaN;
    dirty.keys[130 * 64 + 8] = kNaN;
    Cache a(type, 64, 150, 14), b(type, 64, 150, 14);
    clean.WriteAll(kernels(), a);
    dirty.WriteAll(kernels(), b);
    const std::vector<float> expected = clean.Attend(kernels(), a, 0, 150, 64);
    const std::vector<float> out = dirty.Attend(kernels(), b, 0, 150, 64);
    for (int p = 0; p < 150; ++p) {
      for (int d = 0; d < 64; ++d) {
        const int64_t i = p * 64 + d;
        if (p == 20 || p == 21 || p >= 130 || (p >= 90 && d == 7)) {
          ASSERT_FALSE(std::isfinite(out[i])) << "position " << p << " dimension " << d;
        } else {
          ASSERT_TRUE(SameBits(&out[i], &expected[i], 1)) << "position " << p << " dimension " << d;
        }
      }
    }
  }
}

TEST_P(AttentionTest, WriteKvRoundsOnceAndTouchesNothingElse) {
  for (DType type : kTypes) {
    for (int head_dim : {1, 20, 33, 128}) {
      SCOPED_TRACE(std::string(Name(type)) + " head_dim " + std::to_string(head_dim));
      TestRandom random(15);
      std::vector<float> key = random.floats(head_dim), value = random.floats(head_dim);
      const float special[] = {1 + 0x1p-8f, 1 + 0x1p-11f, -0.0f,         0x1p-20f, 3e-8f,   65519.0f,
                               65520.0f,    kInfinity,    1 + 0x1.8p-8f, 1e38f,    -1e-41f, -kInfinity};
      for (int i = 0; i < head_dim && i < 12; ++i) key[i] = value[head_dim - 1 - i] = special[i];
      Cache cache(type, head_dim, 70, 16);
      const std::vector<std::byte> before = cache.memory();
      cache.Write(kernels(), 41, key.data(), value.data());
      for (int d = 0; d < head_dim; ++d) {
        const auto rounded = [&](float x) {
          return type == DType::kF32    ? x
                 : type == DType::kBF16 ? F32FromBF16(BF16FromF32(x))
                                        : F32FromF16(F16FromF32(x));
        };
        EXPECT_EQ(cache.key(41, d), rounded(key[d])) << key[d];
        EXPECT_EQ(cache.value(41, d), rounded(value[d])) << value[d];
      }
      int64_t changed = 0;
      for (size_t i = 0; i < before.size(); ++i) changed += cache.memory()[i] != before[i];
      EXPECT_LE(changed, 2 * head_dim * SizeOf(type));
    }
  }
}

}  // namespace
}  // namespace bellwether::kernels
