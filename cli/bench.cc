#include "cli/bench.h"

#include <algorithm>
#include <fstream>
#include <numeric>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "cli/bench_offload.h"
#include "cli/bench_runs.h"
#include "cli/managed_cluster.h"
#include "cli/stop.h"
#include "cli/terminal.h"
#include "common/clock.h"
#include "common/defaults.h"
#include "common/format_bytes.h"
#include "common/json.h"
#include "common/output.h"
#include "common/status.h"
#include "common/step.h"
#include "kernels/kernels.h"
#include "kernels/peaks.h"
#include "model/checkpoint/checkpoint.h"
#include "model/shard_size.h"
#include "worker/inventory.h"

namespace bellwether {
namespace {

constexpr double kSampleSeconds = 0.3;  // of each limit, right beside each run

// What the model asks of the machine.
struct Work {
  double bytes_per_token = 0;       // weights that one decoded token reads, over all workers
  double operations_per_token = 0;  // of the products inside the layers, twice their weights
  double weight_bytes = 0;          // held once
  double kv_block_bytes = 0;        // of all layers
};

struct Measurement {
  std::string kernel_level;
  double read_bandwidth = 0;  // sampled beside the run
  double peak = 0;            // operations/s, likewise
  double prefill_tokens_per_second = 0;
  double decode_tokens_per_second = 0;          // one stream
  double decode_streams_tokens_per_second = 0;  // as many streams as stages, all together
  double resident_bytes = 0;                    // private and shared memory of all workers
  double kv_bytes = 0;                          // of the positions that the longest run held at once
};

absl::StatusOr<Work> WorkOf(const std::string& model) {
  BW_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(model));
  const ModelConfig& config = checkpoint->config();
  BW_ASSIGN_OR_RETURN(const Layout one, EvenLayout(config, /*stages=*/1, /*ranks=*/1));
  const CheckpointFormats formats(*checkpoint);
  const StageLayout& whole = one.stages[0];
  Work work;
  work.bytes_per_token = static_cast<double>(
      BytesReadPerToken(config, formats, Quantize::kNone, whole, /*rank=*/0, /*last_stage=*/true));
  work.weight_bytes = static_cast<double>(ShardBytes(config, formats, Quantize::kNone, whole, /*rank=*/0,
                                                     {.first_stage = true, .last_stage = true}));
  work.kv_block_bytes =
      static_cast<double>(KvBlockBytes(config, DefaultKvType(formats, Quantize::kNone), whole, /*rank=*/0));
  const double attention = 2.0 * config.heads * config.head_dim + 2.0 * config.kv_heads * config.head_dim;
  const double mlp = (config.gated_mlp ? 3.0 : 2.0) * config.ffn;
  work.operations_per_token = 2.0 * config.layers * config.hidden * (attention + mlp);
  return work;
}

// A worker's KV memory is only touched where it is written, and blocks given back are the next to be used:
// what the run with the most blocks at once needs is all that is ever touched.
double KvBytes(const BenchLayout& layout, const BenchOptions& options, const Work& work) {
  const auto blocks = [](int tokens) { return (tokens + kKvBlockTokens - 1) / kKvBlockTokens; };
  return work.kv_block_bytes *
         std::max(blocks(options.prompt_tokens),
                  layout.pipeline * blocks(kDecodePromptTokens + options.decode_tokens));
}

absl::StatusOr<Measurement> Measure(const BenchLayout& layout, const BenchOptions& options,
                                    StatusLine& line) {
  const std::string model = absl::StrCat("random:", options.shape, ":", options.weights);
  ClusterOptions cluster_options{.model = model,
                                 .tensor_parallel = layout.tensor,
                                 .pipeline_parallel = layout.pipeline,
                                 .threads = layout.threads,
                                 .no_prefix_cache = true};
  BW_ASSIGN_OR_RETURN(const auto cluster,
                      ManagedCluster::Start(cluster_options, [&](const std::string& text) {
                        line.Show(absl::StrCat(layout.name, ": ", text));
                      }));
  BW_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(model));
  const int vocab = checkpoint->config().vocab;
  const auto level = kernels::ParseKernelLevel(cluster->model().kernel_level);
  const auto format = checkpoint->Find({.role = TensorRole::kQuery})->format.format;
  const int threads = layout.threads * cluster->workers();
  InferenceClient client(cluster->address());
  BW_RETURN_IF_ERROR(TimedGenerate(client, RandomPrompt(kDecodePromptTokens, vocab, 1), 2).status());

  std::vector<double> bandwidths, peaks, prefill, decode, streams;
  for (int repeat = 0; repeat < options.repeats; ++repeat) {
    line.Show(absl::StrFormat("%s: run %d of %d", layout.name, repeat + 1, options.repeats));
    peaks.push_back(
        kernels::MeasureArithmeticPeak(*level, kernels::ArithmeticOf(format), threads, kSampleSeconds));
    BW_ASSIGN_OR_RETURN(const TimedAnswer answer,
                        TimedGenerate(client, RandomPrompt(options.prompt_tokens, vocab, repeat + 7), 1));
    prefill.push_back(options.prompt_tokens / answer.usage.time_to_first_token_seconds);
    bandwidths.push_back(kernels::MeasureReadBandwidth(threads, kSampleSeconds));
    BW_ASSIGN_OR_RETURN(const double rate,
                        MeasureDecoding(cluster->address(), vocab, 1, options.decode_tokens));
    decode.push_back(rate);
    bandwidths.push_back(kernels::MeasureReadBandwidth(threads, kSampleSeconds));
    if (layout.pipeline == 1) continue;
    BW_ASSIGN_OR_RETURN(const double all,
                        MeasureDecoding(cluster->address(), vocab, layout.pipeline, options.decode_tokens));
    streams.push_back(all);
  }
  Measurement measured{.kernel_level = cluster->model().kernel_level,
                       .read_bandwidth = Median(bandwidths),
                       .peak = Median(peaks),
                       .prefill_tokens_per_second = Median(prefill),
                       .decode_tokens_per_second = Median(decode)};
  measured.decode_streams_tokens_per_second =
      streams.empty() ? measured.decode_tokens_per_second : Median(streams);
  for (pid_t pid : cluster->worker_pids()) measured.resident_bytes += ProportionalBytes(pid);
  BW_RETURN_IF_ERROR(cluster->Stop());
  return measured;
}

Json ToJson(const BenchLayout& layout, const Measurement& measured, const Work& work,
            const Measurement& first) {
  return Json::object(
      {{"layout", layout.name},
       {"workers", layout.tensor * layout.pipeline},
       {"threads_per_worker", layout.threads},
       {"kernel_level", measured.kernel_level},
       {"read_gigabytes_per_second", measured.read_bandwidth / 1e9},
       {"peak_gigaoperations_per_second", measured.peak / 1e9},
       {"prefill_tokens_per_second", measured.prefill_tokens_per_second},
       {"prefill_share_of_peak",
        measured.prefill_tokens_per_second * work.operations_per_token / measured.peak},
       {"decode_tokens_per_second", measured.decode_tokens_per_second},
       {"decode_share_of_read_bandwidth",
        measured.decode_tokens_per_second * work.bytes_per_token / measured.read_bandwidth},
       {"decode_all_streams_tokens_per_second", measured.decode_streams_tokens_per_second},
       {"decode_to_first_layout", measured.decode_tokens_per_second / first.decode_tokens_per_second},
       {"decode_all_streams_to_first_layout",
        measured.decode_streams_tokens_per_second / first.decode_tokens_per_second},
       {"resident_bytes", measured.resident_bytes},
       {"weight_bytes", work.weight_bytes},
       {"kv_bytes", measured.kv_bytes},
       {"resident_to_weights_and_kv", measured.resident_bytes / (work.weight_bytes + measured.kv_bytes)}});
}

std::string RowText(const Json& row) {
  const auto number = [&row](const char* name) { return row[name].get<double>(); };
  return absl::StrFormat(
      "%-10s %7.1f %8.0f | %8.1f %5.0f %% | %8.2f %5.0f %% %5.2f | %8.2f %5.2f | %9s %9s %9s %5.2f | %s\n",
      row["layout"].text(), number("read_gigabytes_per_second"), number("peak_gigaoperations_per_second"),
      number("prefill_tokens_per_second"), 100 * number("prefill_share_of_peak"),
      number("decode_tokens_per_second"), 100 * number("decode_share_of_read_bandwidth"),
      number("decode_to_first_layout"), number("decode_all_streams_tokens_per_second"),
      number("decode_all_streams_to_first_layout"), FormatBytes(number("resident_bytes")),
      FormatBytes(number("weight_bytes")), FormatBytes(number("kv_bytes")),
      number("resident_to_weights_and_kv"), row["kernel_level"].text());
}

std::string HeadText(const BenchOptions& options, const Work& work) {
  return absl::StrFormat("%s\n%s, %s weights: %s read and %.2f G operations a token\n", CpuName(),
                         options.shape, options.weights, FormatBytes(work.bytes_per_token),
                         work.operations_per_token / 1e9) +
         absl::StrFormat("%-10s %7s %8s | %8s %7s | %8s %7s %5s | %8s %5s | %9s %9s %9s %5s | %s\n", "layout",
                         "GB/s", "Gop/s", "prefill", "of peak", "decode", "of read", "ratio", "streams",
                         "ratio", "memory", "weights", "KV", "ratio", "level");
}

}  // namespace

absl::Status RunBench(const BenchOptions& options) {
  WatchStopSignals();
  if (options.memory_bytes > 0 || !options.offload.empty()) return RunOffloadBench(options);
  const int cores = static_cast<int>(AllowedCpus().size());
  std::vector<BenchLayout> layouts;
  for (const std::string& name : options.layouts) {
    BW_ASSIGN_OR_RETURN(layouts.emplace_back(), ParseBenchLayout(name, cores));
  }
  BW_ASSIGN_OR_RETURN(const Work work, WorkOf(absl::StrCat("random:", options.shape, ":", options.weights)));

  Json json = Json::object({{"cpu", CpuName()},
                            {"shape", options.shape},
                            {"weights", options.weights},
                            {"bytes_per_token", work.bytes_per_token},
                            {"operations_per_token", work.operations_per_token},
                            {"prompt_tokens", options.prompt_tokens},
                            {"decode_tokens", options.decode_tokens}});
  if (!options.json) BW_RETURN_IF_ERROR(WriteOutput(HeadText(options, work)));
  StatusLine line;
  Measurement first;
  for (const BenchLayout& layout : layouts) {
    BW_ASSIGN_OR_RETURN(Measurement measured, Measure(layout, options, line));
    measured.kv_bytes = KvBytes(layout, options, work);
    if (first.decode_tokens_per_second == 0) first = measured;
    const Json row = ToJson(layout, measured, work, first);
    json["layouts"].push_back(row);
    line.Clear();
    if (!options.json) BW_RETURN_IF_ERROR(WriteOutput(RowText(row)));
  }
  return options.json ? WriteOutput(WriteJson(json, /*indent=*/2) + "\n") : absl::OkStatus();
}

}  // namespace bellwether
