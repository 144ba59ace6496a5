#include "cli/bench_offload.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/bench_runs.h"
#include "cli/cluster_numbers.h"
#include "cli/managed_cluster.h"
#include "cli/scratch_directory.h"
#include "cli/stop.h"
#include "cli/terminal.h"
#include "common/clock.h"
#include "common/format_bytes.h"
#include "common/json.h"
#include "common/output.h"
#include "common/status.h"
#include "common/step.h"
#include "model/checkpoint/checkpoint.h"
#include "worker/inventory.h"
#include "worker/weights/drive_rate.h"
#include "worker/weights/shard_cache.h"

namespace bellwether {
namespace {

constexpr int kBatches[] = {1, 16, 64};
constexpr int kPlannedFor = 16;  // of them: memory for more would be missing for layers
constexpr absl::Duration kLook = absl::Milliseconds(200);

// So many sequences at once, the median of the runs.
struct BatchRow {
  int sequences = 1;
  double tokens_per_second = 0;
  double planned = 0;  // at most; 0: the plan says nothing
};

struct OffloadRow {
  double drive = 0;           // bytes/s, measured between the runs
  double streamed_bytes = 0;  // a step, by all workers, who share the drive
  double step_seconds = 0;    // with one sequence
  double reading = 0;         // of that time, with a read under way
  double resident_bytes = 0;  // private and shared memory of all workers
  std::vector<BatchRow> batches;
};

// Between two looks at a cluster.
struct Spent {
  double steps = 0, streamed_bytes = 0, reading = 0;
};
Spent Between(const ClusterNumbers& before, const ClusterNumbers& after) {
  const auto grown = [&](Metric metric) { return after.Sum(metric) - before.Sum(metric); };
  const auto workers = static_cast<double>(after.Of(Metric::kWorkerSteps).size());
  return {.steps = grown(Metric::kWorkerSteps) / workers,
          .streamed_bytes = grown(Metric::kWeightsStreamed),
          .reading = grown(Metric::kWeightsReadTime) / workers};
}

int BlocksOf(int tokens) { return (tokens + kKvBlockTokens - 1) / kKvBlockTokens; }

// A sequence is admitted where each that runs could still have a block more.
int BlocksFor(int sequences, int decode_tokens) {
  return sequences * (BlocksOf(kDecodePromptTokens + decode_tokens) + 1);
}

class OffloadBench {
 public:
  OffloadBench(const BenchOptions& options, std::string cache_parent)
      : options_(options), cache_parent_(std::move(cache_parent)) {}

  absl::StatusOr<OffloadRow> Run(const BenchLayout& layout, StatusLine& line);

 private:
  absl::StatusOr<std::unique_ptr<ManagedCluster>> Start(const BenchLayout& layout, const std::string& cache,
                                                        StatusLine& line) const;
  // Layers in memory are written to the cache behind what is served, and the drive is to be left alone.
  absl::Status WaitForWrites(const ManagedCluster& cluster) const;
  absl::Status RunBatch(const ManagedCluster& cluster, BatchRow* batch, OffloadRow* row) const;

  const BenchOptions& options_;
  const std::string cache_parent_;
  int vocab_ = 0;
};

absl::StatusOr<std::unique_ptr<ManagedCluster>> OffloadBench::Start(const BenchLayout& layout,
                                                                    const std::string& cache,
                                                                    StatusLine& line) const {
  const int blocks = BlocksOf(kDecodePromptTokens + options_.decode_tokens);
  const ClusterOptions options{
      .model = absl::StrCat("random:", options_.shape, ":", options_.weights),
      .tensor_parallel = layout.tensor,
      .pipeline_parallel = layout.pipeline,
      .threads = layout.threads,
      .memory_bytes = options_.memory_bytes,
      .offload = options_.offload.empty() ? "auto" : options_.offload,
      .plan_for_batch = (BlocksFor(kPlannedFor, options_.decode_tokens) + blocks - 1) / blocks,
      .shard_cache = cache,
      .no_prefix_cache = true,
      .context_tokens = kKvBlockTokens * blocks,
      .metrics_listen = "127.0.0.1:0"};
  return ManagedCluster::Start(
      options, [&](const std::string& text) { line.Show(absl::StrCat(layout.name, ": ", text)); });
}

absl::Status OffloadBench::WaitForWrites(const ManagedCluster& cluster) const {
  while (true) {
    BW_ASSIGN_OR_RETURN(const ClusterNumbers now, ClusterNumbers::Read(cluster.metrics_address()));
    if (now.Sum(Metric::kShardCacheWaiting) == 0) return absl::OkStatus();
    if (StopCancellation()->WaitFor(kLook)) return absl::CancelledError("stopped while layers were written");
  }
}

absl::Status OffloadBench::RunBatch(const ManagedCluster& cluster, BatchRow* batch, OffloadRow* row) const {
  BW_ASSIGN_OR_RETURN(const ClusterNumbers before, ClusterNumbers::Read(cluster.metrics_address()));
  const absl::Duration begin = Clock::Real()->Now();
  BW_ASSIGN_OR_RETURN(batch->tokens_per_second,
                      MeasureDecoding(cluster.address(), vocab_, batch->sequences, options_.decode_tokens));
  const double seconds = absl::ToDoubleSeconds(Clock::Real()->Now() - begin);
  BW_ASSIGN_OR_RETURN(const ClusterNumbers after, ClusterNumbers::Read(cluster.metrics_address()));
  const std::string concurrency =
      batch->sequences == 1 ? "\"one_sequence\"" : absl::StrCat("\"", batch->sequences, "\"");
  batch->planned = after.Sum(Metric::kPlanTokenRate, concurrency);
  if (batch->sequences > 1) return absl::OkStatus();
  const Spent spent = Between(before, after);
  row->step_seconds = 1 / batch->tokens_per_second;
  row->streamed_bytes = spent.streamed_bytes / spent.steps;
  row->reading = std::min(1.0, spent.reading / seconds);
  return absl::OkStatus();
}

absl::StatusOr<OffloadRow> OffloadBench::Run(const BenchLayout& layout, StatusLine& line) {
  BW_ASSIGN_OR_RETURN(const auto checkpoint,
                      Checkpoint::Open(absl::StrCat("random:", options_.shape, ":", options_.weights)));
  vocab_ = checkpoint->config().vocab;
  // A rank's slices are a layout's own, so layers of one are of no use to the next.
  BW_ASSIGN_OR_RETURN(const ScratchDirectory cache, ScratchDirectory::Make(cache_parent_));
  line.Show(absl::StrCat(layout.name, ": measures the drive"));
  BW_RETURN_IF_ERROR(DriveRate(cache.path()).status());  // what the workers will plan with
  BW_ASSIGN_OR_RETURN(const std::unique_ptr<ManagedCluster> cluster, Start(layout, cache.path(), line));
  line.Show(absl::StrCat(layout.name, ": writes layers"));
  BW_RETURN_IF_ERROR(WaitForWrites(*cluster));
  InferenceClient client(cluster->address());
  BW_RETURN_IF_ERROR(TimedGenerate(client, RandomPrompt(kDecodePromptTokens, vocab_, 1), 2).status());

  std::vector<OffloadRow> runs;
  for (int repeat = 0; repeat < options_.repeats; ++repeat) {
    OffloadRow& run = runs.emplace_back();
    for (const int sequences : kBatches) {
      if (sequences > 1 && BlocksFor(sequences, options_.decode_tokens) > cluster->model().kv_blocks)
        continue;
      line.Show(absl::StrFormat("%s: run %d of %d, %d at once", layout.name, repeat + 1, options_.repeats,
                                sequences));
      BW_RETURN_IF_ERROR(RunBatch(*cluster, &run.batches.emplace_back(BatchRow{sequences}), &run));
    }
    // The buffers are full and nobody asks: the drive is ours.
    BW_ASSIGN_OR_RETURN(run.drive, MeasureDriveRate(cache.path()));
  }
  const auto median = [&](const auto& of) {
    std::vector<double> values;
    values.reserve(runs.size());
    for (const OffloadRow& run : runs) values.push_back(of(run));
    return Median(std::move(values));
  };
  OffloadRow row{.drive = median([](const OffloadRow& run) { return run.drive; }),
                 .streamed_bytes = median([](const OffloadRow& run) { return run.streamed_bytes; }),
                 .step_seconds = median([](const OffloadRow& run) { return run.step_seconds; }),
                 .reading = median([](const OffloadRow& run) { return run.reading; }),
                 .batches = runs[0].batches};
  for (size_t i = 0; i < row.batches.size(); ++i) {
    row.batches[i].tokens_per_second =
        median([i](const OffloadRow& run) { return run.batches[i].tokens_per_second; });
  }
  for (const pid_t pid : cluster->worker_pids()) row.resident_bytes += ProportionalBytes(pid);
  BW_RETURN_IF_ERROR(cluster->Stop());
  return row;
}

// Of what the drive alone would take; 0 where nothing is streamed.
double StepToDrive(const OffloadRow& row) {
  return row.streamed_bytes > 0 ? row.step_seconds * row.drive / row.streamed_bytes : 0;
}

Json ToJson(const BenchLayout& layout, const OffloadRow& row) {
  Json json = Json::object({{"layout", layout.name},
                            {"workers", layout.tensor * layout.pipeline},
                            {"threads_per_worker", layout.threads},
                            {"drive_bytes_per_second", row.drive},
                            {"streamed_bytes_per_step", row.streamed_bytes},
                            {"step_seconds", row.step_seconds},
                            {"step_to_drive", StepToDrive(row)},
                            {"reading_share", row.reading},
                            {"resident_bytes", row.resident_bytes}});
  for (const BatchRow& batch : row.batches) {
    json["batches"].push_back(Json::object({{"sequences", batch.sequences},
                                            {"tokens_per_second", batch.tokens_per_second},
                                            {"planned_tokens_per_second", batch.planned}}));
  }
  return json;
}

std::string HeadText(const BenchOptions& options) {
  const std::string memory = options.memory_bytes > 0 ? FormatBytes(static_cast<double>(options.memory_bytes))
                                                      : std::string("what is available");
  std::string text = absl::StrFormat(
      "%s\n%s, %s weights, planned with %s of memory\n%-10s %8s %10s %8s %9s %8s", CpuName(), options.shape,
      options.weights, memory, "layout", "drive", "streamed", "s a step", "of drive", "reading");
  for (const int sequences : kBatches)
    absl::StrAppendFormat(&text, " | %3d at once %8s", sequences, "of plan");
  return text + " | memory\n";
}

std::string RowText(const BenchLayout& layout, const OffloadRow& row) {
  std::string text =
      absl::StrFormat("%-10s %6.0fMB/s %8s %8.3f %9.3f %6.1f %%", layout.name, row.drive / 1e6,
                      FormatBytes(row.streamed_bytes), row.step_seconds, StepToDrive(row), 100 * row.reading);
  for (const int sequences : kBatches) {
    const auto batch = std::find_if(row.batches.begin(), row.batches.end(),
                                    [&](const BatchRow& it) { return it.sequences == sequences; });
    if (batch == row.batches.end()) {
      text += absl::StrFormat(" | %11s %8s", "-", "-");
    } else if (batch->planned == 0) {
      text += absl::StrFormat(" | %11.2f %8s", batch->tokens_per_second, "-");
    } else {
      text += absl::StrFormat(" | %11.2f %8.2f", batch->tokens_per_second,
                              batch->tokens_per_second / batch->planned);
    }
  }
  return text + " | " + FormatBytes(row.resident_bytes) + "\n";
}

// That the bench's directories are made in; it is there then.
absl::StatusOr<std::string> CacheParent(const std::string& option) {
  std::string directory = option == kShardCacheAuto ? ShardCache::DefaultDirectory() : option;
  if (directory.empty() || directory == kShardCacheOff)
    return absl::InvalidArgumentError("--shard-cache: give a directory to stream from");
  const ShardCache cache({.directory = directory});
  BW_RETURN_IF_ERROR(cache.MakeDirectory());
  return directory;
}

}  // namespace

absl::Status RunOffloadBench(const BenchOptions& options) {
  const int cores = static_cast<int>(AllowedCpus().size());
  std::vector<BenchLayout> layouts;
  for (const std::string& name : options.layouts) {
    BW_ASSIGN_OR_RETURN(layouts.emplace_back(), ParseBenchLayout(name, cores));
  }
  BW_ASSIGN_OR_RETURN(std::string parent, CacheParent(options.shard_cache));
  OffloadBench bench(options, std::move(parent));
  Json json = Json::object({{"cpu", CpuName()},
                            {"shape", options.shape},
                            {"weights", options.weights},
                            {"memory_bytes", options.memory_bytes},
                            {"decode_tokens", options.decode_tokens}});
  if (!options.json) BW_RETURN_IF_ERROR(WriteOutput(HeadText(options)));
  StatusLine line;
  for (const BenchLayout& layout : layouts) {
    BW_ASSIGN_OR_RETURN(const OffloadRow row, bench.Run(layout, line));
    json["layouts"].push_back(ToJson(layout, row));
    line.Clear();
    if (!options.json) BW_RETURN_IF_ERROR(WriteOutput(RowText(layout, row)));
  }
  return options.json ? WriteOutput(WriteJson(json, /*indent=*/2) + "\n") : absl::OkStatus();
}

}  // namespace bellwether
