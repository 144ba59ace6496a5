#include "worker/weights/read_ahead.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <string>

#include "common/clock.h"
#include "common/mutex.h"
#include "common/random.h"
#include "model/checkpoint/testing_files.h"
#include "worker/weights/shard_cache.h"
#include "worker/weights/testing_image.h"

namespace bellwether {
namespace {

using testing_image::BytesOf;

constexpr int64_t kImageBytes = kLayerBlockBytes + kLayerPageBytes;

class ReadAheadTest : public ::testing::Test {
 protected:
  // Odd ones are a block shorter.
  static const AlignedBuffer& ImageOf(int layer) {
    static std::map<int, AlignedBuffer> images;
    AlignedBuffer& image = images[layer];
    if (image.size() == 0) image = testing_image::Make(kImageBytes - layer % 2 * kLayerBlockBytes, layer);
    return image;
  }
  std::vector<std::shared_ptr<const LayerFile>> Files(int count, ReadAt read_at = nullptr) {
    auto cache = ShardCache::Open({.directory = directory_.path(), .read_at = std::move(read_at)});
    EXPECT_TRUE(cache.ok()) << cache.status();
    std::vector<std::shared_ptr<const LayerFile>> files;
    for (int i = 0; i < count; ++i) {
      const std::string key = "layer " + std::to_string(i);
      const AlignedBuffer& image = ImageOf(i);
      auto file = (*cache)->Write(DescribeImage(key, BytesOf(image), {}), BytesOf(image));
      EXPECT_TRUE(file.ok()) << file.status();
      files.push_back(*std::move(file));
    }
    return files;
  }
  // Takes `images` of them, each of which must be there whole and stay so until it is released.
  static void ExpectInOrder(ReadAhead& ahead, const std::vector<std::shared_ptr<const LayerFile>>& files,
                            int images) {
    for (int i = 0; i < images; ++i) {
      const int layer = i % static_cast<int>(files.size());
      const auto image = ahead.Take(*files[layer]);
      ASSERT_TRUE(image.ok()) << image.status();
      const AlignedBuffer& expected = ImageOf(layer);
      ASSERT_EQ(std::memcmp(expected.data(), *image, expected.size()), 0) << "image " << i;
      ahead.Release();
    }
  }

  testing_files::TemporaryDirectory directory_;
};

TEST_F(ReadAheadTest, LayersComeInOrderRoundAfterRound) {
  for (const int layers : {1, 2, 3, 5}) {
    for (const int buffers : {2, 3, 7}) {
      for (const int threads : {1, 4}) {
        const auto files = Files(layers);
        auto ahead = ReadAhead::Create({.files = files, .buffers = buffers, .threads = threads});
        ASSERT_TRUE(ahead.ok()) << ahead.status();
        ExpectInOrder(**ahead, files, 4 * layers + 1);
      }
    }
  }
}

// Drives answer in any order: here a read is held back until others have overtaken it, by a seed.
TEST_F(ReadAheadTest, TheOrderInWhichBlocksArriveShowsNowhere) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Mutex mutex;
    int reading = 0;
    int64_t reads = 0;
    const auto shuffled = [&](int fd, void* to, size_t bytes, off_t offset) -> ssize_t {
      {
        MutexLock lock(&mutex);
        ++reading;
        const auto alone = [&] { return reading > 1; };
        if (UniformFromCounter(seed, 0, ++reads) < 0.3) mutex.AwaitFor(alone, absl::Milliseconds(1));
      }
      const ssize_t read = pread(fd, to, bytes, offset);
      MutexLock lock(&mutex);
      --reading;
      return read;
    };
    const auto files = Files(3, shuffled);
    auto ahead = ReadAhead::Create({.files = files, .buffers = 3, .threads = 3});
    ASSERT_TRUE(ahead.ok()) << ahead.status();
    ExpectInOrder(**ahead, files, 7);
  }
}

// A step that asks for no logits does without the pieces of the head: they stand between the layers of two
// steps, and of those of which nothing has been read nothing is.
TEST_F(ReadAheadTest, WhatIsPassedOverIsNotReadBeyondTheBuffers) {
  constexpr int kLayers = 3, kPieces = 8, kRounds = 5;
  for (const int threads : {1, 4}) {
    const auto files = Files(kLayers + kPieces);
    auto ahead = ReadAhead::Create({.files = files, .threads = threads});
    ASSERT_TRUE(ahead.ok()) << ahead.status();
    int64_t layers = 0;
    const auto take = [&](int i) {
      const auto image = (*ahead)->Take(*files[i]);
      ASSERT_TRUE(image.ok()) << image.status();
      const AlignedBuffer& expected = ImageOf(i);
      ASSERT_EQ(std::memcmp(expected.data(), *image, expected.size()), 0) << "image " << i;
      (*ahead)->Release();
    };
    for (int round = 0; round < kRounds; ++round) {
      for (int i = 0; i < kLayers; ++i) {
        take(i);
        layers += files[i]->info().image_bytes;
      }
    }
    EXPECT_LE((*ahead)->bytes_read(), layers + kRounds * 2 * kImageBytes) << "two pieces a round";
    // One that goes through them again passes over the layers.
    for (int again = 0; again < 2; ++again) {
      for (int i = 0; i < kPieces; ++i) take(kLayers + i);
    }
    take(0);
  }
}

// What was passed over in the first round is looked at in the second.
TEST_F(ReadAheadTest, WhatIsTakenForTheFirstTimeIsChecked) {
  const auto lies = [&](int fd, void* to, size_t bytes, off_t offset) {
    const ssize_t read = pread(fd, to, bytes, offset);
    if (read > 0 && std::memcmp(to, ImageOf(4).data(), 4096) == 0) static_cast<char*>(to)[0] ^= 1;
    return read;
  };
  const auto files = Files(5, lies);
  auto ahead = ReadAhead::Create({.files = files});
  ASSERT_TRUE(ahead.ok()) << ahead.status();
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE((*ahead)->Take(*files[0]).ok());
    (*ahead)->Release();
  }
  const absl::Status status = (*ahead)->Take(*files[4]).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_NE(std::string(status.message()).find(files[4]->path()), std::string::npos) << status;
}

// Never further than there are buffers: what is in use is not written to.
TEST_F(ReadAheadTest, ReadsAsFarAsThereAreBuffersAndNoFurther) {
  Mutex mutex;
  int64_t blocks = 0;
  const auto counting = [&](int fd, void* to, size_t bytes, off_t offset) {
    const ssize_t read = pread(fd, to, bytes, offset);
    MutexLock lock(&mutex);
    ++blocks;
    return read;
  };
  const auto files = Files(4, counting);
  auto ahead = ReadAhead::Create({.files = files, .buffers = 2, .threads = 2});
  ASSERT_TRUE(ahead.ok()) << ahead.status();
  const int64_t ring = files[0]->blocks() + files[1]->blocks();
  {
    MutexLock lock(&mutex);
    const auto full = [&] { return blocks >= ring; };
    ASSERT_TRUE(mutex.AwaitFor(full, absl::Seconds(60)));
  }
  ASSERT_TRUE((*ahead)->Take(*files[0]).ok());
  ASSERT_TRUE((*ahead)->Take(*files[1]).ok());
  {
    MutexLock lock(&mutex);
    EXPECT_EQ(blocks, ring);
  }
  EXPECT_EQ((*ahead)->bytes_read(), files[0]->info().image_bytes + files[1]->info().image_bytes);
  (*ahead)->Release();
  MutexLock lock(&mutex);
  const auto next = [&] { return blocks == ring + files[2]->blocks(); };
  EXPECT_TRUE(mutex.AwaitFor(next, absl::Seconds(60)));
}

// Time passes in reads alone, a second each: all of it is counted. (Of several threads reads overlap, which
// the meter's own test has.)
TEST_F(ReadAheadTest, TheTimeOfReadsIsCounted) {
  class SteppedClock : public Clock {
   public:
    absl::Duration Now() const override { return absl::Seconds(now.load()); }
    std::atomic<int64_t> now{0};
  };
  SteppedClock clock;
  const auto a_second = [&](int fd, void* to, size_t bytes, off_t offset) {
    ++clock.now;
    return pread(fd, to, bytes, offset);
  };
  const auto files = Files(3, a_second);
  clock.now = 0;  // opening them reads too
  const auto meter = std::make_shared<StreamMeter>(&clock);
  {
    auto ahead = ReadAhead::Create({.files = files, .buffers = 2, .threads = 1, .meter = meter});
    ASSERT_TRUE(ahead.ok()) << ahead.status();
    ExpectInOrder(**ahead, files, 20);
  }
  EXPECT_GE(clock.now, 20);
  EXPECT_EQ(meter->Read().reading, clock.Now());
}

TEST_F(ReadAheadTest, TheMeterKnowsWhatLiesInTheBuffers) {
  const auto meter = std::make_shared<StreamMeter>();
  {
    const auto files = Files(3);
    auto ahead = ReadAhead::Create({.files = files, .buffers = 2, .meter = meter});
    ASSERT_TRUE(ahead.ok()) << ahead.status();
    EXPECT_GE(meter->Read().ring_bytes, 2 * kImageBytes);
    for (int i = 0; i < 7; ++i) {
      ASSERT_TRUE((*ahead)->Take(*files[i % 3]).ok());
      EXPECT_GE(meter->Read().filled_bytes, files[i % 3]->info().image_bytes);
      EXPECT_LE(meter->Read().filled_bytes, meter->Read().ring_bytes);
      (*ahead)->Release();
    }
  }
  EXPECT_EQ(meter->Read().ring_bytes, 0);
  EXPECT_EQ(meter->Read().filled_bytes, 0);
}

TEST_F(ReadAheadTest, AReadThatFailsIsToldAndTheFileWrittenAnew) {
  const auto failing = [](int fd, void* to, size_t bytes, off_t offset) -> ssize_t {
    if (offset < kLayerBlockBytes) return pread(fd, to, bytes, offset);
    errno = EIO;
    return -1;
  };
  const auto files = Files(2, failing);
  auto ahead = ReadAhead::Create({.files = files});
  ASSERT_TRUE(ahead.ok()) << ahead.status();
  const auto image = (*ahead)->Take(*files[0]);
  ASSERT_FALSE(image.ok());
  EXPECT_NE(std::string(image.status().message()).find(files[0]->path()), std::string::npos)
      << image.status();
  EXPECT_TRUE(files[0]->discarded());
}

// A drive that gives other bytes later than it gave at first.
TEST_F(ReadAheadTest, WhatIsVerifiedAlwaysIsNoticedInAnyRound) {
  for (const bool always : {false, true}) {
    std::atomic<bool> lies = false;
    const auto read_at = [&](int fd, void* to, size_t bytes, off_t offset) {
      const ssize_t read = pread(fd, to, bytes, offset);
      if (lies && read > 0) static_cast<char*>(to)[0] ^= 1;
      return read;
    };
    const auto files = Files(3, read_at);
    auto ahead = ReadAhead::Create({.files = files, .verify_always = always});
    ASSERT_TRUE(ahead.ok()) << ahead.status();
    ExpectInOrder(**ahead, files, 3);
    lies = true;
    absl::Status status;
    for (int i = 0; i < 6 && status.ok(); ++i) {
      status = (*ahead)->Take(*files[i % 3]).status();
      if (status.ok()) (*ahead)->Release();
    }
    EXPECT_EQ(absl::IsDataLoss(status), always) << status;
  }
}

// Whoever waited once hung for good when it ended: with threads in a read that never came back.
TEST_F(ReadAheadTest, ADriveThatStallsIsGivenUp) {
  struct Drive {
    Mutex mutex;
    bool answers ABSL_GUARDED_BY(mutex) = false;
    int reads ABSL_GUARDED_BY(mutex) = 0;
  };
  const auto drive = std::make_shared<Drive>();
  const auto stalled = [drive](int, void*, size_t, off_t) -> ssize_t {
    MutexLock lock(&drive->mutex);
    ++drive->reads;
    const auto answers = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(drive->mutex) { return drive->answers; };
    drive->mutex.Await(answers);
    --drive->reads;
    errno = EIO;
    return -1;
  };
  {
    const auto files = Files(1, stalled);
    auto ahead = ReadAhead::Create({.files = files, .wait_limit = absl::Milliseconds(20)});
    ASSERT_TRUE(ahead.ok()) << ahead.status();
    const auto image = (*ahead)->Take(*files[0]);
    EXPECT_TRUE(absl::IsDeadlineExceeded(image.status())) << image.status();
    EXPECT_NE(std::string(image.status().message()).find(files[0]->path()), std::string::npos)
        << image.status();
  }
  MutexLock lock(&drive->mutex);
  EXPECT_GT(drive->reads, 0) << "it has not answered yet";
  drive->answers = true;
  const auto over = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(drive->mutex) { return drive->reads == 0; };
  EXPECT_TRUE(drive->mutex.AwaitFor(over, absl::Seconds(60)));
}

TEST_F(ReadAheadTest, WhoWaitsIsToldOfTheEnd) {
  Mutex mutex;
  bool over = false;
  const auto stalled = [&](int fd, void* to, size_t bytes, off_t offset) {
    MutexLock lock(&mutex);
    mutex.Await([&] { return over; });
    return pread(fd, to, bytes, offset);
  };
  const auto files = Files(1, stalled);
  auto ahead = ReadAhead::Create({.files = files});
  ASSERT_TRUE(ahead.ok()) << ahead.status();
  std::thread other([&] {
    (*ahead)->Abort(absl::CancelledError("the epoch is over"));
    MutexLock lock(&mutex);
    over = true;
  });
  EXPECT_TRUE(absl::IsCancelled((*ahead)->Take(*files[0]).status()));
  other.join();
}

}  // namespace
}  // namespace bellwether
