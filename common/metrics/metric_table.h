#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace bellwether {

// All metrics, declared once: what the programs export, what docs/metrics.md says (metric_docs.h makes it),
// and what dashboards and alerts may ask for. Names follow Prometheus: base units, the unit last, `_total` on
// counters.

enum class Metric : uint8_t {
  kRequestsRunning,
  kRequestsWaiting,
  kRequestsWaitingMax,
  kSequencesRunning,
  kSequencesMax,
  kRequestsAdmitted,
  kRequestsRejected,
  kRequestsFinished,
  kPreemptions,
  kPrefixCacheQueries,
  kPrefixCacheHits,
  kInterruptions,
  kHttpResponses,

  kClientRequests,
  kClientPromptTokens,
  kClientGeneratedTokens,

  kPromptTokens,
  kGeneratedTokens,
  kRequestPromptTokens,
  kRequestGeneratedTokens,
  kRequestChoices,
  kContextTokensMax,

  kTimeToFirstToken,
  kInterTokenLatency,
  kTimePerOutputToken,
  kRequestDuration,
  kRequestQueueTime,
  kRequestPrefillTime,
  kRequestDecodeTime,

  kKvBlocks,
  kKvBlocksUsed,
  kKvCacheUsage,
  kCacheConfigInfo,

  kStepDuration,
  kStepTokens,
  kStepsInFlight,
  kStepBusyTime,
  kStepPlannedTime,

  kServing,
  kNotServingTime,
  kEpoch,
  kRegroups,
  kWorkersWanted,
  kWorkersShort,
  kWorkersJoined,
  kModelInfo,

  kLayoutInfo,
  kLayoutCores,
  kLayoutGpus,
  kPlanTokenRate,
  kPlanTokenRateLimit,
  kPlanImbalance,
  kPlanStepReadTime,
  kPlanStepDriveTime,

  kRankInfo,
  kWorkerUp,
  kWorkerState,
  kWorkerHeartbeatAge,
  kWaitedForTime,

  kWorkerTime,
  kWorkerSteps,
  kPeerWaitTime,
  kLinkSent,
  kLinkReceived,
  kLoadRead,
  kLoadSize,
  kWeightsResident,
  kWeightsStreamed,
  kWeightsReadTime,
  kWeightsRing,
  kWeightsRingFilled,
  kShardCacheWaiting,
  kKvCacheSize,

  kBuildInfo,
  kProcessCpuTime,
  kProcessResidentMemory,
  kProcessOpenFds,
  kProcessMaxFds,
  kProcessStartTime,
};

enum class MetricType : uint8_t { kCounter, kGauge, kHistogram };
// Which program exports it.
enum class MetricSource : uint8_t { kCoordinator, kWorker, kBoth };

struct MetricSpec {
  Metric id;
  MetricSource source;
  MetricType type;
  absl::string_view name;
  absl::string_view unit;  // of the value; empty: 0 or 1, or a plain number
  absl::Span<const absl::string_view> labels;
  absl::string_view help;                 // one line
  absl::string_view vllm = {};            // its name in vLLM, which most dashboards know
  absl::string_view otel = {};            // and in OpenTelemetry's conventions
  absl::Span<const double> buckets = {};  // of a histogram: upper bounds, ascending; +Inf follows
};

// All values that a label of a metric takes, in the order in which docs/metrics.md has them.
struct MetricLabelValues {
  Metric metric;
  absl::string_view label;
  absl::Span<const absl::string_view> values;
};

// The rows from `first` on, up to the next section.
struct MetricSection {
  Metric first;
  absl::string_view title;
};

namespace metrics_internal {

// Labels take few values, whatever clients send: one model is served, reasons, causes and the like are those
// of kMetricLabelValues, and the coordinator limits the workers.
inline constexpr absl::string_view kByModel[] = {"model_name"};
inline constexpr absl::string_view kByModelReason[] = {"model_name", "reason"};
inline constexpr absl::string_view kByModelCode[] = {"model_name", "code"};
inline constexpr absl::string_view kByModelClient[] = {"model_name", "client"};
inline constexpr absl::string_view kByModelInfo[] = {"model_name", "model_id", "architecture", "weights"};
inline constexpr absl::string_view kByCacheInfo[] = {"model_name", "block_size", "num_gpu_blocks"};
inline constexpr absl::string_view kByBuildInfo[] = {"program", "build_id"};
inline constexpr absl::string_view kByLayoutInfo[] = {"layout",       "stages",   "workers",
                                                      "kernel_level", "quantize", "kv_type"};
inline constexpr absl::string_view kByConcurrency[] = {"concurrency"};
inline constexpr absl::string_view kByCause[] = {"cause"};
inline constexpr absl::string_view kByWorker[] = {"worker", "host"};
inline constexpr absl::string_view kByWorkerState[] = {"worker", "state"};
inline constexpr absl::string_view kByRank[] = {"stage", "rank", "worker"};
inline constexpr absl::string_view kByRankInfo[] = {"stage",  "rank",         "worker", "host",
                                                    "device", "kernel_level", "layers"};
inline constexpr absl::string_view kByRankPart[] = {"stage", "rank", "worker", "part"};
inline constexpr absl::string_view kByRankKind[] = {"stage", "rank", "worker", "kind"};
inline constexpr absl::string_view kByRankPeer[] = {"stage", "rank", "worker", "peer_stage", "peer_rank"};

// vLLM's, so that charts compare, and finer ones below, as small models are that fast.
inline constexpr double kFirstToken[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                                         1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
inline constexpr double kToken[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075,
                                    0.1,    0.15,  0.2,    0.3,   0.4,  0.5,   0.75, 1,
                                    2.5,    5,     7.5,    10,    20,   40,    80};
inline constexpr double kRequest[] = {0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 1,   1.5, 2,   2.5, 5,    10,
                                      15,   20,   30,  40,  50,  60,  120, 240, 480, 960, 1920, 7680};
inline constexpr double kTokens[] = {1,    2,    5,     10,    20,    50,     100,    200,    500,    1000,
                                     2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000};
inline constexpr double kChoices[] = {1, 2, 4, 8, 16};
inline constexpr double kStep[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                   0.25,   0.5,   1,      2.5,   5,    10,    30,   60};
inline constexpr double kStepTokens[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

using enum MetricSource;
using enum MetricType;

inline constexpr MetricSpec kRows[] = {
    {Metric::kRequestsRunning, kCoordinator, kGauge, "bellwether_requests_running", "requests", kByModel,
     "Requests that have been in a step and have not ended.", "vllm:num_requests_running"},
    {Metric::kRequestsWaiting, kCoordinator, kGauge, "bellwether_requests_waiting", "requests", kByModel,
     "Requests that were admitted and wait for their first step.", "vllm:num_requests_waiting"},
    {Metric::kRequestsWaitingMax, kCoordinator, kGauge, "bellwether_requests_waiting_max", "requests",
     kByModel, "Requests that may wait beyond those that run (--requests-waiting-max)."},
    {Metric::kSequencesRunning, kCoordinator, kGauge, "bellwether_sequences_running", "sequences", kByModel,
     "Sequences that hold KV blocks: a request has one for each of its choices."},
    {Metric::kSequencesMax, kCoordinator, kGauge, "bellwether_sequences_max", "sequences", kByModel,
     "Sequences that may run at once (--sequences-max)."},
    {Metric::kRequestsAdmitted, kCoordinator, kCounter, "bellwether_requests_admitted_total", "requests",
     kByModel, "Requests that were taken. All others were rejected."},
    {Metric::kRequestsRejected, kCoordinator, kCounter, "bellwether_requests_rejected_total", "requests",
     kByModelReason, "Requests that ended before they were taken."},
    {Metric::kRequestsFinished, kCoordinator, kCounter, "bellwether_requests_finished_total", "requests",
     kByModelReason, "Requests that were taken and have ended. length: at least one choice met its limit.",
     "vllm:request_success_total"},
    {Metric::kPreemptions, kCoordinator, kCounter, "bellwether_preemptions_total", "sequences", kByModel,
     "Sequences that gave up their KV blocks for others and are computed again.",
     "vllm:num_preemptions_total"},
    {Metric::kPrefixCacheQueries, kCoordinator, kCounter, "bellwether_prefix_cache_queries_total", "tokens",
     kByModel, "Tokens of sequences that began, or began again: prompts, and answers up to there.",
     "vllm:prefix_cache_queries_total"},
    {Metric::kPrefixCacheHits, kCoordinator, kCounter, "bellwether_prefix_cache_hits_total", "tokens",
     kByModel,
     "Those of them that were in KV blocks of others, before or beside them, and were not computed again. "
     "Choices of one prompt share also with --no-prefix-cache.",
     "vllm:prefix_cache_hits_total"},
    {Metric::kInterruptions, kCoordinator, kCounter, "bellwether_interruptions_total", "requests", kByModel,
     "Requests whose workers were lost, or left: they are computed again and go on when others serve. Each "
     "counts each time."},
    {Metric::kHttpResponses, kCoordinator, kCounter, "bellwether_http_responses_total", "responses",
     kByModelCode,
     "Answers of the HTTP door by status. 499: the client had gone before it had all of the answer."},

    {Metric::kClientRequests, kCoordinator, kCounter, "bellwether_client_requests_total", "requests",
     kByModelClient,
     "Requests that were taken and have ended, by the name of their API key; those after the first 100 names "
     "are \"other\"."},
    {Metric::kClientPromptTokens, kCoordinator, kCounter, "bellwether_client_prompt_tokens_total", "tokens",
     kByModelClient, "Their prompt tokens, counted when prefill and request are done."},
    {Metric::kClientGeneratedTokens, kCoordinator, kCounter, "bellwether_client_generated_tokens_total",
     "tokens", kByModelClient, "Their generated tokens, of all choices."},

    {Metric::kPromptTokens, kCoordinator, kCounter, "bellwether_prompt_tokens_total", "tokens", kByModel,
     "Prompt tokens of requests, counted when their prefill is done.", "vllm:prompt_tokens_total"},
    {Metric::kGeneratedTokens, kCoordinator, kCounter, "bellwether_generated_tokens_total", "tokens",
     kByModel, "Tokens generated, of all choices.", "vllm:generation_tokens_total"},
    {Metric::kRequestPromptTokens, kCoordinator, kHistogram, "bellwether_request_prompt_tokens", "tokens",
     kByModel, "Length of the prompt, by request that was taken and has ended.", "vllm:request_prompt_tokens",
     "gen_ai.client.token.usage{gen_ai.token.type=input}", kTokens},
    {Metric::kRequestGeneratedTokens, kCoordinator, kHistogram, "bellwether_request_generated_tokens",
     "tokens", kByModel, "Tokens generated over all choices, by request that was taken and has ended.",
     "vllm:request_generation_tokens", "gen_ai.client.token.usage{gen_ai.token.type=output}", kTokens},
    {Metric::kRequestChoices, kCoordinator, kHistogram, "bellwether_request_choices", "choices", kByModel,
     "Choices asked for (n), by request that was taken and has ended.", "vllm:request_params_n", "",
     kChoices},
    {Metric::kContextTokensMax, kCoordinator, kGauge, "bellwether_context_tokens_max", "tokens", kByModel,
     "Longest prompt and answer together (--context-tokens)."},

    {Metric::kTimeToFirstToken, kCoordinator, kHistogram, "bellwether_time_to_first_token_seconds", "seconds",
     kByModel, "From the arrival of a request to its first token.", "vllm:time_to_first_token_seconds",
     "gen_ai.server.time_to_first_token", kFirstToken},
    {Metric::kInterTokenLatency, kCoordinator, kHistogram, "bellwether_inter_token_latency_seconds",
     "seconds", kByModel, "Between a token of a choice and the next.", "vllm:inter_token_latency_seconds", "",
     kToken},
    {Metric::kTimePerOutputToken, kCoordinator, kHistogram, "bellwether_time_per_output_token_seconds",
     "seconds", kByModel, "Mean time of a token after the first, by request.",
     "vllm:request_time_per_output_token_seconds", "gen_ai.server.time_per_output_token", kToken},
    {Metric::kRequestDuration, kCoordinator, kHistogram, "bellwether_request_duration_seconds", "seconds",
     kByModel, "From the arrival of a request that was taken to its end.", "vllm:e2e_request_latency_seconds",
     "gen_ai.server.request.duration", kRequest},
    {Metric::kRequestQueueTime, kCoordinator, kHistogram, "bellwether_request_queue_time_seconds", "seconds",
     kByModel, "From the arrival of a request to its first step.", "vllm:request_queue_time_seconds", "",
     kRequest},
    {Metric::kRequestPrefillTime, kCoordinator, kHistogram, "bellwether_request_prefill_time_seconds",
     "seconds", kByModel, "From the first step of a request to its first token.",
     "vllm:request_prefill_time_seconds", "", kRequest},
    {Metric::kRequestDecodeTime, kCoordinator, kHistogram, "bellwether_request_decode_time_seconds",
     "seconds", kByModel, "From the first token of a request to its end.", "vllm:request_decode_time_seconds",
     "", kRequest},

    {Metric::kKvBlocks, kCoordinator, kGauge, "bellwether_kv_blocks", "blocks", kByModel,
     "KV blocks of the layout in force; 0 without one."},
    {Metric::kKvBlocksUsed, kCoordinator, kGauge, "bellwether_kv_blocks_used", "blocks", kByModel,
     "KV blocks that sequences hold."},
    {Metric::kKvCacheUsage, kCoordinator, kGauge, "bellwether_kv_cache_usage_ratio", "ratio", kByModel,
     "KV blocks in use, 0 to 1.", "vllm:kv_cache_usage_perc"},
    {Metric::kCacheConfigInfo, kCoordinator, kGauge, "bellwether_cache_config_info", "", kByCacheInfo,
     "Always 1. Tokens of a KV block and number of blocks, as gateways read them.", "vllm:cache_config_info"},

    {Metric::kStepDuration, kCoordinator, kHistogram, "bellwether_step_duration_seconds", "seconds", kByModel,
     "From the sending of a step to its result. With several stages steps overlap.", "", "", kStep},
    {Metric::kStepTokens, kCoordinator, kHistogram, "bellwether_step_tokens", "tokens", kByModel,
     "Tokens that a step computes, of prompts and of answers.", "vllm:iteration_tokens_total", "",
     kStepTokens},
    {Metric::kStepsInFlight, kCoordinator, kGauge, "bellwether_steps_in_flight", "steps", kByModel,
     "Steps that workers compute; at most as many as there are stages."},
    {Metric::kStepBusyTime, kCoordinator, kCounter, "bellwether_step_busy_seconds_total", "seconds", kByModel,
     "Time with a step under way, counted when its result is there."},
    {Metric::kStepPlannedTime, kCoordinator, kCounter, "bellwether_step_planned_seconds_total", "seconds",
     kByModel,
     "What the plan gives the same steps at least, by their tokens: what is above it was not foreseen."},

    {Metric::kServing, kCoordinator, kGauge, "bellwether_serving", "", kByModel,
     "1 while a layout is up and requests are taken, as /readyz says."},
    {Metric::kNotServingTime,
     kCoordinator,
     kCounter,
     "bellwether_not_serving_seconds_total",
     "seconds",
     {},
     "Time without service since the coordinator started, the first loading included."},
    {Metric::kEpoch,
     kCoordinator,
     kGauge,
     "bellwether_epoch",
     "",
     {},
     "Number of the last layout; it grows with each."},
    {Metric::kRegroups, kCoordinator, kCounter, "bellwether_regroups_total", "epochs", kByCause,
     "Layouts that ended, whether or not they had served."},
    {Metric::kWorkersWanted,
     kCoordinator,
     kGauge,
     "bellwether_workers_wanted",
     "workers",
     {},
     "Workers that a layout needs (--workers)."},
    {Metric::kWorkersShort,
     kCoordinator,
     kGauge,
     "bellwether_workers_short",
     "workers",
     {},
     "Workers that the layout that serves, or served last, was made without, of those wanted "
     "(--workers-min)."},
    {Metric::kWorkersJoined,
     kCoordinator,
     kGauge,
     "bellwether_workers_joined",
     "workers",
     {},
     "Workers that have joined, with or without a part."},
    {Metric::kModelInfo, kCoordinator, kGauge, "bellwether_model_info", "", kByModelInfo,
     "Always 1. The model that is served."},

    {Metric::kLayoutInfo, kCoordinator, kGauge, "bellwether_layout_info", "", kByLayoutInfo,
     "1 for the layout that is up or loads. kernel_level: what computes it, by stage."},
    {Metric::kLayoutCores,
     kCoordinator,
     kGauge,
     "bellwether_layout_cores",
     "cores",
     {},
     "Threads that compute, of the layout's workers on CPUs."},
    {Metric::kLayoutGpus,
     kCoordinator,
     kGauge,
     "bellwether_layout_gpus",
     "gpus",
     {},
     "Cards that the layout's workers use."},
    {Metric::kPlanTokenRate, kCoordinator, kGauge, "bellwether_plan_tokens_per_second", "tokens_per_second",
     kByConcurrency,
     "Tokens generated a second as the planner predicts: by one sequence alone, by one a stage, or, at most, "
     "by so many."},
    {Metric::kPlanTokenRateLimit, kCoordinator, kGauge, "bellwether_plan_limit_tokens_per_second",
     "tokens_per_second", kByConcurrency,
     "The same if nothing but reading the weights at the measured bandwidth took time."},
    {Metric::kPlanImbalance,
     kCoordinator,
     kGauge,
     "bellwether_plan_imbalance_ratio",
     "ratio",
     {},
     "Time that the slowest worker reads its weights, over the mean of all."},
    {Metric::kPlanStepReadTime, kCoordinator, kGauge, "bellwether_plan_step_read_seconds", "seconds", kByRank,
     "Time to read this worker's weights once, at its measured bandwidth: no step is faster."},
    {Metric::kPlanStepDriveTime, kCoordinator, kGauge, "bellwether_plan_step_drive_seconds", "seconds",
     kByRank,
     "Time to read what this worker's host streams once, at the drive's measured rate: no step is faster. 0: "
     "nothing is streamed."},

    {Metric::kRankInfo, kCoordinator, kGauge, "bellwether_rank_info", "", kByRankInfo,
     "1 for each worker of the layout that is up or loads."},
    {Metric::kWorkerUp, kCoordinator, kGauge, "bellwether_worker_up", "", kByWorker,
     "1 for each worker that has joined, 0 for one of the last layout that is gone and has not been "
     "replaced."},
    {Metric::kWorkerState, kCoordinator, kGauge, "bellwether_worker_state", "", kByWorkerState,
     "1 for the state of the worker, 0 for the others."},
    {Metric::kWorkerHeartbeatAge, kCoordinator, kGauge, "bellwether_worker_heartbeat_age_seconds", "seconds",
     kByWorker, "Since the last heartbeat of the worker."},
    {Metric::kWaitedForTime, kCoordinator, kCounter, "bellwether_waited_for_seconds_total", "seconds",
     kByRank, "Time that the others of the layout have waited for this worker, summed over them."},

    {Metric::kWorkerTime, kWorker, kCounter, "bellwether_worker_seconds_total", "seconds", kByRankPart,
     "Time while a layout was up, by what it was spent on. Under load idle is the pipeline's bubble. Where "
     "NCCL copies, "
     "waits are part of compute."},
    {Metric::kWorkerSteps, kWorker, kCounter, "bellwether_worker_steps_total", "steps", kByRank,
     "Steps that this worker has computed."},
    {Metric::kPeerWaitTime, kWorker, kCounter, "bellwether_peer_wait_seconds_total", "seconds", kByRankPeer,
     "Time that this worker has waited for that peer in the layout that is up."},
    {Metric::kLinkSent, kWorker, kCounter, "bellwether_link_sent_bytes_total", "bytes", kByRankKind,
     "Activations sent to other workers, but for what NCCL copies."},
    {Metric::kLinkReceived, kWorker, kCounter, "bellwether_link_received_bytes_total", "bytes", kByRankKind,
     "Activations received from other workers, but for what NCCL copies."},
    {Metric::kLoadRead, kWorker, kGauge, "bellwether_load_read_bytes", "bytes", kByRank,
     "Bytes of this worker's part that it has read, in this layout."},
    {Metric::kLoadSize, kWorker, kGauge, "bellwether_load_size_bytes", "bytes", kByRank,
     "Bytes that it reads in all; 0 if it kept its weights."},
    {Metric::kWeightsResident, kWorker, kGauge, "bellwether_weights_resident_bytes", "bytes", kByRank,
     "Memory of weights, with the buffers of layers that are streamed."},
    {Metric::kWeightsStreamed, kWorker, kCounter, "bellwether_weights_streamed_bytes_total", "bytes", kByRank,
     "Weights that steps have taken from the worker's drive, or a GPU from the memory of its host."},
    {Metric::kWeightsReadTime, kWorker, kCounter, "bellwether_weights_read_seconds_total", "seconds", kByRank,
     "Time with at least one read of streamed weights under way: all of it, where the drive binds."},
    {Metric::kWeightsRing, kWorker, kGauge, "bellwether_weights_ring_bytes", "bytes", kByRank,
     "Memory of the buffers that streamed weights are read into, ahead of their use."},
    {Metric::kWeightsRingFilled, kWorker, kGauge, "bellwether_weights_ring_filled_bytes", "bytes", kByRank,
     "Of them, what holds weights: few where the drive binds, all where it does not."},
    {Metric::kShardCacheWaiting, kWorker, kGauge, "bellwether_shard_cache_waiting", "layers", kByRank,
     "Layers that are packed and not yet written to the shard cache, for the next start."},
    {Metric::kKvCacheSize, kWorker, kGauge, "bellwether_kv_cache_bytes", "bytes", kByRank,
     "Memory of its KV cache; 0 without a layout."},

    {Metric::kBuildInfo, kBoth, kGauge, "bellwether_build_info", "", kByBuildInfo,
     "Always 1. What the program was built from."},
    {Metric::kProcessCpuTime,
     kBoth,
     kCounter,
     "process_cpu_seconds_total",
     "seconds",
     {},
     "CPU time of the process, user and system."},
    {Metric::kProcessResidentMemory,
     kBoth,
     kGauge,
     "process_resident_memory_bytes",
     "bytes",
     {},
     "Memory of the process that is in RAM."},
    {Metric::kProcessOpenFds,
     kBoth,
     kGauge,
     "process_open_fds",
     "descriptors",
     {},
     "File descriptors that are open."},
    {Metric::kProcessMaxFds,
     kBoth,
     kGauge,
     "process_max_fds",
     "descriptors",
     {},
     "File descriptors that may be open."},
    {Metric::kProcessStartTime,
     kBoth,
     kGauge,
     "process_start_time_seconds",
     "seconds",
     {},
     "When the process started, since 1970."},
};

inline constexpr absl::string_view kRejectedReasons[] = {
    "invalid", "overloaded", "not_serving", "cancelled", "deadline", "unauthenticated", "error"};
inline constexpr absl::string_view kFinishedReasons[] = {"stop",     "length",      "score", "cancelled",
                                                         "deadline", "unavailable", "error"};
inline constexpr absl::string_view kHttpCodes[] = {"200", "204", "400", "401", "403",  "404", "405",
                                                   "408", "413", "417", "429", "431",  "499", "500",
                                                   "501", "503", "504", "505", "other"};
inline constexpr absl::string_view kCauses[] = {"worker_lost", "worker_stuck",  "worker_failed",
                                                "worker_left", "worker_joined", "bad_result"};
inline constexpr absl::string_view kParts[] = {"compute", "collective_wait", "link_wait", "weights_wait",
                                               "idle"};
inline constexpr absl::string_view kKinds[] = {"collective", "pipeline"};
inline constexpr absl::string_view kConcurrencies[] = {"one_sequence", "one_sequence_per_stage"};
inline constexpr absl::string_view kPlanConcurrencies[] = {"one_sequence", "one_sequence_per_stage", "16",
                                                           "64"};
inline constexpr absl::string_view kStates[] = {"joined", "loading", "linking", "ready", "step"};
inline constexpr absl::string_view kPrograms[] = {"coordinator", "worker"};

inline constexpr MetricLabelValues kValues[] = {
    {Metric::kRequestsRejected, "reason", kRejectedReasons},
    {Metric::kRequestsFinished, "reason", kFinishedReasons},
    {Metric::kHttpResponses, "code", kHttpCodes},
    {Metric::kRegroups, "cause", kCauses},
    {Metric::kPlanTokenRate, "concurrency", kPlanConcurrencies},
    {Metric::kPlanTokenRateLimit, "concurrency", kConcurrencies},
    {Metric::kWorkerState, "state", kStates},
    {Metric::kWorkerTime, "part", kParts},
    {Metric::kLinkSent, "kind", kKinds},
    {Metric::kLinkReceived, "kind", kKinds},
    {Metric::kBuildInfo, "program", kPrograms},
};

inline constexpr MetricSection kSections[] = {
    {Metric::kRequestsRunning, "Requests"},
    {Metric::kClientRequests, "Clients with API keys"},
    {Metric::kPromptTokens, "Tokens"},
    {Metric::kTimeToFirstToken, "Latency"},
    {Metric::kKvBlocks, "KV cache"},
    {Metric::kStepDuration, "Steps"},
    {Metric::kServing, "Service"},
    {Metric::kLayoutInfo, "Layout and plan"},
    {Metric::kRankInfo, "Workers, as the coordinator sees them"},
    {Metric::kWorkerTime, "Workers, as they see themselves"},
    {Metric::kBuildInfo, "Process"},
};

constexpr bool RowsFollowTheEnum() {
  for (size_t i = 0; i < std::size(kRows); ++i) {
    if (kRows[i].id != static_cast<Metric>(i)) return false;
  }
  return std::size(kRows) == static_cast<size_t>(Metric::kProcessStartTime) + 1;
}
static_assert(RowsFollowTheEnum());

}  // namespace metrics_internal

// In the order of the enum.
inline constexpr absl::Span<const MetricSpec> kMetricTable = metrics_internal::kRows;
inline constexpr absl::Span<const MetricSection> kMetricSections = metrics_internal::kSections;
// Of labels that are not here: names of the model, of workers, of API keys and of what computes, and numbers.
inline constexpr absl::Span<const MetricLabelValues> kMetricLabelValues = metrics_internal::kValues;

constexpr const MetricSpec& SpecOf(Metric metric) { return kMetricTable[static_cast<size_t>(metric)]; }
absl::string_view Name(MetricType type);      // "counter", as Prometheus says it
absl::string_view Name(MetricSource source);  // "coordinator", "worker", "both"
// All values of the label; empty if they are not listed.
absl::Span<const absl::string_view> LabelValuesOf(Metric metric, absl::string_view label);

}  // namespace bellwether
