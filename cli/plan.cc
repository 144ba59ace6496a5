#include "cli/plan.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "common/defaults.h"
#include "common/format_bytes.h"
#include "common/json.h"
#include "common/log.h"
#include "common/output.h"
#include "common/parse_bytes.h"
#include "common/status.h"
#include "common/step_tokens.h"
#include "model/checkpoint/checkpoint.h"
#include "model/context_tokens.h"
#include "model/layout_text.h"
#include "model/option_names.h"
#include "model/shard_size.h"
#include "worker/inventory.h"
#include "worker/weights/drive_rate.h"
#include "worker/weights/shard_cache.h"

namespace bellwether {
namespace {

constexpr double kMeasureSeconds = 0.3;
constexpr double kGflopsMax = 1e6;
constexpr double kAssumedBandwidth = 20e9, kAssumedGpuBandwidth = 1e12;  // of workers described without one
constexpr double kAssumedCopyRate = 20e9;  // to a GPU described without one: PCIe 4, of its 16 lanes
constexpr char kAssumedGpuLevel[] = "cuda_sm90";
int64_t LoadedBytes(const Plan& plan) {
  int64_t bytes = 0;
  for (const PlannedWorker& worker : plan.workers) bytes += worker.weight_bytes;
  return bytes;
}

// The options' words; null if nothing is streamed.
Json StreamedFrom(const PlannedWorker& worker) {
  if (!worker.streams()) return nullptr;
  return worker.stream_home == WeightHome::kHost ? "host" : "nvme";
}

Json ToJson(const Plan& plan, const std::vector<WorkerInventory>& inventory, int64_t stored_bytes,
            const WhatMoreBuys& more) {
  Json json = Json::object({{"layout", Describe(plan.layout)},
                            {"kernel_level", plan.KernelLevelText()},
                            {"stored_bytes", stored_bytes},
                            {"loaded_bytes", LoadedBytes(plan)},
                            {"step_tokens", plan.step_tokens},
                            {"kv_blocks", plan.kv_blocks},
                            {"kv_bound_by", plan.kv_bound_by},
                            {"decode_tokens_per_second", plan.decode_tokens_per_second},
                            {"pipeline_tokens_per_second", plan.pipeline_tokens_per_second},
                            {"bound_by", plan.bound_by},
                            {"imbalance", plan.imbalance}});
  for (const BatchRate& rate : plan.batch_rates) {
    json["batches"].push_back(Json::object({{"sequences", rate.sequences},
                                            {"tokens_per_second_at_most", rate.tokens_per_second},
                                            {"bound_by", rate.bound_by}}));
  }
  for (const PlannedWorker& worker : plan.workers) {
    json["workers"].push_back(Json::object({{"name", inventory[worker.inventory].name},
                                            {"stage", worker.stage},
                                            {"rank", worker.rank},
                                            {"weight_bytes", worker.weight_bytes},
                                            {"resident_bytes", worker.resident_bytes},
                                            {"streamed_layers", worker.streamed_layers},
                                            {"streamed_embedding", worker.streamed_ends.embedding},
                                            {"streamed_head", worker.streamed_ends.head},
                                            {"streamed_bytes", worker.streamed_bytes},
                                            {"streamed_from", StreamedFrom(worker)},
                                            {"host_bytes", worker.host_bytes},
                                            {"drive_seconds", worker.drive_seconds},
                                            {"kv_bytes", worker.kv_bytes},
                                            {"activation_bytes", worker.activation_bytes},
                                            {"bytes_read_per_token", worker.bytes_read_per_token},
                                            {"read_seconds", worker.read_seconds}}));
  }
  if (more.memory) json["tokens_per_second_with_1gib_more"] = *more.memory;
  if (more.machine) json["tokens_per_second_with_a_machine_more"] = *more.machine;
  return json;
}

std::string ToText(const Plan& plan, int64_t stored_bytes, const WhatMoreBuys& more) {
  std::string text =
      absl::StrCat("weights: ", FormatBytes(static_cast<double>(stored_bytes)), " in files, ",
                   FormatBytes(static_cast<double>(LoadedBytes(plan))), " loaded\n", plan.arithmetic);
  const auto add = [&](std::string_view what, const std::optional<double>& tokens_per_second) {
    if (!tokens_per_second) return;
    absl::StrAppendFormat(&text, "\nwith %s: %.2f tokens/s, %.2f times as many", what, *tokens_per_second,
                          *tokens_per_second / plan.decode_tokens_per_second);
  };
  add("1 GiB more where weights are streamed", more.memory);
  add("one more host like the first", more.machine);
  return text;
}

std::optional<double> TokensPerSecond(const absl::StatusOr<Plan>& plan) {
  return plan.ok() ? std::optional(plan->decode_tokens_per_second) : std::nullopt;
}

}  // namespace

WhatMoreBuys PlanWithMore(const ModelConfig& config, const TensorFormats& formats,
                          const std::vector<WorkerInventory>& workers, const PlannerOptions& options,
                          const Plan& plan) {
  constexpr int64_t kGib = int64_t{1} << 30;
  absl::flat_hash_set<std::string> streaming;  // hosts
  for (const PlannedWorker& worker : plan.workers) {
    if (worker.streamed_bytes > 0) streaming.insert(workers[worker.inventory].host);
  }
  if (streaming.empty()) return {};
  std::vector<WorkerInventory> larger = workers, more = workers;
  for (WorkerInventory& worker : larger) {
    if (!streaming.contains(worker.host)) continue;
    (worker.gpu ? worker.gpu->free_bytes : worker.memory_bytes) += kGib;
  }
  for (const WorkerInventory& worker : workers) {
    if (worker.host != workers[0].host) continue;
    WorkerInventory& copy = more.emplace_back(worker);
    copy.host += ", again";
    copy.name += ", again";
    if (copy.gpu) copy.gpu->uuid += ", again";
  }
  WhatMoreBuys result{.memory = TokensPerSecond(MakePlan(config, formats, larger, options))};
  const bool free = options.ranks == 0 && options.stages == 0 && !options.layout;
  if (free) result.machine = TokensPerSecond(MakePlan(config, formats, more, options));
  return result;
}

absl::StatusOr<WorkerInventory> ParseWorker(const std::string& text, int index) {
  WorkerInventory worker{.name = absl::StrCat("worker-", index), .host = absl::StrCat("host-", index)};
  worker.kernel_levels = KernelLevelNames();
  double copy_rate = kAssumedCopyRate;
  for (absl::string_view field : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(field, absl::MaxSplits('=', 1));
    const auto& [key, value] = pair;
    if (key == "name") {
      worker.name = std::string(value);
    } else if (key == "host") {
      worker.host = std::string(value);
    } else if (key == "memory") {
      BW_ASSIGN_OR_RETURN(const double bytes, ParseBytes(value));
      worker.memory_bytes = static_cast<int64_t>(bytes);
    } else if (key == "bandwidth") {
      BW_ASSIGN_OR_RETURN(worker.read_bytes_per_second, ParseBytes(value));
    } else if (key == "drive") {
      BW_ASSIGN_OR_RETURN(worker.drive_bytes_per_second, ParseBytes(value));
    } else if (key == "copy") {
      BW_ASSIGN_OR_RETURN(copy_rate, ParseBytes(value));
      if (worker.gpu) worker.gpu->copy_bytes_per_second = copy_rate;
    } else if (key == "gflops") {
      double gflops = 0;
      if (!absl::SimpleAtod(value, &gflops) || !(gflops > 0 && gflops <= kGflopsMax)) {
        return absl::InvalidArgumentError(
            absl::StrCat("worker \"", text, "\": gflops= is a number above 0, at most ", kGflopsMax));
      }
      worker.arithmetic = {.floats = gflops * 1e9, .int8 = gflops * 1e9};
    } else if (key == "gpu") {
      BW_ASSIGN_OR_RETURN(const double bytes, ParseBytes(value));
      worker.gpu = {.name = "GPU", .uuid = absl::StrCat(index)};
      worker.gpu->memory_bytes = worker.gpu->free_bytes = static_cast<int64_t>(bytes);
      worker.gpu->copy_bytes_per_second = copy_rate;
      worker.kernel_levels = {kAssumedGpuLevel};
    } else if (key != "threads" || !absl::SimpleAtoi(value, &worker.threads) || worker.threads < 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "worker \"", text, "\": \"", field,
          "\" is none of name=, host=, memory=, threads=, bandwidth=, drive=, gflops=, gpu=, copy="));
    }
  }
  if (worker.read_bytes_per_second == 0)
    worker.read_bytes_per_second = worker.gpu ? kAssumedGpuBandwidth : kAssumedBandwidth;
  if (worker.memory_bytes == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("worker \"", text, "\" needs memory=, for example memory=16GB"));
  }
  return worker;
}

absl::StatusOr<std::vector<WorkerInventory>> LocalInventory(int count) {
  const int cores = static_cast<int>(AllowedCpus().size());
  const int threads = std::max(1, cores / count);
  WorkerInventory worker{.host = "this machine", .memory_bytes = AvailableMemoryBytes(), .threads = threads};
  // The workers share the machine's bandwidth.
  worker.read_bytes_per_second =
      SampleReadBandwidth(std::min(cores, threads * count), kMeasureSeconds) / count;
  const auto peak = [&](kernels::Arithmetic arithmetic) {
    return SampleArithmetic(arithmetic, std::min(cores, threads * count), kMeasureSeconds) / count;
  };
  worker.arithmetic = {.floats = peak(kernels::Arithmetic::kBF16), .int8 = peak(kernels::Arithmetic::kInt8)};
  worker.kernel_levels = KernelLevelNames();
  worker.drive_bytes_per_second = ShardCache::DefaultDirectory().empty() ? 0 : kAssumedDriveRate;
  std::vector<WorkerInventory> workers(count, worker);
  for (int i = 0; i < count; ++i) workers[i].name = absl::StrCat("worker-", i);
  return workers;
}

absl::Status RunPlan(const PlanOptions& options) {
  BW_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(options.model, options.read));
  PlannerOptions planner{.mix_devices = options.mix_devices,
                         .stages = options.pipeline_parallel,
                         .ranks = options.tensor_parallel,
                         .device_memory_share = options.device_memory_fraction};
  if (!options.kernel_level.empty()) planner.kernel_levels = {options.kernel_level};
  BW_ASSIGN_OR_RETURN(planner.quantize, ParseQuantize(options.quantize));
  planner.plan_for_batch = options.plan_for_batch;
  BW_ASSIGN_OR_RETURN(planner.offload, ParseOffload(options.offload));
  BW_ASSIGN_OR_RETURN(planner.step_tokens, ParseStepTokens(options.step_tokens));
  const CheckpointFormats formats(*checkpoint);
  planner.kv_type = DefaultKvType(formats, planner.quantize);
  if (options.kv_type != "auto") {
    BW_ASSIGN_OR_RETURN(planner.kv_type, ParseDType(options.kv_type));
  }
  BW_ASSIGN_OR_RETURN(planner.context_tokens, ContextTokens(checkpoint->config(), options.context_tokens));

  int wanted = std::max(1, options.tensor_parallel) * std::max(1, options.pipeline_parallel);
  if (!options.workers.empty() && options.local_workers > 0) {
    return absl::InvalidArgumentError("--workers is of this machine: leave it out where --worker says more");
  }
  if (!options.layout.empty()) {
    if (options.tensor_parallel > 0 || options.pipeline_parallel > 0) {
      return absl::InvalidArgumentError(
          "--layout says it all: leave out --tensor-parallel and --pipeline-parallel");
    }
    BW_ASSIGN_OR_RETURN(planner.layout, ParseLayout(checkpoint->config(), options.layout));
    wanted = planner.layout->workers();
  }
  std::vector<WorkerInventory> workers;
  for (const std::string& text : options.workers) {
    BW_ASSIGN_OR_RETURN(WorkerInventory worker, ParseWorker(text, static_cast<int>(workers.size())));
    workers.push_back(std::move(worker));
  }
  if (workers.empty()) {
    BW_ASSIGN_OR_RETURN(workers, LocalInventory(std::max(options.local_workers, wanted)));
  }
  BW_ASSIGN_OR_RETURN(const Plan plan, MakePlan(checkpoint->config(), formats, workers, planner));
  for (const std::string& warning : plan.warnings) LogWarning(warning);
  const int64_t stored = checkpoint->StoredBytes();
  const WhatMoreBuys more = PlanWithMore(checkpoint->config(), formats, workers, planner, plan);
  return WriteOutput((options.json ? WriteJson(ToJson(plan, workers, stored, more), /*indent=*/2)
                                   : ToText(plan, stored, more)) +
                     "\n");
}

}  // namespace bellwether
