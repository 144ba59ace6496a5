#include "worker/device/gpu_ops.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/status.h"
#include "gtest/gtest.h"
#include "kernels/gpu/testing/counting_runtime.h"
#include "model/checkpoint/checkpoint.h"
#include "worker/device/gpu_device.h"
#include "worker/stage_executor.h"
#include "worker/weights/shard_loader.h"

namespace bellwether {
namespace {

using Graphs = gpu::CountingRuntime::Graphs;

std::shared_ptr<gpu::CountingRuntime> NewRuntime(Graphs graphs,
                                                 const gpu::EmulatedCard& card = gpu::kEmulatedHopper) {
  return std::make_shared<gpu::CountingRuntime>(gpu::MakeEmulatedRuntime({.seed = 5, .card = card}), graphs);
}

constexpr int kGraphLaunches = 8;  // shorter lists are no graphs
constexpr int kGraphsKept = 64;

// A worker with a whole model on a GPU that is counted, and steps for it.
class CountedWorker {
 public:
  explicit CountedWorker(Graphs graphs, const gpu::EmulatedCard& card = gpu::kEmulatedHopper)
      : runtime(NewRuntime(graphs, card)) {}

  absl::Status Start() {
    BW_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(kModel));
    BW_ASSIGN_OR_RETURN(Layout layout, EvenLayout(checkpoint->config(), 1, 1));
    const Assignment assignment = {
        .epoch = Epoch{1},
        .model_id = "test",
        .layout = std::move(layout),
        .numeric = {.kernel_level = runtime->info().numeric_class, .kv_type = DType::kBF16},
        .kv_blocks = 8,
        .context_tokens = 128,
        .step_tokens = 64,
        .step_deadline = absl::Minutes(1)};
    const auto device = std::make_shared<GpuDevice>(runtime, /*threads=*/1);
    BW_ASSIGN_OR_RETURN(const auto shard, LoadShard(*checkpoint, assignment, *device, {}, &progress_));
    BW_ASSIGN_OR_RETURN(executor_, StageExecutor::Create({.assignment = assignment,
                                                          .device = device,
                                                          .shard = shard,
                                                          .links = std::vector<std::unique_ptr<Link>>(1),
                                                          .progress = &progress_}));
    return executor_->Start();
  }

  // Two prompts, then a token of each in every step; what came out.
  absl::Status Prefill() {
    Step step;
    for (const int length : {5, 40}) {
      Admission admission{.sequence = SequenceId{sequences_.size() + 1}, .prompt_length = length};
      for (int i = 0; i < length; ++i) admission.tokens.push_back((i * 31 + length) % 90);
      admission.sampling = {.temperature = 0, .logprobs = length == 5 ? 3 : -1};
      const auto first_block = static_cast<int32_t>(2 * sequences_.size());
      step.entries.push_back({.sequence = admission.sequence,
                              .count = length,
                              .new_blocks = {KvBlockId{first_block}, KvBlockId{first_block + 1}},
                              .sample = true});
      sequences_.push_back({.id = admission.sequence, .position = length});
      step.admissions.push_back(std::move(admission));
    }
    return Run(std::move(step));
  }
  absl::Status Decode() {
    Step step;
    for (Sequence& sequence : sequences_) {
      std::vector<KvBlockId> new_blocks;
      if (sequence.position >= 2 * kKvBlockTokens && sequence.position % kKvBlockTokens == 0)
        new_blocks.push_back(KvBlockId{next_block_++});
      step.entries.push_back({.sequence = sequence.id,
                              .position = sequence.position++,
                              .count = 1,
                              .new_tokens = {sequence.last},
                              .new_blocks = std::move(new_blocks),
                              .sample = true});
    }
    return Run(std::move(step));
  }

  const std::shared_ptr<gpu::CountingRuntime> runtime;
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;

 private:
  static constexpr char kModel[] =
      "random:llama?hidden=64,layers=2,heads=4,kv_heads=2,head_dim=16,ffn=96,vocab=90:bf16";
  struct Sequence {
    SequenceId id;
    int32_t position = 0;
    TokenId last = 0;
  };

  absl::Status Run(Step step) {
    step.epoch = Epoch{1};
    step.id = StepId{++steps_};
    BW_ASSIGN_OR_RETURN(const StepResult result, executor_->Run(step));
    for (size_t i = 0; i < result.outputs.size(); ++i) {
      const StepOutput& output = result.outputs[i];
      tokens.push_back(sequences_[i].last = output.token);
      for (const TokenLogprob& top : output.top) logprobs.push_back(top.logprob);
    }
    return absl::OkStatus();
  }

  ExecutorProgress progress_;
  std::unique_ptr<StageExecutor> executor_;
  std::vector<Sequence> sequences_;
  uint64_t steps_ = 0;
  int32_t next_block_ = 4;  // those before are of the prompts
};

TEST(GpuSteps, GraphsGiveWhatListsGive) {
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;
  for (const Graphs graphs : {Graphs::kUnused, Graphs::kMade, Graphs::kNoMemory}) {
    CountedWorker worker(graphs);
    ASSERT_TRUE(worker.Start().ok());
    ASSERT_TRUE(worker.Prefill().ok());
    // A list is seen, becomes a graph, and is one from then on.
    ASSERT_TRUE(worker.Decode().ok());
    ASSERT_TRUE(worker.Decode().ok());
    gpu::CountingRuntime& runtime = *worker.runtime;
    const int64_t asked = runtime.graphs_asked, made = runtime.graphs_made, runs = runtime.graph_runs;
    runtime.longest_list_run = 0;
    constexpr int kSteps = 17;  // over the border of a KV block
    for (int i = 0; i < kSteps; ++i) {
      const absl::Status status = worker.Decode();
      ASSERT_TRUE(status.ok()) << status;
    }
    if (graphs == Graphs::kMade) {
      EXPECT_EQ(made, 1);
      EXPECT_EQ(runtime.graph_runs, runs + kSteps);
      EXPECT_LT(runtime.longest_list_run, kGraphLaunches) << "a decode step beside its graph";
    } else {
      EXPECT_EQ(runtime.graph_runs, 0);
      EXPECT_GE(runtime.longest_list_run, kGraphLaunches);
    }
    EXPECT_EQ(runtime.graphs_made, made);
    if (graphs == Graphs::kNoMemory) {
      EXPECT_EQ(runtime.graphs_asked, asked) << "once it has run out";
    }
    if (tokens.empty()) {
      tokens = worker.tokens;
      logprobs = worker.logprobs;
    }
    EXPECT_EQ(worker.tokens, tokens);
    EXPECT_EQ(worker.logprobs, logprobs);
    EXPECT_EQ(logprobs.size(), 3u * (3 + kSteps));
  }
}

// 45 rows at once, then 2: the products of the first by tiles, of whichever kind the card has and has the
// shared memory for, and all with the same answer.
TEST(GpuSteps, ManyRowsAreMultipliedByTiles) {
  constexpr gpu::EmulatedCard kLittleShared{.hopper = false, .shared_bytes = 40 << 10};
  std::vector<float> logprobs;
  for (const auto& [card, tiles] : {std::pair{gpu::kEmulatedHopper, "tile_"},
                                    {gpu::kEmulatedBlackwell, "mma_tile_"},
                                    {gpu::kEmulatedAmpere, "mma_tile_"},
                                    {kLittleShared, "stream_"}}) {
    CountedWorker worker(Graphs::kUnused, card);
    ASSERT_TRUE(worker.Start().ok());
    for (const bool prefill : {true, false}) {
      worker.runtime->kernels_run.clear();
      const absl::Status status = prefill ? worker.Prefill() : worker.Decode();
      ASSERT_TRUE(status.ok()) << status;
      for (const char* kind : {"tile_", "mma_tile_", "stream_"}) {
        const auto& run = worker.runtime->kernels_run;
        const bool seen = std::any_of(run.begin(), run.end(),
                                      [&](const std::string& name) { return name.starts_with(kind); });
        // The logits of the last rows go by streams in any case.
        const bool expected = kind == std::string("stream_") || (prefill && kind == std::string(tiles));
        EXPECT_EQ(seen, expected) << kind << ", " << card.numeric_class << ", hopper " << card.hopper;
      }
    }
    if (card.numeric_class != std::string("cuda_sm90")) continue;
    if (logprobs.empty()) logprobs = worker.logprobs;
    EXPECT_EQ(worker.logprobs, logprobs) << tiles;
  }
}

// Each copy costs the host a call and the card a pause, of which a decode step of a small model has few.
TEST(GpuSteps, TheBatchGoesToTheCardInOneCopy) {
  CountedWorker worker(Graphs::kMade);
  ASSERT_TRUE(worker.Start().ok());
  const auto copies_of = [&](absl::Status (CountedWorker::*step)()) {
    worker.runtime->copies_to_device = 0;
    EXPECT_TRUE((worker.*step)().ok());
    return worker.runtime->copies_to_device;
  };
  EXPECT_EQ(copies_of(&CountedWorker::Prefill), 1);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(copies_of(&CountedWorker::Decode), 1);
  // Where things lie there is part of a graph: it stays when sequences go on into their next KV blocks.
  const int64_t graphs = worker.runtime->graphs_made;
  EXPECT_GT(graphs, 0);
  for (int i = 2; i < 30; ++i) EXPECT_EQ(copies_of(&CountedWorker::Decode), 1) << "step " << i;
  EXPECT_EQ(worker.runtime->graphs_made, graphs);
}

TEST(GpuSteps, NothingIsAllocatedInOne) {
  CountedWorker worker(Graphs::kMade);
  ASSERT_TRUE(worker.Start().ok());
  const int64_t allocations = worker.runtime->allocations;
  const int64_t free_bytes = *worker.runtime->FreeBytes(), pinned = worker.runtime->pinned_bytes();
  ASSERT_TRUE(worker.Prefill().ok());
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(worker.Decode().ok());
  EXPECT_EQ(worker.runtime->allocations, allocations);
  EXPECT_EQ(*worker.runtime->FreeBytes(), free_bytes);
  EXPECT_EQ(worker.runtime->pinned_bytes(), pinned);
}

// Lists of as many launches as a graph must have, each list another.
class GpuGraphs : public ::testing::Test {
 protected:
  void SetUp() override {
    auto ops = device_.NewOps({.config = &config_,
                               .kernel_level = "cuda_sm90",
                               .rank = {.slices = {0, 4}},
                               .layers = 1,
                               .kv_blocks = 1,
                               .context_tokens = 32,
                               .step_tokens = 1});
    ASSERT_TRUE(ops.ok()) << ops.status();
    ops_ = *std::move(ops);
    for (float** row : {&weight_, &x_, &out_}) *row = *ops_->Allocate(config_.hidden);
    std::vector<float> values;
    for (int i = 0; i < config_.hidden; ++i) values.push_back(static_cast<float>(1 + i % 7));
    ASSERT_TRUE(ops_->Write(values, weight_).ok());
    ASSERT_TRUE(ops_->Write(values, x_).ok());
  }
  // The values of list `number`.
  std::vector<float> Run(int number) {
    const NormWeights weights = {.weight = {weight_, config_.hidden}};
    for (int i = 0; i < kGraphLaunches; ++i)
      ops_->Norm({x_, 1, config_.hidden}, weights, config_.hidden, 1 + number, {out_, 1, config_.hidden});
    std::vector<float> values(config_.hidden);
    EXPECT_TRUE(ops_->Read(out_, absl::MakeSpan(values)).ok());
    return values;
  }

  const ModelConfig config_ = {
      .layers = 1, .hidden = 32, .heads = 4, .kv_heads = 4, .head_dim = 8, .ffn = 32, .vocab = 8};
  const std::shared_ptr<gpu::CountingRuntime> runtime_ = NewRuntime(Graphs::kMade);
  GpuDevice device_{runtime_, /*threads=*/1};
  std::unique_ptr<DeviceOps> ops_;
  float *weight_ = nullptr, *x_ = nullptr, *out_ = nullptr;
};

// CountingRuntime fails this test if that one may still be running.
TEST_F(GpuGraphs, TheOneThatWasNotUsedForLongestMakesRoom) {
  std::vector<std::vector<float>> values;
  for (int i = 0; i < kGraphsKept; ++i) {
    values.push_back(Run(i));
    EXPECT_EQ(Run(i), values[i]);
    if (i > 0) {
      EXPECT_NE(values[i], values[i - 1]);
    }
  }
  EXPECT_EQ(runtime_->graphs_made, kGraphsKept);
  EXPECT_EQ(runtime_->graphs_live, kGraphsKept);
  EXPECT_EQ(runtime_->graph_runs, kGraphsKept);

  EXPECT_EQ(Run(0), values[0]);
  const std::vector<float> one_more = Run(kGraphsKept);
  EXPECT_EQ(runtime_->graphs_live, kGraphsKept - 1);
  EXPECT_EQ(Run(kGraphsKept), one_more);
  EXPECT_EQ(runtime_->graphs_live, kGraphsKept);

  const int64_t lists = runtime_->lists_run;
  EXPECT_EQ(Run(0), values[0]);
  EXPECT_EQ(runtime_->lists_run, lists) << "it was used after 1";
  EXPECT_EQ(Run(1), values[1]);
  EXPECT_EQ(runtime_->lists_run, lists + 1);
  ops_.reset();
  EXPECT_EQ(runtime_->graphs_live, 0);
}

// Where a list comes again that looks like another, it is not the other's graph that runs.
TEST_F(GpuGraphs, EveryArgumentCounts) {
  const std::vector<float> first = Run(0);
  EXPECT_EQ(Run(0), first);
  ASSERT_TRUE(ops_->Write(std::vector<float>(config_.hidden, 2), x_).ok());
  const std::vector<float> other_input = Run(0);  // as a graph that reads what is there now
  EXPECT_NE(other_input, first);
  EXPECT_EQ(runtime_->graph_runs, 2);
  EXPECT_NE(Run(1), other_input);
  EXPECT_EQ(runtime_->graph_runs, 2);
}

}  // namespace
}  // namespace bellwether
