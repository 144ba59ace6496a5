#include "worker/worker_metrics.h"

#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "metrics/process_samples.h"

namespace bellwether {
namespace {

// Empty before the first layout.
std::string Number(int number) { return number < 0 ? "" : absl::StrCat(number); }

constexpr struct {
  StepPart part;
  absl::string_view name;
} kParts[] = {{StepPart::kCompute, "compute"},
              {StepPart::kCollectiveWait, "collective_wait"},
              {StepPart::kLinkWait, "link_wait"},
              {StepPart::kWeightsWait, "weights_wait"},
              {StepPart::kIdle, "idle"}};
constexpr absl::string_view kUses[StepMeter::kUses] = {"collective", "pipeline"};

void AddWorker(const WorkerSession::Snapshot& worker, MetricSamples& samples) {
  const EpochRunner::Progress& progress = worker.progress;
  const StepMeter::Reading& times = progress.times;
  const std::string stage = Number(progress.last_stage), rank = Number(progress.last_rank);
  const std::string& name = worker.name;
  const auto add = [&](Metric metric, auto value) {
    samples.Add(metric, {stage, rank, name}, static_cast<double>(value));
  };
  for (const auto& it : kParts) {
    samples.Add(Metric::kWorkerTime, {stage, rank, name, it.name},
                absl::ToDoubleSeconds(times.parts[static_cast<size_t>(it.part)]));
  }
  for (size_t use = 0; use < StepMeter::kUses; ++use) {
    samples.Add(Metric::kLinkSent, {stage, rank, name, kUses[use]},
                static_cast<double>(times.sent_bytes[use]));
    samples.Add(Metric::kLinkReceived, {stage, rank, name, kUses[use]},
                static_cast<double>(times.received_bytes[use]));
  }
  for (const EpochRunner::PeerWait& wait : progress.waits) {
    samples.Add(Metric::kPeerWaitTime, {stage, rank, name, Number(wait.stage), Number(wait.rank)},
                absl::ToDoubleSeconds(wait.waited));
  }
  add(Metric::kWorkerSteps, times.steps);
  add(Metric::kLoadRead, progress.loaded_bytes);
  add(Metric::kLoadSize, progress.total_bytes);
  add(Metric::kWeightsResident, progress.weight_bytes);
  add(Metric::kWeightsStreamed, progress.streamed_bytes);
  add(Metric::kWeightsReadTime, absl::ToDoubleSeconds(progress.stream.reading));
  add(Metric::kWeightsRing, progress.stream.ring_bytes);
  add(Metric::kWeightsRingFilled, progress.stream.filled_bytes);
  add(Metric::kShardCacheWaiting, progress.unwritten_images);
  add(Metric::kKvCacheSize, progress.kv_bytes);
}

}  // namespace

WorkerMetrics::WorkerMetrics(std::string build_id, std::function<WorkerSession::Snapshot()> snapshot) {
  metrics_.AddSource(
      [build_id = std::move(build_id), snapshot = std::move(snapshot)](MetricSamples& samples) {
        AddWorker(snapshot(), samples);
        samples.Add(Metric::kBuildInfo, {"worker", build_id}, 1);
        AddProcessSamples(samples);
      });
}

}  // namespace bellwether
