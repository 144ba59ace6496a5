#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/gpu/emulated_block.h"
#include "kernels/gpu/fragments.h"

// What takes effect later: copies to shared memory, the barriers there that count them, and Wgmma.

namespace bellwether::gpu::emulated {
namespace {

constexpr int64_t kBarrierBytesMax = (1 << 20) - 1;
constexpr int kCoreMatrixBytes = 128;
// Written to an initialised barrier's word; plain code that overwrites it is found.
constexpr uint64_t kBarrierMark = 0xba881e88ba881e88u;

}  // namespace

// ---- Copies by thread

void Block::CopyAsync16(void* shared, const void* global, const Where& where) {
  CheckShared(shared, 16, 16, "CopyAsync16", where);
  CheckGlobal(global, 16, 16, "CopyAsync16", where);
  if (Chance(128)) {
    std::memcpy(shared, global, 16);
    return;
  }
  Thread& thread = current();
  thread.copies.push_back({shared, global, thread.copy_groups});
  ++pending_copies_;
}

void Block::CopyAsyncCommit() { ++current().copy_groups; }

void Block::CopyAsyncWait(int groups, const Where& where) {
  if (Skips(where)) return;
  Thread& thread = current();
  size_t kept = 0;
  for (const PendingCopy& copy : thread.copies) {
    if (copy.group < thread.copy_groups - groups) {
      std::memcpy(copy.to, copy.from, 16);
    } else {
      thread.copies[kept++] = copy;
    }
  }
  pending_copies_ -= static_cast<int>(thread.copies.size() - kept);
  thread.copies.resize(kept);
  GiveWay();
}

// Some of what is under way takes effect.
void Block::LandSome() {
  const uint32_t random = Random();
  const auto lands = [&](int shift) { return (random >> shift & 127) < mood_.land; };
  if (pending_copies_ > 0 && lands(0)) {
    Thread& thread = threads_[(random >> 21) % task_.shape.threads];
    for (const PendingCopy& copy : thread.copies) std::memcpy(copy.to, copy.from, 16);
    pending_copies_ -= static_cast<int>(thread.copies.size());
    thread.copies.clear();
  }
  if (!bulks_.empty() && lands(7)) LandBulk((random >> 21) % bulks_.size());
  if (pending_wgmmas_ > 0 && lands(14)) PerformWgmma(static_cast<int>(random >> 21) % warpgroups());
}

// ---- Barriers in shared memory, and bulk copies

Block::Barrier& Block::FindBarrier(uint64_t* bar, const char* word, const Where& where) {
  for (Barrier& barrier : barriers_) {
    if (barrier.at != bar) continue;
    if (*bar != kBarrierMark) Fail(absl::StrCat(word, " on a barrier that was overwritten"), where);
    return barrier;
  }
  Fail(absl::StrCat(word, " on a barrier that was not initialised"), where);
}

void Block::BarrierInit(uint64_t* bar, int arrivals, const Where& where) {
  CheckShared(bar, 8, 8, "BarrierInit", where);
  if (arrivals <= 0 || arrivals >= 1 << 20)
    Fail(absl::StrCat("BarrierInit for ", arrivals, " arrivals"), where);
  for (const PendingBulk& bulk : bulks_) {
    if (bulk.bar == bar) Fail("BarrierInit on a barrier that a CopyBulk will complete on", where);
  }
  std::erase_if(barriers_, [&](const Barrier& barrier) { return barrier.at == bar; });
  barriers_.push_back(
      {.at = bar, .arrivals = arrivals, .pending = arrivals, .initialised_by = running.thread});
  *bar = kBarrierMark;
  GiveWay();
}

void Block::FenceBarrierInit(const Where& where) {
  if (Skips(where)) return;
  for (Barrier& barrier : barriers_) barrier.fenced |= barrier.initialised_by == running.thread;
}

void Block::CompletePhase(Barrier& barrier) {
  if (barrier.pending != 0 || barrier.bytes != 0) return;
  ++barrier.phase;
  barrier.pending = barrier.arrivals;
  for (int i = 0; i < task_.shape.threads; ++i) {
    if (WakeWaiting(i, State::kBarrier, barrier.at) && Chance(192)) hurried_warp_ = i / 32;
  }
}

void Block::BarrierArrive(uint64_t* bar, int bytes, const char* word, const Where& where) {
  Barrier& barrier = FindBarrier(bar, word, where);
  if (bytes < 0 || barrier.bytes + bytes > kBarrierBytesMax)
    Fail(absl::StrCat(word, " expects ", bytes, " bytes"), where);
  if (barrier.pending == 0)
    Fail(absl::StrCat(word, " beyond the ", barrier.arrivals, " arrivals of a phase"), where);
  barrier.bytes += bytes;
  --barrier.pending;
  CompletePhase(barrier);
  if (bytes == 0) GiveWay();
}

void Block::BarrierWait(uint64_t* bar, int parity, const Where& where) {
  if (Skips(where)) return;
  const Barrier& barrier = FindBarrier(bar, "BarrierWait", where);
  if (parity != 0 && parity != 1) Fail(absl::StrCat("BarrierWait for parity ", parity), where);
  if ((barrier.phase & 1) != parity) {
    GiveWay();
    return;
  }
  current().object = bar;
  current().detail = parity;
  Wait(State::kBarrier, "BarrierWait", where);
}

void Block::CopyBulk(void* shared, const void* global, int bytes, uint64_t* bar, const Where& where) {
  if (bytes <= 0 || bytes % 16 != 0) Fail(absl::StrCat("CopyBulk of ", bytes, " bytes"), where);
  CheckShared(shared, bytes, 16, "CopyBulk", where);
  CheckGlobal(global, bytes, 16, "CopyBulk", where);
  const Barrier& barrier = FindBarrier(bar, "CopyBulk", where);
  if (!barrier.fenced) Fail("CopyBulk on a barrier without FenceBarrierInit", where);
  // Up to four pieces, each of which lands when it likes.
  const int piece = (bytes / 16 + 3) / 4 * 16;
  for (int begin = 0; begin < bytes; begin += piece) {
    bulks_.push_back({static_cast<char*>(shared) + begin, static_cast<const char*>(global) + begin,
                      std::min(piece, bytes - begin), bar});
    if (Chance(128)) LandBulk(bulks_.size() - 1);
  }
  GiveWay();
}

void Block::LandBulk(size_t index) {
  const PendingBulk bulk = bulks_[index];
  bulks_[index] = bulks_.back();
  bulks_.pop_back();
  std::memcpy(bulk.to, bulk.from, bulk.bytes);
  ++asynchronous_writes_;
  for (Barrier& barrier : barriers_) {
    if (barrier.at != bulk.bar) continue;
    barrier.bytes -= bulk.bytes;
    CompletePhase(barrier);
  }
}

void Block::FenceAsyncShared(const Where& where) { asynchronous_writes_ += Skips(where) ? 0 : 1; }

// ---- Warpgroups

void Block::WgmmaFence(const Where& where) {
  if (Skips(where)) return;
  WarpOperation(
      "WgmmaFence", nullptr,
      [](Block& block, const LaneOperands&) { block.current_warp().wgmma_fenced = true; }, where);
}

void Block::Wgmma(WgmmaOperand operand, const Where& where) {
  const SharedTile& b = operand.b;
  if (task_.shape.threads % 128 != 0) Fail("Wgmma in a block that is not made of warpgroups", where);
  const auto fits = [](int stride) { return stride > 0 && stride % 16 == 0 && stride < 1 << 18; };
  if (!fits(b.k_stride) || !fits(b.n_stride))
    Fail("Wgmma with strides that a descriptor does not hold", where);
  const int64_t bytes = int64_t{operand.columns / 8 - 1} * b.n_stride + b.k_stride + kCoreMatrixBytes;
  CheckShared(b.start, bytes, 16, "Wgmma", where);
  if (!current_warp().wgmma_fenced) Fail("Wgmma without a WgmmaFence since the last WgmmaCommit", where);
  WarpOperation(
      "Wgmma", &operand,
      [](Block& block, const LaneOperands& lanes) {
        Warp& warp = block.current_warp();
        PendingWgmma& op = warp.wgmmas.emplace_back();
        op.operand = *static_cast<WgmmaOperand*>(lanes[0]);
        op.where = warp.where;
        op.group = warp.wgmma_groups;
        for (int i = 0; i < 32; ++i) {
          const auto& lane = *static_cast<WgmmaOperand*>(lanes[i]);
          op.d[i] = lane.d;
          std::copy_n(lane.a, 4, op.a[i].begin());
        }
        ++block.pending_wgmmas_;
        const int warpgroup = running.thread / 128;
        while (block.Chance(128) && block.PerformWgmma(warpgroup)) {
        }
      },
      where);
}

// The oldest one of a warpgroup. False if there is none that all its warps have issued.
bool Block::PerformWgmma(int warpgroup) {
  Warp* const first = &warps_[warpgroup * 4];
  for (int i = 0; i < 4; ++i) {
    if (first[i].wgmmas.empty()) return false;
  }
  const WgmmaOperand& operand = first->wgmmas.front().operand;
  for (int i = 0; i < 4; ++i) {
    const PendingWgmma& op = first[i].wgmmas.front();
    const SharedTile& b = op.operand.b;
    if (b.start != operand.b.start || b.k_stride != operand.b.k_stride || b.n_stride != operand.b.n_stride ||
        op.operand.columns != operand.columns || op.operand.accumulate != operand.accumulate)
      Fail(absl::StrCat("divergent Wgmma: the warps of warpgroup ", warpgroup, " do not agree"), op.where,
           (warpgroup * 4 + i) * 32);
  }
  CheckFenced(first->wgmmas.front(), warpgroup * 128);
  for (int i = 0; i < 4; ++i) {
    MultiplyAdd(first[i].wgmmas.front());
    first[i].wgmmas.erase(first[i].wgmmas.begin());
  }
  pending_wgmmas_ -= 4;
  for (int i = warpgroup * 128; i < (warpgroup + 1) * 128; ++i) {
    WakeWaiting(i, State::kWgmma, nullptr);
  }
  return true;
}

// Plain writes must be fenced before Wgmma reads them. Seen only where nobody fenced, and no bulk copy
// landed, since the operand changed.
void Block::CheckFenced(const PendingWgmma& op, int thread) {
  const SharedTile& b = op.operand.b;
  uint64_t hash = 0;
  for (int i = 0; i < op.operand.columns / 8 * 2; ++i) {
    const char* core = static_cast<const char*>(b.start) + int64_t{i / 2} * b.n_stride + i % 2 * b.k_stride;
    for (int j = 0; j < kCoreMatrixBytes; j += 8) {
      uint64_t word;
      std::memcpy(&word, core + j, 8);
      hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
      hash ^= hash >> 32;
    }
  }
  SeenTile& seen = tiles_[b.start];
  if (seen.hash != hash && seen.writes == asynchronous_writes_)
    Fail("Wgmma reads shared memory that was written to without FenceAsyncShared", op.where, thread);
  seen = {hash, asynchronous_writes_};
}

// The 16 rows of one warp.
void Block::MultiplyAdd(const PendingWgmma& op) const {
  uint32_t pairs_a[16][8];
  for (int lane = 0; lane < 32; ++lane) PutFragmentA(lane, op.a[lane].data(), pairs_a);
  const TensorCoreRows rows(pairs_a);
  const SharedTile& b = op.operand.b;
  for (int j = 0; j < op.operand.columns / 8; ++j) {
    uint32_t pairs_b[8][8];
    const char* core = static_cast<const char*>(b.start) + int64_t{j} * b.n_stride;
    for (int pair = 0; pair < 8; ++pair) {
      for (int column = 0; column < 8; ++column)
        std::memcpy(&pairs_b[pair][column], core + pair / 4 * b.k_stride + column * 16 + pair % 4 * 4, 4);
    }
    float c[16][8] = {};
    if (op.operand.accumulate) {
      for (int lane = 0; lane < 32; ++lane) PutFragmentC(lane, op.d[lane] + 4 * j, c);
    }
    rows.MultiplyAdd(task_.tensor_core, pairs_b, c);
    for (int lane = 0; lane < 32; ++lane) TakeFragmentC(lane, c, op.d[lane] + 4 * j);
  }
}

void Block::WgmmaCommit(const Where& where) {
  WarpOperation(
      "WgmmaCommit", nullptr,
      [](Block& block, const LaneOperands&) {
        ++block.current_warp().wgmma_groups;
        block.current_warp().wgmma_fenced = false;
      },
      where);
}

void Block::WgmmaWait(int groups, const Where& where) {
  if (Skips(where)) return;
  WarpOperation("WgmmaWait", nullptr, nullptr, where);
  const Warp& warp = current_warp();
  const auto waits = [&] {
    return !warp.wgmmas.empty() && warp.wgmmas.front().group < warp.wgmma_groups - groups;
  };
  // Whoever comes first performs them; they take all warps of the warpgroup.
  while (waits()) {
    if (!PerformWgmma(running.thread / 128)) Wait(State::kWgmma, "WgmmaWait", where);
  }
}

}  // namespace bellwether::gpu::emulated
