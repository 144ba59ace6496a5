#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model/checkpoint/testing_files.h"
#include "model/shard_size.h"
#include "model/streamed_layers.h"
#include "worker/device/cpu_device.h"
#include "worker/device/gpu_device.h"
#include "worker/weights/load_bytes.h"
#include "worker/weights/shard_loader.h"
#include "worker/weights/testing_shard.h"

// Loading with a cache of packed layers.

namespace bellwether {
namespace {

constexpr char kModelOfFour[] = "random:llama?hidden=96,layers=4,heads=6,kv_heads=3,ffn=172,vocab=160:bf16";

class CachedShard : public ::testing::Test {
 protected:
  void SetUp() override {
    checkpoint_ = *Checkpoint::Open(kModelOfFour);
    cache_ = *ShardCache::Open({.directory = directory_.path()});
  }
  Assignment MakeStreamed(int32_t streamed) const {
    Assignment assignment = MakeAssignment(checkpoint_->config(), 1, 1, Quantize::kInt8);
    assignment.streamed_layers = streamed;
    return assignment;
  }
  absl::StatusOr<std::shared_ptr<const LoadedShard>> Load(const Assignment& assignment,
                                                          LoadOptions options = {}) {
    if (options.cache == nullptr) options.cache = cache_.get();
    return LoadShard(*checkpoint_, assignment, device_, std::move(options), &progress_);
  }
  size_t files() const { return ListShardCache(directory_.path())->size(); }

  testing_files::TemporaryDirectory directory_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<ShardCache> cache_;
  CpuDevice device_{/*threads=*/1};
  ExecutorProgress progress_;
};

std::vector<std::byte> ImageOf(const LayerWeights& layer) {
  const auto image = layer.store->image();
  return {image.begin(), image.end()};
}

TEST_F(CachedShard, TheSecondTimeNothingIsPackedAndAllIsTheSame) {
  const auto packed = Load(MakeStreamed(0));
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_EQ(files(), 5u) << "four layers, and what is outside them";
  const auto read = Load(MakeStreamed(0));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(HashesOf(**read), HashesOf(**packed));
  EXPECT_EQ((*read)->bytes, (*packed)->bytes);
  for (int layer = 0; layer < 4; ++layer) {
    EXPECT_EQ(ImageOf(*(*read)->layer_weights[layer]), ImageOf(*(*packed)->layer_weights[layer]));
  }
}

TEST_F(CachedShard, AnotherPartOrFormIsAnotherFile) {
  ASSERT_TRUE(Load(MakeStreamed(0)).ok());
  Assignment other = MakeAssignment(checkpoint_->config(), 1, 1, Quantize::kInt4);
  ASSERT_TRUE(Load(other).ok());
  EXPECT_EQ(files(), 9u) << "int4 has an embedding and a head of int8 too";
  other = MakeAssignment(checkpoint_->config(), 1, 2, Quantize::kInt8);
  ASSERT_TRUE(Load(other).ok());
  EXPECT_EQ(files(), 14u);
}

TEST_F(CachedShard, ADamagedLayerIsPackedAgain) {
  const auto packed = Load(MakeStreamed(0));
  ASSERT_TRUE(packed.ok()) << packed.status();
  const auto layers = ListShardCache(directory_.path());
  ASSERT_TRUE(layers.ok()) << layers.status();
  for (const CachedLayer& layer : *layers) {
    std::fstream file(layer.path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-100, std::ios::end);
    file.write("damage", 6);
  }
  const auto again = Load(MakeStreamed(0));
  ASSERT_TRUE(again.ok()) << again.status();
  for (int layer = 0; layer < 4; ++layer) {
    EXPECT_EQ(ImageOf(*(*again)->layer_weights[layer]), ImageOf(*(*packed)->layer_weights[layer]));
  }
  EXPECT_EQ(files(), 5u);
}

TEST_F(CachedShard, StreamedLayersAreEvenlySpreadAndNotInMemory) {
  EXPECT_EQ(StreamedLayers(4, 0), std::vector<bool>({false, false, false, false}));
  EXPECT_EQ(StreamedLayers(4, 1), std::vector<bool>({false, false, false, true}));
  EXPECT_EQ(StreamedLayers(4, 2), std::vector<bool>({false, true, false, true}));
  EXPECT_EQ(StreamedLayers(4, 4), std::vector<bool>({true, true, true, true}));
  const auto shard = Load(MakeStreamed(2));
  ASSERT_TRUE(shard.ok()) << shard.status();
  for (int layer = 0; layer < 4; ++layer) {
    const LayerWeights& weights = *(*shard)->layer_weights[layer];
    EXPECT_EQ(weights.file != nullptr, layer % 2 == 1);
    EXPECT_EQ(weights.store->image().empty(), layer % 2 == 1);
  }
  EXPECT_EQ((*shard)->streamed_bytes, (*shard)->layer_weights[1]->file->info().image_bytes +
                                          (*shard)->layer_weights[3]->file->info().image_bytes);
  EXPECT_TRUE((*shard)->Serves(MakeStreamed(2)));
  EXPECT_FALSE((*shard)->Serves(MakeStreamed(1)));
  (*shard)->layer_weights[3]->file->Discard();
  EXPECT_FALSE((*shard)->Serves(MakeStreamed(2))) << "it is to be written anew";
}

TEST_F(CachedShard, LayersThatStayAreTakenOver) {
  auto whole = Load(MakeStreamed(2));
  ASSERT_TRUE(whole.ok()) << whole.status();
  (*whole)->layer_weights[1]->file->Discard();
  const std::vector<std::shared_ptr<const LayerWeights>> before = (*whole)->layer_weights;
  Assignment later = MakeStreamed(1);
  later.layout = *EvenLayout(checkpoint_->config(), 2, 1);
  later.stage = 1;
  const auto half = Load(later, {.previous = *std::move(whole)});
  ASSERT_TRUE(half.ok()) << half.status();
  EXPECT_EQ((*half)->layer_weights[0], before[2]);
  EXPECT_EQ((*half)->layer_weights[1], before[3]);
  later.stage = 0;
  const auto other = Load(later, {.previous = *half});
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_NE((*other)->layer_weights[1], before[1]);
}

TEST_F(CachedShard, WhatCannotBeWrittenIsOnlyAPityUnlessItIsToBeStreamed) {
  const auto full = *ShardCache::Open({.directory = directory_.path(), .check_room = [](int64_t) {
                                         return absl::ResourceExhaustedError("the drive is full");
                                       }});
  EXPECT_TRUE(Load(MakeStreamed(0), {.cache = full.get()}).ok());
  EXPECT_EQ(files(), 0u);
  const auto streamed = Load(MakeStreamed(1), {.cache = full.get()});
  EXPECT_TRUE(absl::IsResourceExhausted(streamed.status())) << streamed.status();
  EXPECT_NE(std::string(streamed.status().message()).find("layer 3: the drive is full"), std::string::npos)
      << streamed.status();
  const auto nowhere = LoadShard(*checkpoint_, MakeStreamed(1), device_, {}, nullptr);
  EXPECT_TRUE(absl::IsFailedPrecondition(nowhere.status())) << nowhere.status();
}

// While workers came and went every new epoch began from nothing.
TEST_F(CachedShard, WhatWasLoadedWhenItEndedIsTakenOver) {
  int asked = 0;
  std::shared_ptr<const LoadedShard> unfinished;
  std::vector<UnwrittenImage> unwritten;
  const auto ended =
      Load(MakeStreamed(2),
           {.cancelled = [&] { return ++asked > 20; }, .unwritten = &unwritten, .unfinished = &unfinished});
  ASSERT_TRUE(absl::IsCancelled(ended.status())) << ended.status();
  ASSERT_NE(unfinished, nullptr) << "20 reads are more than a layer, or this shows nothing";
  const std::vector<std::shared_ptr<const LayerWeights>> before = unfinished->layer_weights;
  ASSERT_LT(before.size(), 4u);
  Assignment of_these = MakeStreamed(0);
  EXPECT_FALSE(unfinished->Serves(of_these));
  EXPECT_EQ(unfinished->layers.size(), static_cast<int64_t>(before.size()));
  const auto shard = Load(MakeStreamed(2), {.previous = std::move(unfinished)});
  ASSERT_TRUE(shard.ok()) << shard.status();
  for (size_t i = 0; i < before.size(); ++i) EXPECT_EQ((*shard)->layer_weights[i], before[i]);
  EXPECT_EQ((*shard)->bytes, (*Load(MakeStreamed(2)))->bytes);
}

// Another build's arithmetic of sizes must not lead beyond a buffer.
TEST_F(CachedShard, AFileOfAnotherSizeIsNotUsed) {
  ASSERT_TRUE(Load(MakeStreamed(0)).ok());
  for (int32_t streamed : {0, 4}) {
    const auto layers = ListShardCache(directory_.path());
    ASSERT_TRUE(layers.ok()) << layers.status();
    for (const CachedLayer& layer : *layers) {
      const std::vector<std::byte> image(2 * kLayerPageBytes);
      ASSERT_TRUE(cache_->Write(DescribeImage(layer.key, image, {}), image).ok());
    }
    const auto again = Load(MakeStreamed(streamed));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_GT((*again)->hashes.size(), 10u);
  }
}

// -- To a GPU, whose images are of its own form

class GpuShard : public CachedShard {
 protected:
  Assignment MakeStreamedFrom(WeightHome home, int32_t streamed) const {
    Assignment assignment = MakeStreamed(streamed);
    assignment.stream_home = home;
    return assignment;
  }
  absl::StatusOr<std::shared_ptr<const LoadedShard>> LoadToGpu(const Assignment& assignment,
                                                               LoadOptions options = {}) {
    if (options.cache == nullptr) options.cache = cache_.get();
    return LoadShard(*checkpoint_, assignment, gpu_, std::move(options), &progress_);
  }
  int64_t free_bytes() { return *gpu_.runtime().FreeBytes(); }

  GpuDevice gpu_{gpu::MakeEmulatedRuntime({}), /*threads=*/1};
};

TEST_F(GpuShard, WhatTheCacheHasIsWhatIsPacked) {
  ASSERT_TRUE(Load(MakeStreamed(0)).ok());
  const size_t of_cpu = files();
  const Assignment from_host = MakeStreamedFrom(WeightHome::kHost, 4);
  const auto packed = LoadToGpu(from_host);
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_EQ(files(), of_cpu + 5) << "a CPU's are of another form";
  const auto read = LoadToGpu(from_host);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(HashesOf(**read), HashesOf(**packed));
  EXPECT_EQ((*read)->bytes, (*packed)->bytes);
  const RankLayout& rank = from_host.rank_layout();
  for (int layer = 0; layer < 4; ++layer) {
    const LayerWeights& weights = *(*read)->layer_weights[layer];
    EXPECT_EQ(ImageOf(weights), ImageOf(*(*packed)->layer_weights[layer]));
    EXPECT_EQ(weights.image_bytes, LayerImageBytes(checkpoint_->config(), CheckpointFormats(*checkpoint_),
                                                   Quantize::kInt8, rank, layer, /*gpu=*/true));
  }
  const auto from_drive = LoadToGpu(MakeStreamedFrom(WeightHome::kDrive, 2));
  ASSERT_TRUE(from_drive.ok()) << from_drive.status();
  EXPECT_EQ(files(), of_cpu + 5) << "whichever way it comes";
}

TEST_F(GpuShard, WhatIsStreamedIsNotInItsMemory) {
  const int64_t at_first = free_bytes();
  int64_t taken[2];
  for (const bool streamed : {false, true}) {
    const auto shard = LoadToGpu(MakeStreamedFrom(WeightHome::kHost, streamed ? 4 : 0));
    ASSERT_TRUE(shard.ok()) << shard.status();
    taken[streamed ? 1 : 0] = at_first - free_bytes();
    EXPECT_EQ((*shard)->streamed_bytes > 0, streamed);
  }
  const int64_t images = 4 * LayerImageBytes(checkpoint_->config(), CheckpointFormats(*checkpoint_),
                                             Quantize::kInt8, MakeStreamed(0).rank_layout(), 0, /*gpu=*/true);
  EXPECT_NEAR(static_cast<double>(taken[0] - taken[1]), static_cast<double>(images), 0.02 * images);
  EXPECT_EQ(free_bytes(), at_first);
}

TEST_F(GpuShard, LayersMoveHomeWhenTheyAreToldTo) {
  const auto from_host = LoadToGpu(MakeStreamedFrom(WeightHome::kHost, 2));
  ASSERT_TRUE(from_host.ok()) << from_host.status();
  const Assignment from_drive = MakeStreamedFrom(WeightHome::kDrive, 2);
  EXPECT_FALSE((*from_host)->Serves(from_drive));
  const auto moved = LoadToGpu(from_drive, {.previous = *from_host});
  ASSERT_TRUE(moved.ok()) << moved.status();
  EXPECT_EQ((*moved)->layer_weights[0], (*from_host)->layer_weights[0]) << "in the GPU's memory";
  EXPECT_NE((*moved)->layer_weights[1], (*from_host)->layer_weights[1]);
  EXPECT_TRUE((*moved)->layer_weights[1]->store->image().empty());
}

// What stays in a GPU's memory comes there from the same files, and nothing of it stays with the host. Its
// image goes as soon as it is there, so that it is written while the next is packed, and not behind.
TEST_F(GpuShard, WhatStaysInItsMemoryIsKeptToo) {
  std::vector<UnwrittenImage> unwritten;
  std::vector<std::shared_ptr<const LoadedShard>> shards;
  for (const bool kept : {false, true, true}) {
    const ShardCache* const cache = kept ? cache_.get() : nullptr;
    const auto shard =
        LoadShard(*checkpoint_, MakeStreamed(0), gpu_, {.cache = cache, .unwritten = &unwritten}, &progress_);
    ASSERT_TRUE(shard.ok()) << shard.status();
    EXPECT_EQ(files(), kept ? 5u : 0u) << "four layers, and what is outside them";
    shards.push_back(*shard);
  }
  EXPECT_TRUE(unwritten.empty());
  for (int layer = 0; layer < 4; ++layer) {
    for (const TensorRole role : {TensorRole::kQuery, TensorRole::kUp, TensorRole::kDown}) {
      std::vector<std::string> values, scales;
      for (const auto& shard : shards) {
        auto& weights = const_cast<LayerWeights&>(*shard->layer_weights[layer]);
        EXPECT_TRUE(weights.store->image().empty());
        const auto& matrix = static_cast<const GpuMatrix&>(**FieldOf(weights, role).matrix);
        values.emplace_back(static_cast<const char*>(matrix.view().values), matrix.form().value_bytes());
        scales.emplace_back(static_cast<const char*>(matrix.view().scales), matrix.form().scale_bytes());
      }
      EXPECT_TRUE(values[1] == values[0] && values[2] == values[0]) << "layer " << layer;
      EXPECT_TRUE(scales[1] == scales[0] && scales[2] == scales[0]) << "layer " << layer;
    }
  }
  // The same files, whether a layer stays or is streamed.
  ASSERT_TRUE(LoadToGpu(MakeStreamedFrom(WeightHome::kDrive, 4)).ok());
  EXPECT_EQ(files(), 5u);
}

// An image is as large as a layer, or as embedding and head, and no plan counts it: a host that had no room
// for it ended the worker as it loaded.
TEST_F(GpuShard, AHostWithoutRoomForImagesPacksWithoutThem) {
  int64_t asked = 0;
  const auto load = [&](std::function<int64_t()> host_free_bytes) {
    GpuDevice gpu(gpu::MakeEmulatedRuntime({}), /*threads=*/1, std::move(host_free_bytes));
    const auto shard = LoadShard(*checkpoint_, MakeStreamed(0), gpu, {.cache = cache_.get()}, &progress_);
    EXPECT_TRUE(shard.ok()) << shard.status();
    return HashesOf(**shard);
  };
  const auto without = load([] { return int64_t{100}; });
  EXPECT_EQ(files(), 0u);
  // As soon as the one before is written there is room again.
  EXPECT_EQ(load([&] { return ++asked % 2 == 1 ? 0 : int64_t{1} << 30; }), without);
  EXPECT_EQ(files(), 5u);
  EXPECT_EQ(asked, 10);
  EXPECT_EQ(load([] { return int64_t{100}; }), without) << "nor are those read that there are";
}

TEST_F(GpuShard, ADriveWithoutRoomLeavesItsLayersUnkept) {
  const auto full = *ShardCache::Open({.directory = directory_.path(), .check_room = [](int64_t) {
                                         return absl::ResourceExhaustedError("the drive is full");
                                       }});
  const auto shard = LoadToGpu(MakeStreamed(0), {.cache = full.get()});
  ASSERT_TRUE(shard.ok()) << shard.status();
  EXPECT_EQ(files(), 0u);
}

// Files of what stays are for the next start alone, and are written between those that this one needs.
TEST_F(GpuShard, WhatStaysTakesNoRoomFromWhatIsStreamed) {
  const auto bytes_kept = [&] {
    int64_t bytes = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path()))
      bytes += static_cast<int64_t>(entry.file_size());
    return bytes;
  };
  ASSERT_TRUE(LoadToGpu(MakeStreamedFrom(WeightHome::kDrive, 2)).ok());
  ASSERT_EQ(files(), 5u);
  const int64_t all = bytes_kept();
  ASSERT_TRUE(PruneShardCache(directory_.path(), 0).ok());
  const auto small =
      *ShardCache::Open({.directory = directory_.path(), .check_room = [&](int64_t bytes) {
                           const bool room = bytes_kept() + bytes <= all * 6 / 10;
                           return room ? absl::OkStatus() : absl::ResourceExhaustedError("the drive is full");
                         }});
  const auto shard = LoadToGpu(MakeStreamedFrom(WeightHome::kDrive, 2), {.cache = small.get()});
  ASSERT_TRUE(shard.ok()) << shard.status();
  EXPECT_EQ(files(), 2u) << "the layers that are streamed";
  EXPECT_GE(StreamedFileBytes(*checkpoint_, MakeStreamedFrom(WeightHome::kDrive, 2), gpu_), bytes_kept());
}

// On a thread that is not the device's: it may keep an image alive, and nothing that lies on the device.
TEST_F(GpuShard, WhatIsInTheHostsMemoryIsWrittenBehind) {
  const int64_t at_first = free_bytes();
  std::vector<UnwrittenImage> unwritten;
  auto shard = LoadToGpu(MakeStreamedFrom(WeightHome::kHost, 2), {.unwritten = &unwritten});
  ASSERT_TRUE(shard.ok()) << shard.status();
  ASSERT_EQ(unwritten.size(), 2u);
  const std::shared_ptr<const void> written_now = unwritten[0].owner.lock();
  shard->reset();
  EXPECT_EQ(free_bytes(), at_first);
  EXPECT_NE(unwritten[0].owner.lock(), nullptr);
  EXPECT_EQ(unwritten[1].owner.lock(), nullptr);
  WriteBehind behind(cache_.get());
  behind.Add(std::move(unwritten));
  behind.Wait();
  EXPECT_EQ(files(), 3u + 1u)
      << "what stays on the card was written at once; the other has gone before its turn";
}

TEST_F(GpuShard, ACpuHasNoHostToStreamFrom) {
  const auto shard = Load(MakeStreamedFrom(WeightHome::kHost, 1));
  EXPECT_TRUE(absl::IsFailedPrecondition(shard.status())) << shard.status();
  EXPECT_NE(std::string(shard.status().message()).find("layer 3: "), std::string::npos) << shard.status();
}

// Serving does not wait for the drive; what has gone before its turn is passed over.
TEST_F(CachedShard, WhatIsInMemoryIsWrittenBehind) {
  std::vector<UnwrittenImage> unwritten;
  auto shard = Load(MakeStreamed(1), {.unwritten = &unwritten});
  ASSERT_TRUE(shard.ok()) << shard.status();
  EXPECT_EQ(files(), 1u) << "the one that is streamed";
  ASSERT_EQ(unwritten.size(), 4u);
  const std::vector<UnwrittenImage> copy = unwritten;
  {
    WriteBehind behind(cache_.get());
    behind.Add(std::move(unwritten));
    behind.Wait();
  }
  EXPECT_EQ(files(), 5u);
  const auto read = Load(MakeStreamed(1));
  ASSERT_TRUE(read.ok()) << read.status();
  for (int layer = 0; layer < 3; ++layer) {
    EXPECT_EQ(ImageOf(*(*read)->layer_weights[layer]), ImageOf(*(*shard)->layer_weights[layer]));
  }
  ASSERT_TRUE(PruneShardCache(directory_.path(), 0).ok());
  shard->reset();
  WriteBehind behind(cache_.get());
  behind.Add(copy);
  behind.Wait();
  EXPECT_EQ(files(), 0u);
}

// -- What is outside the layers, streamed

constexpr char kLargeVocabulary[] = "random:llama?hidden=64,layers=1,heads=4,ffn=96,vocab=9001";

class StreamedEndsShard : public ::testing::Test {
 protected:
  void SetUp() override { cache_ = *ShardCache::Open({.directory = directory_.path()}); }
  absl::StatusOr<std::shared_ptr<const LoadedShard>> Load(const std::string& model, StreamedEnds ends,
                                                          int rank = 0, Quantize quantize = Quantize::kNone) {
    checkpoint_ = *Checkpoint::Open(model);
    assignment_ = MakeAssignment(checkpoint_->config(), 1, 2, quantize);
    assignment_.rank = rank;
    assignment_.streamed_ends = ends;
    return LoadShard(*checkpoint_, assignment_, device_, {.cache = cache_.get()}, nullptr);
  }
  size_t files() const { return ListShardCache(directory_.path())->size(); }

  testing_files::TemporaryDirectory directory_;
  std::unique_ptr<ShardCache> cache_;
  std::unique_ptr<Checkpoint> checkpoint_;
  Assignment assignment_;
  CpuDevice device_{/*threads=*/1};
};

// Pieces begin at the same rows on every layout, have the bytes of the whole, and are hashed as it is.
TEST_F(StreamedEndsShard, PiecesAreTheWhole) {
  for (const std::string format : {":fp32", ":bf16", ":fp16", ":int8", ":int4"}) {
    for (const int rank : {0, 1}) {
      const auto whole = Load(kLargeVocabulary + format, {}, rank);
      const auto shard = Load(kLargeVocabulary + format, {.embedding = true, .head = true}, rank);
      ASSERT_TRUE(whole.ok() && shard.ok()) << whole.status() << shard.status();
      EXPECT_EQ((*shard)->bytes, (*whole)->bytes);
      EXPECT_EQ(HashesOf(**shard), HashesOf(**whole));
      EXPECT_EQ((*shard)->embedding, nullptr);
      EXPECT_EQ((*shard)->head, nullptr);
      for (const auto& [pieces, matrix] : {std::pair{&(*shard)->embedding_pieces, (*whole)->embedding.get()},
                                           {&(*shard)->head_pieces, (*whole)->head.get()}}) {
        ASSERT_EQ(pieces->size(), 2u);
        const Range rows = assignment_.rank_layout().head_rows;
        EXPECT_EQ(pieces->front()->rows.begin, rows.begin);
        EXPECT_EQ(pieces->back()->rows.end, rows.end);
        int64_t streamed = 0;
        for (const auto& piece : *pieces) {
          streamed += piece->matrix->bytes();
          std::vector<std::byte> image(piece->file->info().image_bytes + kLayerPageBytes);
          std::byte* const page =
              reinterpret_cast<std::byte*>(RoundUp(reinterpret_cast<int64_t>(image.data()), kLayerPageBytes));
          for (int64_t block = 0; block < piece->file->blocks(); ++block) {
            ASSERT_TRUE(piece->file->ReadBlock(block, /*check=*/true, page).ok());
          }
          piece->store->MoveTo(page);
          std::vector<float> row(64), expected(64);
          for (int64_t i = piece->rows.begin; i < piece->rows.end; i += 77) {
            PackedOf(*piece->matrix).GetRow(i - piece->rows.begin, absl::MakeSpan(row));
            PackedOf(*matrix).GetRow(i - rows.begin, absl::MakeSpan(expected));
            ASSERT_EQ(row, expected) << "row " << i;
          }
          if (pieces == &(*shard)->embedding_pieces) {
            EXPECT_EQ(PackedOf(*piece->matrix).panel_data(1) - page, piece->panel_bytes);
          }
          piece->store->MoveTo(nullptr);
        }
        EXPECT_EQ(streamed, matrix->bytes());
      }
      const EndBytes counted =
          BytesOfEnds(checkpoint_->config(), CheckpointFormats(*checkpoint_), Quantize::kNone,
                      assignment_.stage_layout(), rank, {.first_stage = true, .last_stage = true});
      EXPECT_EQ(counted.embedding, (*whole)->embedding->bytes());
      EXPECT_EQ(counted.head, (*whole)->head->bytes());
      EXPECT_EQ(counted.head_piece, std::max((*shard)->head_pieces[0]->matrix->bytes(),
                                             (*shard)->head_pieces[1]->matrix->bytes()));
      EXPECT_FALSE(counted.one_matrix);
      const int64_t piece = std::max((*shard)->head_pieces[0]->file->info().image_bytes,
                                     (*shard)->head_pieces[1]->file->info().image_bytes);
      EXPECT_EQ((*shard)->ResidentBytes(), (*shard)->bytes - (*shard)->streamed_bytes + 3 * piece)
          << "two buffers for the head, one for the embedding";
    }
  }
}

TEST_F(StreamedEndsShard, OneMatrixIsStreamedOnceAndAsBoth) {
  const std::string tied = absl::StrCat(kLargeVocabulary, ",tied=1:bf16");
  const auto shard = Load(tied, {.embedding = true, .head = true});
  ASSERT_TRUE(shard.ok()) << shard.status();
  EXPECT_TRUE((*shard)->head_is_embedding);
  EXPECT_EQ((*shard)->head_pieces, (*shard)->embedding_pieces);
  EXPECT_TRUE(BytesOfEnds(checkpoint_->config(), CheckpointFormats(*checkpoint_), Quantize::kNone,
                          assignment_.stage_layout(), 0, {.first_stage = true, .last_stage = true})
                  .one_matrix);
  EXPECT_EQ(files(), 3u) << "two pieces, and a layer";
  EXPECT_LT((*shard)->streamed_bytes, (*shard)->bytes);
  EXPECT_TRUE(absl::IsInvalidArgument(Load(tied, {.embedding = true}).status()));
}

// The second time nothing is packed; what is lost is, and served by nobody before.
TEST_F(StreamedEndsShard, PiecesAreKeptAndPackedAgainWhereTheyAreLost) {
  const StreamedEnds both = {.embedding = true, .head = true};
  const std::string model = absl::StrCat(kLargeVocabulary, ":bf16");
  const auto shard = Load(model, both);
  ASSERT_TRUE(shard.ok()) << shard.status();
  EXPECT_EQ(files(), 5u) << "two pieces of each, and a layer";
  EXPECT_TRUE((*shard)->Serves(assignment_));
  Assignment other = assignment_;
  other.streamed_ends.head = false;
  EXPECT_FALSE((*shard)->Serves(other));
  (*shard)->embedding_pieces[1]->file->Discard();
  EXPECT_FALSE((*shard)->Serves(assignment_)) << "it is to be written anew";
  EXPECT_EQ(files(), 4u);
  const auto again = Load(model, both);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(files(), 5u);
  EXPECT_TRUE((*again)->Serves(assignment_));
  EXPECT_EQ(HashesOf(**again), HashesOf(**shard));
  EXPECT_TRUE(
      absl::IsFailedPrecondition(LoadShard(*checkpoint_, assignment_, device_, {}, nullptr).status()));
}

// Its rows of the embedding, which the host of a GPU keeps for it, were taken for those of such a host.
TEST_F(StreamedEndsShard, ACpuHasNoHostToStreamFrom) {
  ASSERT_TRUE(Load(kLargeVocabulary, {.embedding = true}).ok());
  assignment_.stream_home = WeightHome::kHost;
  const absl::Status refused = LoadShard(*checkpoint_, assignment_, device_, {}, nullptr).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_NE(std::string(refused.message()).find("embedding rows 0-4096: "), std::string::npos) << refused;
}

// Of a GPU the head's pieces are in the form of its kernels and the embedding's in that of its host, where
// one matrix is two sets of files; in the host's memory, none.
TEST_F(StreamedEndsShard, OneMatrixOfAGpuIsStreamedInTwoForms) {
  const std::string tied = absl::StrCat(kLargeVocabulary, ",tied=1:bf16");
  const StreamedEnds both = {.embedding = true, .head = true};
  const auto of_cpu = Load(tied, both);
  ASSERT_TRUE(of_cpu.ok()) << of_cpu.status();
  const size_t before = files();
  GpuDevice gpu(gpu::MakeEmulatedRuntime({}), /*threads=*/1);
  for (const WeightHome home : {WeightHome::kDrive, WeightHome::kHost}) {
    assignment_.stream_home = home;
    const int64_t free = *gpu.runtime().FreeBytes();
    ExecutorProgress progress;
    const auto shard = LoadShard(*checkpoint_, assignment_, gpu, {.cache = cache_.get()}, &progress);
    ASSERT_TRUE(shard.ok()) << shard.status();
    // Who has loaded all of it and goes on is taken for stuck.
    EXPECT_LE(progress.loaded_bytes, progress.total_bytes);
    EXPECT_GT(progress.loaded_bytes, progress.total_bytes * 9 / 10) << "but for tables and vectors";
    EXPECT_EQ(files(), before + 3)
        << "a layer, and two pieces of the head; those of the embedding are a CPU's";
    ASSERT_EQ((*shard)->embedding_pieces.size(), 2u);
    ASSERT_EQ((*shard)->head_pieces.size(), 2u);
    EXPECT_NE((*shard)->head_pieces, (*shard)->embedding_pieces);
    EXPECT_EQ((*shard)->row_buffer_bytes, 0) << "they are in the host's memory";
    const EndBytes counted =
        GpuBytesOfEnds(checkpoint_->config(), CheckpointFormats(*checkpoint_), Quantize::kNone,
                       assignment_.stage_layout(), 0, {.first_stage = true, .last_stage = true});
    int64_t head = 0, in_files = 0;
    for (size_t i = 0; i < 2; ++i) {
      const VocabularyPiece &rows = *(*shard)->embedding_pieces[i], &piece = *(*shard)->head_pieces[i];
      EXPECT_EQ(piece.file != nullptr, home == WeightHome::kDrive);
      EXPECT_EQ(rows.file != nullptr, home == WeightHome::kDrive);
      head += piece.image_bytes;
      if (home != WeightHome::kDrive) continue;
      for (const VocabularyPiece* part : {&rows, &piece})
        in_files += static_cast<int64_t>(std::filesystem::file_size(part->file->path()));
      EXPECT_EQ(rows.file->path(), (*of_cpu)->embedding_pieces[i]->file->path());
      EXPECT_NE(rows.file->path(), piece.file->path()) << "one would take the place of the other";
    }
    EXPECT_EQ(counted.head, head);
    EXPECT_GE(StreamedFileBytes(*checkpoint_, assignment_, gpu), in_files);
    EXPECT_LT(free - *gpu.runtime().FreeBytes(), (*shard)->bytes - head);
    EXPECT_TRUE((*shard)->Serves(assignment_));
    Assignment other = assignment_;
    other.stream_home = home == WeightHome::kDrive ? WeightHome::kHost : WeightHome::kDrive;
    EXPECT_FALSE((*shard)->Serves(other));
  }
}

}  // namespace
}  // namespace bellwether
