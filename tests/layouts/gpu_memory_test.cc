// The planner counts what a worker takes of a GPU, and of its host for it, before anything is loaded, by
// formulas in model/, which may not ask those who take it. Here they are held against each other.

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/memory_pool.h"
#include "coordinator/offload.h"
#include "gtest/gtest.h"
#include "kernels/gpu/device_matrix.h"
#include "kernels/gpu/testing/counting_runtime.h"
#include "kernels/gpu/unpack.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/testing_files.h"
#include "model/gpu_size.h"
#include "tests/layouts/local_cluster.h"
#include "worker/device/gpu_device.h"
#include "worker/device/gpu_weights.h"
#include "worker/link/testing/fake_nccl.h"
#include "worker/weights/shard_cache.h"

namespace bellwether {
namespace {

constexpr int64_t kImagePadding = 8192;
constexpr int32_t kKvBlocks = 5, kContextTokens = 200, kStepTokens = 100;
constexpr GpuStepLimits kLimits = {.step_tokens = kStepTokens, .context_tokens = kContextTokens};

struct Model {
  std::string checkpoint;
  Quantize quantize = Quantize::kNone;
  DType kv_type = DType::kBF16;
  int32_t streamed_layers = 0;  // of each stage
  StreamedEnds ends;
  NcclUse nccl;
  bool cached = false;  // what stays comes by way of images
};

struct Cluster {
  std::vector<std::shared_ptr<gpu::CountingRuntime>> runtimes;
  std::unique_ptr<LocalCluster> workers;
};

absl::StatusOr<Cluster> Start(const Checkpoint& checkpoint, const Model& model, const Layout& layout,
                              const ShardCache* cache = nullptr) {
  Cluster cluster;
  for (int i = 0; i < layout.workers(); ++i)
    cluster.runtimes.push_back(std::make_shared<gpu::CountingRuntime>(gpu::MakeEmulatedRuntime({})));
  LocalCluster::Options options{
      .layout = layout,
      .numeric = {.kernel_level = "cuda_sm90", .quantize = model.quantize, .kv_type = model.kv_type},
      .kv_blocks = kKvBlocks,
      .context_tokens = kContextTokens,
      .step_tokens = kStepTokens,
      .device_of = [&](size_t i) { return std::make_shared<GpuDevice>(cluster.runtimes[i], 1); },
      .nccl = model.nccl,
      .streamed_layers = model.streamed_layers,
      .stream_home = WeightHome::kHost,
      .streamed_ends = model.ends,
      .cache = model.cached ? cache : nullptr};
  auto workers = LocalCluster::Start(checkpoint, options);
  if (!workers.ok()) return workers.status();
  cluster.workers = *std::move(workers);
  return cluster;
}

int64_t Planned(const Checkpoint& checkpoint, const Model& model, const Layout& layout, int stage, int rank) {
  const ModelConfig& config = checkpoint.config();
  const bool last = stage + 1 == static_cast<int>(layout.stages.size());
  const StageLayout& place = layout.stages[stage];
  const CheckpointFormats formats(checkpoint);
  GpuStepLimits limits = kLimits;
  limits.limbs = MostGpuLimbs(config, formats, model.quantize, place.layers, last);
  const StageEnds at_ends = {stage == 0, last};
  PlannedWorker worker{.weight_bytes = GpuShardBytes(config, formats, model.quantize, place, rank, at_ends)};
  OffloadCandidate candidate{.worker = &worker,
                             .ends = GpuBytesOfEnds(config, formats, model.quantize, place, rank, at_ends)};
  for (int64_t layer = place.layers.begin; layer < place.layers.end; ++layer) {
    candidate.layer_bytes.push_back(LayerImageBytes(config, formats, model.quantize, place.ranks[rank],
                                                    static_cast<int32_t>(layer), /*gpu=*/true));
  }
  const auto streamed = std::min(model.streamed_layers, static_cast<int32_t>(place.layers.size()));
  const StreamedEnds ends = {.embedding = model.ends.embedding && at_ends.first_stage,
                             .head = model.ends.head && at_ends.last_stage};
  return ResidentBytes(candidate, streamed, ends) + GpuScratchBytes(config, place.ranks[rank], limits, last) +
         (model.nccl.library == nullptr ? 0 : GpuMessageBytes(config, place, kLimits)) +
         kKvBlocks * GpuKvBlockBytes(config, model.kv_type, place, rank);
}

TEST(GpuMemory, LimbsAreCountedAsKernelsHaveThem) {
  for (const WeightFormat format : {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBF16,
                                    WeightFormat::kInt8, WeightFormat::kInt4}) {
    EXPECT_EQ(GpuLimbs(format), gpu::Limbs(format)) << Name(format);
  }
  int products = 0;
  gpu::ForLimbProducts<gpu::Limbs(WeightFormat::kF32)>([&](int, int) { ++products; });
  EXPECT_EQ(GpuLimbProducts(WeightFormat::kF32), products);
}

// Models cut groups here and there only; formulas and forms must agree wherever slices begin and end.
TEST(GpuMemory, CutGroupsAreCountedAsFormsFillThemUp) {
  std::mt19937 random(1);
  const auto pick = [&](int64_t first, int64_t last) {
    return std::uniform_int_distribution<int64_t>(first, last)(random);
  };
  for (int i = 0; i < 2000; ++i) {
    kernels::MatrixSpec spec{.rows = pick(1, 300),
                             .format = pick(0, 1) == 0 ? WeightFormat::kInt8 : WeightFormat::kInt4,
                             .group = static_cast<int32_t>(16 << pick(0, 3)),
                             .has_offset = pick(0, 1) == 0,
                             .half_scales = pick(0, 1) == 0,
                             .first_col = pick(0, 300)};
    spec.slices_total = static_cast<int32_t>(pick(2, 16));
    spec.slices = {0, spec.slices_total};
    std::vector<int64_t> of_row = {spec.first_col};  // the bounds, from the row's first column on
    for (int slice = 0; slice < spec.slices_total; ++slice)
      of_row.push_back(of_row.back() + (pick(0, 4) == 0 ? 0 : pick(1, i % 2 == 0 ? 100 : 2500)));
    for (const int64_t bound : of_row) spec.slice_bounds.push_back(bound - spec.first_col);
    spec.cols = spec.slice_bounds.back();
    const TensorFormat format = {.format = spec.format,
                                 .group = spec.group,
                                 .has_offset = spec.has_offset,
                                 .half_scales = spec.half_scales};
    const auto taken = GpuMatrix::ImageBytes(spec);
    ASSERT_TRUE(taken.ok()) << taken.status();
    EXPECT_EQ(GpuMatrixImageBytes(format, spec.rows, of_row, gpu::kSliceSegmentColumns), *taken)
        << "matrix " << i << ", " << spec.cols << " columns in groups of " << spec.group;
  }
}

void ExpectCounted(const Model& model, int stages, int ranks) {
  const auto checkpoint = Checkpoint::Open(model.checkpoint);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto layout = EvenLayout((*checkpoint)->config(), stages, ranks);
  ASSERT_TRUE(layout.ok()) << layout.status();
  const testing_files::TemporaryDirectory directory;
  const auto cache = *ShardCache::Open({.directory = directory.path()});
  const auto cluster = Start(**checkpoint, model, *layout, cache.get());
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  int worker = 0;
  for (int stage = 0; stage < stages; ++stage) {
    for (int rank = 0; rank < ranks; ++rank, ++worker) {
      gpu::Runtime& runtime = *cluster->runtimes[worker];
      const int64_t taken = runtime.info().memory_bytes - *runtime.FreeBytes();
      const int64_t planned = Planned(**checkpoint, model, *layout, stage, rank);
      const std::string what = absl::StrCat(model.checkpoint, ", ", stages, " stages x ", ranks,
                                            " ranks: stage ", stage, ", rank ", rank);
      // Images are whole pages, which is more than leaves with the layers.
      const int64_t images =
          model.cached ? layout->stages[stage].layers.size() + 1 : int64_t{model.streamed_layers};
      EXPECT_LE(taken, planned + images * kImagePadding) << what;
      // The slack is tables: much to a tiny model, nothing to a real one.
      EXPECT_LE(planned, taken + taken / 10) << what;
    }
  }
}

// Head counts, widths and groups that nothing divides evenly, and one model that tensor cores like.
constexpr char kLlama[] =
    "random:llama?hidden=120,layers=3,heads=5,kv_heads=1,head_dim=24,ffn=200,vocab=1730";
constexpr char kGrouped[] =
    "random:llama?hidden=256,layers=3,heads=8,kv_heads=2,head_dim=32,ffn=2304,vocab=1600,tied=1";
constexpr char kBloom[] = "random:bloom?hidden=100,layers=3,heads=5,ffn=400,vocab=1510";
constexpr char kWideHead[] = "random:llama?hidden=64,layers=3,heads=16,kv_heads=4,ffn=96,vocab=9001";

// What goes to the host and back in a step lies in pinned memory there: of the one worker of a layout; of the
// ranks of a stage, which send each other partial sums; of the first, a middle and the last stage. The same
// is counted for all of them, as nothing is laid out yet.
TEST(GpuMemory, ThePlannerCountsWhatWorkersPin) {
  for (const char* shape : {kLlama, kGrouped, kBloom, kWideHead}) {
    int64_t most = 0, planned = 0;
    for (const auto& [stages, ranks] : {std::pair{1, 1}, {1, 2}, {1, 3}, {3, 1}, {3, 2}}) {
      const auto checkpoint = Checkpoint::Open(absl::StrCat(shape, ":bf16"));
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
      const auto layout = EvenLayout((*checkpoint)->config(), stages, ranks);
      ASSERT_TRUE(layout.ok()) << layout.status();
      const auto cluster = Start(**checkpoint, {}, *layout);
      ASSERT_TRUE(cluster.ok()) << cluster.status();
      planned = GpuHostBytes((*checkpoint)->config(),
                             {.context_tokens = kContextTokens, .step_tokens = kStepTokens}) -
                kGpuProcessBytes - kGpuPieceBytes;
      for (size_t i = 0; i < cluster->runtimes.size(); ++i) {
        const int64_t pinned = cluster->runtimes[i]->most_pinned_bytes();
        EXPECT_LE(pinned, planned) << shape << ", " << stages << " stages x " << ranks << " ranks: worker "
                                   << i;
        most = std::max(most, pinned);
      }
    }
    // Ranks that are cut otherwise own more roots, at most three times as many.
    EXPECT_LE(planned - kGpuPieceBytes, 3 * (most - kGpuPieceBytes)) << shape;
  }
}

TEST(GpuMemory, ThePlannerCountsWhatWorkersTake) {
  for (const char* shape : {kLlama, kGrouped, kBloom}) {
    for (const auto& [stages, ranks] : {std::pair{1, 1}, {1, 3}, {3, 2}}) {
      ExpectCounted({absl::StrCat(shape, ":bf16")}, stages, ranks);
      ExpectCounted({absl::StrCat(shape, ":fp32"), Quantize::kNone, DType::kF32}, stages, ranks);
      ExpectCounted({absl::StrCat(shape, ":bf16"), Quantize::kInt8}, stages, ranks);
      ExpectCounted({absl::StrCat(shape, ":fp16"), Quantize::kInt4, DType::kF16}, stages, ranks);
      ExpectCounted({absl::StrCat(shape, ":fp16")}, stages, ranks);
    }
  }
}

// Ranks that talk by NCCL receive the sums of all others in the memory of the GPU.
TEST(GpuMemory, ThePlannerCountsWhatNcclWritesTo) {
  const FakeNccl fake(FAKE_NCCL);
  for (const char* shape : {kLlama, kGrouped, kWideHead}) {
    for (const auto& [stages, ranks] : {std::pair{1, 2}, {1, 3}, {3, 1}})
      ExpectCounted({.checkpoint = absl::StrCat(shape, ":bf16"), .nccl = {.library = fake.library()}}, stages,
                    ranks);
  }
}

// Two slots as large as a layer instead of the layers that are streamed; their tables and vectors stay.
TEST(GpuMemory, ThePlannerCountsWhatStreamsToo) {
  for (const char* shape : {kLlama, kGrouped, kBloom}) {
    for (const int32_t streamed : {1, 3}) {
      ExpectCounted({absl::StrCat(shape, ":bf16"), Quantize::kNone, DType::kBF16, streamed}, 1, 3);
      ExpectCounted({absl::StrCat(shape, ":fp32"), Quantize::kNone, DType::kF32, streamed}, 1, 1);
      ExpectCounted({absl::StrCat(shape, ":fp16"), Quantize::kInt4, DType::kF16, streamed}, 1, 2);
    }
  }
}

// In one piece of memory for each layer, and the same bytes.
TEST(GpuMemory, WhatComesByWayOfTheShardCacheTakesNoMore) {
  for (const char* shape : {kLlama, kGrouped, kBloom}) {
    for (const auto& [stages, ranks] : {std::pair{1, 1}, {1, 3}, {3, 2}}) {
      Model model = {absl::StrCat(shape, ":fp16"), Quantize::kInt4, DType::kF16};
      model.cached = true;
      ExpectCounted(model, stages, ranks);
      model.streamed_layers = 1;
      ExpectCounted(model, stages, ranks);
    }
  }
}

// Of the embedding nothing is there, of the head its tables, and pieces take turns with layers in the slots.
TEST(GpuMemory, ThePlannerCountsStreamedEndsToo) {
  const StreamedEnds both = {.embedding = true, .head = true};
  for (const std::string shape : {"random:llama?hidden=128,layers=3,heads=4,ffn=96,vocab=9001",
                                  "random:bloom?hidden=100,layers=3,heads=5,ffn=400,vocab=8300"}) {
    for (const int32_t streamed : {0, 2}) {
      for (const auto& [stages, ranks] : {std::pair{1, 1}, {1, 3}, {2, 1}}) {
        ExpectCounted({shape + ":bf16", Quantize::kNone, DType::kBF16, streamed, both}, stages, ranks);
        ExpectCounted({shape + ":fp16", Quantize::kInt4, DType::kF16, streamed, both}, stages, ranks);
      }
    }
  }
}

}  // namespace
}  // namespace bellwether
