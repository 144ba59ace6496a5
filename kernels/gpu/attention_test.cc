// Attention on the emulated GPU: against exact arithmetic within a bound, the ways of cutting the work
// against each other to the bit, and the KV cache's bytes.

#include "kernels/gpu/attention.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/packed_row.h"
#include "gtest/gtest.h"
#include "kernels/gpu/scalar_attention.h"
#include "kernels/gpu/store_kv.h"
#include "kernels/gpu/testing/emulated_gpu.h"
#include "kernels/gpu/testing/kernel_coverage.h"

namespace bellwether::gpu {
namespace {

[[maybe_unused]] const auto* const coverage = CheckCoverage("attention_test");

using Type = StoreKvArgs::Type;

float Rounded(Type type, float value) {
  if (type == StoreKvArgs::kBF16) return F32FromBF16(BF16FromF32(value));
  return type == StoreKvArgs::kF16 ? F32FromF16(F16FromF32(value)) : value;
}

struct Model {
  int head_dim = 64;
  int heads = 1, kv_heads = 1;  // of this rank
  bool alibi = false;
  Type type = StoreKvArgs::kBF16;
  int length = 1;  // positions of the sequence
  bool rope = false;
  bool head_norm = false;
  // Larger heads have a cache of bf16 that is read as the others are.
  bool tensor() const { return type == StoreKvArgs::kBF16 && head_dim <= 256; }
};

// A sequence whose keys and values lie in the cache, in blocks that are anywhere and in no order; what has
// not been written is NaN.
class Sequence {
 public:
  Sequence(EmulatedGpu& gpu, const Model& model) : gpu_(gpu), model_(model) {
    TestRandom random(model.head_dim * 1000 + model.length);
    query_ = Values(random, QueryStride());
    key_ = Values(random, model.kv_heads * model.head_dim);
    value_ = Values(random, model.kv_heads * model.head_dim);
    const int blocks = BlocksOf(model.length, kKvBlockPositions);
    // Beside the sequence's own there are blocks of others, and its table does not begin at 0.
    table_ = {99, 99, 99};
    for (int i = 0; i < blocks; ++i) table_.push_back(2 * (blocks - 1 - i) + 1);
    const int64_t head_dim = model.type == StoreKvArgs::kBF16 ? RoundUp(model.head_dim, 16) : model.head_dim;
    head_bytes_ = 2 * kKvBlockPositions * head_dim * (model.type == StoreKvArgs::kF32 ? 4 : 2);
    block_stride_ = model.kv_heads * head_bytes_;
    cache_bytes_ = 2 * blocks * block_stride_;
    cache_ = gpu.Put(PoisonedCache());
    if (model.head_norm) {
      for (std::vector<float>* norm : {&query_norm_, &key_norm_})
        for (int i = 0; i < model.head_dim; ++i) norm->push_back(random.Between(0.5f, 1.5f));
    }
    for (int i = 0; i < model.heads; ++i) slopes_.push_back(0.3f / static_cast<float>(i + 1));
    tables_device_ = gpu.Put(table_);
    slopes_device_ = gpu.Put(slopes_);
    query_device_ = gpu.Put(query_);
  }

  // Positions [0, length) by the kernel.
  void Store() { ASSERT_TRUE(TryStore(model_.length).ok()); }
  // `grid_rows`: as many blocks as are launched.
  absl::Status TryStore(int grid_rows) {
    std::vector<int32_t> positions, blocks;
    for (int i = 0; i < model_.length; ++i) {
      positions.push_back(i);
      blocks.push_back(table_[3 + i / kKvBlockPositions]);
    }
    StoreKvArgs args{.query = query_device_,
                     .key = gpu_.Put(key_),
                     .value = gpu_.Put(value_),
                     .query_stride = QueryStride(),
                     .kv_stride = model_.kv_heads * model_.head_dim,
                     .positions = gpu_.Put(positions),
                     .blocks = gpu_.Put(blocks),
                     .cache = cache_,
                     .block_stride = block_stride_,
                     .head_bytes = head_bytes_,
                     .rows = model_.length,
                     .heads = model_.heads,
                     .kv_heads = model_.kv_heads,
                     .head_dim = model_.head_dim,
                     .type = model_.type};
    if (model_.rope) {
      const std::vector<float> angles = Angles();
      const int64_t count = static_cast<int64_t>(angles.size()) / 2;
      const float* table = gpu_.Put(angles);
      args.cosines = table;
      args.sines = table + count;
    }
    if (model_.head_norm) {
      args.query_norm = gpu_.Put(query_norm_);
      args.key_norm = gpu_.Put(key_norm_);
      args.epsilon = kEpsilon;
    }
    const int warps = 1 + model_.length % 4;
    return gpu_.TryLaunch(Kernel::store_kv,
                          {.grid_x = grid_rows,
                           .grid_y = BlocksOf(model_.heads + model_.kv_heads, warps),
                           .threads = 32 * warps},
                          args);
  }
  // [position][head_dim / 2] cosines, then sines.
  std::vector<float> Angles() const {
    std::vector<float> angles(2 * model_.length * (model_.head_dim / 2));
    for (size_t i = 0; i < angles.size() / 2; ++i) {
      angles[i] = static_cast<float>(std::cos(0.1 * static_cast<double>(i)));
      angles[angles.size() / 2 + i] = static_cast<float>(std::sin(0.1 * static_cast<double>(i)));
    }
    return angles;
  }

  int64_t QueryStride() const { return model_.heads * model_.head_dim + 4; }
  // As RoPE takes them.
  float key(int position, int kv_head, int d) const {
    return Normed(key_norm_, d, [&](int i) { return At(key_, model_.kv_heads, position, kv_head, i); });
  }
  float value(int position, int kv_head, int d) const {
    return At(value_, model_.kv_heads, position, kv_head, d);
  }
  float query(int position, int head, int d) const {
    const float* from = query_.data() + position * QueryStride() + head * model_.head_dim;
    return Normed(query_norm_, d, [&](int i) { return from[i]; });
  }
  const std::vector<float>& slopes() const { return slopes_; }
  std::vector<float> QueryNow() { return gpu_.Get(query_device_, static_cast<int64_t>(query_.size())); }
  std::vector<char> Cache() { return gpu_.Get(cache_, cache_bytes_); }
  int64_t HeadOffset(int position, int kv_head) const {
    return table_[3 + position / kKvBlockPositions] * block_stride_ + kv_head * head_bytes_;
  }

  // Rows of positions [first, length), each `columns_at_once` columns an item.
  std::vector<AttentionItem> Items(int first, int columns_at_once) const {
    std::vector<AttentionItem> items;
    const int queries = model_.heads / model_.kv_heads;
    for (int kv_head = 0; kv_head < model_.kv_heads; ++kv_head) {
      const int columns = (model_.length - first) * queries;
      for (int begin = 0; begin < columns; begin += columns_at_once) {
        items.push_back({.table = 3,
                         .row = first,
                         .position = first,
                         .column_begin = begin,
                         .column_end = std::min(begin + columns_at_once, columns),
                         .head = kv_head * queries,
                         .heads = queries,
                         .kv_head = kv_head});
      }
    }
    return items;
  }
  AttentionArgs Args(const std::vector<AttentionItem>& items, float* out) {
    return {.items = gpu_.Put(items),
            .tables = tables_device_,
            .cache = cache_,
            .block_stride = block_stride_,
            .head_bytes = head_bytes_,
            .query = query_device_,
            .out = out,
            .slopes = model_.alibi ? slopes_device_ : nullptr,
            .stride = QueryStride(),
            .scale = Scale(),
            .head_dim = model_.head_dim,
            .item_count = static_cast<int32_t>(items.size())};
  }
  float Scale() const { return static_cast<float>(1 / std::sqrt(static_cast<double>(model_.head_dim))); }

  enum class Way { kByBlock, kByWarp, kByTile, kScalar };
  // Rows [first, length) of the answer; rows before it are kUntouched. `warps` of a block, by warp.
  std::vector<float> Attend(Way way, int first, int columns_at_once, int warps = 1) {
    const int64_t floats = model_.length * QueryStride();
    float* out = gpu_.Untouched(floats);
    const std::vector<AttentionItem> items = Items(first, columns_at_once);
    const auto count = static_cast<int32_t>(items.size());
    AttentionArgs args = Args(items, out);
    const int steps = model_.head_dim <= 64 ? 4 : model_.head_dim <= 128 ? 8 : 16;
    if (way == Way::kScalar) {
      gpu_.Launch(Kernel::attend_scalar, {.grid_x = count, .threads = 32},
                  ScalarAttentionArgs{args, model_.type});
    } else if (way == Way::kByWarp) {
      const Kernel kernel = steps == 4   ? Kernel::attend_warp_4
                            : steps == 8 ? Kernel::attend_warp_8
                                         : Kernel::attend_warp_16;
      gpu_.Launch(kernel, {.grid_x = BlocksOf(count, warps), .threads = 32 * warps}, args);
    } else if (way == Way::kByTile) {
      const Kernel kernel = steps == 4   ? Kernel::attend_tile_4
                            : steps == 8 ? Kernel::attend_tile_8
                                         : Kernel::attend_tile_16;
      gpu_.Launch(kernel,
                  {.grid_x = count,
                   .threads = kAttendByTileThreads,
                   .shared_bytes = AttendByTileSharedBytes(head_bytes_)},
                  args);
    } else {
      AttendByBlock(args, steps, first);
    }
    return gpu_.Get(out, floats);
  }
  // Leaves its rows as the input of a product too, where that is simple.
  void AttendByBlock(AttentionArgs args, int steps, int first) {
    const int64_t cols = model_.heads * model_.head_dim, words = RoundUp(model_.length, 8) * cols / 2;
    uint32_t* operand = cols % 32 == 0 ? gpu_.Untouched<uint32_t>(words) : nullptr;
    args.operand = {operand, cols, OperandOrder::kFragments};
    const Kernel kernel = steps == 4   ? Kernel::attend_block_4
                          : steps == 8 ? Kernel::attend_block_8
                                       : Kernel::attend_block_16;
    gpu_.Launch(kernel,
                {.grid_x = args.item_count,
                 .threads = kAttendByBlockThreads,
                 .shared_bytes = AttendByBlockSharedBytes(steps)},
                args);
    if (operand == nullptr) return;
    const std::vector<float> out = gpu_.Get(args.out, model_.length * QueryStride());
    std::vector<uint32_t> expected(words, EmulatedGpu::kUntouched);
    for (int row = first; row < model_.length; ++row) {
      for (int64_t c = 0; c < cols; c += 2) {
        const float* pair = out.data() + row * QueryStride() + c;
        expected[OperandWord(OperandOrder::kFragments, row, c, cols)] =
            BF16FromF32(pair[0]) | static_cast<uint32_t>(BF16FromF32(pair[1])) << 16;
      }
    }
    EXPECT_EQ(gpu_.Get(operand, words), expected);
  }
  // By the contract of StoreKv: a lane sums every 32nd pair, lanes add up by halves.
  template <typename Head>
  float Normed(const std::vector<float>& norm, int d, const Head& head) const {
    if (norm.empty()) return head(d);
    std::array<float, 32> sums = {};
    for (int i = 0; i < model_.head_dim; ++i) {
      float& sum = sums[i / 2 % 32];
      sum = std::fma(head(i), head(i), sum);
    }
    for (int half = 16; half > 0; half /= 2)
      for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
    const float mean = sums[0] / static_cast<float>(model_.head_dim);
    return head(d) * (1.0f / std::sqrt(mean + kEpsilon)) * norm[d];
  }
  static int WarpColumns(int head_dim) { return head_dim <= 128 ? 16 : 8; }

 private:
  // Zeros where a head is padded, which nobody writes.
  std::vector<char> PoisonedCache() const {
    std::vector<char> cache(cache_bytes_);
    const int bytes = model_.type == StoreKvArgs::kF32 ? 4 : 2;
    for (int64_t head = 0; head < cache_bytes_; head += head_bytes_) {
      for (int p = 0; p < kKvBlockPositions; ++p) {
        for (int d = 0; d < model_.head_dim; ++d) {
          for (const int index : {KeyIndex(model_.type, p, d, model_.head_dim),
                                  ValueIndex(model_.type, p, d, model_.head_dim)}) {
            std::memcpy(cache.data() + head + index * bytes, &EmulatedGpu::kUntouched, bytes);
          }
        }
      }
    }
    return cache;
  }
  // Of every position.
  std::vector<float> Values(TestRandom& random, int64_t stride) const {
    std::vector<float> values(model_.length * stride);
    for (float& value : values) value = random.Between(-2, 2);
    return values;
  }
  float At(const std::vector<float>& values, int heads, int position, int head, int d) const {
    return values[(position * heads + head) * model_.head_dim + d];
  }

  EmulatedGpu& gpu_;
  const Model model_;
  static constexpr float kEpsilon = 1e-3f;
  std::vector<float> query_, key_, value_, slopes_;
  std::vector<float> query_norm_, key_norm_;  // empty without
  std::vector<int32_t> table_;
  int64_t head_bytes_ = 0, block_stride_ = 0, cache_bytes_ = 0;
  char* cache_ = nullptr;
  const int32_t* tables_device_ = nullptr;
  const float* slopes_device_ = nullptr;
  float* query_device_ = nullptr;
};

// Exact attention of one position and head, in double, of the values as they are stored; and how far a kernel
// may be off.
//
// A score is a sum of `head_dim` products of |q| |k| <= 4: by tensor core steps each is cut by at most
// 2^-24 of the largest term or sum, by FMA rounded by 2^-24; so with the scale and ALiBi it is off by less
// than head_dim * 2^-22 of the sum of |q k| scale, plus 2^-22 of the score itself, and a weight by e^that. A
// weight of bf16 is rounded by 2^-9, its sum not (it is of the rounded ones), so an answer moves by 2^-9
// times the weighted mean of |v - answer|, at most 2 |v|max. The folds' exp and sums add 2^-20 or so a tile.
struct Exact {
  std::vector<double> out;
  double bound = 0;
};
Exact ExactAttention(const Sequence& sequence, const Model& model, int position, int head) {
  const int kv_head = head / (model.heads / model.kv_heads);
  const double scale = sequence.Scale();
  std::vector<double> scores, weights;
  double score_error = 0, values_max = 0;
  for (int p = 0; p <= position; ++p) {
    double dot = 0, magnitude = 0;
    for (int d = 0; d < model.head_dim; ++d) {
      double q = sequence.query(position, head, d);
      if (model.tensor()) q = Rounded(model.type, static_cast<float>(q));
      const double k = Rounded(model.type, sequence.key(p, kv_head, d));
      dot += q * k;
      magnitude += std::abs(q * k);
      values_max = std::max<double>(values_max, std::abs(sequence.value(p, kv_head, d)));
    }
    scores.push_back(dot * scale + (model.alibi ? sequence.slopes()[head] * static_cast<double>(p) : 0));
    score_error = std::max(score_error,
                           model.head_dim * 0x1p-22 * magnitude * scale + 0x1p-22 * std::abs(scores.back()));
  }
  const double highest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (const double score : scores) {
    weights.push_back(std::exp(score - highest));
    sum += weights.back();
  }
  Exact exact{std::vector<double>(model.head_dim)};
  for (int d = 0; d < model.head_dim; ++d) {
    for (int p = 0; p <= position; ++p)
      exact.out[d] += weights[p] / sum * Rounded(model.type, sequence.value(p, kv_head, d));
  }
  const double rounding = model.tensor() ? 0x1p-9 : 0;
  const int tiles = position / kAttentionTile + 1;
  exact.bound = 2 * values_max * (rounding + std::expm1(score_error) + (tiles + 64) * 0x1p-22);
  return exact;
}

void ExpectExact(const Sequence& sequence, const Model& model, const std::vector<float>& out, int first) {
  const std::vector<int> all = {first, (first + model.length) / 2, model.length - 1};
  for (const int position : all) {
    for (int head = 0; head < model.heads; ++head) {
      const Exact exact = ExactAttention(sequence, model, position, head);
      for (int d = 0; d < model.head_dim; ++d) {
        const float seen = out[position * sequence.QueryStride() + head * model.head_dim + d];
        ASSERT_NEAR(seen, exact.out[d], exact.bound)
            << "position " << position << " head " << head << " value " << d;
      }
    }
  }
}

// Bits of rows [first, ...), and whether anything else was touched.
void ExpectSameBits(const Sequence& sequence, const Model& model, const std::vector<float>& expected,
                    const std::vector<float>& seen, int first, const std::string& what) {
  const int64_t stride = sequence.QueryStride();
  for (int64_t i = 0; i < static_cast<int64_t>(seen.size()); ++i) {
    uint32_t bits, wanted = EmulatedGpu::kUntouched;
    std::memcpy(&bits, &seen[i], 4);
    if (i / stride >= first && i % stride < model.heads * model.head_dim)
      std::memcpy(&wanted, &expected[i], 4);
    ASSERT_EQ(bits, wanted) << what << ": position " << i / stride << " value " << i % stride;
  }
}

class AttentionTest : public ::testing::TestWithParam<Model> {};
void PrintTo(const Model& model, std::ostream* out) {
  *out << "head size " << model.head_dim << ", " << model.heads << " heads of " << model.kv_heads << ", "
       << model.length << " positions" << (model.alibi ? ", ALiBi" : "");
}

// Decode (one row), some rows, and a prompt; by block and by warp; with other warps and other neighbours.
TEST_P(AttentionTest, EveryCutGivesTheSameBits) {
  const Model model = GetParam();
  EmulatedGpu gpu;
  Sequence sequence(gpu, model);
  sequence.Store();
  using Way = Sequence::Way;
  const int few = std::max(0, model.length - 20);
  const int columns = Sequence::WarpColumns(model.head_dim);
  // A card is held against the emulator's bits too.
  const auto expect_emulated = [&](const std::vector<float>& whole) {
    if (!gpu.on_card()) return;
    EmulatedGpu emulated(EmulatedGpu::kEmulated, EmulatedLike(gpu.info()));
    Sequence same(emulated, model);
    same.Store();
    EXPECT_EQ(same.Cache(), sequence.Cache());
    const Way way = model.tensor() ? Way::kByWarp : Way::kScalar;
    ExpectSameBits(sequence, model, same.Attend(way, few, model.tensor() ? columns : 1, 4), whole, few,
                   "the emulator");
  };
  const auto expect_same = [&](const std::vector<float>& whole, Way way, int first, int columns,
                               const char* what) {
    ExpectSameBits(sequence, model, whole, sequence.Attend(way, first, columns, 3), first, what);
  };
  const int decode = model.length - 1;
  if (!model.tensor()) {
    const std::vector<float> whole = sequence.Attend(Way::kScalar, few, 1);
    ExpectExact(sequence, model, whole, few);
    expect_emulated(whole);
    expect_same(whole, Way::kScalar, decode, 1, "decode");
    return;
  }
  const std::vector<float> whole = sequence.Attend(Way::kByWarp, few, columns, 4);
  ExpectExact(sequence, model, whole, few);
  expect_emulated(whole);
  if (HasFatalFailure()) return;
  const int next = std::min(few + 1, decode);
  expect_same(whole, Way::kByWarp, next, 3, "by warp, 3 columns");
  expect_same(whole, Way::kByBlock, few, 8, "by block");
  expect_same(whole, Way::kByBlock, next, 5, "by block, 5 columns");
  expect_same(whole, Way::kByBlock, decode, 8, "decode");
  if (!gpu.info().hopper) return;
  expect_same(whole, Way::kByTile, few, 8 * columns, "by tile");
  expect_same(whole, Way::kByTile, next, 2 * columns + 3, "by tile, few warps");
}

// Head sizes that fill no step of 16 and those at the bounds of kernels; positions at the bounds of blocks
// (32) and tiles (64), and where a block's warps go round.
std::vector<Model> Models() {
  std::vector<Model> models;
  for (const int head_dim : {20, 24, 64, 80, 128, 256}) {
    for (const Type type : {StoreKvArgs::kBF16, StoreKvArgs::kF32, StoreKvArgs::kF16}) {
      models.push_back({.head_dim = head_dim, .heads = 4, .kv_heads = 2, .type = type, .length = 70});
    }
  }
  for (const int length : {1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 193, 520}) {
    models.push_back({.head_dim = 24, .heads = 3, .kv_heads = 1, .alibi = length % 2 == 1, .length = length});
  }
  for (const int length : {1, 32, 64, 65, 129}) {
    models.push_back({.head_dim = 20,
                      .heads = 3,
                      .kv_heads = 1,
                      .alibi = true,
                      .type = StoreKvArgs::kF32,
                      .length = length});
  }
  models.push_back({.head_dim = 264, .heads = 2, .kv_heads = 1, .length = 70});
  // More tiles than a block keeps in shared memory, for each size of head.
  for (const int head_dim : {80, 136}) models.push_back({.head_dim = head_dim, .length = 200});
  // As many queries to a key as columns go into a warp, and more.
  models.push_back({.head_dim = 32, .heads = 16, .kv_heads = 1, .length = 40});
  models.push_back({.head_dim = 32, .heads = 24, .kv_heads = 1, .alibi = true, .length = 66});
  return models;
}
INSTANTIATE_TEST_SUITE_P(All, AttentionTest, ::testing::ValuesIn(Models()));

// ---------------------------------------------------------------------------------------------------------
// The cache's bytes.

float Element(const std::vector<char>& cache, Type type, int64_t head, int index) {
  if (type == StoreKvArgs::kF32) {
    float value;
    std::memcpy(&value, cache.data() + head + index * 4, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, cache.data() + head + index * 2, 2);
  return type == StoreKvArgs::kBF16 ? F32FromBF16(bits) : F32FromF16(bits);
}

// Every key and value is where attention reads it, turned by RoPE as asked; nothing else is written.
void ExpectStored(const Model& model) {
  EmulatedGpu gpu;
  Sequence sequence(gpu, model);
  const std::vector<char> before = sequence.Cache();
  sequence.Store();
  std::vector<char> cache = sequence.Cache();
  const std::vector<float> query = sequence.QueryNow(), angles = sequence.Angles();
  const int half = model.head_dim / 2;
  const auto turned = [&](int position, int d, const auto& from) {
    if (!model.rope) return from(d);
    const int i = d % half;
    const float cosine = angles[position * half + i], sine = angles[angles.size() / 2 + position * half + i];
    const float x = from(i), y = from(i + half);
    return d < half ? std::fma(x, cosine, -(y * sine)) : std::fma(y, cosine, x * sine);
  };
  std::vector<char> expected = before;
  for (int p = 0; p < model.length; ++p) {
    for (int h = 0; h < model.kv_heads; ++h) {
      const int64_t head = sequence.HeadOffset(p, h);
      for (int d = 0; d < model.head_dim; ++d) {
        const int in_block = p % kKvBlockPositions;
        const int key = KeyIndex(model.type, in_block, d, model.head_dim);
        const int value = ValueIndex(model.type, in_block, d, model.head_dim);
        ASSERT_EQ(Element(cache, model.type, head, key),
                  Rounded(model.type, turned(p, d, [&](int i) { return sequence.key(p, h, i); })))
            << "key " << d << " of position " << p;
        ASSERT_EQ(Element(cache, model.type, head, value), Rounded(model.type, sequence.value(p, h, d)))
            << "value " << d << " of position " << p;
        const int64_t bytes = model.type == StoreKvArgs::kF32 ? 4 : 2;
        for (const int64_t at : {head + key * bytes, head + value * bytes})
          std::copy_n(cache.begin() + at, bytes, expected.begin() + at);
      }
    }
    for (int h = 0; h < model.heads; ++h) {
      for (int d = 0; d < model.head_dim; ++d) {
        ASSERT_EQ(query[p * sequence.QueryStride() + h * model.head_dim + d],
                  turned(p, d, [&](int i) { return sequence.query(p, h, i); }));
      }
    }
  }
  EXPECT_TRUE(cache == expected) << "something beside the keys and values was written";
}

TEST(StoreKvTest, PutsEveryValueWhereAttentionReadsIt) {
  for (const Type type : {StoreKvArgs::kBF16, StoreKvArgs::kF32, StoreKvArgs::kF16}) {
    for (const auto& [rope, head_norm] : {std::pair{false, false}, {true, false}, {true, true}}) {
      for (const int head_dim : {20, 64, 80}) {
        SCOPED_TRACE(absl::StrCat("type ", type, ", head size ", head_dim, rope ? ", RoPE" : "",
                                  head_norm ? ", normalised" : ""));
        ExpectStored({.head_dim = head_dim,
                      .heads = 3,
                      .kv_heads = 2,
                      .type = type,
                      .length = 37,
                      .rope = rope,
                      .head_norm = head_norm});
      }
    }
  }
}

// The fragments are what simt.h says: keys the rows of A along positions, values transposed.
TEST(StoreKvTest, FragmentsAreThoseOfTheTensorCore) {
  EmulatedGpu gpu;
  const Model model{.head_dim = 40, .length = 32};
  Sequence sequence(gpu, model);
  sequence.Store();
  const std::vector<char> cache = sequence.Cache();
  const int64_t head = sequence.HeadOffset(0, 0);
  const int steps = 3;
  for (int p = 0; p < 32; ++p) {
    for (int d = 0; d < 40; ++d) {
      const auto at = [&](int tile, int step, int row, int column) {
        const int lane = row % 8 * 4 + column % 8 / 2, word = row / 8 + column / 8 * 2;
        return ((tile * steps + step) * 32 + lane) * 8 + word * 2 + column % 2;
      };
      EXPECT_EQ(Element(cache, model.type, head, at(p / 16, d / 16, p % 16, d % 16)),
                Rounded(model.type, sequence.key(p, 0, d)));
      EXPECT_EQ(Element(cache, model.type, head, at(2 + p / 16, d / 16, d % 16, p % 16)),
                Rounded(model.type, sequence.value(p, 0, d)));
    }
  }
}

// A launch with room for more rows than there are (a padded batch) must not reach the cache of anyone: the
// emulator sees that such a row has no position.
TEST(StoreKvTest, ARowTooManyIsFound) {
  EmulatedGpu gpu(EmulatedGpu::kEmulated);
  Sequence sequence(gpu, {.head_dim = 24, .heads = 1, .kv_heads = 1, .length = 5});
  const absl::Status status = sequence.TryStore(6);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(std::string(status.message()).find("store_kv"), std::string::npos) << status;
}

}  // namespace
}  // namespace bellwether::gpu
