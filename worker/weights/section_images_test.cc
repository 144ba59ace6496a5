#include "worker/weights/section_images.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "model/checkpoint/testing_files.h"
#include "worker/device/device.h"

namespace bellwether {
namespace {

constexpr int64_t kImageBytes = int64_t{5} << 20;  // written by parts

class SectionImagesTest : public ::testing::Test {
 protected:
  // One that tells which it is.
  std::shared_ptr<std::byte> NewImage(int seed) {
    std::shared_ptr<std::byte> image = *NewPlainImage(kImageBytes);
    for (int64_t i = 0; i < kImageBytes; ++i)
      image.get()[i] = static_cast<std::byte>((i * 7 + i / 4096 + seed) & 255);
    return image;
  }
  static SectionImages::Section SectionOf(const std::string& name, std::byte* image) {
    return {.name = name, .key = "the key of " + name, .image = {image, static_cast<size_t>(kImageBytes)}};
  }
  std::unique_ptr<SectionImages> MakeImages(const ShardCache& cache,
                                            std::function<bool()> cancelled = nullptr) {
    return std::make_unique<SectionImages>(
        SectionImages::Options{.cache = &cache, .cancelled = std::move(cancelled), .pool = &pool_});
  }
  // Of all kinds: what writers leave as well.
  size_t files() const {
    return std::distance(std::filesystem::directory_iterator(directory_.path()),
                         std::filesystem::directory_iterator());
  }
  void ExpectKept(const std::string& name, int seed) {
    const auto cache = *ShardCache::Open({.directory = directory_.path()});
    const std::shared_ptr<std::byte> read = *NewPlainImage(kImageBytes), expected = NewImage(seed);
    const auto file = MakeImages(*cache)->Find(SectionOf(name, read.get()), /*read=*/true);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_NE(*file, nullptr);
    EXPECT_TRUE(std::equal(read.get(), read.get() + kImageBytes, expected.get()));
  }

  testing_files::TemporaryDirectory directory_;
  ThreadPool pool_{{.threads = 2, .spin_pauses = 0}};
};

// On a slow drive: whoever has the image gives it away and goes on with the next.
TEST_F(SectionImagesTest, AnImageThatGoesIsHeldUntilItIsWritten) {
  absl::Notification go_on;
  const auto cache = *ShardCache::Open({.directory = directory_.path(), .check_room = [&](int64_t) {
                                          go_on.WaitForNotification();
                                          return absl::OkStatus();
                                        }});
  auto images = MakeImages(*cache);
  std::shared_ptr<std::byte> image = NewImage(1);
  const std::weak_ptr<std::byte> held = image;
  const SectionImages::Section section = SectionOf("layer 1", image.get());
  images->Keep(section, {}, std::move(image), /*stays=*/false, /*leave_bytes=*/0);
  EXPECT_FALSE(held.expired());
  EXPECT_EQ(files(), 0u);
  go_on.Notify();
  images.reset();
  EXPECT_TRUE(held.expired());
  ExpectKept("layer 1", 1);
}

// Nor is each of a hundred layers told of.
TEST_F(SectionImagesTest, NobodyTriesAgainWhereADriveIsFull) {
  std::atomic<int> asked = 0;
  const auto cache = *ShardCache::Open({.directory = directory_.path(), .check_room = [&](int64_t) {
                                          ++asked;
                                          return absl::ResourceExhaustedError("the drive is full");
                                        }});
  {
    const auto images = MakeImages(*cache);
    for (int i = 0; i < 3; ++i) {
      std::shared_ptr<std::byte> image = NewImage(i);
      images->Keep(SectionOf(std::to_string(i), image.get()), {}, image, /*stays=*/i == 1, /*leave_bytes=*/0);
    }
  }
  EXPECT_EQ(asked, 1);
}

TEST_F(SectionImagesTest, ADriveThatIsFullInTheMiddleLeavesNothing) {
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit little = {.rlim_cur = kImageBytes / 2, .rlim_max = before.rlim_max};
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &little), 0);
  const auto cache = *ShardCache::Open({.directory = directory_.path()});
  {
    const auto images = MakeImages(*cache);
    std::shared_ptr<std::byte> image = NewImage(1);
    images->Keep(SectionOf("layer 1", image.get()), {}, image, /*stays=*/false, /*leave_bytes=*/0);
    const auto streamed = images->Write(SectionOf("layer 2", image.get()), {});
    EXPECT_FALSE(streamed.ok()) << "what is to be streamed must be there";
  }
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  (void)std::signal(SIGXFSZ, ignored);
  EXPECT_EQ(files(), 0u);
}

TEST_F(SectionImagesTest, WhatIsNoLongerWantedIsNotWritten) {
  const auto cache = *ShardCache::Open({.directory = directory_.path()});
  std::atomic<int> asked = 0;
  std::shared_ptr<std::byte> image = NewImage(1);
  const std::weak_ptr<std::byte> held = image;
  const SectionImages::Section section = SectionOf("layer 1", image.get());
  MakeImages(*cache, [&] {
    return ++asked > 1;
  })->Keep(section, {}, std::move(image), /*stays=*/false, /*leave_bytes=*/0);
  EXPECT_EQ(asked, 2) << "in the middle";
  EXPECT_EQ(files(), 0u);
  EXPECT_TRUE(held.expired());
}

// Whoever is last gives the file; it is whole at all times.
TEST_F(SectionImagesTest, TwoWorkersKeepTheSame) {
  const auto cache = *ShardCache::Open({.directory = directory_.path()});
  {
    const auto one = MakeImages(*cache), other = MakeImages(*cache);
    for (int i = 0; i < 4; ++i) {
      const std::string name = std::to_string(i);
      for (SectionImages* images : {one.get(), other.get()}) {
        std::shared_ptr<std::byte> image = NewImage(i);
        const SectionImages::Section section = SectionOf(name, image.get());
        images->Keep(section, {}, std::move(image), /*stays=*/false, /*leave_bytes=*/0);
      }
    }
  }
  EXPECT_EQ(files(), 4u);
  for (int i = 0; i < 4; ++i) ExpectKept(std::to_string(i), i);
}

}  // namespace
}  // namespace bellwether
