#include "coordinator/offload.h"

#include <memory>
#include <string>
#include <vector>

#include "common/step_tokens.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/shapes.h"
#include "model/streamed_layers.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

PlannedWorker Planned(int64_t weights) {
  return {.weight_bytes = weights, .activation_bytes = 10, .kv_block_bytes = 1};
}

TEST(OffloadTest, BuffersCountAndNothingIsStreamedForNothing) {
  PlannedWorker worker = Planned(/*weights=*/500);  // 4 layers of 100, and 100 outside
  const OffloadCandidate candidate{&worker, {100, 100, 100, 100}};
  EXPECT_EQ(ResidentBytes(candidate, 0), 500);
  EXPECT_EQ(ResidentBytes(candidate, 1), 600) << "two buffers for one layer";
  EXPECT_EQ(ResidentBytes(candidate, 4), 300);
  ASSERT_TRUE(StreamToFit({candidate}, 515, /*kv_blocks=*/5));
  EXPECT_EQ(worker.streamed_layers, 0);
  EXPECT_EQ(worker.resident_bytes, 500);
  ASSERT_TRUE(StreamToFit({candidate}, 514, /*kv_blocks=*/5));
  EXPECT_EQ(worker.streamed_layers, 3);
  EXPECT_EQ(worker.streamed_bytes, 300);
  EXPECT_EQ(worker.resident_bytes, 400);
  EXPECT_FALSE(StreamToFit({candidate}, 314, /*kv_blocks=*/5));
  EXPECT_EQ(worker.streamed_layers, 3) << "unchanged";
}

TEST(OffloadTest, WorkersOfAHostStreamTheSameShare) {
  PlannedWorker large = Planned(800), small = Planned(400);
  const std::vector<OffloadCandidate> both = {{&large, std::vector<int64_t>(8, 100)},
                                              {&small, std::vector<int64_t>(4, 100)}};
  ASSERT_TRUE(StreamToFit(both, 1020, /*kv_blocks=*/0));
  EXPECT_EQ(large.streamed_layers, 2 * small.streamed_layers);
  EXPECT_LE(large.resident_bytes + small.resident_bytes, 1000);
}

// -- Embedding and head

// 4 layers of 100, an embedding and a head of 400 in pieces of 10, and 100 besides.
OffloadCandidate WithEnds(PlannedWorker& worker, bool one_matrix = false) {
  worker = Planned(one_matrix ? 900 : 1300);
  return {&worker,
          {100, 100, 100, 100},
          {.embedding = 400,
           .embedding_piece = 10,
           .head = 400,
           .head_piece = 10,
           .embedding_spared = 400,
           .head_spared = 400,
           .one_matrix = one_matrix}};
}

TEST(OffloadTest, BuffersOfEmbeddingAndHeadCount) {
  PlannedWorker worker;
  const OffloadCandidate two = WithEnds(worker);
  EXPECT_EQ(ResidentBytes(two, 0, {.embedding = true}), 1300 - 400 + 10);
  EXPECT_EQ(ResidentBytes(two, 0, {.head = true}), 1300 - 400 + 2 * 10);
  EXPECT_EQ(ResidentBytes(two, 1, {.embedding = true, .head = true}), 1300 - 900 + 10 + 2 * 100)
      << "pieces and layers take turns in the same buffers";
  PlannedWorker other;
  EXPECT_EQ(ResidentBytes(WithEnds(other, /*one_matrix=*/true), 0, {.embedding = true, .head = true}),
            900 - 400 + 10 + 2 * 10);
}

// Its rows cost a step nothing.
TEST(OffloadTest, TheEmbeddingGoesFirst) {
  PlannedWorker worker;
  const OffloadCandidate candidate = WithEnds(worker);
  ASSERT_TRUE(StreamToFit({candidate}, 1310, /*kv_blocks=*/0));
  EXPECT_EQ(worker.streamed_ends, StreamedEnds{});
  ASSERT_TRUE(StreamToFit({candidate}, 1309, /*kv_blocks=*/0));
  EXPECT_EQ(worker.streamed_ends, StreamedEnds{.embedding = true});
  EXPECT_EQ(worker.streamed_layers, 0);
  EXPECT_EQ(worker.streamed_bytes, 0);
  EXPECT_EQ(worker.resident_bytes, 910);
}

// The head's pieces need little room for themselves, and a layer's two buffers much.
TEST(OffloadTest, TheHeadGoesWhereLayersWouldBeMoreBytes) {
  PlannedWorker worker;
  const OffloadCandidate candidate = WithEnds(worker);
  ASSERT_TRUE(StreamToFit({candidate}, 10 + 810, /*kv_blocks=*/0));  // 90 too few
  EXPECT_EQ(worker.streamed_layers, 3) << "300 bytes, and not the head's 400";
  EXPECT_FALSE(worker.streamed_ends.head);
  ASSERT_TRUE(StreamToFit({candidate}, 10 + 700, /*kv_blocks=*/0));
  EXPECT_EQ(worker.streamed_layers, 0) << "four layers leave 710";
  EXPECT_EQ(worker.streamed_ends, (StreamedEnds{.embedding = true, .head = true}));
  EXPECT_EQ(worker.streamed_bytes, 400);
  ASSERT_TRUE(StreamToFit({candidate}, 10 + 310, /*kv_blocks=*/0)) << "all there is, and the buffers";
  EXPECT_EQ(worker.streamed_layers, 4);
  EXPECT_EQ(worker.streamed_bytes, 800);
  EXPECT_FALSE(StreamToFit({candidate}, 10 + 309, /*kv_blocks=*/0));
}

TEST(OffloadTest, OneMatrixIsStreamedAsBothOrNot) {
  PlannedWorker worker;
  const OffloadCandidate candidate = WithEnds(worker, /*one_matrix=*/true);
  ASSERT_TRUE(StreamToFit({candidate}, 10 + 899, /*kv_blocks=*/0));
  EXPECT_EQ(worker.streamed_layers, 3) << "300 bytes, and not 400";
  EXPECT_EQ(worker.streamed_ends, StreamedEnds{});
  ASSERT_TRUE(StreamToFit({candidate}, 10 + 530, /*kv_blocks=*/0));
  EXPECT_EQ(worker.streamed_ends, (StreamedEnds{.embedding = true, .head = true}));
  EXPECT_EQ(worker.streamed_bytes, 400);
}

// -- In a plan

constexpr int64_t kGiB = int64_t{1} << 30;
const UniformFormats kBF16({.format = WeightFormat::kBF16});

WorkerInventory Worker(const std::string& name, const std::string& host, double gib, double drive) {
  return {.name = name,
          .host = host,
          .memory_bytes = static_cast<int64_t>(gib * kGiB),
          .threads = 4,
          .read_bytes_per_second = 20e9,
          .drive_bytes_per_second = drive,
          .kernel_levels = {"reference", "portable", "avx2"}};
}

TEST(OffloadTest, WhatFitsIsNotStreamed) {
  const auto plan =
      MakePlan(*ParseShape("llama-7b"), kBF16, {Worker("a", "h", 32, 2e9)}, {.kv_type = DType::kBF16});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->workers[0].streamed_layers, 0);
  EXPECT_EQ(plan->drive_seconds, 0);
  EXPECT_NEAR(plan->token_seconds, 1 / plan->decode_tokens_per_second, 1e-9);
}

TEST(OffloadTest, WhatDoesNotFitIsStreamedAndThePlanSaysHowFast) {
  const ModelConfig config = *ParseShape("llama-13b");
  const std::vector<WorkerInventory> workers = {Worker("a", "h", 8, 2e9)};
  const auto plan = MakePlan(config, kBF16, workers, {.kv_type = DType::kBF16});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const PlannedWorker& worker = plan->workers[0];
  EXPECT_GT(worker.streamed_layers, config.layers / 2);
  EXPECT_LE(worker.resident_bytes + worker.activation_bytes + worker.kv_bytes,
            static_cast<int64_t>(8 * 0.9 * kGiB));
  EXPECT_NEAR(worker.drive_seconds, static_cast<double>(worker.streamed_bytes) / 2e9, 1e-9);
  EXPECT_NEAR(plan->decode_tokens_per_second, 1 / worker.drive_seconds, 0.01 / worker.drive_seconds);
  EXPECT_TRUE(plan->drive_bound);
  EXPECT_LT(plan->token_seconds, worker.drive_seconds) << "what a token takes of a step that holds many";
  EXPECT_EQ(plan->bound_by, "the drive of worker a");
  EXPECT_THAT(plan->arithmetic, HasSubstr("a streams "));
  // Half of the drive's rate, half of the speed.
  const auto slower = MakePlan(config, kBF16, {Worker("a", "h", 8, 1e9)}, {.kv_type = DType::kBF16});
  EXPECT_NEAR(slower->decode_tokens_per_second * 2, plan->decode_tokens_per_second,
              0.01 * plan->decode_tokens_per_second);
}

TEST(OffloadTest, ASecondHostAddsItsDriveAndItsMemory) {
  const ModelConfig config = *ParseShape("llama-13b");
  const auto one = MakePlan(config, kBF16, {Worker("a", "h", 8, 1e9)}, {.kv_type = DType::kBF16});
  const std::vector<WorkerInventory> hosts = {Worker("a", "h", 8, 1e9), Worker("b", "g", 8, 1e9)};
  const auto two = MakePlan(config, kBF16, hosts, {.kv_type = DType::kBF16, .stages = 2});
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_LT(two->workers[0].streamed_bytes, one->workers[0].streamed_bytes / 2);
  EXPECT_EQ(one->StepsInFlight(), 1);
  EXPECT_EQ(two->StepsInFlight(), 1) << "every step more reads all streamed layers again";
}

// Stages read one after the other, ranks at once: worth two sums a layer over a network, as long as it is a
// drive that is waited for.
TEST(OffloadTest, RanksAreOnSeveralHostsWhereTheirDrivesAreWaitedFor) {
  const ModelConfig config = *ParseShape("llama-13b");
  const auto hosts = [](double gib, double drive) {
    return std::vector<WorkerInventory>{Worker("a", "h", gib, drive), Worker("b", "g", gib, drive)};
  };
  const PlannerOptions options{.kv_type = DType::kBF16};
  const auto plan = MakePlan(config, kBF16, hosts(8, 1e9), options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->layout.stages.size(), 1u);
  EXPECT_EQ(plan->layout.stages[0].ranks.size(), 2u);
  EXPECT_THAT(plan->arithmetic,
              HasSubstr("the ranks of stage 0 are on 2 hosts, which get their weights at once"));
  PlannerOptions stages = options;
  stages.stages = 2;
  const auto pipeline = MakePlan(config, kBF16, hosts(8, 1e9), stages);
  ASSERT_TRUE(pipeline.ok()) << pipeline.status();
  EXPECT_GT(plan->decode_tokens_per_second, 1.8 * pipeline->decode_tokens_per_second);

  // Sixteen sequences are sixteen rows a sum: over a slow network that takes longer than the drive.
  PlannerOptions slow = options;
  slow.remote_bytes_per_second = 2e6;
  const auto rows = MakePlan(config, kBF16, hosts(8, 1e9), slow);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(rows->layout.stages.size(), 2u);

  const auto whole = MakePlan(config, kBF16, hosts(24, 1e9), options);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(whole->layout.stages.size(), 2u) << "nothing is streamed";
  PlannerOptions far = options;
  far.remote_all_reduce_seconds = 0.2;
  const auto apart = MakePlan(config, kBF16, hosts(8, 1e9), far);
  ASSERT_TRUE(apart.ok()) << apart.status();
  EXPECT_EQ(apart->layout.stages.size(), 2u) << "sums would take longer than the drive";
  // Who has the ranks keeps them.
  std::vector<WorkerInventory> held = hosts(8, 1e9);
  for (int rank = 0; rank < 2; ++rank) {
    held[rank].held = HeldPart{.model_id = "m",
                               .layout = std::make_shared<const Layout>(plan->layout),
                               .stage = 0,
                               .rank = 1 - rank};
  }
  const auto again = MakePlan(config, kBF16, held, options);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->layout, plan->layout);
  EXPECT_EQ(again->workers[0].inventory, 1u);
}

// A host with a faster drive takes more layers than its memory holds.
TEST(OffloadTest, LayersFollowTheDrives) {
  const ModelConfig config = *ParseShape("llama-13b");
  const auto plan = MakePlan(config, kBF16, {Worker("slow", "h", 4, 0.5e9), Worker("fast", "g", 4, 3e9)},
                             {.kv_type = DType::kBF16});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_GT(plan->layout.stages[1].layers.size(), 2 * plan->layout.stages[0].layers.size());
}

TEST(OffloadTest, MoreSequencesAtOnceTakeMemoryFromLayers) {
  const ModelConfig config = *ParseShape("llama-7b");
  PlannerOptions options{.kv_type = DType::kBF16, .plan_for_batch = 1, .context_tokens = 512};
  const auto one = MakePlan(config, kBF16, {Worker("a", "h", 8, 2e9)}, options);
  options.plan_for_batch = 4;
  const auto four = MakePlan(config, kBF16, {Worker("a", "h", 8, 2e9)}, options);
  ASSERT_TRUE(one.ok() && four.ok()) << one.status() << four.status();
  EXPECT_GE(four->kv_blocks, 4 * 16);
  EXPECT_LT(one->workers[0].streamed_layers, four->workers[0].streamed_layers);
}

// BLOOM 7B: its embedding is a seventh of it.
TEST(OffloadTest, AnEmbeddingThatIsTheHeadIsStreamedWhereThatIsLess) {
  const ModelConfig config = *ParseShape("bloom-7b");
  PlannerOptions options{.kv_type = DType::kBF16, .plan_for_batch = 1, .context_tokens = 512};
  const auto plan = MakePlan(config, kBF16, {Worker("a", "h", 13.5, 2e9)}, options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const PlannedWorker& worker = plan->workers[0];
  EXPECT_EQ(worker.streamed_ends, (StreamedEnds{.embedding = true, .head = true}));
  EXPECT_EQ(worker.streamed_layers, 0);
  EXPECT_EQ(worker.streamed_bytes, int64_t{2} * config.vocab * config.hidden);
  EXPECT_THAT(plan->arithmetic, HasSubstr("a streams the head, rows of the embedding, "));
  // In less memory than the head and its buffers.
  options.context_tokens = 64;
  options.step_tokens = 64;
  const auto little = MakePlan(config, kBF16, {Worker("a", "h", 1.5, 2e9)}, options);
  ASSERT_TRUE(little.ok()) << little.status();
  EXPECT_GT(little->workers[0].streamed_layers, 0);
  EXPECT_TRUE(little->workers[0].streamed_ends.head);
}

TEST(OffloadTest, WhoMayNotStreamIsToldHowToAllowIt) {
  const ModelConfig config = *ParseShape("llama-13b");
  for (const auto& [drive, offload] : {std::pair{0.0, Offload::kAuto}, {1e9, Offload::kOff}}) {
    const absl::Status refused =
        MakePlan(config, kBF16, {Worker("a", "h", 8, drive)}, {.offload = offload}).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(refused.message()),
                HasSubstr(offload == Offload::kOff ? "--offload auto" : "worker a stream layers"));
  }
  // Not even the buffers and one context fit.
  EXPECT_THAT(std::string(MakePlan(config, kBF16, {Worker("a", "h", 1, 1e9)}, {}).status().message()),
              HasSubstr("too much"));
}

// -- GPUs

WorkerInventory GpuWorker(const std::string& name, const std::string& host, double host_gib, double gpu_gib) {
  WorkerInventory worker = Worker(name, host, host_gib, /*drive=*/2e9);
  worker.gpu = {.name = "H100",
                .uuid = name,
                .memory_bytes = static_cast<int64_t>(gpu_gib * kGiB),
                .free_bytes = static_cast<int64_t>(gpu_gib * kGiB),
                .copy_bytes_per_second = 20e9};
  worker.read_bytes_per_second = 2e12;
  worker.kernel_levels = {"cuda_sm90"};
  return worker;
}

TEST(OffloadTest, AGpuStreamsFromItsHostWhereThatHasRoomElseFromTheDrive) {
  const ModelConfig config = *ParseShape("llama-13b");
  const auto plan = MakePlan(config, kBF16, {GpuWorker("a", "h", 64, 8)}, {.kv_type = DType::kBF16});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const PlannedWorker& from_host = plan->workers[0];
  EXPECT_GT(from_host.streamed_layers, config.layers / 2);
  EXPECT_EQ(from_host.stream_home, WeightHome::kHost);
  EXPECT_TRUE(from_host.streamed_ends.embedding) << "its rows cost a step nothing";
  EXPECT_EQ(from_host.host_embedding_bytes, int64_t{2} * config.vocab * config.hidden);
  EXPECT_EQ(from_host.host_bytes, from_host.streamed_bytes + from_host.host_embedding_bytes);
  EXPECT_NEAR(from_host.drive_seconds, static_cast<double>(from_host.streamed_bytes) / 20e9, 1e-9);
  EXPECT_LE(from_host.resident_bytes + from_host.activation_bytes + from_host.kv_bytes,
            static_cast<int64_t>(8 * 0.9 * kGiB));
  EXPECT_THAT(plan->arithmetic, HasSubstr("from its host's memory, pinned, to the card at 20.00 GB/s"));
  EXPECT_THAT(plan->bound_by, HasSubstr("the way from its host to the GPU of worker a"));
  EXPECT_TRUE(plan->drive_bound);

  const auto small = MakePlan(config, kBF16, {GpuWorker("a", "h", 8, 8)}, {.kv_type = DType::kBF16});
  ASSERT_TRUE(small.ok()) << small.status();
  const PlannedWorker& from_drive = small->workers[0];
  EXPECT_EQ(from_drive.stream_home, WeightHome::kDrive);
  EXPECT_LT(from_drive.host_bytes, 2 * kGiB) << "two buffers";
  EXPECT_GT(from_drive.host_bytes, 0);
  EXPECT_NEAR(from_drive.drive_seconds, static_cast<double>(from_drive.streamed_bytes) / 2e9, 1e-9);
}

// What its products do in the time that layers take to come.
TEST(OffloadTest, AStepOfAGpuHasWhatItsProductsDoMeanwhile) {
  const ModelConfig config = *ParseShape("llama-13b");
  WorkerInventory worker = GpuWorker("a", "h", 64, 8);
  PlannerOptions options{.kv_type = DType::kBF16, .step_tokens = kStepTokensAuto};
  const auto unknown = MakePlan(config, kBF16, {worker}, options);
  ASSERT_TRUE(unknown.ok()) << unknown.status();
  EXPECT_EQ(unknown->step_tokens, kDefaultStepTokens);
  worker.arithmetic = {.floats = 30e12, .int8 = 15e12};
  const auto plan = MakePlan(config, kBF16, {worker}, options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_GT(plan->step_tokens, kDefaultStepTokens);
  EXPECT_THAT(plan->arithmetic, HasSubstr("what arithmetic does in the "));
  // fp16 takes three products where bf16 takes one.
  const auto half = MakePlan(config, UniformFormats({.format = WeightFormat::kF16}), {worker}, options);
  ASSERT_TRUE(half.ok()) << half.status();
  EXPECT_GT(half->step_tokens, plan->step_tokens / 4);
  EXPECT_LT(half->step_tokens, plan->step_tokens / 2);
}

// BLOOM in less than its embedding, which is its head: the card has pieces of it in its slots, and nothing to
// look rows up in.
TEST(OffloadTest, AGpuStreamsAnEmbeddingThatIsItsHeadInTwoForms) {
  const ModelConfig config = *ParseShape("bloom-7b");
  const int64_t embedding = int64_t{2} * config.vocab * config.hidden;
  PlannerOptions options{
      .kv_type = DType::kBF16, .plan_for_batch = 1, .context_tokens = 64, .step_tokens = 64};
  for (const double host : {64.0, 6.0}) {
    const auto plan = MakePlan(config, kBF16, {GpuWorker("a", "h", host, 2)}, options);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const PlannedWorker& worker = plan->workers[0];
    EXPECT_EQ(worker.streamed_ends, (StreamedEnds{.embedding = true, .head = true}));
    EXPECT_EQ(worker.host_embedding_bytes, embedding);
    EXPECT_GE(worker.streamed_bytes, embedding);
    EXPECT_EQ(worker.stream_home, host > 20 ? WeightHome::kHost : WeightHome::kDrive);
    if (host > 20) {
      EXPECT_EQ(worker.host_bytes, worker.streamed_bytes + embedding);
    } else {
      const int64_t layer =
          LayerImageBytes(config, kBF16, Quantize::kNone, plan->layout.stages[0].ranks[0], 0, /*gpu=*/true);
      EXPECT_EQ(worker.host_bytes, 2 * layer + 2 * kVocabularyPiece * config.hidden)
          << "two buffers, and one for rows";
    }
    EXPECT_LE(worker.resident_bytes + worker.activation_bytes + worker.kv_bytes,
              static_cast<int64_t>(2 * 0.9 * kGiB));
  }
}

// Packed rows are in the host's memory beside what is streamed from there: a host with room for the one alone
// leaves both on the drive, and is too small where there is none.
TEST(OffloadTest, AHostHasRoomForThePackedEmbeddingToo) {
  const ModelConfig config = *ParseShape("bloom-7b");
  const PlannerOptions options{
      .kv_type = DType::kBF16, .plan_for_batch = 1, .context_tokens = 64, .step_tokens = 64};
  for (const double drive : {2e9, 0.0}) {
    bool fits = false, from_host = false;
    for (double gib = 2; gib < 40; gib += 0.25) {
      WorkerInventory gpu = GpuWorker("a", "h", gib, 2);
      gpu.drive_bytes_per_second = drive;
      const auto plan = MakePlan(config, kBF16, {gpu}, options);
      EXPECT_TRUE(plan.ok() || !fits) << gib << " GiB: " << plan.status();
      if (!plan.ok()) continue;
      fits = true;
      const PlannedWorker& worker = plan->workers[0];
      EXPECT_LE(worker.host_bytes, static_cast<int64_t>(0.9 * gib * kGiB));
      EXPECT_TRUE(worker.stream_home == WeightHome::kHost || !from_host) << gib << " GiB";
      if (worker.stream_home != WeightHome::kHost) continue;
      from_host = true;
      EXPECT_EQ(worker.host_bytes, worker.streamed_bytes + worker.host_embedding_bytes) << gib << " GiB";
    }
    EXPECT_TRUE(from_host);
  }
}

// A card that lacks less than the embedding: nothing comes to it in a step but rows.
TEST(OffloadTest, AnEmbeddingAloneIsLookedUpInTheHostsMemory) {
  const ModelConfig config = *ParseShape("llama-13b");
  const int64_t embedding = int64_t{2} * config.vocab * config.hidden;
  int alone = 0;
  for (double gib = 26; gib < 32; gib += 0.05) {
    const auto plan = MakePlan(config, kBF16, {GpuWorker("a", "h", 64, gib)}, {.kv_type = DType::kBF16});
    ASSERT_TRUE(plan.ok()) << plan.status();
    const PlannedWorker& worker = plan->workers[0];
    if (worker.streamed_ends.embedding && worker.streamed_bytes == 0) {
      ++alone;
      EXPECT_EQ(worker.stream_home, WeightHome::kHost) << gib;
      EXPECT_EQ(worker.host_bytes, embedding) << gib;
      EXPECT_EQ(worker.drive_seconds, 0) << gib;
    }
  }
  EXPECT_GT(alone, 0);
}

TEST(OffloadTest, WhereAGpuStreamsFromCanBeSaid) {
  const ModelConfig config = *ParseShape("llama-13b");
  PlannerOptions options{.kv_type = DType::kBF16, .offload = Offload::kDrive};
  auto plan = MakePlan(config, kBF16, {GpuWorker("a", "h", 64, 8)}, options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->workers[0].stream_home, WeightHome::kDrive);

  options.offload = Offload::kHost;
  plan = MakePlan(config, kBF16, {GpuWorker("a", "h", 8, 8)}, options);
  EXPECT_TRUE(absl::IsFailedPrecondition(plan.status())) << "the host has no room: " << plan.status();
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("host h: "));
  // A CPU's weights are in the host's memory anyway.
  plan = MakePlan(config, kBF16, {Worker("a", "h", 8, 2e9)}, options);
  EXPECT_TRUE(absl::IsFailedPrecondition(plan.status())) << plan.status();
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("--offload host is for GPUs"));
}

// Two cards of a host share its drive, but each has a way of its own to the host's memory.
TEST(OffloadTest, CardsOfAHostShareItsDriveAndItsMemory) {
  const ModelConfig config = *ParseShape("llama-13b");
  const std::vector<WorkerInventory> cards = {GpuWorker("a", "h", 64, 6), GpuWorker("b", "h", 64, 6)};
  const auto host = MakePlan(config, kBF16, cards, {.kv_type = DType::kBF16});
  ASSERT_TRUE(host.ok()) << host.status();
  const auto drive = MakePlan(config, kBF16, cards, {.kv_type = DType::kBF16, .offload = Offload::kDrive});
  ASSERT_TRUE(drive.ok()) << drive.status();
  for (int i = 0; i < 2; ++i) {
    EXPECT_NEAR(host->workers[i].drive_seconds, static_cast<double>(host->workers[i].streamed_bytes) / 20e9,
                1e-9);
    EXPECT_NEAR(drive->workers[i].drive_seconds,
                2 * static_cast<double>(drive->workers[i].streamed_bytes) / 2e9, 1e-9);
  }
}

// Whoever comes first must not take what the buffers of the other need.
TEST(OffloadTest, OneCardStreamsFromTheHostAndTheOtherFromTheDriveWhereThereIsRoomForOne) {
  const ModelConfig config = *ParseShape("llama-13b");
  const auto plan_with = [&](double host_gib) {
    return MakePlan(config, kBF16, {GpuWorker("a", "h", host_gib, 6), GpuWorker("b", "h", host_gib, 6)},
                    {.kv_type = DType::kBF16});
  };
  const auto plenty = plan_with(64);
  ASSERT_TRUE(plenty.ok()) << plenty.status();
  const int64_t each = plenty->workers[0].streamed_bytes;
  int room_for_one = 0;
  for (double gib = 4; gib < 64; gib += 0.25) {
    const auto plan = plan_with(gib);
    if (!plan.ok()) continue;
    int64_t in_host = 0;
    for (const PlannedWorker& worker : plan->workers) in_host += worker.host_bytes;
    EXPECT_LE(in_host, static_cast<int64_t>(gib * 0.9 * kGiB));
    if (gib * kGiB > 1.2 * static_cast<double>(each) + 4.0 * kGiB &&
        gib * kGiB < 1.8 * static_cast<double>(each)) {
      ++room_for_one;
      EXPECT_EQ(plan->workers[0].stream_home, WeightHome::kHost) << gib;
      EXPECT_EQ(plan->workers[1].stream_home, WeightHome::kDrive) << gib;
    }
  }
  EXPECT_GT(room_for_one, 0);
  // The least that two cards on one drive need is little, and more never makes it fail.
  bool fits = false;
  for (double gib = 2; gib < 64; gib += 0.25) {
    const bool now = plan_with(gib).ok();
    EXPECT_TRUE(now || !fits) << gib;
    fits |= now;
  }
}

// Twelve workers a host and sixteen slices: not all of them find a place, which is no reason to move.
TEST(OffloadTest, RanksOnSeveralHostsAreKeptThoughWorkersAreLeftOver) {
  const ModelConfig config = *ParseShape("llama-13b");
  std::vector<WorkerInventory> workers;
  for (int i = 0; i < 24; ++i) workers.push_back(Worker("w" + std::to_string(i), i < 12 ? "h" : "g", 8, 1e9));
  const PlannerOptions options{.kv_type = DType::kBF16};
  const auto plan = MakePlan(config, kBF16, workers, options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  std::vector<WorkerInventory> later = workers;
  for (size_t i = 0; i < plan->workers.size(); ++i) {
    const PlannedWorker& planned = plan->workers[i];
    // They join again in another order.
    WorkerInventory& worker = later[(planned.inventory + 5) % later.size()];
    worker = workers[planned.inventory];
    worker.held = HeldPart{.model_id = "m",
                           .layout = std::make_shared<const Layout>(plan->layout),
                           .stage = planned.stage,
                           .rank = planned.rank};
  }
  for (size_t i = plan->workers.size(); i < workers.size(); ++i) later[(i + 5) % later.size()] = workers[i];
  const auto again = MakePlan(config, kBF16, later, options);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->layout, plan->layout);
  for (const PlannedWorker& worker : again->workers) EXPECT_TRUE(worker.keeps);
}

}  // namespace
}  // namespace bellwether
