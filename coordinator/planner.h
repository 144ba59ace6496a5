#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/defaults.h"
#include "model/config.h"
#include "model/layout.h"
#include "model/shard_size.h"
#include "model/streamed_layers.h"

namespace bellwether {

// Which worker holds what, known before anything is loaded. Pure: the same inventory gives the same plan.

// Operations per second (a multiply and an add are two) that products reach at most; 0: nobody has measured.
struct ArithmeticRates {
  double floats = 0;  // with weights in fp32, fp16 and bf16
  double int8 = 0;    // with quantised ones
};

// What a worker says about itself when it joins.
struct WorkerInventory {
  std::string name;
  std::string host;          // equal on workers that share memory
  std::string cpu_type;      // workers of one host and type are equally fast
  int64_t memory_bytes = 0;  // free on its host; workers of one host report the same memory, counted once
  int32_t threads = 1;
  std::vector<int32_t> cpus;         // that its threads may run on; empty: unknown
  double cpu_quota = 0;              // cores' worth of time that its control group may use; 0: no limit
  double read_bytes_per_second = 0;  // measured, of the device that computes; > 0
  double drive_bytes_per_second =
      0;  // of the drive that it streams from, which its host shares; 0: it cannot
  ArithmeticRates arithmetic;
  std::vector<std::string> kernel_levels;  // ascending
  std::optional<HeldPart> held;            // of this model
  // A card with memory of its own, where weights and KV cache lie.
  struct Gpu {
    std::string name;
    std::string uuid;  // equal on workers that share a card: its memory is counted once
    int64_t memory_bytes = 0;
    int64_t free_bytes = 0;
    double copy_bytes_per_second = 0;  // from pinned memory of its host; 0: nobody has measured
  };
  std::optional<Gpu> gpu;  // absent: the CPU computes, in the host's memory
};

struct PlannerOptions {
  Quantize quantize = Quantize::kNone;
  DType kv_type = DType::kF32;
  // Those to compute as, one a device class (coordinator/device_class.h); empty = the highest that all have.
  std::vector<std::string> kernel_levels;
  bool mix_devices = false;  // stages of different device classes may follow each other
  Offload offload = Offload::kAuto;
  int32_t plan_for_batch = kDefaultPlanForBatch;  // sequences that run at once, where layers are streamed
  // 0 = the planner chooses. One of them alone is allowed; ranks * stages workers must be there.
  int stages = 0;
  int ranks = 0;
  std::optional<Layout> layout;  // forced as a whole; stages and ranks are then ignored

  int32_t context_tokens = 2048;  // KV blocks for one sequence of this length must fit
  int32_t step_tokens = 512;      // of a step, at most: sizes the activations; kStepTokensAuto: step_budget.h
  int32_t kv_blocks_max = 4096;   // more than this is not asked for
  double memory_share = 0.9;      // of what a host has free; the rest is left to everyone else
  double device_memory_share = kDefaultDeviceMemoryFraction;  // likewise of a GPU

  // Seconds, for the prediction alone.
  double all_reduce_seconds = 15e-6;          // among ranks on one host
  double remote_all_reduce_seconds = 250e-6;  // among ranks on several hosts
  double hop_seconds = 20e-6;                 // stage to stage on one host
  double remote_hop_seconds = 300e-6;         // stage to stage between hosts
  double step_seconds = 300e-6;               // coordinator to workers and back
  double remote_bytes_per_second = 1e9;       // between hosts, of activations
};

// Worker of the layout's flat order (stage by stage, rank by rank).
struct PlannedWorker {
  size_t inventory = 0;  // index of what was given
  int stage = 0;
  int rank = 0;
  bool keeps = false;                           // it holds these weights already
  int64_t weight_bytes = 0;                     // in memory or not
  int32_t streamed_layers = 0;                  // whose weights are not
  WeightHome stream_home = WeightHome::kDrive;  // where those are
  StreamedEnds streamed_ends;                   // nor are these
  int64_t streamed_bytes = 0;  // of all that, in every step; an embedding's rows count as nothing
  int64_t resident_bytes = 0;  // of weights in memory, with the buffers for those that are not
  int64_t host_bytes = 0;      // of a GPU's host: all that is streamed from there, or buffers of a drive's
  int64_t host_embedding_bytes = 0;  // of a GPU's embedding that is streamed, packed: its host looks rows up
  int64_t activation_bytes = 0;
  int64_t kv_block_bytes = 0;
  int64_t kv_bytes = 0;              // kv_blocks * kv_block_bytes
  int64_t bytes_read_per_token = 0;  // weights alone
  double read_seconds = 0;           // bytes_read_per_token at its bandwidth
  double drive_seconds = 0;          // what is streamed in a step, from whatever drive or host it comes
  double arithmetic_seconds = 0;     // products of one token, at its arithmetic's rate; 0: not known

  bool streams() const { return streamed_layers > 0 || streamed_ends.any(); }
  // Reading from memory and from the drive and products go on at the same time.
  double step_seconds(int32_t tokens = 1) const {
    return std::max({read_seconds, drive_seconds, tokens * arithmetic_seconds});
  }
};

// What a layout gives at most with so many sequences at once, if the KV cache has room for them: arithmetic
// counts as the most that its instructions allow, attention not at all.
struct BatchRate {
  int32_t sequences = 1;
  double tokens_per_second = 0;
  std::string bound_by;
};
inline constexpr int32_t kPlannedBatches[] = {16, 64};

struct Plan {
  Layout layout;
  int32_t hidden = 0;                      // of the model: floats of a row that goes over links
  std::vector<std::string> kernel_levels;  // by stage
  Quantize quantize = Quantize::kNone;
  DType kv_type = DType::kF32;
  std::vector<PlannedWorker> workers;  // one a RankLayout, in flat order; workers left over are not listed
  int32_t step_tokens = kDefaultStepTokens;  // of a step, at most
  int32_t kv_blocks = 0;                     // the least that the memory of any host or GPU can hold
  std::string kv_bound_by;                   // whose that is, or the limit that was asked for
  double decode_tokens_per_second = 0;       // one sequence alone
  double pipeline_tokens_per_second = 0;     // one sequence a stage: as fast as the slowest stage
  std::string bound_by;                      // "memory bandwidth of worker a", "link latency"
  std::vector<BatchRate> batch_rates;        // of kPlannedBatches; none where some arithmetic is not known
  double imbalance = 1;                      // slowest worker's read time over the mean
  double token_seconds = 0;                  // that a token takes beside what drives take
  double drive_seconds = 0;                  // that drives take of a step, however many tokens it has
  std::vector<double> link_seconds;          // by stage: its all-reduces, and the way from the stage before
  double turn_seconds = 0;                   // from the coordinator to the workers and back
  bool drive_bound = false;                  // some stage waits for its drive
  std::vector<std::string> warnings;         // what people will not have meant
  std::string arithmetic;                    // all of this as a table for people

  NumericOptions numeric(int stage) const {
    return {.kernel_level = kernel_levels[stage], .quantize = quantize, .kv_type = kv_type};
  }
  // Steps that are best under way at once: one a stage, or one alone where a stage waits for its drive, since
  // every further one reads all streamed layers again.
  int32_t StepsInFlight() const { return drive_bound ? 1 : static_cast<int32_t>(layout.stages.size()); }
  // "avx512", or of stages that differ "cuda_sm90, avx512".
  std::string KernelLevelText() const;
};

// Tensor parallelism within a host, pipeline parallelism across hosts (or ranks on several, where they wait
// for drives that had better read at once), layers split so that the slowest stage (with the embedding or the
// head that it also holds) is as fast as memory allows. The ranks of a stage are of one device class. A
// layout whose parts are held already stays, and with it every worker in its place, unless the new one is
// predicted to be a tenth faster. InvalidArgument: options that contradict model or workers.
// FailedPrecondition, with the arithmetic: it does not fit, or the workers share no kernel level and may not
// mix.
absl::StatusOr<Plan> MakePlan(const ModelConfig& config, const TensorFormats& formats,
                              absl::Span<const WorkerInventory> workers, const PlannerOptions& options);

}  // namespace bellwether
