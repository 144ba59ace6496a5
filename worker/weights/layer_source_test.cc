#include "worker/weights/layer_source.h"

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint/testing_files.h"
#include "worker/device/cpu_device.h"
#include "worker/weights/shard_cache.h"
#include "worker/weights/shard_loader.h"
#include "worker/weights/testing_shard.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

constexpr char kModel[] = "random:llama?hidden=96,layers=5,heads=6,kv_heads=3,ffn=172,vocab=9001:bf16";
constexpr char kModelOfOnePiece[] =
    "random:llama?hidden=96,layers=5,heads=6,kv_heads=3,ffn=172,vocab=160:bf16";

// A CPU that has slots and tells what they are asked for, as a GPU would be; its copies are done when it is
// said so.
class TellingOps : public DeviceOps {
 public:
  explicit TellingOps(std::unique_ptr<DeviceOps> cpu) : cpu_(std::move(cpu)) {}

  std::vector<std::string> Told() { return std::exchange(told_, {}); }
  bool copies_end = true;
  int asks_a_copy = 0;  // before it is done

  absl::StatusOr<bool> ReserveSlots(int slots, int64_t bytes) override {
    EXPECT_EQ(slots, kLayerBuffers);
    EXPECT_GT(bytes, 0);
    for (auto& slot : slots_) slot = *NewPlainImage(bytes);
    return true;
  }
  std::byte* FillSlot(int slot, absl::Span<std::byte> image) override {
    Tell("fill", slot);
    asked_[slot] = 0;
    std::copy(image.begin(), image.end(), slots_[slot].get());
    return slots_[slot].get();
  }
  void UseSlot(int slot) override { Tell("use", slot); }
  absl::StatusOr<bool> SlotFilled(int slot) override { return copies_end && ++asked_[slot] > asks_a_copy; }
  absl::Status ReleaseSlot(int slot) override {
    Tell("release", slot);
    return absl::OkStatus();
  }

  absl::StatusOr<float*> Allocate(int64_t floats) override { return cpu_->Allocate(floats); }
  absl::StatusOr<float*> AllocateHost(int64_t floats) override { return cpu_->AllocateHost(floats); }
  int64_t kv_bytes() const override { return 0; }
  void Begin(const Batch&) override {}
  void Embed(const DeviceMatrix&, TokenId, MutableRows) override {}
  void Norm(ConstRows, const NormWeights&, int64_t, double, MutableRows) override {}
  void Multiply(ConstRows, absl::Span<const Product>) override {}
  void RotateAndStore(int64_t, Range, const HeadNorms&, MutableRows, MutableRows, ConstRows) override {}
  void Attend(int64_t, Range, ConstRows, MutableRows) override {}
  void SiluMultiply(MutableRows, ConstRows, int64_t) override {}
  void Gelu(MutableRows, int64_t) override {}
  void Add(ConstRows, MutableRows, DeviceVector, MutableRows) override {}
  void PickRows(ConstRows, absl::Span<const int32_t>, int64_t, MutableRows) override {}
  void PickColumns(ConstRows, DeviceVector, MutableRows) override {}
  void SumRoots(absl::Span<const float* const>, int64_t, float*) override {}
  absl::Status Read(const float*, absl::Span<float>) override { return absl::OkStatus(); }
  absl::Status Write(absl::Span<const float>, float*) override { return absl::OkStatus(); }
  absl::Status Finish() override { return absl::OkStatus(); }
  float* HostView(float*) override { return nullptr; }

 private:
  void Tell(const std::string& what, int slot) { told_.push_back(what + " " + std::to_string(slot)); }

  const std::unique_ptr<DeviceOps> cpu_;
  std::vector<std::string> told_;
  std::shared_ptr<std::byte> slots_[kLayerBuffers];
  int asked_[kLayerBuffers] = {};
};

class LayerSourceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Open(kModel);
    cache_ = *ShardCache::Open({.directory = directory_.path()});
  }
  void Open(const std::string& model) {
    checkpoint_ = *Checkpoint::Open(model);
    whole_ = *LoadShard(*checkpoint_, MakeAssignment(checkpoint_->config(), 1, 1, Quantize::kNone), device_,
                        {}, nullptr);
  }
  void Start(int32_t streamed, absl::Duration wait_limit = absl::InfiniteDuration(), bool head = false) {
    Assignment assignment = MakeAssignment(checkpoint_->config(), 1, 1, Quantize::kNone);
    assignment.streamed_layers = streamed;
    assignment.streamed_ends.head = head;
    const auto shard = LoadShard(*checkpoint_, assignment, device_, {.cache = cache_.get()}, &progress_);
    ASSERT_TRUE(shard.ok()) << shard.status();
    shard_ = *shard;
    auto source = LayerSource::Create({.shard = shard_,
                                       .device = &device_,
                                       .ops = &ops_,
                                       .wait_limit = wait_limit,
                                       .progress = &progress_});
    ASSERT_TRUE(source.ok()) << source.status();
    source_ = *std::move(source);
  }
  // The last row of `some` is row `row` of `all`.
  void ExpectRow(const DeviceMatrix& some, const DeviceMatrix& all, int64_t row) {
    std::vector<float> values(checkpoint_->config().hidden), expected = values;
    PackedOf(some).GetRow(some.rows() - 1, absl::MakeSpan(values));
    PackedOf(all).GetRow(row, absl::MakeSpan(expected));
    EXPECT_EQ(values, expected) << "row " << row;
  }
  void Step() {
    for (int64_t layer = 0; layer < checkpoint_->config().layers; ++layer) {
      const auto weights = source_->Acquire(layer);
      ASSERT_TRUE(weights.ok()) << weights.status();
      const DeviceMatrix& up = *whole_->layer_weights[layer]->up;
      ExpectRow(*(*weights)->up, up, up.rows() - 1);
      ASSERT_TRUE(source_->Release(layer).ok());
    }
  }
  void Head() {
    for (size_t piece = 0; piece < shard_->head_pieces.size(); ++piece) {
      const auto weights = source_->AcquireHead(static_cast<int64_t>(piece));
      ASSERT_TRUE(weights.ok()) << weights.status();
      ASSERT_EQ((*weights)->rows, shard_->head_pieces[piece]->rows);
      ExpectRow(*(*weights)->matrix, *whole_->head, (*weights)->rows.end - 1);
      ASSERT_TRUE(source_->ReleaseHead().ok());
    }
  }
  // Each slot is filled, used and released by turns. The slots in the order of their use.
  std::vector<int> Uses() {
    std::vector<std::string> last = {"release 0", "release 1"};
    std::vector<int> uses;
    for (const std::string& told : ops_.Told()) {
      const int slot = told.back() - '0';
      const std::string before = last[slot].substr(0, last[slot].find(' '));
      last[slot] = told;
      const std::string now = told.substr(0, told.find(' '));
      EXPECT_EQ(before, now == "fill" ? "release" : now == "use" ? "fill" : "use") << told;
      if (now == "use") uses.push_back(slot);
    }
    return uses;
  }

  testing_files::TemporaryDirectory directory_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<ShardCache> cache_;
  CpuDevice device_{/*threads=*/1};
  const ModelConfig config_ = {
      .layers = 1, .hidden = 32, .heads = 1, .kv_heads = 1, .head_dim = 32, .ffn = 32, .vocab = 8};
  TellingOps ops_{*device_.NewOps(
      {.config = &config_, .kernel_level = "reference", .rank = {.slices = {0, 1}}, .roots = {{0, 1}}})};
  ExecutorProgress progress_;
  std::shared_ptr<const LoadedShard> shard_, whole_;
  std::unique_ptr<LayerSource> source_;
};

// Whatever the drive's moods.
TEST_F(LayerSourceTest, SlotsAreUsedByTurns) {
  Start(3);
  for (int step = 0; step < 3; ++step) Step();
  EXPECT_EQ(Uses(), std::vector<int>({0, 1, 0, 1, 0, 1, 0, 1, 0}));
}

// Pieces of a head that no step wants, or wants twice: what has been brought for nothing is used for nothing,
// and what a copy is still taken from is not read over. From no layer to all of them, from one piece to
// three.
TEST_F(LayerSourceTest, SlotsAreUsedByTurnsWhateverOfAHeadIsWanted) {
  std::mt19937 random(/*seed=*/1);
  for (const size_t pieces : {3, 1}) {
    if (pieces == 1) Open(kModelOfOnePiece);
    for (const int32_t streamed : {0, 1, 2, 5}) {
      Start(streamed, absl::InfiniteDuration(), /*head=*/true);
      ASSERT_EQ(shard_->head_pieces.size(), pieces);
      ops_.Told();
      size_t acquired = 0;
      for (int step = 0; step < 30; ++step) {
        ops_.asks_a_copy = static_cast<int>(random() % 4);
        const size_t heads = std::max<size_t>(1, random() % 5) - 1;  // none in two of five
        ASSERT_NO_FATAL_FAILURE(Step());
        for (size_t i = 0; i < heads; ++i) ASSERT_NO_FATAL_FAILURE(Head());
        acquired += streamed + heads * pieces;
      }
      EXPECT_GE(Uses().size(), acquired) << streamed << " layers, " << pieces << " pieces";
    }
  }
}

// A device that stops when a step has gone by the head.
TEST_F(LayerSourceTest, ACopyThatDoesNotEndIsAnErrorWhereAHeadIsPassedOver) {
  Start(1, absl::Milliseconds(50), /*head=*/true);
  Step();
  ops_.copies_end = false;
  absl::Status status;
  for (int step = 0; step < 2 && status.ok(); ++step) {
    status = source_->Acquire(4).status();  // the one that is streamed
    if (status.ok()) status = source_->Release(4);
  }
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
}

TEST_F(LayerSourceTest, WhatIsStreamedIsCounted) {
  Start(5);
  int64_t bytes = 0;
  for (const auto& layer : shard_->layer_weights) bytes += layer->image_bytes;
  EXPECT_EQ(shard_->streamed_bytes, bytes);
  for (int step = 0; step < 3; ++step) Step();
  // What has been read by then, which may be ahead of what was asked for.
  EXPECT_GE(progress_.streamed_bytes, 3 * bytes);
  EXPECT_LE(progress_.streamed_bytes, 4 * bytes);
}

// A device that has stopped, as when NCCL on another card waits for ever.
TEST_F(LayerSourceTest, ACopyThatDoesNotEndIsAnError) {
  Start(5, absl::Milliseconds(50));
  ops_.copies_end = false;
  absl::Status status;
  for (int64_t layer = 0; layer < 5 && status.ok(); ++layer) {
    status = source_->Acquire(layer).status();
    if (status.ok()) status = source_->Release(layer);
  }
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("the device has not taken a copy"));
}

TEST_F(LayerSourceTest, WhoWaitsForACopyIsToldWhy) {
  Start(5);
  ops_.copies_end = false;
  source_->Abort(absl::CancelledError("a new epoch begins"));
  absl::Status status;
  for (int64_t layer = 0; layer < 5 && status.ok(); ++layer) {
    status = source_->Acquire(layer).status();
    if (status.ok()) status = source_->Release(layer);
  }
  EXPECT_THAT(std::string(status.message()), HasSubstr("a new epoch begins"));
}

}  // namespace
}  // namespace bellwether
