#include "coordinator/plan_report.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/dtype.h"
#include "common/format_bytes.h"
#include "common/step.h"

namespace bellwether {
namespace {

std::string_view WeightsText(Quantize quantize) {
  switch (quantize) {
    case Quantize::kInt8:
      return "int8";
    case Quantize::kInt4:
      return "int4";
    case Quantize::kNone:
      break;
  }
  return "as stored";
}

std::string WorkerLine(const Plan& plan, const PlannedWorker& planned, const WorkerInventory& worker) {
  const StageLayout& stage = plan.layout.stages[planned.stage];
  return absl::StrFormat("%-16s %-12s %5d %4d %4d-%-4d %10s %10s %10s %10s %9.1f %8.2f\n", worker.name,
                         worker.host, planned.stage, planned.rank, stage.layers.begin, stage.layers.end - 1,
                         FormatBytes(planned.weight_bytes), FormatBytes(planned.activation_bytes),
                         FormatBytes(planned.kv_bytes), FormatBytes(planned.bytes_read_per_token),
                         worker.read_bytes_per_second / 1e9, planned.read_seconds * 1e3);
}

// What a host or a GPU has and what is asked of it.
std::string PoolLine(const Plan& plan, absl::Span<const WorkerInventory> workers, const MemoryPool& pool,
                     int32_t context_blocks) {
  int64_t weights = 0, activations = pool.process_bytes, block = 0;
  for (const PlannedWorker& worker : plan.workers) {
    if (!pool.gpu && workers[worker.inventory].host == pool.host) weights += worker.host_bytes;
    if (std::find(pool.workers.begin(), pool.workers.end(), worker.inventory) == pool.workers.end()) continue;
    weights += worker.resident_bytes;
    activations += worker.activation_bytes;
    block += worker.kv_block_bytes;
  }
  const int64_t least = weights + activations + context_blocks * block;
  std::string line = absl::StrFormat(
      "%s: %s free, %s usable; weights %s + activations %s + at least %d KV blocks x %s = %s", pool.name,
      FormatBytes(pool.free_bytes), FormatBytes(pool.usable_bytes), FormatBytes(weights),
      FormatBytes(activations), context_blocks, FormatBytes(block), FormatBytes(least));
  if (least > pool.usable_bytes)
    line += absl::StrFormat(": %s too much", FormatBytes(least - pool.usable_bytes));
  return line + "\n";
}

// What comes to the worker in every step, and where from; empty if it has all in memory.
std::string StreamingLine(const Plan& plan, const PlannedWorker& planned, const WorkerInventory& worker) {
  std::vector<std::string> what;
  if (planned.streamed_layers > 0) {
    what.push_back(absl::StrFormat("%d of %d layers", planned.streamed_layers,
                                   plan.layout.stages[planned.stage].layers.size()));
  }
  if (planned.streamed_ends.head) what.emplace_back("the head");
  if (planned.streamed_ends.embedding) what.emplace_back("rows of the embedding");
  if (what.empty()) return "";
  const std::string streams = absl::StrCat(worker.name, " streams ", absl::StrJoin(what, ", "));
  const std::string resident = FormatBytes(planned.resident_bytes) + " of weights and buffers in memory\n";
  if (planned.streamed_bytes == 0) return absl::StrCat(streams, "; ", resident);
  const std::string from =
      planned.stream_home == WeightHome::kHost
          ? absl::StrFormat("its host's memory, pinned, to the card at %.2f GB/s",
                            worker.gpu ? worker.gpu->copy_bytes_per_second / 1e9 : 0)
          : absl::StrFormat("a drive of %.2f GB/s that its host shares", worker.drive_bytes_per_second / 1e9);
  return absl::StrFormat("%s, %s a step, from %s: %.2f s a step; %s", streams,
                         FormatBytes(planned.streamed_bytes), from, planned.drive_seconds, resident);
}

// Why ranks are on several hosts, which is slower where no drive is waited for.
std::string RanksOnHosts(const Plan& plan, absl::Span<const WorkerInventory> workers) {
  if (!plan.drive_bound) return "";
  std::string text;
  std::map<int, std::set<std::string>> hosts;  // by stage
  for (const PlannedWorker& worker : plan.workers) hosts[worker.stage].insert(workers[worker.inventory].host);
  for (const auto& [stage, names] : hosts) {
    if (names.size() > 1)
      text += absl::StrFormat("the ranks of stage %d are on %d hosts, which get their weights at once\n",
                              stage, names.size());
  }
  return text;
}

std::string LeftOver(const Plan& plan, absl::Span<const WorkerInventory> workers) {
  std::string names;
  for (size_t i = 0; i < workers.size(); ++i) {
    const bool used = std::any_of(plan.workers.begin(), plan.workers.end(),
                                  [i](const PlannedWorker& worker) { return worker.inventory == i; });
    if (!used) names += " " + workers[i].name;
  }
  return names.empty() ? "" : "not used:" + names + "\n";
}

}  // namespace

std::string Plan::KernelLevelText() const {
  const bool same = std::adjacent_find(kernel_levels.begin(), kernel_levels.end(), std::not_equal_to<>()) ==
                    kernel_levels.end();
  if (same) return kernel_levels.empty() ? "" : kernel_levels[0];
  return absl::StrJoin(kernel_levels, ", ");
}

std::string PlanArithmetic(const Plan& plan, absl::Span<const WorkerInventory> workers,
                           const std::vector<MemoryPool>& pools, int32_t context_blocks) {
  std::string text = Describe(plan.layout) + "\n";
  text += absl::StrFormat("kernel level %s, weights %s, KV cache %s\n", plan.KernelLevelText(),
                          std::string(WeightsText(plan.quantize)), std::string(Name(plan.kv_type)));
  text += absl::StrFormat("%-16s %-12s %5s %4s %-9s %10s %10s %10s %10s %9s %8s\n", "worker", "host", "stage",
                          "rank", "layers", "weights", "activation", "KV", "read/token", "GB/s", "ms");
  for (const PlannedWorker& planned : plan.workers)
    text += WorkerLine(plan, planned, workers[planned.inventory]);
  for (const PlannedWorker& planned : plan.workers)
    text += StreamingLine(plan, planned, workers[planned.inventory]);
  text += RanksOnHosts(plan, workers);
  for (const MemoryPool& pool : pools) text += PoolLine(plan, workers, pool, context_blocks);
  text += LeftOver(plan, workers);
  text += absl::StrFormat("KV cache: %d blocks, %d tokens; bound by %s\n", plan.kv_blocks,
                          int64_t{plan.kv_blocks} * kKvBlockTokens, plan.kv_bound_by);
  text += absl::StrFormat(
      "decode: %.2f tokens/s for one sequence, %.2f with all stages full; bound by %s; imbalance %.2f\n",
      plan.decode_tokens_per_second, plan.pipeline_tokens_per_second, plan.bound_by, plan.imbalance);
  for (const BatchRate& rate : plan.batch_rates)
    text += absl::StrFormat("with %d sequences at once: at most %.2f tokens/s; bound by %s\n", rate.sequences,
                            rate.tokens_per_second, rate.bound_by);
  return text;
}

}  // namespace bellwether
