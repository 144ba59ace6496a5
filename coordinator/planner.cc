#include "coordinator/planner.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/check.h"
#include "common/defaults.h"
#include "common/status.h"
#include "common/step.h"
#include "coordinator/held_layout.h"
#include "coordinator/layer_split.h"
#include "coordinator/plan_report.h"
#include "model/row_limits.h"

namespace bellwether {
namespace {

constexpr int64_t kProcessBytes = int64_t{48} << 20;  // code, connections and buffers of a worker
constexpr int kAllReducesPerLayer = 2;
// Predictions rest on a short measurement: less than this is not worth loading the weights again.
constexpr double kGainToMove = 1.1;

class Planner {
 public:
  Planner(const ModelConfig& config, const TensorFormats& formats, absl::Span<const WorkerInventory> workers,
          const PlannerOptions& options)
      : config_(config), formats_(formats), workers_(workers), options_(options) {}

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
  };

  absl::Status CheckWorkers() const;
  absl::StatusOr<std::string> KernelLevel() const;
  void FindHosts();
  absl::StatusOr<Plan> PlanAnew(const std::vector<int>& sizes) const;
  // Null if nothing is held, or it is not what the options ask for.
  const Layout* HeldLayout(const std::vector<int>& sizes) const;
  absl::StatusOr<Plan> Complete(Layout layout, const std::vector<std::vector<size_t>>& stages) const;
  absl::StatusOr<std::vector<int>> StageSizes() const;
  std::vector<int> SizesByHost() const;
  absl::StatusOr<std::vector<std::vector<size_t>>> AssignWorkers(const std::vector<int>& sizes) const;
  absl::StatusOr<Layout> ChooseLayout(const std::vector<std::vector<size_t>>& stages) const;
  std::vector<std::vector<RankCosts>> StageCosts(const std::vector<std::vector<size_t>>& stages,
                                                 const Layout& layout) const;
  double AllReduceSeconds(const std::vector<size_t>& stage) const;
  int64_t ActivationBytes(bool last_stage) const;
  int32_t ContextBlocks() const;
  void FillWorkers(const std::vector<std::vector<size_t>>& stages, Plan* plan) const;
  bool FillKv(Plan* plan) const;
  void Predict(const std::vector<std::vector<size_t>>& stages, Plan* plan) const;

  const ModelConfig& config_;
  const TensorFormats& formats_;
  const absl::Span<const WorkerInventory> workers_;
  const PlannerOptions& options_;
  NumericOptions numeric_;
  std::vector<PlanHost> hosts_;  // in order of their first worker
  std::vector<size_t> host_of_;  // by worker
};

absl::StatusOr<Plan> Planner::Make() {
  BW_RETURN_IF_ERROR(CheckWorkers());
  BW_ASSIGN_OR_RETURN(numeric_.kernel_level, KernelLevel());
  numeric_.quantize = options_.quantize;
  numeric_.kv_type = options_.kv_type;
  FindHosts();
  BW_ASSIGN_OR_RETURN(const std::vector<int> sizes, StageSizes());
  absl::StatusOr<Plan> anew = PlanAnew(sizes);
  const Layout* layout = HeldLayout(sizes);
  if (layout == nullptr) return anew;
  absl::StatusOr<Plan> held = Complete(*layout, AssignHolders(workers_, options_.quantize, *layout));
  if (!held.ok()) return anew;
  const bool moves =
      anew.ok() && anew->pipeline_tokens_per_second >= kGainToMove * held->pipeline_tokens_per_second;
  return moves ? std::move(anew) : std::move(held);
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
  const int places = std::accumulate(sizes.begin(), sizes.end(), 0);
  if (layout->workers() != places || static_cast<size_t>(places) > workers_.size()) return nullptr;
  if (options_.layout) return *layout == *options_.layout ? layout : nullptr;
  if (options_.stages > 0 && static_cast<int>(layout->stages.size()) != options_.stages) return nullptr;
  for (const StageLayout& stage : layout->stages) {
    if (options_.ranks > 0 && static_cast<int>(stage.ranks.size()) != options_.ranks) return nullptr;
  }
  return layout;
}

absl::StatusOr<Plan> Planner::Complete(Layout layout, const std::vector<std::vector<size_t>>& stages) const {
  Plan plan{.layout = std::move(layout), .numeric = numeric_};
  FillWorkers(stages, &plan);
  const bool fits = FillKv(&plan);
  Predict(stages, &plan);
  plan.arithmetic = PlanArithmetic(plan, workers_, hosts_, ContextBlocks());
  if (!fits) {
    return absl::FailedPreconditionError(
        absl::StrFormat("the model does not fit. Add memory or workers, shorten the context of %d tokens, or "
                        "use --quantize.\n%s",
                        options_.context_tokens, plan.arithmetic));
  }
  return plan;
}

absl::Status Planner::CheckWorkers() const {
  if (workers_.empty()) return absl::FailedPreconditionError("there are no workers");
  for (const WorkerInventory& worker : workers_) {
    if (!(worker.read_bytes_per_second > 0) || worker.memory_bytes < 0) {
      return absl::FailedPreconditionError(
          absl::StrFormat("worker %s reports %d bytes of memory and reads %g bytes/s", worker.name,
                          worker.memory_bytes, worker.read_bytes_per_second));
    }
  }
  return absl::OkStatus();
}

// The highest level that all have, or the one that was asked for.
absl::StatusOr<std::string> Planner::KernelLevel() const {
  const auto lacking = [this](const std::string& level) -> const WorkerInventory* {
    for (const WorkerInventory& worker : workers_) {
      const std::vector<std::string>& levels = worker.kernel_levels;
      if (std::find(levels.begin(), levels.end(), level) == levels.end()) return &worker;
    }
    return nullptr;
  };
  if (!options_.kernel_level.empty()) {
    const WorkerInventory* worker = lacking(options_.kernel_level);
    if (worker == nullptr) return options_.kernel_level;
    return absl::FailedPreconditionError(
        absl::StrFormat("worker %s cannot run kernel level %s", worker->name, options_.kernel_level));
  }
  const std::vector<std::string>& levels = workers_[0].kernel_levels;
  for (auto level = levels.rbegin(); level != levels.rend(); ++level) {
    if (lacking(*level) == nullptr) return *level;
  }
  return absl::FailedPreconditionError("the workers share no kernel level");
}

void Planner::FindHosts() {
  for (size_t i = 0; i < workers_.size(); ++i) {
    const WorkerInventory& worker = workers_[i];
    auto host = std::find_if(hosts_.begin(), hosts_.end(),
                             [&worker](const PlanHost& known) { return known.name == worker.host; });
    if (host == hosts_.end()) host = hosts_.insert(host, PlanHost{worker.host, worker.memory_bytes});
    host->memory_bytes = std::min(host->memory_bytes, worker.memory_bytes);
    host->usable_bytes =
        static_cast<int64_t>(static_cast<double>(host->memory_bytes) * options_.memory_share);
    host->workers.push_back(i);
    host_of_.push_back(host - hosts_.begin());
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
    return absl::InvalidArgumentError(absl::StrFormat(
        "%d tensor-parallel ranks and %d stages asked for: this model takes 1-%d ranks and 1-%d stages",
        options_.ranks, options_.stages, slices, config_.layers));
  }
  if (options_.ranks > 0) {
    int stages = options_.stages;
    if (stages == 0) {
      for (const PlanHost& host : hosts_) stages += static_cast<int>(host.workers.size()) / options_.ranks;
      stages = std::clamp<int>(stages, 1, config_.layers);
    }
    return std::vector<int>(stages, options_.ranks);
  }
  std::vector<int> sizes = SizesByHost();
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

// One stage a host; several where it has more workers than the model has slices.
std::vector<int> Planner::SizesByHost() const {
  const int slices = SliceCount(config_);
  std::vector<int> sizes;
  for (const PlanHost& host : hosts_) {
    const int count = static_cast<int>(host.workers.size());
    const int stages = (count + slices - 1) / slices;
    for (int i = 0; i < stages; ++i) sizes.push_back(count * (i + 1) / stages - count * i / stages);
  }
  return sizes;
}

// A stage takes its workers from the first host that has enough of them left, else from several.
absl::StatusOr<std::vector<std::vector<size_t>>> Planner::AssignWorkers(const std::vector<int>& sizes) const {
  size_t needed = 0;
  for (const int size : sizes) needed += size;
  if (needed > workers_.size()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("the layout needs %d workers, %d are here", needed, workers_.size()));
  }
  std::vector<size_t> taken(hosts_.size(), 0);
  std::vector<std::vector<size_t>> stages;
  for (const size_t size : sizes) {
    std::vector<size_t> stage;
    const auto take = [&](size_t host, size_t count) {
      for (size_t i = 0; i < count; ++i) stage.push_back(hosts_[host].workers[taken[host]++]);
    };
    const auto left = [&](size_t host) { return hosts_[host].workers.size() - taken[host]; };
    for (size_t host = 0; host < hosts_.size() && stage.empty(); ++host) {
      if (left(host) >= size) take(host, size);
    }
    for (size_t host = 0; host < hosts_.size(); ++host) {
      take(host, std::min(left(host), size - stage.size()));
    }
    stages.push_back(std::move(stage));
  }
  return stages;
}

// Layers
// ------------------------------------------------------------------------------------------------------------

absl::StatusOr<Layout> Planner::ChooseLayout(const std::vector<std::vector<size_t>>& stages) const {
  const int count = static_cast<int>(stages.size());
  Layout layout;
  for (int i = 0; i < count; ++i) {
    const int ranks = static_cast<int>(stages[i].size());
    layout.stages.push_back(
        {{}, EvenRanks(config_, ranks, /*first_stage=*/i == 0, /*last_stage=*/i == count - 1)});
  }
  const std::vector<std::vector<RankCosts>> costs = StageCosts(stages, layout);
  std::vector<int> workers_used(hosts_.size(), 0);
  for (const std::vector<size_t>& stage : stages) {
    for (const size_t worker : stage) ++workers_used[host_of_[worker]];
  }
  // Memory of a host that serves several stages is first shared out by workers, then left to whoever needs it
  // (the sum is checked at the end), and at last not looked at: then the refusal shows by how much it does
  // not fit.
  enum class Memory { kShared, kWhole, kIgnored };
  for (const Memory memory : {Memory::kShared, Memory::kWhole, Memory::kIgnored}) {
    const auto time = [&](int stage, Range layers) -> std::optional<double> {
      double slowest = 0;
      std::vector<int64_t> needed(hosts_.size(), 0);
      std::vector<int64_t> present(hosts_.size(), 0);
      for (const RankCosts& rank : costs[stage]) {
        const int64_t read = rank.fixed_read + rank.read[layers.end] - rank.read[layers.begin];
        slowest = std::max(slowest, static_cast<double>(read) / workers_[rank.worker].read_bytes_per_second);
        const size_t host = host_of_[rank.worker];
        needed[host] += rank.fixed_weights + rank.weights[layers.end] - rank.weights[layers.begin] +
                        ActivationBytes(stage == count - 1) +
                        ContextBlocks() * rank.kv_block_per_layer * layers.size();
        ++present[host];
      }
      for (size_t host = 0; host < hosts_.size() && memory != Memory::kIgnored; ++host) {
        if (present[host] == 0) continue;
        const int64_t usable = hosts_[host].usable_bytes;
        const int64_t share = usable / workers_used[host] * present[host];
        if (needed[host] > (memory == Memory::kShared ? share : usable)) return std::nullopt;
      }
      return slowest +
             static_cast<double>(layers.size()) * kAllReducesPerLayer * AllReduceSeconds(stages[stage]);
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
      costs.fixed_weights = ShardBytes(config_, formats_, options_.quantize, stage, rank, {first, last});
      costs.fixed_read = BytesReadPerToken(config_, formats_, options_.quantize, stage, rank, last);
      for (int layer = 0; layer < config_.layers; ++layer) {
        stage.layers = {layer, layer + 1};
        const int64_t weights = ShardBytes(config_, formats_, options_.quantize, stage, rank, {first, last});
        const int64_t read = BytesReadPerToken(config_, formats_, options_.quantize, stage, rank, last);
        costs.weights.push_back(costs.weights.back() + weights - costs.fixed_weights);
        costs.read.push_back(costs.read.back() + read - costs.fixed_read);
      }
      costs.kv_block_per_layer = KvBlockBytes(config_, options_.kv_type, stage, rank);
      result[s].push_back(std::move(costs));
    }
  }
  return result;
}

double Planner::AllReduceSeconds(const std::vector<size_t>& stage) const {
  if (stage.size() == 1) return 0;
  for (const size_t worker : stage) {
    if (host_of_[worker] != host_of_[stage[0]]) return options_.remote_all_reduce_seconds;
  }
  return options_.all_reduce_seconds;
}

// fp32 buffers: the residual of a whole step, and what a layer (worker/decoder/decoder_layer.h) and the
// logits take beside it. Counted as if no width were split: so there is room for the partial sums of an even
// split.
int64_t Planner::ActivationBytes(bool last_stage) const {
  const int64_t attention = (int64_t{config_.heads} + 2 * config_.kv_heads) * config_.head_dim;
  const int64_t widest = std::max({attention, int64_t{config_.ffn}, int64_t{config_.hidden}});
  const int64_t layer_rows = std::min<int64_t>(options_.step_tokens, kLayerRowsMax);
  const int64_t layer = layer_rows * (config_.hidden + 3 * widest);  // one of them prepared for a product
  const int64_t logits = last_stage ? int64_t{kLogitRowsMax} * config_.vocab : 0;
  return kProcessBytes + 4 * (int64_t{options_.step_tokens} * config_.hidden + layer + logits);
}

int32_t Planner::ContextBlocks() const {
  return (options_.context_tokens + kKvBlockTokens - 1) / kKvBlockTokens;
}

// The plan's figures
// --------------------------------------------------------------------------------------------------

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
      worker.weight_bytes = ShardBytes(config_, formats_, options_.quantize, stage, rank, {s == 0, last});
      worker.activation_bytes = ActivationBytes(last);
      worker.kv_block_bytes = KvBlockBytes(config_, options_.kv_type, stage, rank);
      worker.bytes_read_per_token =
          BytesReadPerToken(config_, formats_, options_.quantize, stage, rank, last);
      worker.read_seconds =
          static_cast<double>(worker.bytes_read_per_token) / workers_[worker.inventory].read_bytes_per_second;
      plan->workers.push_back(worker);
    }
  }
}

// As many blocks as the tightest host holds. False if that is less than one whole context.
bool Planner::FillKv(Plan* plan) const {
  std::vector<int64_t> fixed(hosts_.size(), 0), block(hosts_.size(), 0);
  for (const PlannedWorker& worker : plan->workers) {
    const size_t host = host_of_[worker.inventory];
    fixed[host] += worker.weight_bytes + worker.activation_bytes;
    block[host] += worker.kv_block_bytes;
  }
  int64_t blocks = std::max(options_.kv_blocks_max, ContextBlocks());
  for (size_t host = 0; host < hosts_.size(); ++host) {
    if (block[host] == 0) continue;
    blocks = std::min(blocks, std::max<int64_t>(0, hosts_[host].usable_bytes - fixed[host]) / block[host]);
  }
  plan->kv_blocks = static_cast<int32_t>(blocks);
  for (PlannedWorker& worker : plan->workers) worker.kv_bytes = plan->kv_blocks * worker.kv_block_bytes;
  return plan->kv_blocks >= ContextBlocks();
}

void Planner::Predict(const std::vector<std::vector<size_t>>& stages, Plan* plan) const {
  double read_sum = 0, slowest_read = 0, all_reads = 0;
  double latency = options_.step_seconds, slowest_stage = 0;
  const PlannedWorker* slowest = nullptr;
  auto worker = plan->workers.begin();
  for (size_t s = 0; s < stages.size(); ++s) {
    double read = 0;
    for (size_t r = 0; r < stages[s].size(); ++r, ++worker) {
      read = std::max(read, worker->read_seconds);
      all_reads += worker->read_seconds;
      if (slowest == nullptr || worker->read_seconds > slowest->read_seconds) slowest = &*worker;
    }
    const auto layers = static_cast<double>(plan->layout.stages[s].layers.size());
    double links = layers * kAllReducesPerLayer * AllReduceSeconds(stages[s]);
    if (s > 0) {
      const bool remote = host_of_[stages[s][0]] != host_of_[stages[s - 1][0]];
      links += remote ? options_.remote_hop_seconds : options_.hop_seconds;
    }
    read_sum += read;
    latency += links;
    slowest_stage = std::max(slowest_stage, read + links);
  }
  slowest_read = slowest->read_seconds;
  plan->decode_tokens_per_second = 1 / (read_sum + latency);
  plan->pipeline_tokens_per_second = stages.size() == 1 ? plan->decode_tokens_per_second
                                                        : 1 / std::max(slowest_stage, options_.step_seconds);
  plan->bound_by =
      latency > read_sum ? "link latency" : "memory bandwidth of worker " + workers_[slowest->inventory].name;
  plan->imbalance = slowest_read * static_cast<double>(plan->workers.size()) / all_reads;
}

}  // namespace

absl::StatusOr<int32_t> ContextTokens(const ModelConfig& config, int32_t wanted) {
  if (wanted == 0) wanted = std::min(kDefaultContextTokens, config.max_positions);
  if (wanted > config.max_positions && !config.alibi) {
    return absl::InvalidArgumentError(absl::StrCat(
        "context-tokens is ", wanted, ", the model knows positions up to ", config.max_positions));
  }
  if (wanted < 2) return absl::InvalidArgumentError("context-tokens must be 2 or more");
  return wanted;
}

absl::StatusOr<Plan> MakePlan(const ModelConfig& config, const TensorFormats& formats,
                              absl::Span<const WorkerInventory> workers, const PlannerOptions& options) {
  return Planner(config, formats, workers, options).Make();
}

}  // namespace bellwether
