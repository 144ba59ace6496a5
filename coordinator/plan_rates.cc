#include "coordinator/plan_rates.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace bellwether {
namespace {

struct StageTime {
  std::vector<size_t> ranks;  // indices of workers
  double work = 0;            // of its slowest rank
  double memory = 0;          // what reading from memory takes of that
  double drive = 0;           // what reading from the drive takes
  double links = 0;           // all-reduces, and the way from the stage before
};

bool AreOnOneHost(absl::Span<const WorkerInventory> workers, absl::Span<const size_t> ranks) {
  return std::all_of(ranks.begin(), ranks.end(),
                     [&](size_t worker) { return workers[worker].host == workers[ranks[0]].host; });
}

// Of a step of so many tokens. Within a host only latency counts, between hosts the rows too.
double LinkSeconds(absl::Span<const WorkerInventory> workers, const PlannerOptions& options, const Plan& plan,
                   const std::vector<StageTime>& stages, size_t stage, int32_t tokens) {
  const double rows = 4.0 * tokens * plan.hidden / options.remote_bytes_per_second;
  const std::vector<size_t>& ranks = stages[stage].ranks;
  const auto layers = static_cast<double>(plan.layout.stages[stage].layers.size());
  const double sum = AllReduceSeconds(workers, options, ranks) + (AreOnOneHost(workers, ranks) ? 0 : rows);
  const double sums = layers * kAllReducesPerLayer * sum;
  if (stage == 0) return sums;
  const auto host = [&](size_t it) { return workers[stages[it].ranks[0]].host; };
  return sums + (host(stage) == host(stage - 1) ? options.hop_seconds : options.remote_hop_seconds + rows);
}

// Of steps of so many tokens.
std::vector<StageTime> StageTimes(absl::Span<const WorkerInventory> workers, const PlannerOptions& options,
                                  const Plan& plan, int32_t tokens) {
  std::vector<StageTime> stages(plan.layout.stages.size());
  for (const PlannedWorker& worker : plan.workers) {
    StageTime& stage = stages[worker.stage];
    stage.ranks.push_back(worker.inventory);
    stage.work = std::max(stage.work, worker.step_seconds(tokens));
    stage.memory = std::max(stage.memory, worker.read_seconds);
    stage.drive = std::max(stage.drive, worker.drive_seconds);
  }
  for (size_t s = 0; s < stages.size(); ++s)
    stages[s].links = LinkSeconds(workers, options, plan, stages, s, tokens);
  return stages;
}

double SumOf(const std::vector<StageTime>& stages, double StageTime::*part) {
  return std::accumulate(stages.begin(), stages.end(), 0.0,
                         [part](double sum, const StageTime& stage) { return sum + stage.*part; });
}

// A pipeline that is full is as fast as this one.
double SlowestStage(const std::vector<StageTime>& stages) {
  double slowest = 0;
  for (const StageTime& stage : stages) slowest = std::max(slowest, stage.work + stage.links);
  return slowest;
}

// By stage.
std::vector<double> WorkSeconds(const Plan& plan, int32_t tokens) {
  std::vector<double> seconds(plan.layout.stages.size(), 0);
  for (const PlannedWorker& worker : plan.workers)
    seconds[worker.stage] = std::max(seconds[worker.stage], worker.step_seconds(tokens));
  return seconds;
}

const PlannedWorker& SlowestWorker(const Plan& plan, int32_t tokens) {
  return *std::max_element(plan.workers.begin(), plan.workers.end(),
                           [tokens](const PlannedWorker& a, const PlannedWorker& b) {
                             return a.step_seconds(tokens) < b.step_seconds(tokens);
                           });
}

std::string BoundBy(absl::Span<const WorkerInventory> workers, const Plan& plan, int32_t tokens, double work,
                    double latency) {
  if (latency > work) return "link latency";
  const PlannedWorker& worker = SlowestWorker(plan, tokens);
  const char* what = worker.drive_seconds <= worker.read_seconds ? "memory bandwidth of worker "
                     : worker.stream_home == WeightHome::kHost ? "the way from its host to the GPU of worker "
                                                               : "the drive of worker ";
  if (worker.step_seconds(tokens) > std::max(worker.read_seconds, worker.drive_seconds))
    what = "arithmetic of worker ";
  return absl::StrCat(what, workers[worker.inventory].name);
}

}  // namespace

// A pipeline that is kept full has a part of the sequences in each stage.
BatchRate PredictBatch(absl::Span<const WorkerInventory> workers, const PlannerOptions& options,
                       const Plan& plan, int32_t sequences) {
  const int32_t parts = std::min(sequences, plan.StepsInFlight());
  const int32_t tokens = (sequences + parts - 1) / parts;
  const std::vector<StageTime> stages = StageTimes(workers, options, plan, tokens);
  const double work = SumOf(stages, &StageTime::work);
  const double latency = options.step_seconds + SumOf(stages, &StageTime::links);
  const double seconds = std::max(work + latency, parts * SlowestStage(stages));
  return {.sequences = sequences,
          .tokens_per_second = sequences / seconds,
          .bound_by = BoundBy(workers, plan, tokens, work, latency)};
}

double AllReduceSeconds(absl::Span<const WorkerInventory> workers, const PlannerOptions& options,
                        absl::Span<const size_t> ranks) {
  if (ranks.size() == 1) return 0;
  return AreOnOneHost(workers, ranks) ? options.all_reduce_seconds : options.remote_all_reduce_seconds;
}

double StepSeconds(const Plan& plan, int32_t tokens) {
  const std::vector<double> work = WorkSeconds(plan, tokens);
  return plan.turn_seconds + std::accumulate(work.begin(), work.end(), 0.0) +
         std::accumulate(plan.link_seconds.begin(), plan.link_seconds.end(), 0.0);
}

double StepSecondsBehind(const Plan& plan, int32_t tokens) {
  const std::vector<double> work = WorkSeconds(plan, tokens);
  double slowest = 0;
  for (size_t stage = 0; stage < work.size(); ++stage)
    slowest = std::max(slowest, work[stage] + plan.link_seconds[stage]);
  return slowest;
}

void PredictRates(absl::Span<const WorkerInventory> workers, const PlannerOptions& options, Plan* plan) {
  const std::vector<StageTime> stages = StageTimes(workers, options, *plan, /*tokens=*/1);
  plan->drive_seconds = SumOf(stages, &StageTime::drive);
  plan->drive_bound = std::any_of(stages.begin(), stages.end(),
                                  [](const StageTime& stage) { return stage.drive > stage.memory; });
  plan->link_seconds.clear();
  for (const StageTime& stage : stages) plan->link_seconds.push_back(stage.links);
  plan->turn_seconds = options.step_seconds;
  const double work = SumOf(stages, &StageTime::work);
  const double latency = options.step_seconds + SumOf(stages, &StageTime::links);
  plan->decode_tokens_per_second = 1 / (work + latency);
  plan->token_seconds = SumOf(stages, &StageTime::memory) + latency;
  plan->pipeline_tokens_per_second = stages.size() == 1
                                         ? plan->decode_tokens_per_second
                                         : 1 / std::max(SlowestStage(stages), options.step_seconds);
  plan->bound_by = BoundBy(workers, *plan, /*tokens=*/1, work, latency);
  const double all =
      std::accumulate(plan->workers.begin(), plan->workers.end(), 0.0,
                      [](double sum, const PlannedWorker& worker) { return sum + worker.step_seconds(); });
  plan->imbalance = SlowestWorker(*plan, 1).step_seconds() * static_cast<double>(plan->workers.size()) / all;
  const bool known = std::all_of(plan->workers.begin(), plan->workers.end(),
                                 [](const PlannedWorker& worker) { return worker.arithmetic_seconds > 0; });
  if (!known) return;
  for (const int32_t sequences : kPlannedBatches)
    plan->batch_rates.push_back(PredictBatch(workers, options, *plan, sequences));
}

}  // namespace bellwether
