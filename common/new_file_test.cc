#include "common/new_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace bellwether {
namespace {

class NewFileTest : public ::testing::Test {
 protected:
  NewFileTest() {
    std::string name = (std::filesystem::temp_directory_path() / "bellwether-XXXXXX").string();
    dir_ = mkdtemp(name.data());
  }
  ~NewFileTest() override { std::filesystem::remove_all(dir_); }
  std::string path() const { return dir_ + "/file"; }
  static std::string Read(const std::string& path) {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  static absl::Status Append(NewFile& file, const std::string& text) {
    return file.Append({reinterpret_cast<const std::byte*>(text.data()), text.size()});
  }

  std::string dir_;
};

TEST_F(NewFileTest, AppearsWhenItIsComplete) {
  auto file = NewFile::Create(path());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(Append(*file, "one ").ok());
  EXPECT_TRUE(Append(*file, "two").ok());
  EXPECT_FALSE(std::filesystem::exists(path()));
  ASSERT_TRUE(file->Finish().ok());
  EXPECT_EQ(Read(path()), "one two");
  EXPECT_FALSE(std::filesystem::exists(path() + ".partial"));
}

TEST_F(NewFileTest, LeavesNothingUnfinished) {
  {
    auto file = NewFile::Create(path());
    ASSERT_TRUE(file.ok());
    EXPECT_TRUE(Append(*file, "half").ok());
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir_));
}

TEST_F(NewFileTest, BeginsAnewWhatACrashLeft) {
  std::ofstream(path() + ".partial") << "a long beginning";
  auto file = NewFile::Create(path());
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(Append(*file, "all").ok());
  ASSERT_TRUE(file->Finish().ok());
  EXPECT_EQ(Read(path()), "all");
}

TEST_F(NewFileTest, NeverOverwrites) {
  auto late = NewFile::Create(path());
  ASSERT_TRUE(late.ok());
  EXPECT_EQ(NewFile::Create(path()).status().code(), absl::StatusCode::kUnavailable) << "two at one file";
  std::ofstream(path()) << "theirs";
  EXPECT_FALSE(late->Finish().ok());
  EXPECT_EQ(Read(path()), "theirs");
  EXPECT_EQ(NewFile::Create(path()).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(NewFileTest, AFullDiskIsSaid) {
  auto file = NewFile::Create(dir_ + "/no/such");
  EXPECT_NE(std::string(file.status().message()).find("/no/such.partial"), std::string::npos);
}

}  // namespace
}  // namespace bellwether
