// Attention of GpuOps: which columns a warp or a block takes.

#include <algorithm>
#include <cmath>

#include "worker/device/gpu_ops.h"

namespace bellwether {
namespace {

using gpu::Kernel;

constexpr int kAttendWarps = 4;

}  // namespace

// A run of many columns has a warp for each 16 of them (on Hopper with eight warps to a block, who share what
// they read); one of few a block for each 8, whose warps share the positions.
bool GpuOps::ByWarp(const Batch::Run& run, Range rows) const {
  const int64_t first = std::max<int64_t>(rows.begin, run.row),
                last = std::min<int64_t>(rows.end, run.row + run.count);
  return tensor_kv_ && (last - first) * queries_per_kv_ >= 32;
}

void GpuOps::AddItems(Range rows, bool prompts, std::vector<gpu::AttentionItem>& items) const {
  const int64_t warp_columns = config_.head_dim <= 128 ? 16 : 8;
  const int64_t warps = runtime_->info().hopper ? gpu::kAttendByTileThreads / 32 : 1;
  const int64_t columns_at_once = !tensor_kv_ ? 1 : prompts ? warps * warp_columns : 8;
  for (size_t i = 0; i < batch_->runs.size(); ++i) {
    const Batch::Run& run = batch_->runs[i];
    const int64_t first = std::max<int64_t>(rows.begin, run.row),
                  last = std::min<int64_t>(rows.end, run.row + run.count);
    if (first >= last || ByWarp(run, rows) != prompts) continue;
    for (int64_t kv_head = 0; kv_head < kv_heads_.size(); ++kv_head) {
      const int64_t group = kv_heads_.begin + kv_head;
      const int64_t head_begin = std::max(heads_.begin, group * queries_per_kv_);
      const int64_t head_end = std::min(heads_.end, (group + 1) * queries_per_kv_);
      const int64_t columns = (last - first) * (head_end - head_begin);
      // The last columns have most positions to attend to and come first, so that none is left over at the
      // end.
      for (int64_t begin = (columns - 1) / columns_at_once * columns_at_once; begin >= 0;
           begin -= columns_at_once) {
        items.push_back({.table = run_tables_[i],
                         .row = static_cast<int32_t>(first - rows.begin),
                         .position = run.position + static_cast<int32_t>(first - run.row),
                         .column_begin = static_cast<int32_t>(begin),
                         .column_end = static_cast<int32_t>(std::min(begin + columns_at_once, columns)),
                         .head = static_cast<int32_t>(head_begin - heads_.begin),
                         .heads = static_cast<int32_t>(head_end - head_begin),
                         .kv_head = static_cast<int32_t>(kv_head)});
      }
    }
  }
}

const GpuOps::AttentionWork& GpuOps::WorkFor(Range rows) {
  for (const AttentionWork& work : attention_work_) {
    if (work.rows == rows) return work;
  }
  AttentionWork work{.rows = rows};
  std::vector<gpu::AttentionItem> items;
  AddItems(rows, /*prompts=*/true, items);
  work.by_warp = static_cast<int64_t>(items.size());
  AddItems(rows, /*prompts=*/false, items);
  work.by_block = static_cast<int64_t>(items.size()) - work.by_warp;
  work.items = AddToBatch(absl::MakeConstSpan(items));
  if (work.items == nullptr) work = {.rows = rows};
  attention_work_.push_back(work);
  return attention_work_.back();
}

gpu::AttentionArgs GpuOps::AttentionOf(int64_t layer, const AttentionWork& work, ConstRows query,
                                       MutableRows out) const {
  return {.items = work.items,
          .tables = OnDevice<int32_t>(memory_.tables),
          .cache = kv_.data() + layer * kv_heads_.size() * head_bytes_,
          .block_stride = options_.layers * kv_heads_.size() * head_bytes_,
          .head_bytes = head_bytes_,
          .query = query.data,
          .out = out.data,
          .slopes = config_.alibi ? reinterpret_cast<const float*>(slopes_.data()) : nullptr,
          .stride = query.stride,
          .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_dim))),
          .head_dim = config_.head_dim,
          .item_count = static_cast<int32_t>(work.by_warp)};
}

void GpuOps::Attend(int64_t layer, Range rows, ConstRows query, MutableRows out) {
  const AttentionWork work = WorkFor(rows);
  gpu::AttentionArgs args = AttentionOf(layer, work, query, out);
  prepared_ = {};
  if (tensor_kv_ && work.by_warp == 0) args.operand = OperandFor(out, heads_.size() * config_.head_dim);
  if (!tensor_kv_) {
    Launch(Kernel::attend_scalar, {work.by_block}, 32, 0,
           gpu::ScalarAttentionArgs{.common = args, .type = cache_type_});
    return;
  }
  const int steps = config_.head_dim <= 64 ? 4 : config_.head_dim <= 128 ? 8 : 16;
  if (work.by_warp > 0 && runtime_->info().hopper) {
    const Kernel kernel = steps == 4   ? Kernel::attend_tile_4
                          : steps == 8 ? Kernel::attend_tile_8
                                       : Kernel::attend_tile_16;
    Launch(kernel, {work.by_warp}, gpu::kAttendByTileThreads, gpu::AttendByTileSharedBytes(head_bytes_),
           args);
  } else if (work.by_warp > 0) {
    const Kernel kernel = steps == 4   ? Kernel::attend_warp_4
                          : steps == 8 ? Kernel::attend_warp_8
                                       : Kernel::attend_warp_16;
    Launch(kernel, {Blocks(work.by_warp, kAttendWarps)}, kAttendWarps * 32, 0, args);
  }
  if (work.by_block > 0) {
    args.items += work.by_warp;
    args.item_count = static_cast<int32_t>(work.by_block);
    const Kernel kernel = steps == 4   ? Kernel::attend_block_4
                          : steps == 8 ? Kernel::attend_block_8
                                       : Kernel::attend_block_16;
    Launch(kernel, {work.by_block}, gpu::kAttendByBlockThreads, gpu::AttendByBlockSharedBytes(steps), args);
  }
}

}  // namespace bellwether
