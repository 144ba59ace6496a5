#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/defaults.h"
#include "coordinator/planner.h"
#include "model/checkpoint/read_options.h"

namespace bellwether {

struct PlanOptions {
  std::string model;  // a checkpoint, or "random:SHAPE:FORMAT"
  ReadOptions read;   // how it is read
  std::string quantize = "none";
  std::string kv_type = "auto";
  std::string kernel_level;
  int tensor_parallel = 0, pipeline_parallel = 0;
  std::string layout;  // instead, as ParseLayout has it
  int context_tokens = 0;
  std::string offload = "auto";
  int plan_for_batch = kDefaultPlanForBatch;
  std::string step_tokens = std::to_string(kDefaultStepTokens);  // as ParseStepTokens has it
  bool mix_devices = false;
  double device_memory_fraction = kDefaultDeviceMemoryFraction;
  // Each "name=a,host=h1,memory=16GB,threads=8,bandwidth=40GB"; all but memory may be left out. With
  // "gpu=80GB" it is a GPU with so much memory, bandwidth is the GPU's, and "copy=25GB/s" is what it gets
  // from the host's memory.
  std::vector<std::string> workers;
  int local_workers = 0;  // instead: this many on this machine, as it is measured now
  bool json = false;
};
// Prints the layout, bytes per worker, expected tokens/s and what limits them. Fails with the arithmetic if
// the model does not fit.
absl::Status RunPlan(const PlanOptions& options);

// Tokens a second of one sequence, where `plan` streams weights: if each host that streams had 1 GiB more
// memory, and if there were one more like the first with all of its workers. Absent where nothing is
// streamed, no such plan can be made, or the options say how many workers there are.
struct WhatMoreBuys {
  std::optional<double> memory;
  std::optional<double> machine;
};
WhatMoreBuys PlanWithMore(const ModelConfig& config, const TensorFormats& formats,
                          const std::vector<WorkerInventory>& workers, const PlannerOptions& options,
                          const Plan& plan);

// What one worker of `count` on this machine would report when it joins.
absl::StatusOr<std::vector<WorkerInventory>> LocalInventory(int count);
// A worker described by hand, as in PlanOptions::workers.
absl::StatusOr<WorkerInventory> ParseWorker(const std::string& text, int index);

}  // namespace bellwether
