#include "worker/weights/shard_loader.h"

#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <set>
#include <string>

#include "common/packed_row.h"
#include "gtest/gtest.h"
#include "model/checkpoint/testing_files.h"
#include "model/shard_size.h"
#include "model/streamed_layers.h"
#include "worker/device/cpu_device.h"
#include "worker/weights/testing_shard.h"

namespace bellwether {
namespace {

constexpr const char* kModels[] = {
    "random:llama?hidden=96,layers=3,heads=6,kv_heads=3,ffn=172,vocab=160:fp32",
    "random:llama?hidden=120,layers=2,heads=5,kv_heads=1,head_dim=24,ffn=200,vocab=173,tied=1:bf16",
    "random:bloom?hidden=100,layers=2,heads=5,ffn=400,vocab=151:int4",
};
// Of one layer.
constexpr const char* kQuantizedModels[] = {
    "tests/goldens/models/gptq-belle-bloom-4bit/bloom7b-4bit-128g.pt",
    "tests/goldens/models/gptq-belle-llama-2bit/llama7b-2bit-16g.pt",
    "tests/goldens/models/gptq-belle-llama-3bit/llama7b-3bit.pt",
    "tests/goldens/models/gptq-v1-llama-8bit-head",
    "tests/goldens/models/gptq-v2-llama-symmetric-rules",
};

// The planner promises memory before anything is read, so its arithmetic must be that of what is loaded.
TEST(LoadShard, TakesTheBytesThatThePlannerCounts) {
  CpuDevice device(/*threads=*/1);
  std::vector<std::string> models(std::begin(kModels), std::end(kModels));
  models.insert(models.end(), std::begin(kQuantizedModels), std::end(kQuantizedModels));
  for (const std::string& model : models) {
    const auto checkpoint = Checkpoint::Open(model);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    const ModelConfig& config = (*checkpoint)->config();
    for (Quantize quantize : {Quantize::kNone, Quantize::kInt8, Quantize::kInt4}) {
      for (const auto& [stages, ranks] : {std::pair{1, 1}, {2, 1}, {1, 3}, {2, 2}}) {
        if (stages > config.layers) continue;
        Assignment assignment = MakeAssignment(config, stages, ranks, quantize);
        for (assignment.stage = 0; assignment.stage < stages; ++assignment.stage) {
          for (assignment.rank = 0; assignment.rank < ranks; ++assignment.rank) {
            ExecutorProgress progress;
            const auto shard = LoadShard(**checkpoint, assignment, device, {.threads = 2}, &progress);
            ASSERT_TRUE(shard.ok()) << shard.status();
            const int64_t expected =
                ShardBytes(config, CheckpointFormats(**checkpoint), quantize, assignment.stage_layout(),
                           assignment.rank, {assignment.first_stage(), assignment.last_stage()});
            EXPECT_EQ((*shard)->bytes, expected)
                << model << " stages " << stages << " ranks " << ranks << " stage " << assignment.stage;
            EXPECT_TRUE((*shard)->Serves(assignment));
            // The matrices follow each other in one arena.
            const LayerWeights& layer = *(*shard)->layer_weights[0];
            EXPECT_EQ(PackedOf(*layer.key).panel_data(0),
                      PackedOf(*layer.query).panel_data(0) + RoundUp(layer.query->bytes(), 64));
            EXPECT_LE(progress.loaded_bytes, progress.total_bytes);
          }
        }
      }
    }
  }
}

// A rank holds exactly its rows and columns of what one worker alone would hold.
TEST(LoadShard, RanksHoldPartsOfTheWhole) {
  CpuDevice device(/*threads=*/1);
  const auto checkpoint = Checkpoint::Open(kModels[1]);
  ASSERT_TRUE(checkpoint.ok());
  const ModelConfig& config = (*checkpoint)->config();
  for (Quantize quantize : {Quantize::kNone, Quantize::kInt8, Quantize::kInt4}) {
    const auto whole = LoadShard(**checkpoint, MakeAssignment(config, 1, 1, quantize), device, {}, nullptr);
    ASSERT_TRUE(whole.ok()) << whole.status();
    Assignment assignment = MakeAssignment(config, 1, 3, quantize);
    for (assignment.rank = 0; assignment.rank < 3; ++assignment.rank) {
      const auto part = LoadShard(**checkpoint, assignment, device, {}, nullptr);
      ASSERT_TRUE(part.ok()) << part.status();
      const Range ffn = SliceFfn(config, assignment.rank_layout().slices);
      const auto& down = PackedOf(*(*part)->layer_weights[1]->down);
      std::vector<float> own(down.cols()), all(config.ffn);
      for (int64_t row = 0; row < config.hidden; ++row) {
        down.GetRow(row, absl::MakeSpan(own));
        PackedOf(*(*whole)->layer_weights[1]->down).GetRow(row, absl::MakeSpan(all));
        ASSERT_EQ(own, std::vector<float>(all.begin() + ffn.begin, all.begin() + ffn.end)) << "row " << row;
      }
      const auto& up = PackedOf(*(*part)->layer_weights[1]->up);
      std::vector<float> row_own(config.hidden), row_all(config.hidden);
      for (int64_t row = 0; row < ffn.size(); ++row) {
        up.GetRow(row, absl::MakeSpan(row_own));
        PackedOf(*(*whole)->layer_weights[1]->up).GetRow(ffn.begin + row, absl::MakeSpan(row_all));
        ASSERT_EQ(row_own, row_all);
      }
    }
  }
}

// It was loaded to its end for an epoch that was over, and a worker that was told to stop had to kill itself.
TEST(LoadShard, EndsBeforeTheNextReadOnceItIsNotWanted) {
  const auto checkpoint =
      Checkpoint::Open("random:llama?hidden=512,layers=40,heads=8,ffn=1024,vocab=160:fp32");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  constexpr int kThreads = 2, kReads = 5;
  CpuDevice device(/*threads=*/1);
  std::atomic<int> asked{0};
  ExecutorProgress progress;
  const auto shard =
      LoadShard(**checkpoint, MakeAssignment((*checkpoint)->config(), 1, 1, Quantize::kNone), device,
                {.threads = kThreads, .cancelled = [&asked] { return ++asked > kReads; }}, &progress);
  EXPECT_TRUE(absl::IsCancelled(shard.status())) << shard.status();
  EXPECT_EQ(progress.counter, kReads);
  EXPECT_LE(asked, kReads + kThreads) << "every thread asks once more";
  EXPECT_LT(progress.loaded_bytes, progress.total_bytes / 10);
}

// Workers of other layouts than today's can be compared with those of today.
TEST(LoadShard, AHashBelongsToTheTensorAndNotToTheLayout) {
  CpuDevice device(/*threads=*/1);
  for (const char* model : kModels) {
    const auto checkpoint = Checkpoint::Open(model);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    const ModelConfig& config = (*checkpoint)->config();
    for (const Quantize quantize : {Quantize::kNone, Quantize::kInt8}) {
      const auto whole =
          LoadShard(**checkpoint, MakeAssignment(config, 1, 1, quantize), device, {.threads = 3}, nullptr);
      ASSERT_TRUE(whole.ok()) << whole.status();
      const std::map<std::string, uint64_t> expected = HashesOf(**whole);
      std::set<std::string> seen;
      Assignment assignment = MakeAssignment(config, 2, 3, quantize);
      for (assignment.stage = 0; assignment.stage < 2; ++assignment.stage) {
        for (assignment.rank = 0; assignment.rank < 3; ++assignment.rank) {
          const auto part = LoadShard(**checkpoint, assignment, device, {}, nullptr);
          ASSERT_TRUE(part.ok()) << part.status();
          for (const auto& [what, hash] : HashesOf(**part)) {
            seen.insert(what);
            const bool cut_by_rank = (what.starts_with("embedding") || what.starts_with("head")) &&
                                     what.find("rows") != std::string::npos;
            const bool bias_of_rank = what.find("bias") != std::string::npos;
            if (cut_by_rank || (bias_of_rank && !expected.contains(what))) continue;
            ASSERT_TRUE(expected.contains(what)) << what;
            EXPECT_EQ(hash, expected.at(what)) << model << ": " << what;
          }
        }
      }
      for (const auto& [what, hash] : expected) {
        if (what.starts_with("layer") && what.find("bias") == std::string::npos) {
          EXPECT_TRUE(seen.contains(what)) << what;
        }
      }
    }
  }
}

// 20 kB changed where the model id takes no samples, and a worker served other weights under the same id.
TEST(LoadShard, AChangedValueChangesTheHashOfItsPieceAlone) {
  namespace fs = std::filesystem;
  const fs::path changed = fs::path(::testing::TempDir()) / "changed_model";
  fs::remove_all(changed);
  fs::copy("tests/goldens/models/llama-mha", changed);
  const auto hashes = [](const std::string& path) {
    CpuDevice device(/*threads=*/1);
    const auto checkpoint = Checkpoint::Open(path);
    const auto shard = LoadShard(**checkpoint, MakeAssignment((*checkpoint)->config(), 1, 2, Quantize::kNone),
                                 device, {}, nullptr);
    return HashesOf(**shard);
  };
  const std::map<std::string, uint64_t> before = hashes(changed);
  {
    std::fstream file(changed / "model.safetensors", std::ios::binary | std::ios::in | std::ios::out);
    uint64_t header = 0;
    file.read(reinterpret_cast<char*>(&header), sizeof(header));
    const auto at = static_cast<std::streamoff>(sizeof(header) + header);
    file.seekg(at);
    const char low_bits = static_cast<char>(file.get() ^ 1);
    file.seekp(at);
    file.put(low_bits);
    ASSERT_TRUE(file.good());
  }
  int different = 0;
  for (const auto& [what, hash] : hashes(changed)) different += hash == before.at(what) ? 0 : 1;
  EXPECT_EQ(different, 1);
  fs::remove_all(changed);
}

TEST(LoadShard, TiedHeadIsStoredOnce) {
  CpuDevice device(/*threads=*/1);
  const auto checkpoint = Checkpoint::Open(kModels[1]);
  ASSERT_TRUE(checkpoint.ok());
  const auto one = LoadShard(**checkpoint, MakeAssignment((*checkpoint)->config(), 1, 1, Quantize::kNone),
                             device, {}, nullptr);
  ASSERT_TRUE(one.ok());
  EXPECT_TRUE((*one)->head_is_embedding);
  EXPECT_EQ((*one)->head, nullptr);
  EXPECT_EQ(&(*one)->head_matrix(), (*one)->embedding.get());
}

}  // namespace
}  // namespace bellwether
