#include "coordinator/planner.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "common/defaults.h"
#include "common/status.h"
#include "common/step.h"
#include "common/step_tokens.h"
#include "coordinator/device_class.h"
#include "coordinator/held_layout.h"
#include "coordinator/layer_split.h"
#include "coordinator/memory_pool.h"
#include "coordinator/offload.h"
#include "coordinator/plan_rates.h"
#include "coordinator/plan_report.h"
#include "coordinator/rank_sizes.h"
#include "coordinator/step_budget.h"
#include "model/gpu_size.h"
#include "model/row_limits.h"

namespace bellwether {
namespace {

// Predictions rest on a short measurement: less than this is not worth loading the weights again.
constexpr double kGainToMove = 1.1;
// A quarter of the memory of a host that streams.
constexpr int64_t kKvShareOfStreaming = 4;

class Planner {
 public:
  Planner(const ModelConfig& config, const TensorFormats& formats, absl::Span<const WorkerInventory> workers,
          const PlannerOptions& options)
      : config_(config),
        formats_(formats),
        workers_(workers),
        options_(options),
        sizes_(config, formats, options) {}

  absl::StatusOr<Plan> Make();

 private:
  // A rank's figures as functions of its layers.
  struct RankCosts {
    size_t worker = 0;
    std::vector<int64_t> weights;  // of layers [0, i)
    std::vector<int64_t> read;
    int64_t fixed_weights = 0;  // embedding, head, norms outside the layers
    int64_t fixed_read = 0;
    int64_t kv_block_per_layer = 0;
    int64_t activations = 0;
  };
  // Workers of one host and device class: a stage takes its ranks from them, if it can.
  struct Group {
    std::string host, device_class;
    std::vector<size_t> workers;
  };

  absl::Status CheckWorkers() const;
  void FindGroups();
  void FindPools();
  absl::StatusOr<Plan> PlanBest(const std::vector<int>& sizes) const;
  absl::StatusOr<Plan> PlanAnew(const std::vector<int>& sizes) const;
  std::vector<int> SizesByGroups(int together) const;
  std::vector<std::vector<int>> JoinedSizes() const;
  // By as much as is worth loading weights again.
  bool IsFaster(const Plan& plan, const Plan& than) const;
  // Null if nothing is held, or it is not what the options ask for.
  const Layout* HeldLayout(const std::vector<int>& sizes) const;
  absl::StatusOr<Plan> Complete(Layout layout, const std::vector<std::vector<size_t>>& stages) const;
  absl::StatusOr<std::vector<int>> StageSizes() const;
  std::vector<int> SizesByGroup() const;
  absl::StatusOr<std::vector<std::vector<size_t>>> AssignWorkers(const std::vector<int>& sizes) const;
  absl::StatusOr<Layout> ChooseLayout(const std::vector<std::vector<size_t>>& stages) const;
  std::vector<std::vector<RankCosts>> StageCosts(const std::vector<std::vector<size_t>>& stages,
                                                 const Layout& layout) const;
  bool OneClassEach(const std::vector<std::vector<size_t>>& stages) const;
  std::string StreamingAdvice() const;
  int32_t ContextBlocks() const;
  double ArithmeticRate(const WorkerInventory& worker) const;
  void FillWorkers(const std::vector<std::vector<size_t>>& stages, Plan* plan) const;
  void StreamWhatDoesNotFit(Plan* plan) const;
  void StreamWhatDoesNotFit(const MemoryPool& pool, Plan* plan) const;
  bool FillKv(Plan* plan) const;

  const ModelConfig& config_;
  const TensorFormats& formats_;
  const absl::Span<const WorkerInventory> workers_;
  const PlannerOptions& options_;
  const RankSizes sizes_;
  std::vector<std::string> levels_;  // by worker
  std::vector<Group> groups_;        // in order of their first worker
  std::vector<MemoryPool> pools_;
  std::vector<size_t> pool_of_;  // by worker: where its weights lie
};

absl::StatusOr<Plan> Planner::Make() {
  BW_RETURN_IF_ERROR(CheckWorkers());
  BW_ASSIGN_OR_RETURN(levels_, ChooseKernelLevels(workers_, options_.kernel_levels, options_.mix_devices));
  FindGroups();
  FindPools();
  BW_ASSIGN_OR_RETURN(const std::vector<int> sizes, StageSizes());
  absl::StatusOr<Plan> anew = PlanBest(sizes);
  const Layout* layout = HeldLayout(sizes);
  if (layout == nullptr) return anew;
  const std::vector<std::vector<size_t>> holders = AssignHolders(workers_, options_.quantize, *layout);
  if (!OneClassEach(holders)) return anew;
  absl::StatusOr<Plan> held = Complete(*layout, holders);
  if (!held.ok()) return anew;
  return anew.ok() && IsFaster(*anew, *held) ? std::move(anew) : std::move(held);
}

bool Planner::IsFaster(const Plan& plan, const Plan& than) const {
  const auto rate = [&](const Plan& it) {
    return plan.drive_bound || than.drive_bound
               ? PredictBatch(workers_, options_, it, options_.plan_for_batch).tokens_per_second
               : it.pipeline_tokens_per_second;
  };
  return rate(plan) >= kGainToMove * rate(than);
}

// Stages wait for each other's drives where only one step is under way, and ranks do not: where a drive
// binds, ranks on several hosts may be worth what their sums take on the way.
absl::StatusOr<Plan> Planner::PlanBest(const std::vector<int>& sizes) const {
  absl::StatusOr<Plan> best = PlanAnew(sizes);
  if (best.ok() ? !best->drive_bound : !absl::IsFailedPrecondition(best.status())) return best;
  for (const std::vector<int>& joined : JoinedSizes()) {
    absl::StatusOr<Plan> plan = PlanAnew(joined);
    if (plan.ok() && (!best.ok() || IsFaster(*plan, *best))) best = std::move(plan);
  }
  return best;
}

// Of all joins of two, four, … and all groups; none where ranks or stages are given.
std::vector<std::vector<int>> Planner::JoinedSizes() const {
  std::vector<std::vector<int>> all;
  if (options_.ranks > 0 || options_.stages > 0 || options_.layout) return all;
  const auto hosts = static_cast<int>(groups_.size());
  for (int together = 2; together < 2 * hosts; together *= 2)
    all.push_back(SizesByGroups(std::min(together, hosts)));
  return all;
}

// Ranks of each stage, where so many groups that compute alike are one.
std::vector<int> Planner::SizesByGroups(int together) const {
  struct Open {
    size_t at = 0;   // in sizes
    int groups = 0;  // that it has
  };
  std::map<std::string, Open> open;  // by device class
  std::vector<int> sizes;
  for (const Group& group : groups_) {
    const auto [it, is_new] = open.try_emplace(group.device_class);
    if (is_new || it->second.groups == together) {
      it->second = {.at = sizes.size()};
      sizes.push_back(0);
    }
    ++it->second.groups;
    int& size = sizes[it->second.at];
    size = std::min(size + static_cast<int>(group.workers.size()), SliceCount(config_));
  }
  if (sizes.size() > static_cast<size_t>(config_.layers)) sizes.resize(config_.layers);
  return sizes;
}

absl::StatusOr<Plan> Planner::PlanAnew(const std::vector<int>& sizes) const {
  BW_ASSIGN_OR_RETURN(const std::vector<std::vector<size_t>> stages, AssignWorkers(sizes));
  if (options_.layout) return Complete(*options_.layout, stages);
  BW_ASSIGN_OR_RETURN(Layout layout, ChooseLayout(stages));
  return Complete(std::move(layout), stages);
}

const Layout* Planner::HeldLayout(const std::vector<int>& sizes) const {
  const Layout* layout = MostHeldLayout(workers_, options_.quantize);
  if (layout == nullptr || !Validate(*layout, config_).ok()) return nullptr;
  const auto fills = [layout](const std::vector<int>& it) {
    return layout->workers() == std::accumulate(it.begin(), it.end(), 0);
  };
  const std::vector<std::vector<int>> joined = JoinedSizes();
  if (!fills(sizes) && std::none_of(joined.begin(), joined.end(), fills)) return nullptr;
  if (static_cast<size_t>(layout->workers()) > workers_.size()) return nullptr;
  if (options_.layout) return *layout == *options_.layout ? layout : nullptr;
  if (options_.stages > 0 && static_cast<int>(layout->stages.size()) != options_.stages) return nullptr;
  for (const StageLayout& stage : layout->stages) {
    if (options_.ranks > 0 && static_cast<int>(stage.ranks.size()) != options_.ranks) return nullptr;
  }
  return layout;
}

absl::StatusOr<Plan> Planner::Complete(Layout layout, const std::vector<std::vector<size_t>>& stages) const {
  Plan plan{.layout = std::move(layout),
            .hidden = config_.hidden,
            .quantize = options_.quantize,
            .kv_type = options_.kv_type,
            .step_tokens = options_.step_tokens};
  for (const std::vector<size_t>& stage : stages) plan.kernel_levels.push_back(levels_[stage[0]]);
  FillWorkers(stages, &plan);
  StreamWhatDoesNotFit(&plan);
  const bool fits = FillKv(&plan);
  PredictDrives(workers_, pools_, &plan);
  PredictRates(workers_, options_, &plan);
  plan.arithmetic = PlanArithmetic(plan, workers_, pools_, ContextBlocks());
  if (!fits) {
    return absl::FailedPreconditionError(
        absl::StrFormat("the model does not fit. Add memory or workers, shorten the context of %d tokens, or "
                        "use --quantize%s.\n%s",
                        options_.context_tokens, StreamingAdvice(), plan.arithmetic));
  }
  return plan;
}

absl::Status Planner::CheckWorkers() const {
  if (workers_.empty()) return absl::FailedPreconditionError("there are no workers");
  if (options_.offload == Offload::kHost &&
      std::none_of(workers_.begin(), workers_.end(), [](const auto& worker) { return worker.gpu; })) {
    return absl::FailedPreconditionError(
        "--offload host is for GPUs, and there are none: the weights of CPUs are in their hosts' memory "
        "anyway");
  }
  for (const WorkerInventory& worker : workers_) {
    if (!(worker.read_bytes_per_second > 0) || worker.memory_bytes < 0 ||
        (worker.gpu && worker.gpu->free_bytes < 0)) {
      return absl::FailedPreconditionError(
          absl::StrFormat("worker %s reports %d bytes of memory and reads %g bytes/s", worker.name,
                          worker.memory_bytes, worker.read_bytes_per_second));
    }
  }
  return absl::OkStatus();
}

void Planner::FindGroups() {
  for (size_t i = 0; i < workers_.size(); ++i) {
    const std::string device_class = DeviceClass(workers_[i]);
    const auto same = [&](const Group& known) {
      return known.host == workers_[i].host && known.device_class == device_class;
    };
    auto group = std::find_if(groups_.begin(), groups_.end(), same);
    if (group == groups_.end()) group = groups_.insert(group, {workers_[i].host, device_class});
    group->workers.push_back(i);
  }
}

void Planner::FindPools() {
  pools_ = MemoryPools(workers_, config_, options_);
  pool_of_.resize(workers_.size());
  for (size_t pool = 0; pool < pools_.size(); ++pool) {
    for (const size_t worker : pools_[pool].workers) pool_of_[worker] = pool;
  }
}

// Ranks of each stage.
absl::StatusOr<std::vector<int>> Planner::StageSizes() const {
  if (options_.layout) {
    BW_RETURN_IF_ERROR(Validate(*options_.layout, config_));
    std::vector<int> sizes;
    for (const StageLayout& stage : options_.layout->stages)
      sizes.push_back(static_cast<int>(stage.ranks.size()));
    return sizes;
  }
  const int slices = SliceCount(config_);
  if (options_.ranks < 0 || options_.ranks > slices || options_.stages < 0 ||
      options_.stages > config_.layers) {
    std::vector<std::string> asked;
    if (options_.ranks != 0) asked.push_back(absl::StrCat(options_.ranks, " tensor-parallel ranks"));
    if (options_.stages != 0) asked.push_back(absl::StrCat(options_.stages, " stages"));
    return absl::InvalidArgumentError(
        absl::StrFormat("%s asked for: this model takes 1-%d ranks and 1-%d stages",
                        absl::StrJoin(asked, " and "), slices, config_.layers));
  }
  if (options_.ranks > 0) {
    int stages = options_.stages;
    if (stages == 0) {
      for (const Group& group : groups_) stages += static_cast<int>(group.workers.size()) / options_.ranks;
      stages = std::clamp<int>(stages, 1, config_.layers);
    }
    return std::vector<int>(stages, options_.ranks);
  }
  std::vector<int> sizes = SizesByGroup();
  const auto wanted = static_cast<size_t>(options_.stages);
  while (wanted > 0 && sizes.size() < wanted) {
    const auto largest = std::max_element(sizes.begin(), sizes.end());
    if (*largest == 1) {
      return absl::FailedPreconditionError(
          absl::StrFormat("%d stages need as many workers, %d are here", wanted, workers_.size()));
    }
    const int half = *largest / 2;
    *largest -= half;
    sizes.insert(largest + 1, half);
  }
  while (wanted > 0 && sizes.size() > wanted) {
    // The neighbours that are least together become one stage.
    size_t at = 0;
    for (size_t i = 1; i + 1 < sizes.size(); ++i) {
      if (sizes[i] + sizes[i + 1] < sizes[at] + sizes[at + 1]) at = i;
    }
    sizes[at] = std::min(sizes[at] + sizes[at + 1], slices);
    sizes.erase(sizes.begin() + at + 1);
  }
  if (sizes.size() > static_cast<size_t>(config_.layers)) sizes.resize(config_.layers);
  return sizes;
}

// One stage a host and device class; several where there are more workers than the model has slices.
std::vector<int> Planner::SizesByGroup() const {
  const int slices = SliceCount(config_);
  std::vector<int> sizes;
  for (const Group& group : groups_) {
    const int count = static_cast<int>(group.workers.size());
    const int stages = (count + slices - 1) / slices;
    for (int i = 0; i < stages; ++i) sizes.push_back(count * (i + 1) / stages - count * i / stages);
  }
  return sizes;
}

// A stage takes its workers from the first group that has enough of them left, else from several of the first
// class that has.
absl::StatusOr<std::vector<std::vector<size_t>>> Planner::AssignWorkers(const std::vector<int>& sizes) const {
  const size_t needed = std::accumulate(sizes.begin(), sizes.end(), size_t{0});
  if (needed > workers_.size()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("the layout needs %d workers, %d are here", needed, workers_.size()));
  }
  std::vector<size_t> taken(groups_.size(), 0);
  std::vector<std::vector<size_t>> stages;
  const auto left = [&](size_t group) { return groups_[group].workers.size() - taken[group]; };
  const auto left_like = [&](size_t group) {
    size_t sum = 0;
    for (size_t other = 0; other < groups_.size(); ++other) {
      if (groups_[other].device_class == groups_[group].device_class) sum += left(other);
    }
    return sum;
  };
  for (const size_t size : sizes) {
    std::vector<size_t> stage;
    const auto take = [&](size_t group, size_t count) {
      for (size_t i = 0; i < count; ++i) stage.push_back(groups_[group].workers[taken[group]++]);
    };
    for (size_t group = 0; group < groups_.size() && stage.empty(); ++group) {
      if (left(group) >= size) take(group, size);
    }
    for (size_t first = 0; first < groups_.size() && stage.empty(); ++first) {
      if (left_like(first) < size) continue;
      for (size_t group = first; group < groups_.size(); ++group) {
        if (groups_[group].device_class != groups_[first].device_class) continue;
        take(group, std::min(left(group), size - stage.size()));
      }
    }
    if (stage.empty()) {
      return absl::FailedPreconditionError(absl::StrFormat(
          "no %d workers that compute alike are left for stage %d: the ranks of a stage share one device "
          "class",
          size, stages.size()));
    }
    stages.push_back(std::move(stage));
  }
  return stages;
}

bool Planner::OneClassEach(const std::vector<std::vector<size_t>>& stages) const {
  return std::all_of(stages.begin(), stages.end(), [this](const std::vector<size_t>& stage) {
    return std::all_of(stage.begin(), stage.end(), [&](size_t worker) {
      return DeviceClass(workers_[worker]) == DeviceClass(workers_[stage[0]]);
    });
  });
}

// -- Layers

absl::StatusOr<Layout> Planner::ChooseLayout(const std::vector<std::vector<size_t>>& stages) const {
  const int count = static_cast<int>(stages.size());
  Layout layout;
  for (int i = 0; i < count; ++i) {
    const int ranks = static_cast<int>(stages[i].size());
    layout.stages.push_back(
        {{}, EvenRanks(config_, ranks, /*first_stage=*/i == 0, /*last_stage=*/i == count - 1)});
  }
  const std::vector<std::vector<RankCosts>> costs = StageCosts(stages, layout);
  std::vector<int> workers_used(pools_.size(), 0);
  for (const std::vector<size_t>& stage : stages) {
    for (const size_t worker : stage) ++workers_used[pool_of_[worker]];
  }
  // Memory of a host or GPU that serves several stages is first shared out by workers, then left to whoever
  // needs it (the sum is checked at the end), and at last not looked at: then the refusal shows by how much
  // it does not fit.
  // Where layers may be streamed, what does not fit takes time instead.
  enum class Memory { kShared, kWhole, kStreamed, kIgnored };
  for (const Memory memory : {Memory::kShared, Memory::kWhole, Memory::kStreamed, Memory::kIgnored}) {
    const auto time = [&](int stage, Range layers) -> std::optional<double> {
      double slowest = 0;
      std::vector<int64_t> needed(pools_.size(), 0);
      std::vector<int64_t> present(pools_.size(), 0);
      for (const RankCosts& rank : costs[stage]) {
        const int64_t read = rank.fixed_read + rank.read[layers.end] - rank.read[layers.begin];
        slowest = std::max(slowest, static_cast<double>(read) / workers_[rank.worker].read_bytes_per_second);
        const size_t pool = pool_of_[rank.worker];
        needed[pool] += rank.fixed_weights + rank.weights[layers.end] - rank.weights[layers.begin] +
                        rank.activations + ContextBlocks() * rank.kv_block_per_layer * layers.size();
        ++present[pool];
      }
      for (size_t pool = 0; pool < pools_.size() && memory != Memory::kIgnored; ++pool) {
        if (present[pool] == 0) continue;
        const int64_t usable = pools_[pool].usable_bytes - pools_[pool].process_bytes;
        const int64_t share = usable / workers_used[pool] * present[pool];
        const int64_t lacking = needed[pool] - (memory == Memory::kWhole ? usable : share);
        if (lacking <= 0) continue;
        const double rate = pools_[pool].StreamBytesPerSecond(lacking);
        if (memory != Memory::kStreamed || rate == 0) return std::nullopt;
        slowest = std::max(slowest, static_cast<double>(lacking) / rate);
      }
      return slowest + static_cast<double>(layers.size()) * kAllReducesPerLayer *
                           AllReduceSeconds(workers_, options_, stages[stage]);
    };
    const auto split = SplitLayers(config_.layers, count, time);
    if (!split) continue;
    for (int i = 0; i < count; ++i) layout.stages[i].layers = (*split)[i];
    return layout;
  }
  return absl::InternalError("no split of the layers was found");
}

std::vector<std::vector<Planner::RankCosts>> Planner::StageCosts(
    const std::vector<std::vector<size_t>>& stages, const Layout& layout) const {
  std::vector<std::vector<RankCosts>> result(stages.size());
  for (size_t s = 0; s < stages.size(); ++s) {
    const bool first = s == 0, last = s + 1 == stages.size();
    StageLayout stage = layout.stages[s];
    for (size_t r = 0; r < stages[s].size(); ++r) {
      const int rank = static_cast<int>(r);
      RankCosts costs{.worker = stages[s][r], .weights = {0}, .read = {0}};
      stage.layers = {0, 0};
      costs.fixed_weights = sizes_.Weights(workers_[costs.worker], stage, rank, {first, last});
      costs.activations = sizes_.Activations(workers_[costs.worker], stage, rank, last);
      costs.fixed_read = BytesReadPerToken(config_, formats_, options_.quantize, stage, rank, last);
      for (int layer = 0; layer < config_.layers; ++layer) {
        stage.layers = {layer, layer + 1};
        const int64_t weights = sizes_.Weights(workers_[costs.worker], stage, rank, {first, last});
        const int64_t read = BytesReadPerToken(config_, formats_, options_.quantize, stage, rank, last);
        costs.weights.push_back(costs.weights.back() + weights - costs.fixed_weights);
        costs.read.push_back(costs.read.back() + read - costs.fixed_read);
      }
      costs.kv_block_per_layer = sizes_.Kv(workers_[costs.worker], stage, rank);
      result[s].push_back(std::move(costs));
    }
  }
  return result;
}

// Who would have to be able to, where it might help.
std::string Planner::StreamingAdvice() const {
  if (options_.offload == Offload::kHost || options_.offload == Offload::kOff)
    return ", or let layers be streamed from drives: --offload auto";
  for (const WorkerInventory& worker : workers_) {
    if (worker.drive_bytes_per_second == 0)
      return absl::StrCat(", or let worker ", worker.name,
                          " stream layers from a drive: give it a --shard-cache (in a plan: drive=)");
  }
  return "";
}

int32_t Planner::ContextBlocks() const {
  return (options_.context_tokens + kKvBlockTokens - 1) / kKvBlockTokens;
}

// -- The plan's figures

void Planner::FillWorkers(const std::vector<std::vector<size_t>>& stages, Plan* plan) const {
  const size_t count = stages.size();
  for (size_t s = 0; s < count; ++s) {
    const StageLayout& stage = plan->layout.stages[s];
    const bool last = s + 1 == count;
    for (size_t r = 0; r < stages[s].size(); ++r) {
      const int rank = static_cast<int>(r);
      PlannedWorker worker{.inventory = stages[s][r], .stage = static_cast<int>(s), .rank = rank};
      worker.keeps =
          HoldsPart(workers_[worker.inventory], options_.quantize, plan->layout, worker.stage, rank);
      worker.weight_bytes = sizes_.Weights(workers_[worker.inventory], stage, rank, {s == 0, last});
      worker.resident_bytes = worker.weight_bytes;
      worker.activation_bytes = sizes_.Activations(workers_[worker.inventory], stage, rank, last);
      worker.kv_block_bytes = sizes_.Kv(workers_[worker.inventory], stage, rank);
      worker.bytes_read_per_token =
          BytesReadPerToken(config_, formats_, options_.quantize, stage, rank, last);
      worker.read_seconds =
          static_cast<double>(worker.bytes_read_per_token) / workers_[worker.inventory].read_bytes_per_second;
      if (const double rate = ArithmeticRate(workers_[worker.inventory]); rate > 0)
        worker.arithmetic_seconds =
            static_cast<double>(OperationsPerToken(config_, stage, rank, last)) / rate;
      plan->workers.push_back(worker);
    }
  }
}

// Of each host and GPU alone, GPUs first, which may ask for memory of their hosts. What it streams leaves
// room for one whole context, and for as many as are asked for unless they take more than a quarter of its
// memory: every sequence more makes the same reading worth more.
void Planner::StreamWhatDoesNotFit(Plan* plan) const {
  for (const MemoryPool& pool : pools_) {
    if (pool.gpu) StreamWhatDoesNotFit(pool, plan);
  }
  PreferHosts(workers_, pools_, ContextBlocks(), plan);
  for (const MemoryPool& pool : pools_) {
    if (!pool.gpu) StreamWhatDoesNotFit(pool, plan);
  }
}

void Planner::StreamWhatDoesNotFit(const MemoryPool& pool, Plan* plan) const {
  if (pool.StreamBytesPerSecond(0) == 0) return;
  std::vector<OffloadCandidate> candidates;
  int64_t block = 0;
  for (PlannedWorker& worker : plan->workers) {
    if (&pools_[pool_of_[worker.inventory]] != &pool) continue;
    OffloadCandidate& candidate = candidates.emplace_back();
    candidate.worker = &worker;
    const StageLayout& stage = plan->layout.stages[worker.stage];
    for (int64_t layer = stage.layers.begin; layer < stage.layers.end; ++layer) {
      candidate.layer_bytes.push_back(LayerImageBytes(config_, formats_, options_.quantize,
                                                      stage.ranks[worker.rank], static_cast<int32_t>(layer),
                                                      workers_[worker.inventory].gpu.has_value()));
    }
    const StageEnds ends = {worker.stage == 0,
                            worker.stage + 1 == static_cast<int>(plan->layout.stages.size())};
    const auto bytes_of_ends = pool.gpu ? GpuBytesOfEnds : BytesOfEnds;
    candidate.ends = bytes_of_ends(config_, formats_, options_.quantize, stage, worker.rank, ends);
    block += worker.kv_block_bytes;
  }
  if (candidates.empty()) return;
  const int64_t usable =
      pool.usable_bytes - pool.process_bytes - (pool.gpu ? 0 : HostBytes(workers_, pool, *plan));
  if (!StreamToFit(candidates, usable, ContextBlocks())) return;  // which is told
  const bool streams =
      std::any_of(candidates.begin(), candidates.end(),
                  [](const OffloadCandidate& candidate) { return candidate.worker->streamed_bytes > 0; });
  int64_t wanted =
      std::min<int64_t>({options_.kv_blocks_max, int64_t{options_.plan_for_batch} * ContextBlocks(),
                         usable / kKvShareOfStreaming / std::max<int64_t>(1, block)});
  while (streams && wanted > ContextBlocks() && !StreamToFit(candidates, usable, wanted)) wanted /= 2;
  if (pool.gpu) ChooseHomes(pool, candidates);
}

// As many blocks as the tightest memory holds. False if that is less than one whole context, or if a host has
// no room for the processes of its GPUs.
bool Planner::FillKv(Plan* plan) const {
  std::vector<int64_t> fixed(pools_.size(), 0), block(pools_.size(), 0);
  for (size_t pool = 0; pool < pools_.size(); ++pool)
    fixed[pool] =
        pools_[pool].process_bytes + (pools_[pool].gpu ? 0 : HostBytes(workers_, pools_[pool], *plan));
  std::vector<int> used(pools_.size(), 0);
  for (const PlannedWorker& worker : plan->workers) {
    const size_t pool = pool_of_[worker.inventory];
    fixed[pool] += worker.resident_bytes + worker.activation_bytes;
    block[pool] += worker.kv_block_bytes;
    ++used[pool];
  }
  bool fits = true;
  int64_t blocks = std::max(options_.kv_blocks_max, ContextBlocks());
  plan->kv_bound_by = "the limit of KV blocks";
  for (size_t pool = 0; pool < pools_.size(); ++pool) {
    const int64_t room = pools_[pool].usable_bytes - fixed[pool];
    if (room < 0) fits = false;
    if (pools_[pool].gpu && used[pool] > 1) {
      plan->warnings.push_back(
          absl::StrFormat("%d workers share the memory and the speed of %s: one a card is faster", used[pool],
                          pools_[pool].name));
    }
    if (block[pool] == 0 || std::max<int64_t>(0, room) / block[pool] >= blocks) continue;
    blocks = std::max<int64_t>(0, room) / block[pool];
    plan->kv_bound_by = "the memory of " + pools_[pool].name;
  }
  plan->kv_blocks = static_cast<int32_t>(blocks);
  for (PlannedWorker& worker : plan->workers) worker.kv_bytes = plan->kv_blocks * worker.kv_block_bytes;
  return fits && plan->kv_blocks >= ContextBlocks();
}

double Planner::ArithmeticRate(const WorkerInventory& worker) const {
  const TensorKey key{.role = TensorRole::kQuery};
  const TensorFormat format = PackedFormat(key, formats_.FormatOf(key), options_.quantize);
  if (IsQuantized(format.format)) return worker.arithmetic.int8;
  // Of a GPU the products of bf16 are measured.
  return worker.arithmetic.floats / (worker.gpu ? GpuLimbProducts(format.format) : 1);
}

}  // namespace

absl::StatusOr<Plan> MakePlan(const ModelConfig& config, const TensorFormats& formats,
                              absl::Span<const WorkerInventory> workers, const PlannerOptions& options) {
  if (options.step_tokens == kStepTokensAuto) return MakeBalancedPlan(config, formats, workers, options);
  return Planner(config, formats, workers, options).Make();
}

}  // namespace bellwether
