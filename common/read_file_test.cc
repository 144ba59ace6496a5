#include "common/read_file.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

class ReadFileTest : public ::testing::Test {
 protected:
  ReadFileTest() {
    std::string name = (std::filesystem::temp_directory_path() / "bellwether-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~ReadFileTest() override { std::filesystem::remove_all(path_); }
  std::string Write(const std::string& bytes) const {
    std::ofstream(path_ + "/file", std::ios::binary) << bytes;
    return path_ + "/file";
  }
  std::string path_;
};

TEST_F(ReadFileTest, BytesAsTheyAre) {
  const std::string bytes = std::string(200'000, 'x') + std::string("\0\xFF\r\n", 4);
  EXPECT_EQ(*ReadFile(Write(bytes), bytes.size()), bytes);
  EXPECT_EQ(*ReadFile(Write(""), 0), "");
  EXPECT_TRUE(absl::IsResourceExhausted(ReadFile(Write("abc"), 2).status()));
}

// Each is told apart from a file that is not there.
TEST_F(ReadFileTest, WhatCannotBeReadSaysWhy) {
  EXPECT_TRUE(absl::IsNotFound(ReadFile(path_ + "/none", 9).status()));
  const absl::Status directory = ReadFile(path_, 9).status();
  EXPECT_THAT(std::string(directory.message()), HasSubstr("Is a directory"));
  EXPECT_FALSE(absl::IsNotFound(directory));
  std::filesystem::create_symlink("loop", path_ + "/loop");
  EXPECT_FALSE(absl::IsNotFound(ReadFile(path_ + "/loop", 9).status()));
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const std::string secret = Write("a");
  std::filesystem::permissions(secret, std::filesystem::perms::none);
  const absl::Status denied = ReadFile(secret, 9).status();
  EXPECT_TRUE(absl::IsPermissionDenied(denied)) << denied;
  EXPECT_THAT(std::string(denied.message()), HasSubstr("Permission denied"));
}

TEST_F(ReadFileTest, ADeviceWithoutAnEndIsBounded) {
  EXPECT_TRUE(absl::IsResourceExhausted(ReadFile("/dev/zero", 100).status()));
}

}  // namespace
}  // namespace bellwether
