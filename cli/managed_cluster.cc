#include "cli/managed_cluster.h"

#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "cli/patience.h"
#include "cli/stop.h"
#include "common/clock.h"
#include "common/defaults.h"
#include "common/log.h"
#include "common/quote.h"
#include "common/service_watchdog.h"
#include "common/status.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/hub_cache.h"
#include "model/layout_text.h"
#include "worker/inventory.h"

namespace bellwether {
namespace {

// How often the children are looked at.
constexpr absl::Duration kLook = absl::Milliseconds(50);
constexpr absl::Duration kQuietStart = absl::Seconds(3);    // of a coordinator that opens its model
constexpr absl::Duration kAnswerLimit = absl::Seconds(10);  // of a question about the state
constexpr absl::Duration kCoordinatorStoppedMax = absl::Seconds(30);
constexpr absl::Duration kEndLimit = absl::Seconds(10);  // of a coordinator that has drained
constexpr absl::Duration kStandingTold = absl::Seconds(5);

void AddUnlessEmpty(const std::string& flag, const std::string& value, std::vector<std::string>& arguments) {
  if (value.empty()) return;
  arguments.push_back(flag);
  arguments.push_back(value);
}
void AddUnlessZero(const std::string& flag, int value, std::vector<std::string>& arguments) {
  if (value != 0) AddUnlessEmpty(flag, std::to_string(value), arguments);
}

void AppendTo(std::vector<std::string>& arguments, const std::vector<std::string>& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
}

absl::StatusOr<int> WorkersWanted(const ClusterOptions& options, size_t devices) {
  int wanted = std::max(1, options.tensor_parallel) * std::max(1, options.pipeline_parallel);
  if (options.tensor_parallel == 0 && options.pipeline_parallel == 0)
    wanted = std::max(1, static_cast<int>(devices));
  if (!options.layout.empty()) {
    if (options.tensor_parallel > 0 || options.pipeline_parallel > 0) {
      return absl::InvalidArgumentError(
          "--layout says it all: leave out --tensor-parallel and --pipeline-parallel");
    }
    BW_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(options.model, options.read));
    BW_ASSIGN_OR_RETURN(const Layout layout, ParseLayout(checkpoint->config(), options.layout));
    wanted = layout.workers();
  }
  if (options.workers > 0) wanted = options.workers;
  if (wanted <= kLocalWorkersMax) return wanted;
  return absl::InvalidArgumentError(
      absl::StrCat(wanted, " workers on this machine, allowed are ", kLocalWorkersMax));
}

// The device of each worker.
absl::StatusOr<std::vector<std::string>> DevicesOf(const ClusterOptions& options) {
  const std::vector<std::string> named = absl::StrSplit(options.devices, ',', absl::SkipEmpty());
  BW_ASSIGN_OR_RETURN(const int wanted, WorkersWanted(options, named.size()));
  const auto count = static_cast<size_t>(wanted);
  if (named.empty()) return std::vector<std::string>(count, "cpu");
  if (named.size() == 1) return std::vector<std::string>(count, named[0]);
  if (named.size() == count) return named;
  return absl::InvalidArgumentError(absl::StrCat("--devices names ", named.size(), " for ", count,
                                                 " workers: name one for each, or one for all"));
}

// Whether people ask for workers that compute different bits.
bool DevicesMix(const std::vector<std::string>& devices) {
  const auto is_cpu = [](const std::string& name) { return name == "cpu"; };
  const auto is_auto = [](const std::string& name) { return name == "auto"; };
  const auto some = [&](const auto& is) {
    return std::any_of(devices.begin(), devices.end(), is) &&
           !std::all_of(devices.begin(), devices.end(), is);
  };
  return some(is_cpu) || some(is_auto);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ManagedCluster>> ManagedCluster::Start(const ClusterOptions& options,
                                                                      const Progress& progress) {
  std::error_code error;
  BW_RETURN_IF_ERROR(ResolveModel(options.model).status());
  BW_ASSIGN_OR_RETURN(std::vector<std::string> devices, DevicesOf(options));
  auto cluster = std::unique_ptr<ManagedCluster>(new ManagedCluster(options, std::move(devices)));
  BW_ASSIGN_OR_RETURN(cluster->directory_,
                      ScratchDirectory::Make(std::filesystem::temp_directory_path(error).string()));
  BW_RETURN_IF_ERROR(cluster->StartCoordinator());
  BW_RETURN_IF_ERROR(cluster->ReadPorts(progress));
  for (int i = 0; i < cluster->workers(); ++i) BW_RETURN_IF_ERROR(cluster->StartWorker(i));
  BW_RETURN_IF_ERROR(cluster->WaitUntilServing(progress));
  return cluster;
}

ManagedCluster::~ManagedCluster() {
  workers_.clear();
  coordinator_ = ChildProcess();
}

std::vector<pid_t> ManagedCluster::worker_pids() const {
  std::vector<pid_t> pids;
  for (const Worker& worker : workers_) pids.push_back(worker.process.pid());
  return pids;
}

absl::Status ManagedCluster::StartCoordinator() {
  std::vector<std::string> arguments = {
      "--model",          options_.model,
      "--listen",         options_.listen,
      "--worker-listen",  options_.worker_listen,
      "--http-listen",    options_.http_listen,
      "--metrics-listen", options_.metrics_listen,
      "--port-file",      directory_.path() + "/ports",
      "--workers",        std::to_string(workers()),
      "--drain-seconds",  absl::StrCat(absl::ToDoubleSeconds(options_.drain)),
      "--resume-seconds", absl::StrCat(absl::ToDoubleSeconds(options_.resume_wait)),
      "--log-level",      options_.log.level,
      "--log-format",     options_.log.format};
  AppendTo(arguments, FlagsOf(options_.read));
  AddUnlessZero("--tensor-parallel", options_.tensor_parallel, arguments);
  AddUnlessZero("--pipeline-parallel", options_.pipeline_parallel, arguments);
  AddUnlessEmpty("--layout", options_.layout, arguments);
  AddUnlessZero("--context-tokens", options_.context_tokens, arguments);
  AddUnlessEmpty("--quantize", options_.quantize, arguments);
  AddUnlessEmpty("--kv-type", options_.kv_type, arguments);
  AddUnlessEmpty("--kernel-level", options_.kernel_level, arguments);
  AddUnlessEmpty("--chat-template", options_.chat_template, arguments);
  if (options_.no_prefix_cache) arguments.emplace_back("--no-prefix-cache");
  if (options_.no_template_stop) arguments.emplace_back("--no-template-stop");
  AddUnlessEmpty("--served-model-name", options_.served_model_name, arguments);
  AddUnlessEmpty("--http-allow-origin", options_.http_allow_origin, arguments);
  AddUnlessEmpty("--api-keys", options_.api_keys, arguments);
  if (options_.device_memory_fraction != kDefaultDeviceMemoryFraction)
    AddUnlessEmpty("--device-memory-fraction", absl::StrCat(options_.device_memory_fraction), arguments);
  if (DevicesMix(devices_)) arguments.emplace_back("--mix-devices");
  arguments.insert(arguments.end(),
                   {"--offload", options_.offload, "--plan-for-batch", absl::StrCat(options_.plan_for_batch),
                    "--step-tokens", options_.step_tokens});
  if (options_.insecure) arguments.emplace_back("--insecure");
  BW_ASSIGN_OR_RETURN(
      coordinator_, ChildProcess::Start(
                        {.program = SiblingProgram("bellwether-coordinator"),
                         .arguments = std::move(arguments),
                         .log_file = options_.log_to_stderr ? "" : directory_.path() + "/coordinator.log"}));
  return absl::OkStatus();
}

// The coordinator writes "client HOST:PORT", "worker HOST:PORT" and so on when it listens, all at once.
absl::Status ManagedCluster::ReadPorts(const Progress& progress) {
  const absl::Duration begin = Clock::Real()->Now();
  Patience patience(absl::Seconds(options_.give_up_seconds));
  while (true) {
    if (StopRequested()) return absl::CancelledError("stopped while the coordinator was starting");
    std::ifstream file(directory_.path() + "/ports");
    std::string name, address;
    while (file >> name >> address) {
      if (name == "client") address_ = address;
      if (name == "worker") worker_address_ = address;
      if (name == "http") http_address_ = address;
      if (name == "metrics") metrics_address_ = address;
    }
    if (!address_.empty() && !worker_address_.empty()) return absl::OkStatus();
    if (coordinator_.WaitFor(kLook)) return CoordinatorEnded();
    const absl::Duration now = Clock::Real()->Now();
    BW_RETURN_IF_ERROR(patience.Hear(now, absl::StrCat("the coordinator opens ", Printable(options_.model))));
    if (now - begin > kQuietStart && patience.IsNews() && progress)
      progress(absl::StrCat("the coordinator opens ", Printable(options_.model)));
  }
}

absl::Status ManagedCluster::StartWorker(int index) {
  Worker& worker = workers_[index];
  const std::vector<int> cpus = AllowedCpus();
  const int share = static_cast<int>(cpus.size()) / workers();
  const int threads = options_.threads > 0 ? options_.threads : std::max(1, share);
  std::vector<std::string> arguments = {"--model",       options_.model,
                                        "--coordinator", worker_address_,
                                        "--name",        absl::StrCat("worker-", index),
                                        "--device",      devices_[index],
                                        "--threads",     std::to_string(threads),
                                        "--log-level",   options_.log.level,
                                        "--log-format",  options_.log.format};
  if (options_.memory_bytes > 0)
    arguments.insert(arguments.end(), {"--memory", absl::StrCat(options_.memory_bytes)});
  arguments.insert(arguments.end(), {"--shard-cache", options_.shard_cache});
  // They take free ports beside each other, which the coordinator knows.
  if (options_.metrics_listen.empty()) arguments.insert(arguments.end(), {"--metrics-listen", ""});
  AppendTo(arguments, FlagsOf(options_.read));
  if (options_.insecure) arguments.emplace_back("--insecure");
  // Each worker its own cores; more threads than cores go wherever the system likes.
  if (threads * workers() <= static_cast<int>(cpus.size())) {
    const auto first = cpus.begin() + static_cast<ptrdiff_t>(index) * threads;
    AddUnlessEmpty("--cpus", absl::StrJoin(first, first + threads, ","), arguments);
  }
  worker.started_at = Clock::Real()->Now();
  worker.log_file = absl::StrCat(directory_.path(), "/worker-", index, ".log");
  BW_ASSIGN_OR_RETURN(worker.process,
                      ChildProcess::Start({.program = SiblingProgram("bellwether-worker"),
                                           .arguments = std::move(arguments),
                                           .log_file = options_.log_to_stderr ? "" : worker.log_file}));
  return absl::OkStatus();
}

absl::Status ManagedCluster::CheckWorkersRun() {
  for (int i = 0; i < workers(); ++i) {
    if (workers_[i].process.Running()) continue;
    return absl::UnavailableError(absl::StrCat("worker ", i, " ended with ", workers_[i].process.ending(),
                                               "\n", LogTail(workers_[i].log_file)));
  }
  return absl::OkStatus();
}

absl::Status ManagedCluster::CoordinatorEnded() const {
  return absl::UnavailableError(absl::StrCat("the coordinator ended with ", coordinator_.ending(), "\n",
                                             LogTail(directory_.path() + "/coordinator.log")));
}

std::string ManagedCluster::LastWords() const {
  std::string words;
  std::vector<std::pair<std::string, std::string>> logs = {
      {"coordinator", directory_.path() + "/coordinator.log"}};
  for (int i = 0; i < workers(); ++i) logs.emplace_back(absl::StrCat("worker ", i), workers_[i].log_file);
  for (const auto& [name, file] : logs) {
    const std::string tail = LogTail(file, /*lines_max=*/1);
    if (!tail.empty()) absl::StrAppend(&words, words.empty() ? "" : "\n", name, ": ", tail);
  }
  return words;
}

absl::Status ManagedCluster::WaitUntilServing(const Progress& progress) {
  InferenceClient client(address_);
  std::string told_words;
  Patience patience(absl::Seconds(options_.give_up_seconds));
  bool answered = true;
  while (!coordinator_.WaitFor(kLook)) {
    if (StopRequested()) return absl::CancelledError("stopped while the model was loading");
    BW_RETURN_IF_ERROR(CheckWorkersRun());
    const absl::StatusOr<ServedModel> model =
        client.GetModel({.timeout = kAnswerLimit, .cancellation = StopCancellation()});
    if (model.ok() && model->serving) {
      model_ = *model;
      return absl::OkStatus();
    }
    if (model.ok() && model->refused) return absl::FailedPreconditionError(model->not_serving_reason);
    const std::string state = model.ok() ? model->not_serving_reason
                                         : absl::StrCat("the coordinator at ", address_, " does not answer (",
                                                        model.status().message(), ")");
    const absl::Duration now = Clock::Real()->Now();
    const absl::Status waited = patience.Hear(now, state, model.ok() ? model->loading_progress : 0);
    if (!waited.ok()) {
      return absl::Status(waited.code(), absl::StrJoin({std::string(waited.message()), LastWords()}, "\n"));
    }
    // No answer at all is told when it repeats: it may be ending, which shows above.
    const bool answered_before = std::exchange(answered, model.ok());
    const bool tell = model.ok() || !answered_before;
    if (tell && patience.IsNews() && progress) progress(state);
    if (patience.standing(now) < kStandingTold || LastWords() == told_words || !progress) continue;
    told_words = LastWords();
    progress(told_words);
  }
  return CoordinatorEnded();
}

// A stopped worker never joins again by itself; one that the coordinator still counts on may go on.
void ManagedCluster::KillLostWorkers(InferenceClient& client) {
  for (int i = 0; i < workers(); ++i) {
    const Worker& worker = workers_[i];
    if (!worker.process.Stopped()) continue;
    const auto model = client.GetModel({.timeout = kAnswerLimit, .cancellation = StopCancellation()});
    if (!model.ok() || model->serving || !worker.process.Stopped()) continue;
    LogWarning("worker ", i, " is stopped, and nothing is served: killing it");
    worker.process.Signal(SIGKILL);
  }
}

void ManagedCluster::RestartDeadWorkers() {
  const absl::Duration now = Clock::Real()->Now();
  for (int i = 0; i < workers(); ++i) {
    Worker& worker = workers_[i];
    if (worker.process.Running()) continue;
    if (!worker.process.ending().empty() && worker.restart_at == absl::ZeroDuration()) {
      const absl::Duration pause = worker.pauses.Next(now - worker.started_at);
      LogWarning("worker ", i, " ended with ", worker.process.ending(), "; starting it again in ",
                 absl::FormatDuration(pause));
      worker.restart_at = now + pause;
    }
    if (now < worker.restart_at) continue;
    worker.restart_at = absl::ZeroDuration();
    if (absl::Status status = StartWorker(i); !status.ok()) LogError("worker ", i, ": ", status.ToString());
  }
}

absl::Status ManagedCluster::CheckCoordinator() {
  const absl::Duration now = Clock::Real()->Now();
  const bool stopped = coordinator_.Stopped();
  if (!stopped) {
    if (coordinator_stopped_at_) LogWarning("the coordinator goes on");
    coordinator_stopped_at_.reset();
    return absl::OkStatus();
  }
  if (!coordinator_stopped_at_) {
    coordinator_stopped_at_ = now;
    LogWarning("the coordinator is stopped (SIGSTOP), nothing is served: it has ",
               absl::FormatDuration(kCoordinatorStoppedMax), " to go on: kill -CONT ", coordinator_.pid());
  }
  if (now - *coordinator_stopped_at_ < kCoordinatorStoppedMax) return absl::OkStatus();
  coordinator_.Signal(SIGKILL);
  return absl::UnavailableError(absl::StrCat("the coordinator was stopped (SIGSTOP) for ",
                                             absl::FormatDuration(kCoordinatorStoppedMax), " and is killed"));
}

absl::Status ManagedCluster::Supervise(const std::function<bool()>& stop) {
  InferenceClient client(address_);
  ServiceWatchdog::Pulse pulse;
  while (!stop()) {
    pulse.Turned();
    if (coordinator_.WaitFor(kLook)) {
      return absl::UnavailableError(absl::StrCat("the coordinator ended with ", coordinator_.ending()));
    }
    BW_RETURN_IF_ERROR(CheckCoordinator());
    if (coordinator_stopped_at_) continue;  // it cannot say who is lost
    KillLostWorkers(client);
    RestartDeadWorkers();
  }
  return absl::OkStatus();
}

absl::Status ManagedCluster::Stop() {
  coordinator_.Signal(SIGTERM);
  const bool ended = coordinator_.WaitFor(options_.drain + kEndLimit);
  workers_.clear();
  if (!ended) return absl::DeadlineExceededError("the coordinator did not end in time");
  if (coordinator_.ended_well()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("the coordinator ended with ", coordinator_.ending()));
}

std::string ManagedCluster::LogTail(const std::string& path, size_t lines_max) const {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  const size_t first = lines.size() > lines_max ? lines.size() - lines_max : 0;
  return absl::StrJoin(lines.begin() + static_cast<ptrdiff_t>(first), lines.end(), "\n");
}

}  // namespace bellwether
