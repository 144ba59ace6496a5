#include "worker/weights/embedding_rows.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fstream>
#include <string>

#include "common/mutex.h"
#include "common/status.h"
#include "model/checkpoint/testing_files.h"
#include "worker/device/cpu_device.h"
#include "worker/device/gpu_device.h"
#include "worker/weights/shard_cache.h"
#include "worker/weights/shard_loader.h"

namespace bellwether {
namespace {

// Pieces of 4096 rows with 64 panels of 64 KiB: two blocks each; the last one has 809 rows.
constexpr char kModel[] = "random:llama?hidden=256,layers=1,heads=4,ffn=96,vocab=9001:fp32";
constexpr int64_t kPanelBytes = 65536;

class EmbeddingRowsTest : public ::testing::Test {
 protected:
  void Load(ReadAt read_at = nullptr) {
    cache_ = *ShardCache::Open({.directory = directory_.path(), .read_at = std::move(read_at)});
    checkpoint_ = *Checkpoint::Open(kModel);
    assignment_ = {.epoch = Epoch{1}, .model_id = "m", .layout = *EvenLayout(checkpoint_->config(), 1, 1)};
    const auto load = [&] {
      return *LoadShard(*checkpoint_, assignment_, device_, {.cache = cache_.get()}, nullptr);
    };
    whole_ = load();
    assignment_.streamed_ends.embedding = true;
    shard_ = load();
    ASSERT_EQ(shard_->embedding_pieces.size(), 3u);
    ops_ = *device_.NewOps(OpsOptions("portable"));
  }
  Device::OpsOptions OpsOptions(const std::string& kernel_level) const {
    return {.config = &checkpoint_->config(),
            .kernel_level = kernel_level,
            .rank = assignment_.rank_layout(),
            .layers = 1,
            .kv_blocks = 1,
            .context_tokens = 32,
            .step_tokens = 1024,
            .roots = {{0, 4}}};
  }
  absl::StatusOr<std::unique_ptr<EmbeddingRows>> Create(EmbeddingRows::Options options = {}) {
    options.pieces = shard_->embedding_pieces;
    options.ops = ops_.get();
    options.progress = &progress_;
    return EmbeddingRows::Create(std::move(options));
  }
  // Of those tokens, which has to be what it is from memory.
  absl::Status Embed(EmbeddingRows& rows, std::vector<TokenId> tokens) {
    const int64_t count = static_cast<int64_t>(tokens.size()), hidden = checkpoint_->config().hidden;
    const Batch batch{.tokens = std::move(tokens), .positions = std::vector<int32_t>(count)};
    std::vector<float> own(count * hidden, -1), expected(count * hidden, -1);
    ops_->Begin(batch);
    BW_RETURN_IF_ERROR(rows.Embed(batch, {own.data(), count, hidden}));
    ops_->Embed(*whole_->embedding, 0, {expected.data(), count, hidden});
    EXPECT_EQ(own, expected);
    return absl::OkStatus();
  }
  int64_t read() const { return progress_.streamed_bytes; }

  testing_files::TemporaryDirectory directory_;
  std::unique_ptr<ShardCache> cache_;
  std::unique_ptr<Checkpoint> checkpoint_;
  CpuDevice device_{/*threads=*/1};
  Assignment assignment_;
  std::shared_ptr<const LoadedShard> whole_, shard_;
  std::unique_ptr<DeviceOps> ops_;
  ExecutorProgress progress_;
};

// A block is read whole when it is touched first, for its checksum; then a token is a panel.
TEST_F(EmbeddingRowsTest, ReadsThePanelsOfTheTokensAndNoMore) {
  Load();
  const auto rows = Create();
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_TRUE(Embed(**rows, {5}).ok());
  EXPECT_EQ(read(), kLayerBlockBytes);
  ASSERT_TRUE(Embed(**rows, {5}).ok());
  EXPECT_EQ(read(), kLayerBlockBytes + kPanelBytes);
  ASSERT_TRUE(Embed(**rows, {63, 64, 0, 70, 5}).ok());
  EXPECT_EQ(read(), kLayerBlockBytes + 3 * kPanelBytes) << "two panels";
  std::vector<TokenId> every;
  for (TokenId token = 0; token < 9001; token += 13) every.push_back(token);
  every.push_back(9000);
  ASSERT_TRUE(Embed(**rows, every).ok());
  const int64_t all = shard_->streamed_bytes, before = read();
  ASSERT_TRUE(Embed(**rows, every).ok());
  EXPECT_EQ(read() - before, all) << "every panel, once";
}

// As for a GPU, by way of rows of the host; and from pieces in its memory, of which nothing is read.
TEST_F(EmbeddingRowsTest, RowsGoByWayOfTheHostWhereItDoesNotWorkOnTheDevicesMemory) {
  Load();
  GpuDevice gpu(gpu::MakeEmulatedRuntime({}), /*threads=*/1);
  ops_ = *gpu.NewOps(OpsOptions("cuda_sm90"));
  const int64_t hidden = checkpoint_->config().hidden;
  const Batch batch{.tokens = {5, 9000, 4096, 5}, .positions = std::vector<int32_t>(4)};
  for (const WeightHome home : {WeightHome::kDrive, WeightHome::kHost}) {
    assignment_.stream_home = home;
    shard_ = *LoadShard(*checkpoint_, assignment_, gpu, {.cache = cache_.get()}, nullptr);
    float* const host_rows = *ops_->AllocateHost(4 * hidden);
    float* const on_device = *ops_->Allocate(4 * hidden);
    const int64_t before = read();
    const auto rows = Create({.host_rows = host_rows});
    ASSERT_TRUE(rows.ok()) << rows.status();
    ASSERT_TRUE((*rows)->Embed(batch, {on_device, 4, hidden}).ok());
    EXPECT_EQ(read() > before, home == WeightHome::kDrive);
    std::vector<float> own(4 * hidden), expected(hidden);
    ASSERT_TRUE(ops_->Read(on_device, absl::MakeSpan(own)).ok());
    for (int i = 0; i < 4; ++i) {
      PackedOf(*whole_->embedding).GetRow(batch.tokens[i], absl::MakeSpan(expected));
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), own.begin() + i * hidden)) << i;
    }
  }
}

TEST_F(EmbeddingRowsTest, WhatIsVerifiedAlwaysIsReadInWholeBlocks) {
  Load();
  const auto rows = Create({.verify_always = true});
  ASSERT_TRUE(rows.ok()) << rows.status();
  for (int i = 1; i < 4; ++i) {
    ASSERT_TRUE(Embed(**rows, {5, 4095}).ok());
    EXPECT_EQ(read(), i * 2 * kLayerBlockBytes);
  }
}

TEST_F(EmbeddingRowsTest, ADamagedBlockIsToldAndItsFileTakenAway) {
  Load();
  const LayerFile& file = *shard_->embedding_pieces[1]->file;
  {
    std::fstream damaged(file.path(), std::ios::in | std::ios::out | std::ios::binary);
    damaged.seekp(-100, std::ios::end);
    damaged.write("damage", 6);
  }
  const auto rows = Create();
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_TRUE(Embed(**rows, {4096}).ok()) << "in the first of its blocks";
  const absl::Status status = Embed(**rows, {8191});
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_NE(std::string(status.message()).find(file.path() + ": damaged between bytes"), std::string::npos)
      << status;
  EXPECT_TRUE(file.discarded());
}

TEST_F(EmbeddingRowsTest, AReadThatFailsIsTold) {
  std::atomic<bool> fails = false;
  Load([&](int fd, void* to, size_t bytes, off_t offset) -> ssize_t {
    if (!fails) return pread(fd, to, bytes, offset);
    errno = EIO;
    return -1;
  });
  const auto rows = Create();
  ASSERT_TRUE(rows.ok()) << rows.status();
  fails = true;
  const absl::Status status = Embed(**rows, {8500});
  EXPECT_NE(std::string(status.message()).find(shard_->embedding_pieces[2]->file->path()), std::string::npos)
      << status;
  EXPECT_TRUE(shard_->embedding_pieces[2]->file->discarded());
}

// A drive that does not answer ends the step, and whoever ends it is not waited for.
TEST_F(EmbeddingRowsTest, ADriveThatStallsIsGivenUpAndWhoWaitsIsToldOfTheEnd) {
  struct Drive {
    Mutex mutex;
    bool stalls ABSL_GUARDED_BY(mutex) = false;
    int reads ABSL_GUARDED_BY(mutex) = 0;
  };
  const auto drive = std::make_shared<Drive>();
  Load([drive](int fd, void* to, size_t bytes, off_t offset) -> ssize_t {
    MutexLock lock(&drive->mutex);
    ++drive->reads;
    const auto answers = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(drive->mutex) { return !drive->stalls; };
    drive->mutex.Await(answers);
    --drive->reads;
    return pread(fd, to, bytes, offset);
  });
  const auto stall = [&](bool stalls) {
    MutexLock lock(&drive->mutex);
    drive->stalls = stalls;
  };
  stall(true);
  {
    const auto rows = Create({.wait_limit = absl::Milliseconds(20)});
    ASSERT_TRUE(rows.ok()) << rows.status();
    const absl::Status status = Embed(**rows, {5});
    EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
    EXPECT_NE(std::string(status.message()).find(shard_->embedding_pieces[0]->file->path()),
              std::string::npos)
        << status;
  }
  const auto rows = Create();
  ASSERT_TRUE(rows.ok()) << rows.status();
  std::thread other([&] { (*rows)->Abort(absl::CancelledError("the epoch is over")); });
  EXPECT_TRUE(absl::IsCancelled(Embed(**rows, {5})));
  other.join();
  stall(false);
  MutexLock lock(&drive->mutex);
  const auto over = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(drive->mutex) { return drive->reads == 0; };
  EXPECT_TRUE(drive->mutex.AwaitFor(over, absl::Seconds(60)));
}

}  // namespace
}  // namespace bellwether
