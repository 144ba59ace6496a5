#include "tests/layouts/local_cluster.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "common/status.h"
#include "common/testing/sanitizer.h"
#include "worker/device/cpu_device.h"
#include "worker/link/loopback.h"
#include "worker/weights/shard_loader.h"

namespace bellwether {
namespace {

// Of a step. A sanitizer and more ranks than cores make minutes of seconds.
const absl::Duration kPatience = absl::Minutes(IsSanitized() ? 10 : 1);

}  // namespace

absl::StatusOr<std::unique_ptr<LocalCluster>> LocalCluster::Start(const Checkpoint& checkpoint,
                                                                  const Options& options) {
  std::vector<Assignment> assignments;
  for (size_t stage = 0; stage < options.layout.stages.size(); ++stage) {
    for (size_t rank = 0; rank < options.layout.stages[stage].ranks.size(); ++rank) {
      assignments.push_back(
          {.epoch = Epoch{1},
           .model_id = "test",
           .layout = options.layout,
           .stage = static_cast<int>(stage),
           .rank = static_cast<int>(rank),
           .numeric = options.numeric,
           .kv_blocks = options.kv_blocks,
           .context_tokens = options.context_tokens,
           .step_tokens = options.step_tokens,
           .step_deadline = kPatience,
           .streamed_layers = std::min<int32_t>(
               options.streamed_layers, static_cast<int32_t>(options.layout.stages[stage].layers.size())),
           .stream_home = options.stream_home,
           .streamed_ends = options.streamed_ends});
    }
  }
  const size_t count = assignments.size();
  std::vector<std::vector<std::unique_ptr<Link>>> links(count);
  for (auto& row : links) row.resize(count);
  for (size_t i = 0; i < count; ++i) {
    for (int peer : LinkedWorkers(assignments[i])) {
      if (static_cast<size_t>(peer) < i) continue;
      auto pair = MakeLoopbackLinks(
          {.first_name = absl::StrCat("worker ", i), .second_name = absl::StrCat("worker ", peer)});
      links[i][peer] = std::move(pair.first);
      links[peer][i] = std::move(pair.second);
    }
  }

  auto cluster = std::unique_ptr<LocalCluster>(new LocalCluster);
  for (size_t i = 0; i < count; ++i) {
    auto worker = std::make_unique<Worker>();
    worker->device = options.device_of ? options.device_of(i) : std::make_shared<CpuDevice>(options.threads);
    BW_ASSIGN_OR_RETURN(worker->shard,
                        LoadShard(checkpoint, assignments[i], *worker->device,
                                  {.threads = options.threads, .cache = options.cache}, &worker->progress));
    BW_ASSIGN_OR_RETURN(worker->executor, StageExecutor::Create({.assignment = assignments[i],
                                                                 .device = worker->device,
                                                                 .shard = worker->shard,
                                                                 .links = std::move(links[i]),
                                                                 .progress = &worker->progress,
                                                                 .nccl = options.nccl}));
    cluster->workers_.push_back(std::move(worker));
  }
  const size_t answering = count - options.layout.stages.back().ranks.size();
  cluster->over_ = std::make_unique<std::latch>(static_cast<ptrdiff_t>(count) + 1);
  for (size_t i = 0; i < count; ++i) {
    Worker& worker = *cluster->workers_[i];
    worker.thread = std::thread([&cluster = *cluster, &worker, i, answering] {
      cluster.RunWorker(worker, /*answers=*/i == answering);
      // Ends where it ran, once nobody aborts it any more.
      cluster.over_->arrive_and_wait();
      worker.executor.reset();
    });
  }
  return cluster;
}

void LocalCluster::RunWorker(Worker& worker, bool answers) {
  const auto fail = [this](const absl::Status& status) {
    (void)results_.Push({status, {}});
    for (auto& other : workers_) other->executor->Abort(status);
  };
  if (const absl::Status status = worker.executor->Start(); !status.ok()) return fail(status);
  while (std::optional<Step> step = worker.steps.Pop()) {
    absl::StatusOr<StepResult> result = worker.executor->Run(*step);
    if (!result.ok()) return fail(result.status());
    if (answers && !results_.Push({absl::OkStatus(), *std::move(result)})) return;
  }
}

LocalCluster::~LocalCluster() {
  results_.Close();
  for (auto& worker : workers_) {
    worker->steps.Close();
    worker->executor->Abort(absl::CancelledError("the test is over"));
  }
  if (over_ != nullptr) over_->count_down();
  for (auto& worker : workers_) {
    if (worker->thread.joinable()) worker->thread.join();
  }
}

void LocalCluster::Send(const Step& step) {
  for (auto& worker : workers_) (void)worker->steps.Push(step);
}

absl::StatusOr<StepResult> LocalCluster::Receive() {
  std::optional<Outcome> outcome = results_.Pop(kPatience);
  if (!outcome.has_value())
    return absl::DeadlineExceededError("no result within " + absl::FormatDuration(kPatience));
  BW_RETURN_IF_ERROR(outcome->status);
  return std::move(outcome->result);
}

absl::StatusOr<StepResult> LocalCluster::Run(const Step& step) {
  Send(step);
  return Receive();
}

int64_t LocalCluster::streamed_bytes() const {
  int64_t bytes = 0;
  for (const auto& worker : workers_) bytes += worker->progress.streamed_bytes;
  return bytes;
}

int64_t LocalCluster::weight_bytes() const {
  int64_t bytes = 0;
  for (const auto& worker : workers_) bytes += worker->shard->bytes;
  return bytes;
}

std::string GoldenPath(const std::string& name) { return "tests/goldens/" + name; }

std::vector<std::string> GoldenModels() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenPath("models"))) {
    if (entry.is_directory()) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string GoldenCheckpoint(const std::string& model) {
  const std::string directory = GoldenPath("models/" + model);
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const auto suffix = entry.path().extension();
    if (suffix == ".gguf" || suffix == ".pt" || entry.path().filename() == "ggml-model.bin")
      return entry.path();
  }
  return directory;
}

}  // namespace bellwether
