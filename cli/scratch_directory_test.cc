#include "cli/scratch_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

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

TEST_F(ScratchDirectoryTest, ThatOfADeadOwnerIsRemovedByTheNext) {
  fs::create_directory(parent_ + "/bellwether.being-made");  // no lock yet
  fs::create_directory(parent_ + "/another");
  const pid_t child = fork();
  if (child == 0) {
    const auto made = ScratchDirectory::Make(parent_);
    if (made.ok()) std::ofstream(made->path() + "/log") << "text";
    _exit(made.ok() ? 0 : 1);  // without the destructor
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  const auto count = [this] {
    return std::distance(fs::directory_iterator(parent_), fs::directory_iterator());
  };
  EXPECT_EQ(count(), 3);
  const auto made = ScratchDirectory::Make(parent_);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(count(), 3);
  EXPECT_TRUE(fs::exists(parent_ + "/bellwether.being-made"));
  EXPECT_TRUE(fs::exists(parent_ + "/another"));
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
