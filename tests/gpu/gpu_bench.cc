// How fast a GPU runs whole steps, as shares of its own rates: tools/bench_gpu.sh. Weights are random, made
// on the card; the steps are those of a worker, host and all.

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "common/log.h"
#include "common/status.h"
#include "worker/device/gpu_device.h"
#include "worker/device/gpu_weights.h"
#include "worker/stage_executor.h"
#include "worker/weights/loaded_shard.h"

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
};
constexpr Shape kShapes[] = {
    {"1.1B", 2048, 22, 32, 4, 5632}, {"7B", 4096, 32, 32, 32, 11008}, {"13B", 5120, 40, 40, 40, 13824}};
constexpr int32_t kVocab = 32000;

ModelConfig ConfigOf(const Shape& shape) {
  ModelConfig config;
  config.layers = shape.layers;
  config.hidden = shape.hidden;
  config.heads = shape.heads;
  config.kv_heads = shape.kv_heads;
  config.head_dim = shape.hidden / shape.heads;
  config.ffn = shape.ffn;
  config.vocab = kVocab;
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
    const int64_t query = int64_t{config_.heads} * config_.head_dim,
                  key = int64_t{config_.kv_heads} * config_.head_dim;
    BW_ASSIGN_OR_RETURN(shard->embedding, Columns(kVocab, WeightFormat::kBF16));
    BW_ASSIGN_OR_RETURN(shard->head,
                        Columns(kVocab, format_ == WeightFormat::kBF16 ? format_ : WeightFormat::kInt8));
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
    return Keep(Spec(rows, config_.hidden, format), /*read=*/rows != kVocab || embedded_++ > 0);
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
  Runner(StageExecutor& executor, int sequences, int32_t prompt, uint64_t& next)
      : executor_(executor), prompt_(prompt), next_(next) {
    for (int i = 0; i < sequences; ++i) ids_.push_back(SequenceId{++last_sequence});
  }
  // Seconds for the prompts of all, each a step of its own.
  absl::StatusOr<double> Prefill() {
    double seconds = 0;
    for (const SequenceId id : ids_) {
      Admission admission{.sequence = id, .prompt_length = prompt_};
      for (int32_t i = 0; i < prompt_; ++i)
        admission.tokens.push_back((i * 7919 + static_cast<int32_t>(id.value) * 31) % kVocab);
      admission.sampling.temperature = 0;
      Step step{.epoch = Epoch{1}, .id = StepId{++next_}, .admissions = {admission}};
      StepEntry entry{.sequence = id, .position = 0, .count = prompt_, .sample = true};
      Blocks(prompt_, entry);
      step.entries.push_back(entry);
      BW_ASSIGN_OR_RETURN(const double once, Run(step));
      seconds += once;
    }
    position_ = prompt_;
    return seconds;
  }
  absl::StatusOr<double> Decode() {
    Step step{.epoch = Epoch{1}, .id = StepId{++next_}};
    for (size_t i = 0; i < ids_.size(); ++i) {
      StepEntry entry{
          .sequence = ids_[i], .position = position_, .count = 1, .new_tokens = {tokens_[i]}, .sample = true};
      if (position_ % 32 == 0) entry.new_blocks.push_back(block_++);
      step.entries.push_back(entry);
    }
    ++position_;
    return Run(step);
  }
  absl::Status Retire() {
    Step step{.epoch = Epoch{1}, .id = StepId{++next_}, .retired = ids_};
    return Run(step).status();
  }

 private:
  void Blocks(int32_t positions, StepEntry& entry) {
    for (int32_t i = 0; i < (positions + 31) / 32; ++i) entry.new_blocks.push_back(block_++);
  }
  absl::StatusOr<double> Run(const Step& step) {
    const Clock::time_point start = Clock::now();
    BW_ASSIGN_OR_RETURN(const StepResult result, executor_.Run(step));
    const double seconds = SecondsSince(start);
    if (step.entries.size() == ids_.size()) tokens_.clear();
    for (const StepOutput& output : result.outputs) {
      if (!output.error.empty()) return absl::InternalError(output.error);
      tokens_.push_back(output.token);
    }
    return seconds;
  }

  static inline uint64_t last_sequence = 0;
  StageExecutor& executor_;
  const int32_t prompt_;
  uint64_t& next_;
  std::vector<SequenceId> ids_;
  std::vector<TokenId> tokens_;
  int32_t position_ = 0;
  KvBlockId block_ = 0;
};

// Bytes read and written a second by a copy on the device.
absl::StatusOr<double> CopyRate(const std::shared_ptr<gpu::Runtime>& runtime) {
  constexpr int64_t kBytes = int64_t{2} << 30;
  BW_ASSIGN_OR_RETURN(GpuMemory from, GpuMemory::Allocate(runtime, kBytes));
  BW_ASSIGN_OR_RETURN(GpuMemory to, GpuMemory::Allocate(runtime, kBytes));
  gpu::LaunchList list;
  list.Add(
      gpu::Kernel::fill_random, {.grid_x = 2048, .threads = 256},
      gpu::FillRandomArgs{.words = reinterpret_cast<uint32_t*>(from.data()), .count = kBytes / 4, .seed = 5});
  runtime->Run(list);
  std::vector<double> seconds;
  for (int i = 0; i < 6; ++i) {
    BW_RETURN_IF_ERROR(runtime->Synchronize());
    const Clock::time_point start = Clock::now();
    for (int j = 0; j < 8; ++j) runtime->CopyOnDevice(to.data(), from.data(), kBytes);
    BW_RETURN_IF_ERROR(runtime->Synchronize());
    seconds.push_back(SecondsSince(start) / 8);
  }
  return 2.0 * kBytes / Median(seconds);
}

// Times every kernel by events, one after the other, for `--profile`.
class ProfilingRuntime : public gpu::Runtime {
 public:
  explicit ProfilingRuntime(std::shared_ptr<gpu::Runtime> inner) : inner_(std::move(inner)) {}
  const gpu::DeviceInfo& info() const override { return inner_->info(); }
  absl::StatusOr<int64_t> FreeBytes() override { return inner_->FreeBytes(); }
  absl::StatusOr<void*> Allocate(int64_t bytes) override { return inner_->Allocate(bytes); }
  void Free(void* memory) override { inner_->Free(memory); }
  absl::StatusOr<void*> AllocateHost(int64_t bytes) override { return inner_->AllocateHost(bytes); }
  void FreeHost(void* memory) override { inner_->FreeHost(memory); }
  void CopyToDevice(void* to, const void* from, int64_t bytes) override {
    inner_->CopyToDevice(to, from, bytes);
  }
  void CopyToHost(void* to, const void* from, int64_t bytes) override { inner_->CopyToHost(to, from, bytes); }
  void CopyOnDevice(void* to, const void* from, int64_t bytes) override {
    inner_->CopyOnDevice(to, from, bytes);
  }
  absl::StatusOr<std::unique_ptr<gpu::Graph>> MakeGraph(const gpu::LaunchList&) override { return nullptr; }
  void Run(gpu::Graph& graph) override { inner_->Run(graph); }
  absl::StatusOr<std::unique_ptr<gpu::CopyLane>> MakeCopyLane(int slots) override {
    return inner_->MakeCopyLane(slots);
  }
  absl::Status Synchronize() override { return inner_->Synchronize(); }
  absl::StatusOr<bool> Done() override { return inner_->Done(); }
  void* stream() override { return inner_->stream(); }
  void Run(const gpu::LaunchList& list) override {
    if (!on) return inner_->Run(list);
    std::vector<cudaEvent_t> events(list.launches().size() + 1);
    for (cudaEvent_t& event : events) (void)cudaEventCreate(&event);
    auto* stream = static_cast<cudaStream_t>(inner_->stream());
    (void)cudaEventRecord(events[0], stream);
    for (size_t i = 0; i < list.launches().size(); ++i) {
      gpu::LaunchList one;
      one.AddFrom(list, list.launches()[i]);
      inner_->Run(one);
      (void)cudaEventRecord(events[i + 1], stream);
    }
    (void)inner_->Synchronize();
    for (size_t i = 0; i < list.launches().size(); ++i) {
      float milliseconds = 0;
      (void)cudaEventElapsedTime(&milliseconds, events[i], events[i + 1]);
      const gpu::LaunchList::Launch& launch = list.launches()[i];
      auto& [count, total] =
          times[std::string(gpu::kKernels[static_cast<int>(launch.kernel)].name) + " grid " +
                std::to_string(launch.shape.grid_x) + "x" + std::to_string(launch.shape.grid_y) + "x" +
                std::to_string(launch.shape.grid_z) + " of " + std::to_string(launch.shape.threads)];
      ++count;
      total += milliseconds;
    }
    for (cudaEvent_t event : events) (void)cudaEventDestroy(event);
  }
  void Print(const std::string& title) {
    printf("-- %s\n", title.c_str());
    for (const auto& [name, time] : times) {
      printf("   %-60s %5d x %9.2f us = %8.3f ms\n", name.c_str(), time.first, 1e3 * time.second / time.first,
             time.second);
    }
    times.clear();
    fflush(stdout);
  }

  bool on = false;
  std::map<std::string, std::pair<int, double>> times;

 private:
  const std::shared_ptr<gpu::Runtime> inner_;
};

struct Rates {
  double copy = 0;    // bytes a second
  double matmul = 0;  // FLOP a second; 0 if unknown
};

void PrintDecode(const std::string& what, int batch, double seconds, double bytes, const Rates& rates) {
  printf("%-22s decode  batch %2d       %8.3f ms  %8.1f tokens/s  %5.1f %% of the copy rate\n", what.c_str(),
         batch, seconds * 1e3, batch / seconds, 100 * bytes / seconds / rates.copy);
  fflush(stdout);
}

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

absl::Status BenchModel(const std::shared_ptr<gpu::Runtime>& runtime, ProfilingRuntime* profile,
                        const Shape& shape, WeightFormat format, int group, bool half,
                        const std::string& name, const Rates& rates) {
  const ModelConfig config = ConfigOf(shape);
  RandomShard random(runtime, config, format, group, half);
  ExecutorProgress progress;
  BW_ASSIGN_OR_RETURN(auto executor, StartExecutor(runtime, config, random,
                                                   {.context_tokens = 4096, .step_tokens = 2048}, &progress));
  const std::string what = std::string(shape.name) + " " + name;
  const double kv_bytes_per_position = 2.0 * config.layers * config.kv_heads * config.head_dim * 2;
  uint64_t next = 0;
  for (const int batch : {1, 16, 64}) {
    Runner runner(*executor, batch, 128, next);
    BW_RETURN_IF_ERROR(runner.Prefill().status());
    std::vector<double> seconds;
    for (int i = 0; i < (batch == 1 ? 40 : 20); ++i) {
      BW_ASSIGN_OR_RETURN(const double once, runner.Decode());
      if (i >= 4) seconds.push_back(once);
    }
    const double bytes = static_cast<double>(random.bytes()) + batch * 140 * kv_bytes_per_position;
    PrintDecode(what, batch, Median(seconds), bytes, rates);
    if (profile != nullptr) {
      profile->on = true;
      BW_RETURN_IF_ERROR(runner.Decode().status());
      profile->on = false;
      profile->Print(what + ", one decode step of batch " + std::to_string(batch));
    }
    BW_RETURN_IF_ERROR(runner.Retire());
  }
  const double parameters = config.layers * (2.0 * config.hidden * config.heads * config.head_dim +
                                             2.0 * config.hidden * config.kv_heads * config.head_dim +
                                             3.0 * config.hidden * config.ffn);
  for (const int32_t tokens : {512, 2048}) {
    std::vector<double> seconds;
    for (int i = 0; i < 4; ++i) {
      Runner runner(*executor, 1, tokens, next);
      if (profile != nullptr) profile->on = i == 3;
      BW_ASSIGN_OR_RETURN(const double once, runner.Prefill());
      if (profile != nullptr && profile->on) {
        profile->on = false;
        profile->Print(what + ", a prompt of " + std::to_string(tokens));
        continue;
      }
      if (i > 0) seconds.push_back(once);
      BW_RETURN_IF_ERROR(runner.Retire());
    }
    const double flops = 2 * parameters * tokens +
                         2.0 * config.layers * tokens * tokens * config.heads * config.head_dim +
                         2.0 * kVocab * config.hidden;
    const double median = Median(seconds);
    printf("%-22s prefill %4d tokens    %8.2f ms  %8.0f tokens/s  %5.0f TFLOP/s", what.c_str(), tokens,
           median * 1e3, tokens / median, flops / median / 1e12);
    if (rates.matmul > 0) printf("  %5.1f %% of the matmul rate", 100 * flops / median / rates.matmul);
    printf("\n");
    fflush(stdout);
  }
  return absl::OkStatus();
}

// Bytes a second that come from pinned memory of the host when nothing else is done.
absl::StatusOr<double> HostRate(const std::shared_ptr<gpu::Runtime>& runtime) {
  constexpr int64_t kBytes = int64_t{512} << 20;
  BW_ASSIGN_OR_RETURN(PinnedMemory from, PinnedMemory::Allocate(runtime, kBytes));
  BW_ASSIGN_OR_RETURN(GpuMemory to, GpuMemory::Allocate(runtime, kBytes));
  std::vector<double> seconds;
  for (int i = 0; i < 6; ++i) {
    BW_RETURN_IF_ERROR(runtime->Synchronize());
    const Clock::time_point start = Clock::now();
    for (int j = 0; j < 4; ++j) runtime->CopyToDevice(to.data(), from.data(), kBytes);
    BW_RETURN_IF_ERROR(runtime->Synchronize());
    seconds.push_back(SecondsSince(start) / 4);
  }
  return kBytes / Median(seconds);
}

// All layers from the host's memory, as where the card holds little more than two of them.
absl::Status BenchStreamed(const std::shared_ptr<gpu::Runtime>& runtime, const Shape& shape) {
  const ModelConfig config = ConfigOf(shape);
  BW_ASSIGN_OR_RETURN(const double host_rate, HostRate(runtime));
  RandomShard random(runtime, config, WeightFormat::kBF16, 32, false, /*streamed=*/true);
  ExecutorProgress progress;
  BW_ASSIGN_OR_RETURN(auto executor, StartExecutor(runtime, config, random,
                                                   {.context_tokens = 512, .step_tokens = 512}, &progress));
  uint64_t next = 0;
  for (const int batch : {1, 16}) {  // each prompt before them is a step that streams
    Runner runner(*executor, batch, 32, next);
    BW_RETURN_IF_ERROR(runner.Prefill().status());
    std::vector<double> seconds;
    for (int i = 0; i < 6; ++i) {
      BW_ASSIGN_OR_RETURN(const double once, runner.Decode());
      if (i >= 1) seconds.push_back(once);
    }
    const double median = Median(seconds);
    printf("%-22s decode  batch %2d       %8.3f ms  %8.1f tokens/s  %5.1f %% of the host's rate, %.1f GB/s\n",
           (std::string(shape.name) + " bf16 streamed").c_str(), batch, median * 1e3, batch / median,
           100 * static_cast<double>(random.streamed_bytes()) / median / host_rate, host_rate / 1e9);
    fflush(stdout);
    BW_RETURN_IF_ERROR(runner.Retire());
  }
  return absl::OkStatus();
}

absl::Status Main(int argc, char** argv) {
  BW_ASSIGN_OR_RETURN(std::shared_ptr<gpu::Runtime> runtime, gpu::MakeCudaRuntime(0));
  Rates rates;
  BW_ASSIGN_OR_RETURN(rates.copy, CopyRate(runtime));
  if (const char* matmul = std::getenv("MATMUL_TFLOPS")) rates.matmul = std::atof(matmul) * 1e12;
  printf("%s, copy %.2f TB/s, matmul %.0f TFLOP/s\n", runtime->info().name.c_str(), rates.copy / 1e12,
         rates.matmul / 1e12);
  // gpu_bench [ONLY [--profile]]
  const std::string only = argc > 1 ? argv[1] : "";
  std::shared_ptr<ProfilingRuntime> profile;
  if (argc > 2 && std::string(argv[2]) == "--profile")
    runtime = profile = std::make_shared<ProfilingRuntime>(runtime);
  struct Case {
    WeightFormat format;
    int group;
    bool half;
    const char* name;
  };
  for (const Shape& shape : kShapes) {
    for (const Case& c : {Case{WeightFormat::kBF16, 32, false, "bf16"},
                          {WeightFormat::kInt8, 32, true, "int8 g32"},
                          {WeightFormat::kInt4, 32, true, "int4 g32"},
                          {WeightFormat::kInt4, 128, true, "int4 g128"}}) {
      const std::string what = std::string(shape.name) + " " + c.name;
      if (!only.empty() && what.find(only) == std::string::npos) continue;
      BW_RETURN_IF_ERROR(Annotate(
          BenchModel(runtime, profile.get(), shape, c.format, c.group, c.half, c.name, rates), what));
    }
  }
  for (const Shape& shape : kShapes) {
    const std::string what = std::string(shape.name) + " bf16 streamed";
    if (only.empty() ? std::string(shape.name) != "13B" : what.find(only) == std::string::npos) continue;
    BW_RETURN_IF_ERROR(Annotate(BenchStreamed(runtime, shape), what));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace bellwether

int main(int argc, char** argv) {
  const absl::Status status = bellwether::Main(argc, argv);
  if (!status.ok()) bellwether::LogError(status.ToString());
  return status.ok() ? 0 : 1;
}
