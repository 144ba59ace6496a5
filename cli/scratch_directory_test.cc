#include "cli/scratch_directory.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

namespace fs = std::filesystem;

class ScratchDirectoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(parent_);
    fs::create_directories(parent_);
  }
  void TearDown() override { fs::remove_all(parent_); }
  const std::string parent_ = ::testing::TempDir() + "/scratch_directory_test";
};

TEST_F(ScratchDirectoryTest, GoesWithItsOwner) {
  auto first = ScratchDirectory::Make(parent_);
  ASSERT_TRUE(first.ok()) << first.status();
  std::ofstream(first->path() + "/log") << "text";
  {
    const auto second = ScratchDirectory::Make(parent_);
    ASSERT_TRUE(second.ok()) << second.status();
    EXPECT_TRUE(fs::exists(first->path() + "/log")) << "its owner lives";
    EXPECT_NE(first->path(), second->path());
  }
  ScratchDirectory moved = *std::move(first);
  EXPECT_TRUE(fs::exists(moved.path()));
  moved = ScratchDirectory();
  EXPECT_TRUE(fs::is_empty(parent_));
}

// `up` left its directory behind when it was killed, until the next one was started.
TEST_F(ScratchDirectoryTest, GoesWithAProcessThatIsKilled) {
  const pid_t child = fork();
  if (child == 0) {
    const auto made = ScratchDirectory::Make(parent_);
    if (!made.ok()) _exit(1);
    std::ofstream(made->path() + "/log") << "text";
    raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  const absl::Duration end = Clock::Real()->Now() + absl::Seconds(60);
  while (!fs::is_empty(parent_) && Clock::Real()->Now() < end) poll(nullptr, 0, /*timeout=*/10);
  EXPECT_TRUE(fs::is_empty(parent_));
}

TEST_F(ScratchDirectoryTest, OneThatNobodyOwnsIsRemovedByTheNext) {
  for (const std::string name :
       {"/bellwether.being-made", "/bellwether.dead", "/bellwether.alive", "/another"}) {
    fs::create_directory(parent_ + name);
  }
  std::ofstream(parent_ + "/bellwether.dead/lock") << "";
  std::ofstream(parent_ + "/another/lock") << "";
  const int alive = open((parent_ + "/bellwether.alive/lock").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(flock(alive, LOCK_EX), 0);
  const auto made = ScratchDirectory::Make(parent_);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_TRUE(fs::exists(parent_ + "/bellwether.being-made"));
  EXPECT_FALSE(fs::exists(parent_ + "/bellwether.dead"));
  EXPECT_TRUE(fs::exists(parent_ + "/bellwether.alive"));
  EXPECT_TRUE(fs::exists(parent_ + "/another"));
  close(alive);
}

TEST_F(ScratchDirectoryTest, APipeInPlaceOfALockIsLeftAlone) {
  for (const std::string name : {"/bellwether.unread", "/bellwether.read"}) {
    fs::create_directory(parent_ + name);
    ASSERT_EQ(mkfifo((parent_ + name + "/lock").c_str(), 0600), 0);
  }
  const int reader = open((parent_ + "/bellwether.read/lock").c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_GE(reader, 0);
  const auto made = ScratchDirectory::Make(parent_);
  EXPECT_TRUE(made.ok()) << made.status();
  EXPECT_TRUE(fs::exists(parent_ + "/bellwether.unread/lock"));
  EXPECT_TRUE(fs::exists(parent_ + "/bellwether.read/lock"));
  close(reader);
}

TEST_F(ScratchDirectoryTest, NeedsAPlace) {
  EXPECT_THAT(std::string(ScratchDirectory::Make(parent_ + "/nowhere").status().message()),
              ::testing::HasSubstr("nowhere"));
}

}  // namespace
}  // namespace bellwether
