#pragma once

// softmax(scale * q.k + ALiBi) v over the KV cache.
//
// The contract: positions are taken in tiles of 64 from position 0. Each tile is on its own: scores by tensor
// core steps along the head dimension from 0, its maximum m, weights e^(s - m) rounded to bf16, their sum l
// and the weighted sum o of the values by tensor core steps along the positions from 0. Tiles are folded in
// ascending order:
//   M' = max(M, m);  (O, L) = e^(M - M') (O, L) + e^(m - M') (o, l)      a tile with nothing to attend to is
//   passed over
// and the answer is O / L. So no bit depends on which warp takes which tile, or on who shares a block.
// (Online softmax: Milakov and Gimelshein, arXiv 1805.02867; its tiled form: Dao et al., arXiv 2205.14135.)
//
// Keys and values are the M operand, queries (a position and a head each: a *column*) the N operand, so one
// kernel serves a prompt and a token. The cache holds both as A fragments, in blocks of 32 positions for each
// KV head:
//   keys    [2 tiles of positions][head steps][lane][4 words]
//   values  [2 steps of positions][head tiles][lane][4 words]       (transposed)

#include "kernels/gpu/device_math.h"
#include "kernels/gpu/rows.h"
#include "kernels/gpu/simt.h"

namespace bellwether::gpu {

constexpr int kKvBlockPositions = 32;
constexpr int kAttentionTile = 64;
constexpr int kTileSteps = kAttentionTile / 16;

// A run of columns of one sequence and one KV head.
struct AttentionItem {
  int32_t table = 0;         // where the sequence's block table begins
  int32_t row = 0;           // of query and out: column c is row `row` + c / heads
  int32_t position = 0;      // of that row
  int32_t column_begin = 0;  // columns [begin, end) of the sequence's
  int32_t column_end = 0;
  int32_t head =
      0;  // first query head of this KV head, among this rank's: column c is head `head` + c % heads
  int32_t heads = 0;
  int32_t kv_head = 0;  // among this rank's
};

struct AttentionArgs {
  const AttentionItem* items = nullptr;
  const int32_t* tables = nullptr;  // KV blocks
  const char* cache =
      nullptr;  // of this layer: block b of KV head h lies at b * block_stride + h * head_bytes
  int64_t block_stride = 0;
  int64_t head_bytes = 0;
  const float* query = nullptr;   // [rows][stride], RoPE applied
  float* out = nullptr;           // [rows][stride]
  OperandOut operand;             // AttendByBlock: and the same as the input of a product
  const float* slopes = nullptr;  // ALiBi slope of each of this rank's query heads, or null
  int64_t stride = 0;
  float scale = 0;
  int32_t head_dim = 0;
  int32_t item_count = 0;
  int32_t unused = 0;
};

BW_DEVICE int HeadSteps(int head_dim) { return (head_dim + 15) / 16; }

// The sums of one tile, or of all tiles so far, of a warp: kHeadSteps * 16 values of each column, in C
// fragments.
template <int kHeadSteps, int kColumns8>
struct AttentionSums {
  float o[kHeadSteps][kColumns8][4];
  float l[kColumns8][2];  // of columns 2t and 2t + 1
  float m[kColumns8][2];
};

// Where a warp finds keys and values: in the cache ...
template <bool kFetchAhead>
struct CacheSource {
  static constexpr bool kAhead = kFetchAhead;  // the next positions are on their way while these are used
  const AttentionArgs& args;
  const AttentionItem& item;
  // Fragments of 16 positions of a tile: keys (half 0) or values (half 1), this lane's words 32 apart.
  BW_DEVICE const Words4* At(int tile, int step, int half, int steps) const {
    const int position = tile * kAttentionTile + step * 16;
    const int block = Load(args.tables + item.table + position / kKvBlockPositions);
    const char* head = args.cache + block * args.block_stride + item.kv_head * args.head_bytes;
    return reinterpret_cast<const Words4*>(head) + (half * 2 + step % 2) * steps * 32 + Lane();
  }
  BW_DEVICE static Words4 Read(const Words4* at) { return Load(at); }
};
// ... or in shared memory, where the tile's two KV blocks lie one after the other.
struct SharedSource {
  static constexpr bool kAhead = false;
  const char* tile_start;
  int64_t head_bytes;
  BW_DEVICE const Words4* At(int, int step, int half, int steps) const {
    return reinterpret_cast<const Words4*>(tile_start + step / 2 * head_bytes) +
           (half * 2 + step % 2) * steps * 32 + Lane();
  }
  BW_DEVICE static Words4 Read(const Words4* at) { return *at; }
};

template <int kHeadSteps, int kColumns8>
struct AttentionWarp {
  using Sums = AttentionSums<kHeadSteps, kColumns8>;

  const AttentionArgs& args;
  const AttentionItem item;
  const int steps;
  int last_position;            // of any column
  int positions[kColumns8][2];  // of columns 2t and 2t + 1; -1 if there is none
  float slopes[kColumns8][2];
  uint32_t q[kHeadSteps][kColumns8][2];  // B fragments

  BW_DEVICE AttentionWarp(const AttentionArgs& a, const AttentionItem& i)
      : args(a),
        item(i),
        steps(HeadSteps(a.head_dim)),
        last_position(i.position + (i.column_end - 1) / i.heads) {
    const int g = Lane() / 4, t = Lane() % 4;
    BW_UNROLL
    for (int n = 0; n < kColumns8; ++n) {
      BW_UNROLL
      for (int j = 0; j < 2; ++j) {
        const int column = item.column_begin + 8 * n + 2 * t + j;
        positions[n][j] = column < item.column_end ? item.position + column / item.heads : -1;
        slopes[n][j] = args.slopes != nullptr && column < item.column_end
                           ? Load(args.slopes + item.head + column % item.heads)
                           : 0.0f;
      }
      const int column = item.column_begin + 8 * n + g;
      const bool there = column < item.column_end;
      const float* row = args.query + (item.row + column / item.heads) * args.stride +
                         static_cast<int64_t>(item.head + column % item.heads) * args.head_dim;
      BW_UNROLL
      for (int s = 0; s < kHeadSteps; ++s) {
        BW_UNROLL
        for (int half = 0; half < 2; ++half) {
          const int d = 16 * s + 8 * half + 2 * t;
          Words2 pair{0, 0};  // head sizes are even
          if (there && d < args.head_dim) pair = Load(reinterpret_cast<const Words2*>(row + d));
          q[s][n][half] = PackBF16(BitsFloat(pair.x), BitsFloat(pair.y));
        }
      }
    }
  }
  BW_DEVICE int tiles() const { return last_position / kAttentionTile + 1; }

  template <typename Source>
  BW_DEVICE void RunTile(const Source& source, int tile, Sums& sums) const {
    float s[kTileSteps][kColumns8][4];
    Scores(source, tile, s);
    Maximum(s, sums);
    uint32_t p[kTileSteps][kColumns8][2];
    Weights(s, sums, p);
    WeightedValues(source, tile, p, sums);
  }

  // Keys (half 0) or values (half 1) of 16 positions of a tile, all at once; zeros where the head or the
  // sequence ends.
  template <typename Source>
  BW_DEVICE void Fetch(const Source& source, int tile, int step, int half,
                       Words4 (&words)[kHeadSteps]) const {
    const bool there = tile * kAttentionTile + 16 * step <= last_position;
    const Words4* from = there ? source.At(tile, step, half, steps) : nullptr;
    BW_UNROLL
    for (int k = 0; k < kHeadSteps; ++k) {
      words[k] = Words4{0, 0, 0, 0};
      if (there && k < steps) words[k] = Source::Read(from + k * 32);
    }
  }

  template <typename Source>
  BW_DEVICE void Scores(const Source& source, int tile, float (&s)[kTileSteps][kColumns8][4]) const {
    const int g = Lane() / 4;
    Words4 keys[Source::kAhead ? 2 : 1][kHeadSteps];
    Fetch(source, tile, 0, 0, keys[0]);
    BW_UNROLL
    for (int i = 0; i < kTileSteps; ++i) {
      if constexpr (Source::kAhead) {
        if (i + 1 < kTileSteps) Fetch(source, tile, i + 1, 0, keys[(i + 1) % 2]);
      }
      BW_UNROLL
      for (int n = 0; n < kColumns8; ++n) {
        BW_UNROLL
        for (int c = 0; c < 4; ++c) s[i][n][c] = 0;
      }
      BW_UNROLL
      for (int k = 0; k < kHeadSteps; ++k) {
        const Words4& words = keys[Source::kAhead ? i % 2 : 0][k];
        const uint32_t a[4] = {words.x, words.y, words.z, words.w};
        BW_UNROLL
        for (int n = 0; n < kColumns8; ++n) Mma(s[i][n], a, q[k][n]);
      }
      if (i + 1 < kTileSteps && !Source::kAhead) Fetch(source, tile, i + 1, 0, keys[0]);
      BW_UNROLL
      for (int n = 0; n < kColumns8; ++n) {
        BW_UNROLL
        for (int c = 0; c < 4; ++c) {
          const int position = tile * kAttentionTile + 16 * i + g + c / 2 * 8;
          const float scaled = s[i][n][c] * args.scale;
          const float score =
              args.slopes != nullptr ? Fma(slopes[n][c % 2], static_cast<float>(position), scaled) : scaled;
          s[i][n][c] = position <= positions[n][c % 2] ? score : -kInfinity;
        }
      }
    }
  }

  BW_DEVICE void Maximum(const float (&s)[kTileSteps][kColumns8][4], Sums& sums) const {
    BW_UNROLL
    for (int n = 0; n < kColumns8; ++n) {
      BW_UNROLL
      for (int j = 0; j < 2; ++j) {
        float m = -kInfinity;
        BW_UNROLL
        for (int i = 0; i < kTileSteps; ++i) m = Max(m, Max(s[i][n][j], s[i][n][j + 2]));
        BW_UNROLL
        for (int mask = 4; mask < 32; mask *= 2) m = Max(m, ShuffleXor(m, mask));
        sums.m[n][j] = m;
      }
    }
  }

  // e^(s - m), turned from C fragments [position][column] into B fragments.
  BW_DEVICE void Weights(const float (&s)[kTileSteps][kColumns8][4], const Sums& sums,
                         uint32_t (&p)[kTileSteps][kColumns8][2]) const {
    BW_UNROLL
    for (int n = 0; n < kColumns8; ++n) {
      const float m0 = sums.m[n][0] == -kInfinity ? 0.0f : sums.m[n][0];
      const float m1 = sums.m[n][1] == -kInfinity ? 0.0f : sums.m[n][1];
      BW_UNROLL
      for (int i = 0; i < kTileSteps; ++i) {
        BW_UNROLL
        for (int half = 0; half < 2; ++half) {
          p[i][n][half] =
              Transpose8x8(PackBF16(Exp(s[i][n][2 * half] - m0), Exp(s[i][n][2 * half + 1] - m1)));
        }
      }
    }
  }

  // Values of positions that have not been written must not be touched, not even by a weight of 0.
  BW_DEVICE uint32_t Masked(uint32_t word, int position) const {
    const uint32_t keep = position + 1 <= last_position ? 0xffffffffu
                          : position <= last_position   ? 0xffffu
                                                        : 0u;
    return word & keep;
  }

  template <typename Source>
  BW_DEVICE void WeightedValues(const Source& source, int tile, const uint32_t (&p)[kTileSteps][kColumns8][2],
                                Sums& sums) const {
    const int t = Lane() % 4;
    float l[kColumns8][4];
    BW_UNROLL
    for (int n = 0; n < kColumns8; ++n) {
      BW_UNROLL
      for (int c = 0; c < 4; ++c) {
        l[n][c] = 0;
        BW_UNROLL
        for (int j = 0; j < kHeadSteps; ++j) sums.o[j][n][c] = 0;
      }
    }
    const uint32_t ones[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
    Words4 values[Source::kAhead ? 2 : 1][kHeadSteps];
    Fetch(source, tile, 0, 1, values[0]);
    BW_UNROLL
    for (int i = 0; i < kTileSteps; ++i) {
      if constexpr (Source::kAhead) {
        if (i + 1 < kTileSteps) Fetch(source, tile, i + 1, 1, values[(i + 1) % 2]);
      }
      const int position = tile * kAttentionTile + 16 * i + 2 * t;
      const bool whole = tile * kAttentionTile + 16 * i + 15 <= last_position;
      BW_UNROLL
      for (int n = 0; n < kColumns8; ++n) Mma(l[n], ones, p[i][n]);
      BW_UNROLL
      for (int j = 0; j < kHeadSteps; ++j) {
        const Words4& words = values[Source::kAhead ? i % 2 : 0][j];
        uint32_t a[4] = {words.x, words.y, words.z, words.w};
        if (!whole) {
          a[0] = Masked(a[0], position), a[1] = Masked(a[1], position);
          a[2] = Masked(a[2], position + 8), a[3] = Masked(a[3], position + 8);
        }
        BW_UNROLL
        for (int n = 0; n < kColumns8; ++n) Mma(sums.o[j][n], a, p[i][n]);
      }
      if (i + 1 < kTileSteps && !Source::kAhead) Fetch(source, tile, i + 1, 1, values[0]);
    }
    BW_UNROLL
    for (int n = 0; n < kColumns8; ++n) sums.l[n][0] = l[n][0], sums.l[n][1] = l[n][1];
  }

  BW_DEVICE static void Fold(const Sums& tile, Sums& all) {
    BW_UNROLL
    for (int n = 0; n < kColumns8; ++n) {
      BW_UNROLL
      for (int j = 0; j < 2; ++j) {
        const float m = tile.m[n][j];
        if (m == -kInfinity) continue;
        const float highest = Max(all.m[n][j], m);
        const float before = Exp(all.m[n][j] - highest), now = Exp(m - highest);
        all.m[n][j] = highest;
        all.l[n][j] = Fma(tile.l[n][j], now, all.l[n][j] * before);
        BW_UNROLL
        for (int d = 0; d < kHeadSteps; ++d) {
          all.o[d][n][j] = Fma(tile.o[d][n][j], now, all.o[d][n][j] * before);
          all.o[d][n][j + 2] = Fma(tile.o[d][n][j + 2], now, all.o[d][n][j + 2] * before);
        }
      }
    }
  }
  BW_DEVICE static void Clear(Sums& all) {
    BW_UNROLL
    for (int n = 0; n < kColumns8; ++n) {
      BW_UNROLL
      for (int j = 0; j < 2; ++j) {
        all.m[n][j] = -kInfinity;
        all.l[n][j] = 0;
        BW_UNROLL
        for (int d = 0; d < kHeadSteps; ++d) all.o[d][n][j] = all.o[d][n][j + 2] = 0;
      }
    }
  }

  BW_DEVICE void Write(const Sums& all) const {
    const int g = Lane() / 4, t = Lane() % 4;
    BW_UNROLL
    for (int n = 0; n < kColumns8; ++n) {
      BW_UNROLL
      for (int j = 0; j < 2; ++j) {
        const int column = item.column_begin + 8 * n + 2 * t + j;
        const bool there = column < item.column_end;
        const int row = item.row + column / item.heads;
        const int64_t first = static_cast<int64_t>(item.head + column % item.heads) * args.head_dim;
        float* out = args.out + row * args.stride + first;
        BW_UNROLL
        for (int k = 0; k < kHeadSteps; ++k) {
          BW_UNROLL
          for (int high = 0; high < 2; ++high) {
            const int d = 16 * k + 8 * high + g;
            if (there && d < args.head_dim) Store(out + d, all.o[k][n][j + 2 * high] / all.l[n][j]);
          }
        }
      }
    }
  }
};

// A warp an item of at most 8 kColumns8 columns: prompts. Grid: ceil(items / warps of a block).
template <int kHeadSteps, int kColumns8>
BW_DEVICE void AttendByWarp(const AttentionArgs& args) {
  using Work = AttentionWarp<kHeadSteps, kColumns8>;
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int index = BlockX() * (BlockThreads() / 32) + Warp();
  if (index >= args.item_count) return;
  const Work work(args, Load(args.items + index));
  typename Work::Sums all, tile;
  Work::Clear(all);
  for (int i = 0; i < work.tiles(); ++i) {
    work.RunTile(CacheSource<false>{args, work.item}, i, tile);
    Work::Fold(tile, all);
  }
  work.Write(all);
}

// The same with the warps of a block on neighbouring columns of one sequence and KV head, who share tiles in
// shared memory: an item has up to 8 kColumns8 columns a warp. Hopper. Grid: items.
constexpr int kTileStages = 2;
constexpr int kAttendByTileThreads = 256;
constexpr int AttendByTileSharedBytes(int64_t head_bytes) {
  return static_cast<int>(kTileStages * 2 * head_bytes) + kTileStages * 8;
}

// The copies of tiles into shared memory, by one thread.
struct TileCopies {
  const AttentionArgs& args;
  const AttentionItem item;
  const int last_position;
  char* const shared;    // [kTileStages][2 KV blocks][head_bytes]
  uint64_t* const full;  // [kTileStages]

  BW_DEVICE int tiles() const { return last_position / kAttentionTile + 1; }
  BW_DEVICE const char* Tile(int tile) const { return shared + tile % kTileStages * 2 * args.head_bytes; }
  BW_DEVICE void Start(int tile) const {
    if (tile >= tiles()) return;
    const int first = tile * kAttentionTile / kKvBlockPositions;
    const int blocks = (first + 1) * kKvBlockPositions <= last_position ? 2 : 1;
    uint64_t* bar = &full[tile % kTileStages];
    BarrierArriveExpect(bar, static_cast<int>(blocks * args.head_bytes));
    for (int b = 0; b < blocks; ++b) {
      const int block = Load(args.tables + item.table + first + b);
      CopyBulk(shared + (tile % kTileStages * 2 + b) * args.head_bytes,
               args.cache + block * args.block_stride + item.kv_head * args.head_bytes,
               static_cast<int>(args.head_bytes), bar);
    }
  }
  BW_DEVICE void Wait(int tile) const { BarrierWait(&full[tile % kTileStages], tile / kTileStages % 2); }
};

template <int kHeadSteps, int kColumns8>
BW_DEVICE void AttendByTile(const AttentionArgs& args) {
  using Work = AttentionWarp<kHeadSteps, kColumns8>;
  char* const shared = SharedMemory();
  auto* const full = reinterpret_cast<uint64_t*>(shared + kTileStages * 2 * args.head_bytes);
  LetNextKernelStart();
  if (ThreadIndex() == 0) {
    for (int stage = 0; stage < kTileStages; ++stage) BarrierInit(&full[stage], 1);
    FenceBarrierInit();
  }
  SyncBlock();
  WaitForPreviousKernel();
  const AttentionItem item = Load(args.items + BlockX());
  const TileCopies copies{args, item, item.position + (item.column_end - 1) / item.heads, shared, full};
  if (ThreadIndex() == 0) {
    for (int tile = 0; tile < kTileStages; ++tile) copies.Start(tile);
  }
  AttentionItem own = item;
  own.column_begin = item.column_begin + Warp() * 8 * kColumns8;
  const bool idle = own.column_begin >= item.column_end;
  if (idle) own.column_begin = item.column_end - 1;
  if (own.column_end > own.column_begin + 8 * kColumns8) own.column_end = own.column_begin + 8 * kColumns8;
  const Work work(args, own);
  typename Work::Sums all, sums;
  Work::Clear(all);
  for (int tile = 0; tile < copies.tiles(); ++tile) {
    copies.Wait(tile);
    if (!idle && tile < work.tiles()) {
      work.RunTile(SharedSource{copies.Tile(tile), args.head_bytes}, tile, sums);
      Work::Fold(sums, all);
    }
    SyncBlock();
    if (ThreadIndex() == 0) copies.Start(tile + kTileStages);
  }
  if (!idle) work.Write(all);
}

// A block an item of at most 8 columns, a warp a tile: few rows. The sums of tiles meet in shared memory,
// where each thread folds values of its own. Grid: items.
constexpr int kAttendByBlockThreads = 128;
constexpr int AttendByBlockSharedBytes(int head_steps) {
  return (8 * (head_steps * 16 + 4) + 16) * (kAttendByBlockThreads / 32) * 4;
}

template <int kHeadSteps>
struct BlockSums {
  static constexpr int kStride =
      kHeadSteps * 16 + 4;  // floats of a column: fragments are written without bank conflicts
  static constexpr int kWarpFloats = 8 * kStride + 16;
  float* const floats;  // [warps]: o [8 columns][kStride], l [8], m [8]

  BW_DEVICE void Put(int warp, const AttentionSums<kHeadSteps, 1>& sums) const {
    const int g = Lane() / 4, t = Lane() % 4;
    float* to = floats + warp * kWarpFloats;
    BW_UNROLL
    for (int v = 0; v < kHeadSteps * 4; ++v) {
      to[(2 * t + v % 2) * kStride + v / 4 * 16 + g + v % 4 / 2 * 8] = sums.o[v / 4][0][v % 4];
    }
    if (g != 0) return;
    BW_UNROLL
    for (int j = 0; j < 2; ++j) {
      to[8 * kStride + 2 * t + j] = sums.l[0][j];
      to[8 * kStride + 8 + 2 * t + j] = sums.m[0][j];
    }
  }
  BW_DEVICE float o(int warp, int column, int d) const {
    return floats[warp * kWarpFloats + column * kStride + d];
  }
  BW_DEVICE float l(int warp, int column) const { return floats[warp * kWarpFloats + 8 * kStride + column]; }
  BW_DEVICE float m(int warp, int column) const {
    return floats[warp * kWarpFloats + 8 * kStride + 8 + column];
  }
};

// One value of one column, folded over tiles.
struct FoldedValue {
  float o = 0, l = 0, m = -kInfinity;

  BW_DEVICE void Add(float tile_o, float tile_l, float tile_m) {
    if (tile_m == -kInfinity) return;
    const float highest = Max(m, tile_m);
    const float before = Exp(m - highest), now = Exp(tile_m - highest);
    m = highest;
    l = Fma(tile_l, now, l * before);
    o = Fma(tile_o, now, o * before);
  }
};

template <int kHeadSteps>
BW_DEVICE void AttendByBlock(const AttentionArgs& args) {
  using Work = AttentionWarp<kHeadSteps, 1>;
  constexpr int kWarps = kAttendByBlockThreads / 32;
  constexpr int kValues = kHeadSteps * 16 * 8 / kAttendByBlockThreads;  // that a thread folds, at most
  LetNextKernelStart();
  WaitForPreviousKernel();
  const BlockSums<kHeadSteps> shared{reinterpret_cast<float*>(SharedMemory())};
  const Work work(args, Load(args.items + BlockX()));
  const int count = (work.item.column_end - work.item.column_begin) * args.head_dim;
  FoldedValue folded[kValues];
  for (int first = 0; first < work.tiles(); first += kWarps) {
    const int round = work.tiles() - first < kWarps ? work.tiles() - first : kWarps;
    if (Warp() < round) {
      typename Work::Sums tile;
      work.RunTile(CacheSource<(kHeadSteps <= 8)>{args, work.item}, first + Warp(), tile);
      shared.Put(Warp(), tile);
    }
    SyncBlock();
    BW_UNROLL
    for (int v = 0; v < kValues; ++v) {
      const int index = v * kAttendByBlockThreads + ThreadIndex();
      if (index >= count) break;
      const int column = index / args.head_dim, d = index % args.head_dim;
      for (int w = 0; w < round; ++w)
        folded[v].Add(shared.o(w, column, d), shared.l(w, column), shared.m(w, column));
    }
    if (first + kWarps < work.tiles()) SyncBlock();
  }
  BW_UNROLL
  for (int v = 0; v < kValues; ++v) {
    const int index = v * kAttendByBlockThreads + ThreadIndex();
    const float value = folded[v].o / folded[v].l;
    const float next = ShuffleXor(value, 1);  // of the next dimension, where this one is even
    if (index >= count) continue;
    const int column = work.item.column_begin + index / args.head_dim,
              row = work.item.row + column / work.item.heads;
    const int64_t d = static_cast<int64_t>(work.item.head + column % work.item.heads) * args.head_dim +
                      index % args.head_dim;
    Store(args.out + row * args.stride + d, value);
    if (index % 2 == 0) StoreOperand(args.operand, row, d, value, next);
  }
}

}  // namespace bellwether::gpu
