// How fast a GPU runs whole steps, as shares of its own rates: tools/bench_gpu.sh. Weights are random, made
// on the card; the steps are those of a worker, host and all. `gpu_bench --emulated` shows the program itself
// without a card.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/log.h"
#include "common/status.h"
#include "common/stop_signal.h"
#include "model/checkpoint/checkpoint.h"
#include "model/gpu_size.h"
#include "tests/gpu/bench_table.h"
#include "tests/gpu/timed_runtime.h"
#include "tests/gpu/weights_file.h"
#include "worker/device/gpu_device.h"
#include "worker/device/gpu_weights.h"
#include "worker/stage_executor.h"
#include "worker/weights/loaded_shard.h"
#include "worker/weights/shard_loader.h"

namespace bellwether {
namespace {

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}
double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Shape {
  const char* name;
  int32_t hidden, layers, heads, kv_heads, ffn;
  int32_t vocab = 32000;
};
constexpr Shape kShapes[] = {
    {"1.1B", 2048, 22, 32, 4, 5632}, {"7B", 4096, 32, 32, 32, 11008}, {"13B", 5120, 40, 40, 40, 13824}};
constexpr Shape kTinyShape = {"tiny", 128, 1, 4, 2, 256, 160};

ModelConfig ConfigOf(const Shape& shape) {
  ModelConfig config;
  config.layers = shape.layers;
  config.hidden = shape.hidden;
  config.heads = shape.heads;
  config.kv_heads = shape.kv_heads;
  config.head_dim = shape.hidden / shape.heads;
  config.ffn = shape.ffn;
  config.vocab = shape.vocab;
  config.max_positions = 4096;
  return config;
}

// A whole model of one rank, its matrices in `format`. With `streamed` its layers are in the host's memory:
// all in the same place there, which is as far away from the card as if each had its own.
class RandomShard {
 public:
  RandomShard(std::shared_ptr<gpu::Runtime> runtime, const ModelConfig& config, WeightFormat format,
              int group, bool half, bool streamed = false)
      : runtime_(std::move(runtime)),
        config_(config),
        format_(format),
        group_(group),
        half_(half),
        streamed_(streamed) {}

  absl::StatusOr<std::shared_ptr<const LoadedShard>> Make(const Layout& layout) {
    auto shard = std::make_shared<LoadedShard>();
    BW_ASSIGN_OR_RETURN(auto staging, GpuWeightStore::NewStaging(runtime_));
    shard->store = std::make_shared<GpuWeightStore>(runtime_, 2, std::move(staging));
    shard->config = config_;
    shard->layers = layout.stages[0].layers;
    shard->rank = layout.stages[0].ranks[0];
    shard->gpu_limbs = GpuLimbs(format_);
    const int64_t query = int64_t{config_.heads} * config_.head_dim,
                  key = int64_t{config_.kv_heads} * config_.head_dim;
    BW_ASSIGN_OR_RETURN(shard->embedding, Columns(config_.vocab, WeightFormat::kBF16));
    BW_ASSIGN_OR_RETURN(shard->head,
                        Columns(config_.vocab, IsQuantized(format_) ? WeightFormat::kInt8 : format_));
    BW_RETURN_IF_ERROR(Norm(*shard, shard->final_norm));
    for (int32_t i = 0; i < config_.layers; ++i) {
      auto weights = std::make_shared<LayerWeights>();
      LayerWeights& layer = *weights;
      if (streamed_) BW_RETURN_IF_ERROR(StartStreamed(layer));
      BW_RETURN_IF_ERROR(Norm(*shard, layer.attention_norm));
      BW_RETURN_IF_ERROR(Norm(*shard, layer.mlp_norm));
      BW_ASSIGN_OR_RETURN(layer.query, Columns(query, format_));
      BW_ASSIGN_OR_RETURN(layer.key, Columns(key, format_));
      BW_ASSIGN_OR_RETURN(layer.value, Columns(key, format_));
      BW_ASSIGN_OR_RETURN(layer.attention_output, Rows([&](int slice) {
                            return SliceHeads(config_, {0, slice}).end * config_.head_dim;
                          }));
      BW_ASSIGN_OR_RETURN(layer.gate, Columns(config_.ffn, format_));
      BW_ASSIGN_OR_RETURN(layer.up, Columns(config_.ffn, format_));
      BW_ASSIGN_OR_RETURN(layer.down, Rows([&](int slice) { return SliceFfn(config_, {0, slice}).end; }));
      shard->layer_weights.push_back(std::move(weights));
    }
    images_ = nullptr;
    return shard;
  }
  // That a step reads.
  int64_t bytes() const { return bytes_; }
  int64_t streamed_bytes() const { return image_bytes_ * config_.layers; }

 private:
  // Small numbers, whatever matrix they are read as.
  absl::Status StartStreamed(LayerWeights& layer) {
    const int64_t query = int64_t{config_.heads} * config_.head_dim,
                  key = int64_t{config_.kv_heads} * config_.head_dim;
    if (image_ == nullptr) {
      for (const auto& [rows, cols] : {std::pair{query + 2 * key, int64_t{config_.hidden}},
                                       {int64_t{config_.hidden}, query},
                                       {2 * int64_t{config_.ffn}, int64_t{config_.hidden}},
                                       {int64_t{config_.hidden}, 2 * int64_t{config_.ffn}}})
        image_bytes_ += rows * cols * 2;  // room enough for padding
      image_bytes_ = (image_bytes_ + kImagePageBytes - 1) / kImagePageBytes * kImagePageBytes;
      BW_ASSIGN_OR_RETURN(image_, GpuDevice(runtime_, 1).NewImage(image_bytes_));
      auto* const values = reinterpret_cast<uint16_t*>(image_.get());
      for (int64_t i = 0; i < image_bytes_ / 2; ++i)
        values[i] = static_cast<uint16_t>(0x3c00 | (i * 40503 >> 4 & 0x80ff));
    }
    auto store = std::make_shared<GpuImageStore>(runtime_, 1, image_, image_bytes_);
    images_ = store.get();
    layer.store = std::move(store);
    layer.home = WeightHome::kHost;
    layer.image_bytes = image_bytes_;
    return absl::OkStatus();
  }
  kernels::MatrixSpec Spec(int64_t rows, int64_t cols, WeightFormat format) const {
    kernels::MatrixSpec spec{.rows = rows, .cols = cols, .format = format};
    if (IsQuantized(format)) {
      spec.group = group_;
      spec.half_scales = half_;
    }
    return spec;
  }
  absl::StatusOr<std::unique_ptr<DeviceMatrix>> Columns(int64_t rows, WeightFormat format) {
    return Keep(Spec(rows, config_.hidden, format), /*read=*/rows != config_.vocab || embedded_++ > 0);
  }
  template <typename Bound>
  absl::StatusOr<std::unique_ptr<DeviceMatrix>> Rows(const Bound& bound) {
    const int slices = SliceCount(config_);
    kernels::MatrixSpec spec = Spec(config_.hidden, bound(slices), format_);
    spec.slices = {0, slices};
    spec.slices_total = slices;
    for (int slice = 0; slice <= slices; ++slice) spec.slice_bounds.push_back(bound(slice));
    return Keep(spec, true);
  }
  absl::StatusOr<std::unique_ptr<DeviceMatrix>> Keep(const kernels::MatrixSpec& spec, bool read) {
    if (images_ != nullptr) return images_->KeepImage(spec);
    BW_ASSIGN_OR_RETURN(std::unique_ptr<GpuMatrix> matrix, GpuMatrix::CreateRandom(runtime_, spec, ++seed_));
    if (read) bytes_ += matrix->bytes();
    return matrix;
  }
  absl::Status Norm(LoadedShard& shard, NormWeights& norm) {
    BW_ASSIGN_OR_RETURN(norm.weight, shard.store->Keep(std::vector<float>(config_.hidden, 1.0f)));
    return absl::OkStatus();
  }

  const std::shared_ptr<gpu::Runtime> runtime_;
  const ModelConfig config_;
  const WeightFormat format_;
  const int group_;
  const bool half_;
  const bool streamed_;
  std::shared_ptr<std::byte> image_;  // of any layer
  int64_t image_bytes_ = 0;
  GpuImageStore* images_ = nullptr;  // of the layer that is being made
  uint64_t seed_ = 0;
  int64_t bytes_ = 0;
  int embedded_ = 0;
};

// Steps of `sequences` sequences that run together.
class Runner {
 public:
  // By the host's clock and by the device's, one for each step.
  struct Times {
    std::vector<double> host, device;
  };
  Runner(StageExecutor& executor, TimedRuntime& timed, int32_t vocab, int sequences, int32_t prompt,
         uint64_t& next)
      : executor_(executor), timed_(timed), vocab_(vocab), prompt_(prompt), next_(next) {
    for (int i = 0; i < sequences; ++i) ids_.push_back(SequenceId{++last_sequence});
  }
  // The prompts of all, each a step of its own.
  absl::Status Prefill(Times* times = nullptr) {
    for (const SequenceId id : ids_) {
      Admission admission{.sequence = id, .prompt_length = prompt_};
      for (int32_t i = 0; i < prompt_; ++i)
        admission.tokens.push_back((i * 7919 + static_cast<int32_t>(id.value) * 31) % vocab_);
      admission.sampling.temperature = 0;
      Step step{.epoch = Epoch{1}, .id = StepId{++next_}, .admissions = {admission}};
      StepEntry entry{.sequence = id, .position = 0, .count = prompt_, .sample = true};
      Blocks(prompt_, entry);
      step.entries.push_back(entry);
      BW_RETURN_IF_ERROR(Run(step, times));
    }
    position_ = prompt_;
    return absl::OkStatus();
  }
  absl::Status Decode(Times* times = nullptr) {
    Step step{.epoch = Epoch{1}, .id = StepId{++next_}};
    for (size_t i = 0; i < ids_.size(); ++i) {
      StepEntry entry{
          .sequence = ids_[i], .position = position_, .count = 1, .new_tokens = {tokens_[i]}, .sample = true};
      if (position_ % 32 == 0) entry.new_blocks.push_back(block_++);
      step.entries.push_back(entry);
    }
    ++position_;
    return Run(step, times);
  }
  absl::Status Retire() {
    Step step{.epoch = Epoch{1}, .id = StepId{++next_}, .retired = ids_};
    return Run(step, nullptr);
  }

 private:
  void Blocks(int32_t positions, StepEntry& entry) {
    for (int32_t i = 0; i < (positions + 31) / 32; ++i) entry.new_blocks.push_back(block_++);
  }
  absl::Status Run(const Step& step, Times* times) {
    timed_.Start();
    const Clock::time_point start = Clock::now();
    BW_ASSIGN_OR_RETURN(const StepResult result, executor_.Run(step));
    if (times != nullptr) {
      times->host.push_back(SecondsSince(start));
      times->device.push_back(timed_.Seconds());
    }
    if (step.entries.size() == ids_.size()) tokens_.clear();
    for (const StepOutput& output : result.outputs) {
      if (!output.error.empty()) return absl::InternalError(output.error);
      tokens_.push_back(output.token);
    }
    return absl::OkStatus();
  }

  static inline uint64_t last_sequence = 0;
  StageExecutor& executor_;
  TimedRuntime& timed_;
  const int32_t vocab_, prompt_;
  uint64_t& next_;
  std::vector<SequenceId> ids_;
  std::vector<TokenId> tokens_;
  int32_t position_ = 0;
  KvBlockId block_ = 0;
};

// Bytes read and written a second by a copy on the device.
absl::StatusOr<double> CopyRate(const std::shared_ptr<gpu::Runtime>& runtime, int64_t bytes) {
  BW_ASSIGN_OR_RETURN(GpuMemory from, GpuMemory::Allocate(runtime, bytes));
  BW_ASSIGN_OR_RETURN(GpuMemory to, GpuMemory::Allocate(runtime, bytes));
  gpu::LaunchList list;
  list.Add(
      gpu::Kernel::fill_random, {.grid_x = 2048, .threads = 256},
      gpu::FillRandomArgs{.words = reinterpret_cast<uint32_t*>(from.data()), .count = bytes / 4, .seed = 5});
  runtime->Run(list);
  std::vector<double> seconds;
  for (int i = 0; i < 6; ++i) {
    BW_RETURN_IF_ERROR(runtime->Synchronize());
    const Clock::time_point start = Clock::now();
    for (int j = 0; j < 8; ++j) runtime->CopyOnDevice(to.data(), from.data(), bytes);
    BW_RETURN_IF_ERROR(runtime->Synchronize());
    seconds.push_back(SecondsSince(start) / 8);
  }
  return 2.0 * static_cast<double>(bytes) / Median(seconds);
}

struct Rates {
  double copy = 0;    // bytes a second
  double matmul = 0;  // FLOP a second; 0 if unknown
};

struct Limits {
  int32_t context_tokens = 0, step_tokens = 0;
};

// Of one rank that is everything. `progress` must outlive it.
absl::StatusOr<std::unique_ptr<StageExecutor>> StartExecutor(const std::shared_ptr<gpu::Runtime>& runtime,
                                                             const ModelConfig& config, RandomShard& random,
                                                             const Limits& limits,
                                                             ExecutorProgress* progress) {
  BW_ASSIGN_OR_RETURN(Layout layout, EvenLayout(config, 1, 1));
  StageExecutor::Options options;
  BW_ASSIGN_OR_RETURN(options.shard, random.Make(layout));
  options.device = std::make_shared<GpuDevice>(runtime, 8);
  options.links.resize(1);
  options.progress = progress;
  options.assignment = {.epoch = Epoch{1}, .model_id = "random", .layout = layout};
  options.assignment.numeric = {.kernel_level = runtime->info().numeric_class, .kv_type = DType::kBF16};
  options.assignment.kv_blocks = 64 * 6 + 160;
  options.assignment.context_tokens = limits.context_tokens;
  options.assignment.step_tokens = limits.step_tokens;
  options.assignment.step_deadline = absl::Seconds(60);
  BW_ASSIGN_OR_RETURN(auto executor, StageExecutor::Create(std::move(options)));
  BW_RETURN_IF_ERROR(executor->Start());
  return executor;
}

// What is measured of a model, and how often.
struct Amounts {
  std::vector<int> batches = {1, 16, 64};
  std::vector<int32_t> prompts = {512, 2048};
  int32_t context = 128;  // of sequences that decode
  int steps = 20;         // and a fifth of them before, that do not count
  int prompt_times = 3;
  std::vector<int> streamed_batches = {1, 16};
  int64_t host_bytes = int64_t{512} << 20;  // of the sample of the host's rate
};
struct Weights {
  WeightFormat format;
  int group;
  bool half;
  const char* name;
};
struct Bench {
  std::shared_ptr<TimedRuntime> runtime;
  ProfilingRuntime* profile = nullptr;
  Rates rates;
  Amounts amounts;
  BenchTable& table;
};

absl::Status BenchDecode(const Bench& bench, StageExecutor& executor, const RandomShard& random,
                         const ModelConfig& config, const std::string& what, uint64_t& next) {
  const double kv_bytes_per_position = 2.0 * config.layers * config.kv_heads * config.head_dim * 2;
  for (const int batch : bench.amounts.batches) {
    Runner runner(executor, *bench.runtime, config.vocab, batch, bench.amounts.context, next);
    BW_RETURN_IF_ERROR(runner.Prefill());
    Runner::Times times;
    for (int i = -bench.amounts.steps / 5; i < bench.amounts.steps; ++i)
      BW_RETURN_IF_ERROR(runner.Decode(i < 0 ? nullptr : &times));
    const double bytes =
        static_cast<double>(random.bytes()) + batch * (bench.amounts.context + 12) * kv_bytes_per_position;
    const double seconds = Median(times.host);
    bench.table.Add({.name = absl::StrCat(what, ", decode, batch ", batch),
                     .host = seconds,
                     .device = Median(times.device),
                     .tokens_per_second = batch / seconds,
                     .share = bytes / seconds / bench.rates.copy,
                     .of = "the copy rate"});
    if (bench.profile != nullptr) {
      bench.profile->on = true;
      BW_RETURN_IF_ERROR(runner.Decode());
      bench.profile->on = false;
      bench.profile->Print(absl::StrCat(what, ", one decode step of batch ", batch));
    }
    BW_RETURN_IF_ERROR(runner.Retire());
  }
  return absl::OkStatus();
}

absl::Status BenchPrefill(const Bench& bench, StageExecutor& executor, const ModelConfig& config,
                          const std::string& what, uint64_t& next) {
  const double parameters = config.layers * (2.0 * config.hidden * config.heads * config.head_dim +
                                             2.0 * config.hidden * config.kv_heads * config.head_dim +
                                             3.0 * config.hidden * config.ffn);
  for (const int32_t tokens : bench.amounts.prompts) {
    Runner::Times times;
    for (int i = -1; i <= bench.amounts.prompt_times; ++i) {
      const bool last = i == bench.amounts.prompt_times;
      if (last && bench.profile == nullptr) break;
      Runner runner(executor, *bench.runtime, config.vocab, 1, tokens, next);
      if (last) bench.profile->on = true;
      BW_RETURN_IF_ERROR(runner.Prefill(i < 0 || last ? nullptr : &times));
      if (last) {
        bench.profile->on = false;
        bench.profile->Print(absl::StrCat(what, ", a prompt of ", tokens));
      }
      BW_RETURN_IF_ERROR(runner.Retire());
    }
    const double flops = 2 * parameters * tokens +
                         2.0 * config.layers * tokens * tokens * config.heads * config.head_dim +
                         2.0 * config.vocab * config.hidden;
    const double seconds = Median(times.host);
    bench.table.Add({.name = absl::StrCat(what, ", prefill ", tokens),
                     .host = seconds,
                     .device = Median(times.device),
                     .tokens_per_second = tokens / seconds,
                     .share = bench.rates.matmul > 0 ? flops / seconds / bench.rates.matmul : 0,
                     .of = "the matmul rate"});
    // What a client that is alone waits for, but for the way to the worker: the token is on the host.
    bench.table.Add({.name = absl::StrCat(what, ", first token, ", tokens), .host = seconds});
  }
  return absl::OkStatus();
}

absl::Status BenchModel(const Bench& bench, const Shape& shape, const Weights& weights) {
  const ModelConfig config = ConfigOf(shape);
  RandomShard random(bench.runtime, config, weights.format, weights.group, weights.half);
  ExecutorProgress progress;
  const std::vector<int32_t>& prompts = bench.amounts.prompts;
  BW_ASSIGN_OR_RETURN(
      auto executor,
      StartExecutor(bench.runtime, config, random,
                    {.context_tokens = 2 * prompts.back(), .step_tokens = prompts.back()}, &progress));
  const std::string what = absl::StrCat(shape.name, " ", weights.name);
  uint64_t next = 0;
  BW_RETURN_IF_ERROR(BenchDecode(bench, *executor, random, config, what, next));
  return BenchPrefill(bench, *executor, config, what, next);
}

// A whole checkpoint from its file to the card, as a worker loads it. The file has just been written, so it
// is in the system's cache.
absl::Status BenchLoad(const Bench& bench, const Shape& shape, const std::string& path) {
  BW_RETURN_IF_ERROR(WriteRandomCheckpoint(ConfigOf(shape), path));
  GpuDevice device(bench.runtime, static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  std::vector<double> seconds;
  int64_t bytes = 0;
  for (int i = 0; i < 2; ++i) {
    const Clock::time_point start = Clock::now();
    BW_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(path));
    Assignment assignment{.epoch = Epoch{1}, .model_id = "random"};
    BW_ASSIGN_OR_RETURN(assignment.layout, EvenLayout(checkpoint->config(), 1, 1));
    assignment.numeric = {.kernel_level = bench.runtime->info().numeric_class, .kv_type = DType::kBF16};
    ExecutorProgress progress;
    BW_ASSIGN_OR_RETURN(
        const auto shard,
        LoadShard(*checkpoint, assignment, device,
                  {.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))},
                  &progress));
    BW_RETURN_IF_ERROR(bench.runtime->Synchronize());
    seconds.push_back(SecondsSince(start));
    bytes = shard->bytes;
  }
  const double best = *std::min_element(seconds.begin(), seconds.end());
  bench.table.Add({.name = absl::StrFormat("load %.1f GB, %.2f GB/s", static_cast<double>(bytes) * 1e-9,
                                           static_cast<double>(bytes) * 1e-9 / best),
                   .host = best});
  return absl::OkStatus();
}

// Bytes a second that come from pinned memory of the host when nothing else is done.
absl::StatusOr<double> HostRate(const std::shared_ptr<gpu::Runtime>& runtime, int64_t bytes) {
  BW_ASSIGN_OR_RETURN(PinnedMemory from, PinnedMemory::Allocate(runtime, bytes));
  BW_ASSIGN_OR_RETURN(GpuMemory to, GpuMemory::Allocate(runtime, bytes));
  std::vector<double> seconds;
  for (int i = 0; i < 6; ++i) {
    BW_RETURN_IF_ERROR(runtime->Synchronize());
    const Clock::time_point start = Clock::now();
    for (int j = 0; j < 4; ++j) runtime->CopyToDevice(to.data(), from.data(), bytes);
    BW_RETURN_IF_ERROR(runtime->Synchronize());
    seconds.push_back(SecondsSince(start) / 4);
  }
  return static_cast<double>(bytes) / Median(seconds);
}

// All layers from the host's memory, as where the card holds little more than two of them.
absl::Status BenchStreamed(const Bench& bench, const Shape& shape) {
  const ModelConfig config = ConfigOf(shape);
  BW_ASSIGN_OR_RETURN(const double host_rate, HostRate(bench.runtime, bench.amounts.host_bytes));
  RandomShard random(bench.runtime, config, WeightFormat::kBF16, 32, false, /*streamed=*/true);
  ExecutorProgress progress;
  BW_ASSIGN_OR_RETURN(auto executor, StartExecutor(bench.runtime, config, random,
                                                   {.context_tokens = 512, .step_tokens = 512}, &progress));
  uint64_t next = 0;
  for (const int batch : bench.amounts.streamed_batches) {  // each prompt before them is a step that streams
    Runner runner(*executor, *bench.runtime, config.vocab, batch, 32, next);
    BW_RETURN_IF_ERROR(runner.Prefill());
    Runner::Times times;
    for (int i = 0; i < 6; ++i) BW_RETURN_IF_ERROR(runner.Decode(i == 0 ? nullptr : &times));
    const double seconds = Median(times.host);
    bench.table.Add({.name = absl::StrCat(shape.name, " bf16 streamed, decode, batch ", batch),
                     .host = seconds,
                     .device = Median(times.device),
                     .tokens_per_second = batch / seconds,
                     .share = static_cast<double>(random.streamed_bytes()) / seconds / host_rate,
                     .of = absl::StrFormat("the host's rate, %.1f GB/s", host_rate / 1e9)});
    BW_RETURN_IF_ERROR(runner.Retire());
  }
  return absl::OkStatus();
}

struct Options {
  std::string only, load, transformers;
  double matmul_tflops = 0;
  bool profile = false, emulated = false;
};

// Ends the program with what has been measured by then when it is told to stop.
void PrintWhenStopped(std::shared_ptr<const BenchTable> table) {
  std::thread([table = std::move(table)] {
    const int signal = WaitForStopSignal();
    table->Print();
    _exit(128 + signal);
  }).detach();
}

absl::Status Run(const Options& options) {
  std::shared_ptr<gpu::Runtime> runtime;
  if (options.emulated) {
    runtime = gpu::MakeEmulatedRuntime({.threads = 2});
  } else {
    BW_ASSIGN_OR_RETURN(runtime, gpu::MakeCudaRuntime(0));
  }
  const auto table = std::make_shared<BenchTable>(options.transformers);
  PrintWhenStopped(table);
  std::shared_ptr<ProfilingRuntime> profile;
  if (options.profile) runtime = profile = std::make_shared<ProfilingRuntime>(runtime);
  Bench bench{.runtime = std::make_shared<TimedRuntime>(runtime), .profile = profile.get(), .table = *table};
  BW_ASSIGN_OR_RETURN(bench.rates.copy, CopyRate(runtime, int64_t{options.emulated ? 1 : 2048} << 20));
  bench.rates.matmul = options.matmul_tflops * 1e12;
  printf("%s, copy %.2f TB/s, matmul %.0f TFLOP/s\n", runtime->info().name.c_str(), bench.rates.copy / 1e12,
         options.matmul_tflops);
  std::vector<Shape> shapes(std::begin(kShapes), std::end(kShapes));
  if (options.emulated) {
    shapes = {kTinyShape};
    bench.amounts = {.batches = {1, 2},
                     .prompts = {9},
                     .context = 3,
                     .steps = 1,
                     .prompt_times = 1,
                     .streamed_batches = {1},
                     .host_bytes = 1 << 20};
  }
  bool any = false;
  const auto asked = [&](const std::string& what) {
    const bool is = what.find(options.only) != std::string::npos;
    any |= is;
    return is;
  };
  for (const Shape& shape : shapes) {
    for (const Weights& weights : {Weights{WeightFormat::kBF16, 32, false, "bf16"},
                                   {WeightFormat::kInt8, 32, true, "int8 g32"},
                                   {WeightFormat::kInt4, 32, true, "int4 g32"},
                                   {WeightFormat::kInt4, 128, true, "int4 g128"},
                                   {WeightFormat::kF16, 32, false, "fp16"}}) {
      const std::string what = absl::StrCat(shape.name, " ", weights.name);
      // What fp16 takes beside bf16 one shape tells.
      const bool told = weights.format == WeightFormat::kF16 && shapes.size() > 1 && shape.hidden != 4096;
      if (told && options.only.empty()) continue;
      if (asked(what)) BW_RETURN_IF_ERROR(Annotate(BenchModel(bench, shape, weights), what));
    }
  }
  for (const Shape& shape : shapes) {
    const std::string resident = absl::StrCat(shape.name, " bf16"), what = resident + " streamed";
    // Who asks for a model need not wait until it has been streamed too.
    if (options.only.empty() ? absl::string_view(shape.name) == "13B" : !asked(resident) && asked(what))
      BW_RETURN_IF_ERROR(Annotate(BenchStreamed(bench, shape), what));
  }
  if (asked("load") && !options.load.empty())
    BW_RETURN_IF_ERROR(Annotate(BenchLoad(bench, shapes[0], options.load), "load"));
  if (!any) {
    return absl::InvalidArgumentError(absl::StrCat(
        "nothing is called \"", options.only, "\": a model and its weights, such as \"7B bf16\", or load"));
  }
  table->Print();
  return absl::OkStatus();
}

}  // namespace
}  // namespace bellwether

int main(int argc, char** argv) {
  bellwether::Options options;
  CLI::App app("How fast this machine's first GPU runs whole steps");
  app.add_option("--only", options.only, "Part of a model's and its weights' name, such as \"7B bf16\"");
  app.add_option("--load", options.load,
                 "A directory for a file of weights, to time how long it takes to the card");
  app.add_option("--transformers", options.transformers, "What tools/bench_transformers.py wrote");
  app.add_option("--matmul-tflops", options.matmul_tflops, "The card's rate of products, in TFLOP/s");
  app.add_flag("--profile", options.profile, "Time every kernel too");
  app.add_flag("--emulated", options.emulated, "A tiny model on an emulated GPU");
  CLI11_PARSE(app, argc, argv);
  bellwether::BlockStopSignals();
  const absl::Status status = bellwether::Run(options);
  if (!status.ok()) bellwether::LogError(status.ToString());
  return status.ok() ? 0 : 1;
}
