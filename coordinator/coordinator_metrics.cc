#include "coordinator/coordinator_metrics.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/cluster_view.h"
#include "metrics/process_samples.h"
#include "model/layout_text.h"
#include "model/option_names.h"

namespace bellwether {
namespace {

absl::string_view CauseOf(EpochEnd why) {
  switch (why) {
    case EpochEnd::kWorkerLost:
      return "worker_lost";
    case EpochEnd::kWorkerStuck:
      return "worker_stuck";
    case EpochEnd::kWorkerFailed:
      return "worker_failed";
    case EpochEnd::kWorkerLeft:
      return "worker_left";
    case EpochEnd::kWorkerJoined:
      return "worker_joined";
    case EpochEnd::kBadResult:
      return "bad_result";
  }
  return "worker_failed";
}

absl::string_view StateOf(WorkerState state) {
  switch (state) {
    case WorkerState::kJoined:
      return "joined";
    case WorkerState::kLoading:
      return "loading";
    case WorkerState::kLinking:
      return "linking";
    case WorkerState::kReady:
      return "ready";
    case WorkerState::kStep:
      return "step";
  }
  return "joined";
}

std::string ToText(std::string_view text) { return std::string(text); }

std::string DeviceOf(const WorkerInventory& worker) { return worker.gpu ? worker.gpu->name : "cpu"; }

// What reading the weights alone allows: a sequence goes through the stages one after the other, and many are
// as fast as the slowest stage.
struct ReadTimes {
  double all = 0, slowest = 0;  // seconds
};
ReadTimes ReadTimesOf(const Plan& plan) {
  std::vector<double> stages(plan.layout.stages.size());
  for (const PlannedWorker& worker : plan.workers) {
    stages[worker.stage] = std::max(stages[worker.stage], worker.step_seconds());
  }
  ReadTimes times;
  for (const double seconds : stages) {
    times.all += seconds;
    times.slowest = std::max(times.slowest, seconds);
  }
  return times;
}

double PerSecond(double seconds) { return seconds > 0 ? 1 / seconds : 0; }

void AddPlan(const Plan& plan, MetricSamples& samples) {
  samples.Add(Metric::kPlanTokenRate, {"one_sequence"}, plan.decode_tokens_per_second);
  samples.Add(Metric::kPlanTokenRate, {"one_sequence_per_stage"}, plan.pipeline_tokens_per_second);
  for (const BatchRate& rate : plan.batch_rates)
    samples.Add(Metric::kPlanTokenRate, {absl::StrCat(rate.sequences)}, rate.tokens_per_second);
  const ReadTimes read = ReadTimesOf(plan);
  samples.Add(Metric::kPlanTokenRateLimit, {"one_sequence"}, PerSecond(read.all));
  samples.Add(Metric::kPlanTokenRateLimit, {"one_sequence_per_stage"}, PerSecond(read.slowest));
  samples.Add(Metric::kPlanImbalance, plan.imbalance);
  samples.Add(
      Metric::kLayoutInfo,
      {Describe(plan.layout), absl::StrCat(plan.layout.stages.size()), absl::StrCat(plan.workers.size()),
       plan.KernelLevelText(), ToText(Name(plan.quantize)), ToText(Name(plan.kv_type))},
      1);
}

void AddMembers(const ClusterSnapshot& cluster, MetricSamples& samples) {
  const ClusterLayout& layout = *cluster.layout;
  double cores = 0;
  std::set<std::string> gpus;
  for (size_t i = 0; i < layout.members.size(); ++i) {
    const ClusterLayout::Member& member = layout.members[i];
    const WorkerInventory& worker = member.worker.inventory;
    const std::string stage = absl::StrCat(member.stage), rank = absl::StrCat(member.rank);
    const Range& layers = layout.plan.layout.stages[member.stage].layers;
    samples.Add(Metric::kRankInfo,
                {stage, rank, worker.name, worker.host, DeviceOf(worker),
                 layout.plan.kernel_levels[member.stage], absl::StrCat(layers.begin, "-", layers.end - 1)},
                1);
    samples.Add(Metric::kPlanStepReadTime, {stage, rank, worker.name}, layout.plan.workers[i].read_seconds);
    samples.Add(Metric::kPlanStepDriveTime, {stage, rank, worker.name}, layout.plan.workers[i].drive_seconds);
    samples.Add(Metric::kWaitedForTime, {stage, rank, worker.name}, cluster.waited_for[i]);
    if (worker.gpu) {
      gpus.insert(worker.gpu->uuid);
    } else {
      cores += worker.threads;
    }
  }
  samples.Add(Metric::kLayoutCores, cores);
  samples.Add(Metric::kLayoutGpus, static_cast<double>(gpus.size()));
}

void AddWorkers(const ClusterSnapshot& cluster, MetricSamples& samples) {
  for (const ClusterSnapshot::Worker& worker : cluster.workers) {
    samples.Add(Metric::kWorkerUp, {worker.name, worker.host}, 1);
    samples.Add(Metric::kWorkerHeartbeatAge, {worker.name, worker.host},
                absl::ToDoubleSeconds(worker.heartbeat_age));
    for (const absl::string_view state : LabelValuesOf(Metric::kWorkerState, "state")) {
      samples.Add(Metric::kWorkerState, {worker.name, state}, state == StateOf(worker.state) ? 1 : 0);
    }
  }
  for (const ClusterSnapshot::Worker& worker : cluster.missing) {
    samples.Add(Metric::kWorkerUp, {worker.name, worker.host}, 0);
  }
}

}  // namespace

CoordinatorMetrics::CoordinatorMetrics(Options options)
    : options_(std::move(options)),
      requests_(&metrics_, options_.model.name, options_.clock),
      step_duration_(metrics_.Histogram(Metric::kStepDuration, {options_.model.name})),
      step_tokens_(metrics_.Histogram(Metric::kStepTokens, {options_.model.name})),
      step_busy_(metrics_.Counter(Metric::kStepBusyTime, {options_.model.name})),
      step_planned_(metrics_.Counter(Metric::kStepPlannedTime, {options_.model.name})) {
  metrics_.AddSource([this](MetricSamples& samples) {
    AddEngine(samples);
    AddCluster(samples);
    samples.Add(Metric::kBuildInfo, {"coordinator", options_.build_id}, 1);
    AddProcessSamples(samples);
  });
}

void CoordinatorMetrics::CountStep(const Step& step) { step_tokens_.Observe(step.tokens()); }

void CoordinatorMetrics::CountStepTime(const StepTime& time) {
  step_duration_.Observe(absl::ToDoubleSeconds(time.took));
  step_busy_.Add(absl::ToDoubleSeconds(time.busy));
  step_planned_.Add(absl::ToDoubleSeconds(time.planned));
}

void CoordinatorMetrics::AddEngine(MetricSamples& samples) const {
  const EngineSnapshot engine = options_.engine();
  const std::string& model = options_.model.name;
  const auto add = [&](Metric metric, auto value) {
    samples.Add(metric, {model}, static_cast<double>(value));
  };
  add(Metric::kRequestsRunning, engine.requests_running);
  add(Metric::kRequestsWaiting, engine.requests_waiting);
  add(Metric::kRequestsWaitingMax, options_.requests_waiting_max);
  add(Metric::kSequencesRunning, engine.sequences_running);
  add(Metric::kSequencesMax, options_.sequences_max);
  add(Metric::kRequestsAdmitted, engine.requests_admitted);
  add(Metric::kPreemptions, engine.preemptions);
  add(Metric::kPrefixCacheQueries, engine.prefix_tokens);
  add(Metric::kPrefixCacheHits, engine.prefix_tokens_cached);
  add(Metric::kInterruptions, engine.interruptions);
  add(Metric::kContextTokensMax, options_.context_tokens);
  const int32_t blocks = engine.serving ? engine.kv_blocks_total : 0;
  add(Metric::kKvBlocks, blocks);
  add(Metric::kKvBlocksUsed, engine.kv_blocks_used);
  add(Metric::kKvCacheUsage, engine.kv_blocks_used / std::max(1.0, static_cast<double>(blocks)));
  add(Metric::kStepsInFlight, engine.steps_in_flight);
  samples.Add(Metric::kCacheConfigInfo, {model, absl::StrCat(kKvBlockTokens), absl::StrCat(blocks)}, 1);
  samples.Add(Metric::kModelInfo,
              {model, options_.model.id, options_.model.architecture, options_.model.weights}, 1);
}

void CoordinatorMetrics::AddCluster(MetricSamples& samples) const {
  const std::shared_ptr<const ClusterSnapshot> cluster = options_.cluster();
  samples.Add(Metric::kServing, {options_.model.name},
              cluster->serving && !options_.engine().draining ? 1 : 0);
  samples.Add(Metric::kNotServingTime, absl::ToDoubleSeconds(cluster->not_serving));
  samples.Add(Metric::kEpoch, static_cast<double>(cluster->epoch.value));
  for (size_t i = 0; i < kEpochEnds; ++i) {
    samples.Add(Metric::kRegroups, {CauseOf(static_cast<EpochEnd>(i))},
                static_cast<double>(cluster->epochs_ended[i]));
  }
  samples.Add(Metric::kWorkersWanted, cluster->workers_wanted);
  samples.Add(Metric::kWorkersShort, cluster->workers_short);
  samples.Add(Metric::kWorkersJoined, static_cast<double>(cluster->workers.size()));
  AddWorkers(*cluster, samples);
  if (cluster->layout == nullptr) return;
  AddPlan(cluster->layout->plan, samples);
  AddMembers(*cluster, samples);
}

}  // namespace bellwether
