#pragma once

// Everything between the products: norms, activations, sums, and bringing rows into the forms that products
// read.

#include "kernels/gpu/device_math.h"
#include "kernels/gpu/operand.h"
#include "kernels/gpu/simt.h"
#include "kernels/gpu/weights.h"

namespace bellwether::gpu {

// Where a kernel also leaves its rows as an operand for the product that follows. Packed columns must be
// columns.
struct OperandOut {
  uint32_t* words = nullptr;  // null: nowhere
  int64_t k_count = 0;
  OperandOrder order = OperandOrder::kFragments;
  int32_t limbs = 1;
  int64_t limb_stride = 0;  // words
};
BW_DEVICE void StoreOperand(const OperandOut& out, int64_t row, int64_t column, float low, float high) {
  if (out.words == nullptr) return;
  uint32_t* word = out.words + OperandWord(out.order, row, column, out.k_count);
  Store(word, TakeLimbs(low, high));
  for (int limb = 1; limb < out.limbs; ++limb) Store(word + limb * out.limb_stride, TakeLimbs(low, high));
}

// Columns [begin, begin + count) of the rows are packed columns [16 s, 16 s + count); the rest of the step is
// zero.
struct ColumnStep {
  int32_t begin = 0, count = 0;
};

struct PrepareArgs {
  const float* x = nullptr;  // [rows][stride]
  int64_t stride = 0;
  int32_t rows = 0, cols = 0;
  const ColumnStep* steps = nullptr;  // [k_count / 16]; null: packed columns are columns
  OperandOut out;
};
// A thread a pair of packed columns. Grid: x: ceil(k_count / 2 / threads), y: rows.
BW_DEVICE void Prepare(const PrepareArgs& args) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int64_t k = 2 * (static_cast<int64_t>(BlockX()) * BlockThreads() + ThreadIndex());
  if (k >= args.out.k_count) return;
  int64_t column = k, end = args.cols;
  if (args.steps != nullptr) {
    const ColumnStep step = Load(args.steps + k / kStepCols);
    column = step.begin + k % kStepCols;
    end = step.begin + step.count;
  }
  for (int row = BlockY(); row < args.rows; row += GridY()) {
    const float* x = args.x + row * args.stride;
    const float low = column < end ? Load(x + column) : 0.0f;
    const float high = column + 1 < end ? Load(x + column + 1) : 0.0f;
    StoreOperand(args.out, row, k, low, high);
  }
}

struct SetSumsArgs {
  const float* x = nullptr;
  int64_t stride = 0;
  int32_t rows = 0, sets = 0;
  const ColumnStep* columns = nullptr;  // [sets]
  float* sums = nullptr;                // [rows / 8][sets][8]
};
// The sum of each set's columns, of values rounded to bf16, ascending. A thread a set. Grid: x: ceil(sets /
// threads), y: rows.
BW_DEVICE void SetSums(const SetSumsArgs& args) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int set = BlockX() * BlockThreads() + ThreadIndex();
  if (set >= args.sets) return;
  const ColumnStep columns = Load(args.columns + set);
  for (int row = BlockY(); row < args.rows; row += GridY()) {
    const float* x = args.x + row * args.stride + columns.begin;
    float sum = 0;
    for (int i = 0; i < columns.count; ++i) sum += BitsFloat(PackBF16(Load(x + i), 0.0f) << 16);
    Store(args.sums + (static_cast<int64_t>(row / 8) * args.sets + set) * 8 + row % 8, sum);
  }
}

// The sum over a block's threads, the same bits in all: lanes by halves, then warps in ascending order.
BW_DEVICE float SumOverBlock(float value, float* shared) {
  BW_UNROLL
  for (int mask = 16; mask > 0; mask /= 2) value += ShuffleXor(value, mask);
  SyncBlock();
  if (Lane() == 0) shared[Warp()] = value;
  SyncBlock();
  float sum = shared[0];
  for (int w = 1; w < BlockThreads() / 32; ++w) sum += shared[w];
  return sum;
}

// RMSNorm, or LayerNorm if there is a bias, of x; or of before + (sum + add_bias), which is stored first.
struct NormArgs {
  const float* x = nullptr;  // [rows][stride]
  int64_t stride = 0;
  const float* sum = nullptr;       // null: nothing is added
  const float* add_bias = nullptr;  // [cols] or null
  int64_t sum_stride = 0;
  float* total = nullptr;  // x + (sum + add_bias) goes here; may be x
  int64_t total_stride = 0;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float* out = nullptr;  // may be x
  int64_t out_stride = 0;
  OperandOut operand;
  int32_t cols = 0;
  float epsilon = 0;
};
constexpr int kNormThreads = 512;  // part of the contract: a thread sums every 512th pair
constexpr int kNormSharedBytes = 64 * 4;
// The pairs of a row that a thread keeps in registers; of wider rows it reads the others again.
constexpr int kNormPairs = 8;

struct NormRow {
  const NormArgs& args;
  const float* x;  // the row, and where sums are added their total
  float kept[kNormPairs][2];

  BW_DEVICE static int Column(int i) { return 2 * (ThreadIndex() + i * kNormThreads); }
  // use(column, pair) for this thread's pairs.
  template <typename Use>
  BW_DEVICE void ForPairs(const Use& use) const {
    BW_UNROLL
    for (int i = 0; i < kNormPairs; ++i) {
      if (Column(i) < args.cols) use(Column(i), kept[i]);
    }
    for (int i = kNormPairs; Column(i) < args.cols; ++i) {
      const float pair[2] = {Load(x + Column(i)), Load(x + Column(i) + 1)};
      use(Column(i), pair);
    }
  }
  // All loads first: a store between them would make each wait for the one before.
  BW_DEVICE void Read(int64_t row) {
    const float* from = args.x + row * args.stride;
    const float* sum = args.sum + row * args.sum_stride;
    float* total = args.total + row * args.total_stride;
    x = args.sum != nullptr ? total : from;
    float added[kNormPairs][2];
    BW_UNROLL
    for (int i = 0; i < kNormPairs; ++i) {
      BW_UNROLL
      for (int j = 0; j < 2; ++j) {
        const bool there = Column(i) < args.cols;
        kept[i][j] = there ? Load(from + Column(i) + j) : 0.0f;
        added[i][j] = there && args.sum != nullptr ? Load(sum + Column(i) + j) : 0.0f;
        if (there && args.add_bias != nullptr) added[i][j] += Load(args.add_bias + Column(i) + j);
      }
    }
    if (args.sum == nullptr) return;
    BW_UNROLL
    for (int i = 0; i < kNormPairs; ++i) {
      BW_UNROLL
      for (int j = 0; j < 2; ++j) {
        kept[i][j] += added[i][j];
        if (Column(i) < args.cols) Store(total + Column(i) + j, kept[i][j]);
      }
    }
    for (int i = kNormPairs; Column(i) < args.cols; ++i) {
      for (int c = Column(i); c < Column(i) + 2; ++c) {
        const float more = args.add_bias != nullptr ? Load(sum + c) + Load(args.add_bias + c) : Load(sum + c);
        Store(total + c, Load(from + c) + more);
      }
    }
  }
};

// Grid: rows. `cols` is even.
BW_DEVICE void Norm(const NormArgs& args) {
  LetNextKernelStart();
  auto* shared = reinterpret_cast<float*>(SharedMemory());
  WaitForPreviousKernel();
  const int64_t row = BlockX();
  NormRow values{args};
  values.Read(row);
  const auto count = static_cast<float>(args.cols);
  float mean = 0;
  if (args.bias != nullptr) {
    float partial = 0;
    values.ForPairs([&](int, const float(&x)[2]) { partial += x[0] + x[1]; });
    mean = SumOverBlock(partial, shared) / count;
  }
  float squares = 0;
  values.ForPairs([&](int, const float(&x)[2]) {
    const float low = x[0] - mean, high = x[1] - mean;
    squares = Fma(high, high, Fma(low, low, squares));
  });
  const float factor = 1.0f / Sqrt(SumOverBlock(squares, shared) / count + args.epsilon);
  float* out = args.out + row * args.out_stride;
  values.ForPairs([&](int column, const float(&x)[2]) {
    float y[2];
    BW_UNROLL
    for (int j = 0; j < 2; ++j) {
      const float scaled = (x[j] - mean) * factor;
      const float weight = Load(args.weight + column + j);
      y[j] = args.bias != nullptr ? Fma(scaled, weight, Load(args.bias + column + j)) : scaled * weight;
      Store(out + column + j, y[j]);
    }
    StoreOperand(args.operand, row, column, y[0], y[1]);
  });
}

struct ActivateArgs {
  float* gate = nullptr;      // silu(gate) * up, or gelu(gate), in place
  const float* up = nullptr;  // null: GELU
  int64_t gate_stride = 0, up_stride = 0;
  int32_t rows = 0, cols = 0;
  OperandOut operand;
};
// A thread a pair of columns. Grid: x: ceil(cols / 2 / threads), y: rows.
BW_DEVICE void Activate(const ActivateArgs& args) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int column = 2 * (BlockX() * BlockThreads() + ThreadIndex());
  if (column >= args.cols) return;
  for (int row = BlockY(); row < args.rows; row += GridY()) {
    float* gate = args.gate + row * args.gate_stride + column;
    float y[2] = {0, 0};
    BW_UNROLL
    for (int j = 0; j < 2; ++j) {
      if (column + j >= args.cols) break;
      const float g = Load(gate + j);
      y[j] = args.up == nullptr ? Gelu(g) : Silu(g) * Load(args.up + row * args.up_stride + column + j);
      Store(gate + j, y[j]);
    }
    StoreOperand(args.operand, row, column, y[0], y[1]);
  }
}

struct AddArgs {
  const float* before = nullptr;
  const float* sum = nullptr;
  const float* bias = nullptr;  // [cols] or null
  float* out = nullptr;         // before + (sum + bias)
  int64_t before_stride = 0, sum_stride = 0, out_stride = 0;
  int32_t rows = 0, cols = 0;
};
// Grid: x: ceil(cols / threads), y: rows.
BW_DEVICE void Add(const AddArgs& args) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int column = BlockX() * BlockThreads() + ThreadIndex();
  if (column >= args.cols) return;
  for (int row = BlockY(); row < args.rows; row += GridY()) {
    float sum = Load(args.sum + row * args.sum_stride + column);
    if (args.bias != nullptr) sum += Load(args.bias + column);
    Store(args.out + row * args.out_stride + column,
          Load(args.before + row * args.before_stride + column) + sum);
  }
}

// Sums of a tree: leaves are pushed on a stack in order; after leaf i the two topmost are added additions[i]
// times, and if ends[i] is set the sum is a root and leaves the stack.
constexpr int kLeavesMax = 128;
struct SumTreeArgs {
  const float* leaves = nullptr;  // leaf i, row n, column c: leaves[i * leaf_stride + n * stride + c]
  int64_t leaf_stride = 0;
  int64_t stride = 0;
  float* out = nullptr;  // root r: out[r * root_stride + n * out_stride + c]
  int64_t root_stride = 0;
  int64_t out_stride = 0;
  const float* bias = nullptr;  // [cols] or null
  int32_t rows = 0, cols = 0, leaf_count = 0;
  bool balanced = false;  // one root of 2, 4 or 8 leaves, halves first: no stack is needed
  uint8_t additions[kLeavesMax] = {};
  uint8_t ends[kLeavesMax] = {};
  uint8_t unused[3] = {};
};
template <int kCount>
BW_DEVICE float BalancedLeaves(const float* leaves, int64_t step) {
  float values[kCount];
  BW_UNROLL
  for (int i = 0; i < kCount; ++i) values[i] = Load(leaves + i * step);
  BW_UNROLL
  for (int width = 1; width < kCount; width *= 2) {
    BW_UNROLL
    for (int i = 0; i < kCount; i += 2 * width) values[i] += values[i + width];
  }
  return values[0];
}
// Grid: x: ceil(cols / threads), y: rows.
BW_DEVICE void SumTree(const SumTreeArgs& args) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int column = BlockX() * BlockThreads() + ThreadIndex();
  if (column >= args.cols) return;
  for (int row = BlockY(); row < args.rows; row += GridY()) {
    if (args.balanced) {
      const float* leaves = args.leaves + row * args.stride + column;
      float sum = args.leaf_count == 2   ? BalancedLeaves<2>(leaves, args.leaf_stride)
                  : args.leaf_count == 4 ? BalancedLeaves<4>(leaves, args.leaf_stride)
                                         : BalancedLeaves<8>(leaves, args.leaf_stride);
      if (args.bias != nullptr) sum += Load(args.bias + column);
      Store(args.out + row * args.out_stride + column, sum);
      continue;
    }
    float stack[kSumsMax];
    int depth = 0, root = 0;
    for (int i = 0; i < args.leaf_count; ++i) {
      stack[depth++] = Load(args.leaves + i * args.leaf_stride + row * args.stride + column);
      for (int n = args.additions[i]; n > 0; --n) {
        --depth;
        stack[depth - 1] += stack[depth];
      }
      if (args.ends[i] == 0) continue;
      float sum = stack[--depth];
      if (args.bias != nullptr) sum += Load(args.bias + column);
      Store(args.out + root++ * args.root_stride + row * args.out_stride + column, sum);
    }
  }
}

constexpr int kPicksMax = 64;
// Rows, or columns of all rows.
struct PickRowsArgs {
  const float* x = nullptr;
  float* out = nullptr;
  int64_t stride = 0, out_stride = 0;
  int32_t cols = 0, count = 0;
  const int32_t* picks = nullptr;  // row of each row of out; null: the same one
  const float* columns = nullptr;  // column of each column of out, a whole number; null: the same one
};
// Grid: x: ceil(cols / threads), y: count.
BW_DEVICE void PickRows(const PickRowsArgs& args) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int column = BlockX() * BlockThreads() + ThreadIndex();
  if (column >= args.cols) return;
  const int64_t row = args.picks != nullptr ? Load(args.picks + BlockY()) : BlockY();
  const int from = args.columns != nullptr ? static_cast<int>(Load(args.columns + column)) : column;
  Store(args.out + BlockY() * args.out_stride + column, Load(args.x + row * args.stride + from));
}

// One weight, dequantised as scale * q + offset. The matrix is not cut into slices: packed columns are
// columns.
struct EmbedArgs {
  WeightView weights;
  WeightFormat format = WeightFormat::kF32;
  uint8_t unused[3] = {};
  int32_t group = 0;                // columns of a set
  const int32_t* tokens = nullptr;  // [rows]
  int32_t first = 0;                // token of the matrix's first row; others are passed over
  int32_t cols = 0;
  float* out = nullptr;
  int64_t stride = 0;
};

BW_DEVICE float WeightAt(const EmbedArgs& args, int row, int column) {
  const WeightView& w = args.weights;
  const WeightFormat format = args.format;
  const int steps = StepsPerUnit(format);
  const int step = column / kStepCols, r = row % kTileRows, c = column % kStepCols;
  const int lane = r % 8 * 4 + c % 8 / 2, part = r / 8 + c / 8 * 2;  // a[part] of the fragment
  const auto* unit = static_cast<const uint32_t*>(w.values) +
                     UnitOffset(format, row / kTileRows, step / steps, w.table.units) / 4;
  if (format == WeightFormat::kF32)
    return BitsFloat(Load(unit + (step % steps * 2 + part / 2) * 128 + lane * 4 + part % 2 * 2 + c % 2));
  if (format == WeightFormat::kF16 || format == WeightFormat::kBF16) {
    const uint32_t word = Load(unit + step % steps * 128 + lane * 4 + part);
    if (format == WeightFormat::kF16) return HalfToFloat(static_cast<uint16_t>(word >> (c % 2 * 16)));
    return BitsFloat(c % 2 == 0 ? word << 16 : word & 0xffff0000u);
  }
  int q = 0;
  if (format == WeightFormat::kInt8) {
    const uint32_t word = Load(unit + lane * 4 + step % steps * 2 + part / 2);
    q = static_cast<int>(word >> (8 * (part % 2 + 2 * (c % 2))) & 0xffu) - 128;
  } else {
    const uint32_t word = Load(unit + lane * 4 + step % steps);
    q = static_cast<int>(word >> (4 * (part + 4 * (c % 2))) & 0xfu) - (w.offsets != nullptr ? 0 : 8);
  }
  const int64_t pair =
      (static_cast<int64_t>(row / kTileRows) * w.table.sets + column / args.group) * 8 + r % 8;
  const auto value = [&](const void* values) {
    if (w.half_scales) return HalfToFloat(Load(static_cast<const uint16_t*>(values) + pair * 2 + r / 8));
    return Load(static_cast<const float*>(values) + pair * 2 + r / 8);
  };
  const float product = value(w.scales) * static_cast<float>(q);
  return w.offsets != nullptr ? product + value(w.offsets) : product;
}
// Grid: x: ceil(cols / threads), y: rows.
BW_DEVICE void Embed(const EmbedArgs& args) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int column = BlockX() * BlockThreads() + ThreadIndex();
  if (column >= args.cols) return;
  const int token = Load(args.tokens + BlockY()) - args.first;
  if (token < 0 || token >= args.weights.rows) return;
  Store(args.out + BlockY() * args.stride + column, WeightAt(args, token, column));
}

// Weights for measurements, made on the card: words of a counter-based generator.
struct FillRandomArgs {
  uint32_t* words = nullptr;
  int64_t count = 0;
  uint64_t seed = 0;
  enum Kind : int32_t {
    kBF16,        // pairs of values, normal enough: +-2^-9 ... 2^-4
    kF16,         // likewise
    kF32,         // likewise, one
    kBytes,       // anything
    kScales,      // fp32 of about 1/1000
    kHalfScales,  // fp16
  } kind = kBytes;
  int32_t unused = 0;
};
// Grid: any; threads: any.
BW_DEVICE void FillRandom(const FillRandomArgs& args) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int64_t step = static_cast<int64_t>(GridX()) * BlockThreads();
  for (int64_t i = static_cast<int64_t>(BlockX()) * BlockThreads() + ThreadIndex(); i < args.count;
       i += step) {
    uint64_t z = args.seed + (static_cast<uint64_t>(i) + 1) * 0x9e3779b97f4a7c15u;  // SplitMix64
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    const auto word = static_cast<uint32_t>(z ^ z >> 31);
    const auto low = static_cast<uint32_t>(z >> 40 & 3u), high = static_cast<uint32_t>(z >> 50 & 3u);
    uint32_t value = word;
    if (args.kind == FillRandomArgs::kBF16)
      value = (word & 0x807f807fu) | (118 + low) << 7 | (118 + high) << 23;
    if (args.kind == FillRandomArgs::kF16) value = (word & 0x83ff83ffu) | (6 + low) << 10 | (6 + high) << 26;
    if (args.kind == FillRandomArgs::kF32) value = (word & 0x807fffffu) | (118 + high) << 23;
    if (args.kind == FillRandomArgs::kScales) value = (word & 0x007fffffu) | 0x3a000000u;
    if (args.kind == FillRandomArgs::kHalfScales) value = (word & 0x03ff03ffu) | 0x10001000u;
    Store(args.words + i, value);
  }
}

}  // namespace bellwether::gpu
