#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "common/defaults.h"
#include "common/metrics/addresses.h"
#include "common/tls_options.h"
#include "model/checkpoint/read_options.h"

namespace bellwether {

// What a coordinator is told when it starts. Zero and empty mean: decide from the model.
struct CoordinatorOptions {
  std::string model;  // checkpoint: a directory or a file
  ReadOptions read;   // how it is read
  std::string build_id;
  std::string listen = kDefaultClientAddress;         // host:port for clients, port 0 for any
  std::string worker_listen = kDefaultWorkerAddress;  // host:port for workers
  std::string http_listen = kDefaultHttpAddress;      // host:port for clients over HTTP; empty: none
  std::string served_model_name;  // what clients over HTTP call the model, several with commas; empty: as it
                                  // is called
  std::string http_allow_origin;  // of web pages that may use it, with commas
  bool log_prompts = false;       // prompts and answers go into the log
  std::string api_keys;           // file of those who may ask, as ApiKeys has it; empty: everybody
  std::string metrics_listen = kDefaultCoordinatorMetricsAddress;  // host:port for monitoring; empty: none
  std::string
      port_file;   // gets a line for each port once all listen, "client HOST:PORT": worker, http, metrics
  TlsOptions tls;  // of the clients' ports; an authority asks clients for theirs
  std::string join_secret;  // file of what workers must know; empty: any may join
  TlsOptions metrics_tls;   // of the port for monitoring
  TlsOptions cluster_tls;   // of the workers' port, which asks workers for theirs
  bool insecure = false;    // nothing need be encrypted, whoever may connect

  int workers = 0;  // how many to wait for; default: tensor_parallel x pipeline_parallel
  int tensor_parallel = 0;
  int pipeline_parallel = 0;
  std::string layout;  // as model/layout_text.h has it; then the two above mean nothing
  std::string quantize = "none";
  std::string kv_type = "auto";
  std::string kernel_level;
  std::string offload = "auto";  // as ParseOffload has it
  int32_t plan_for_batch = kDefaultPlanForBatch;
  bool mix_devices = false;  // stages of GPUs and of CPUs may follow each other
  double device_memory_fraction = kDefaultDeviceMemoryFraction;  // of what a GPU has free
  std::string chat_template;
  bool no_prefix_cache = false;   // else as EngineOptions has it
  bool no_template_stop = false;  // answers go on over the template's own stop strings
  int32_t context_tokens = 0;
  int32_t kv_blocks_max = 0;
  std::string step_tokens = std::to_string(kDefaultStepTokens);  // as ParseStepTokens has it
  int32_t sequences_max = kDefaultSequences;
  int32_t requests_waiting_max = kDefaultQueuedRequests;  // beyond sequences_max
  uint64_t seed = 0;                                      // of the seeds that are drawn; 0: from the system
  absl::Duration step_deadline;                           // zero: from the plan
  absl::Duration drain = kDefaultDrain;               // of running requests, when a worker is told to stop
  int workers_min = 0;                                // as ClusterViewOptions has it
  absl::Duration replace_wait = kDefaultReplaceWait;  // likewise
  absl::Duration resume_wait = kDefaultResumeWait;    // as EngineOptions has it
};

}  // namespace bellwether
