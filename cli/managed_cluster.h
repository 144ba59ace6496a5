#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/child_process.h"
#include "cli/inference_client.h"
#include "cli/restart_pauses.h"
#include "cli/scratch_directory.h"
#include "common/defaults.h"
#include "common/log.h"
#include "model/checkpoint/read_options.h"

namespace bellwether {

// What to run on this machine. Zero and empty mean: decide.
struct ClusterOptions {
  std::string model;
  ReadOptions read;  // how it is read
  int workers = 0;   // default: those of the layout, stages x ranks, or devices, else 1
  int tensor_parallel = 0;
  int pipeline_parallel = 0;
  std::string layout;  // as model/layout_text.h has it, instead of the two above
  int threads = 0;     // of each worker; default: the cores, shared out
  // "cuda:0,cuda:1": of each worker, or one for all of them; empty: the CPU. Several classes share a
  // pipeline.
  std::string devices;
  double device_memory_fraction = kDefaultDeviceMemoryFraction;
  int64_t memory_bytes = 0;      // of the machine, to plan with; default: what is available
  std::string offload = "auto";  // as ParseOffload has it
  int plan_for_batch = kDefaultPlanForBatch;
  std::string step_tokens = std::to_string(kDefaultStepTokens);  // as ParseStepTokens has it
  std::string shard_cache = "auto";                              // auto, off or a directory
  std::string quantize = "none";
  std::string kv_type = "auto";
  std::string kernel_level;
  std::string chat_template;
  bool no_prefix_cache = false;   // prompts are computed whole
  bool no_template_stop = false;  // answers go on over the template's own stop strings
  int context_tokens = 0;
  std::string listen = "127.0.0.1:0";         // clients
  std::string worker_listen = "127.0.0.1:0";  // workers
  std::string http_listen;                    // clients over HTTP; empty: none
  std::string http_allow_origin;              // web pages that may use it
  std::string served_model_name;              // what they call the model
  std::string api_keys;                       // file of those who may ask; empty: everybody
  bool insecure = false;                      // these may be other than this machine's own
  std::string metrics_listen;                 // monitoring, of all of them; empty: none
  absl::Duration drain;                       // how long running answers may take once Stop is called
  // How long answers wait for a lost worker to be back, which only Supervise brings; zero: they end.
  absl::Duration resume_wait;
  LogOptions log{.level = "warning"};
  bool log_to_stderr = false;  // else into files that are shown if something fails
  // Longest wait for the model to come nearer to being served; a load that gets on may take any time.
  double give_up_seconds = 300;
};

// A coordinator and its workers as processes of this machine. They end with this process.
class ManagedCluster {
 public:
  // Returns once the model is served; `progress` gets a line about what is awaited, whenever it changes.
  using Progress = std::function<void(const std::string&)>;
  static absl::StatusOr<std::unique_ptr<ManagedCluster>> Start(const ClusterOptions& options,
                                                               const Progress& progress);
  ~ManagedCluster();

  const std::string& address() const { return address_; }
  const std::string& http_address() const { return http_address_; }        // empty: none
  const std::string& metrics_address() const { return metrics_address_; }  // empty: none
  const ServedModel& model() const { return model_; }
  int workers() const { return static_cast<int>(workers_.size()); }
  std::vector<pid_t> worker_pids() const;

  // Starts workers anew that have ended, or that are stopped (SIGSTOP) and lost to the coordinator, with a
  // growing pause between tries; returns when the coordinator ends, when it has been stopped for long, or
  // when `stop()` turns true.
  absl::Status Supervise(const std::function<bool()>& stop);
  // Lets running requests finish within ClusterOptions::drain, then ends everything. OK if the coordinator
  // ended well.
  absl::Status Stop();

 private:
  struct Worker {
    ChildProcess process;
    std::string log_file;
    RestartPauses pauses;
    absl::Duration started_at;  // of Clock::Real
    absl::Duration restart_at;  // likewise; meaningful while the process is gone
  };
  ManagedCluster(const ClusterOptions& options, std::vector<std::string> devices)
      : options_(options), devices_(std::move(devices)), workers_(devices_.size()) {}
  absl::Status StartCoordinator();
  absl::Status ReadPorts(const Progress& progress);
  absl::Status StartWorker(int index);
  absl::Status WaitUntilServing(const Progress& progress);
  // Says so when the coordinator is stopped; Unavailable, and it is killed, if it does not go on.
  absl::Status CheckCoordinator();
  absl::Status CheckWorkersRun();
  absl::Status CoordinatorEnded() const;
  // The last line that each program has logged, those without one left out.
  std::string LastWords() const;
  void KillLostWorkers(InferenceClient& client);
  void RestartDeadWorkers();
  // The last lines of a log; none where the programs share our stderr.
  static constexpr size_t kLogLinesShown = 12;
  std::string LogTail(const std::string& file, size_t lines_max = kLogLinesShown) const;

  const ClusterOptions options_;
  const std::vector<std::string> devices_;  // of each worker
  ScratchDirectory directory_;              // of logs and the port file
  std::string address_, worker_address_, http_address_, metrics_address_;
  ChildProcess coordinator_;
  std::optional<absl::Duration> coordinator_stopped_at_;  // by SIGSTOP, and has not gone on since
  std::vector<Worker> workers_;
  ServedModel model_;
};

}  // namespace bellwether
