#include "common/port_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "common/read_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(PortFile, HasTheNameOfEachPortThatIsOpen) {
  const std::string path = testing::TempDir() + "/ports";
  ASSERT_TRUE(WritePortFile(path, {{"client", "127.0.0.1:1"}, {"http", ""}, {"metrics", "[::1]:2"}}).ok());
  const auto text = ReadFile(path, 1 << 10);
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(*text, "client 127.0.0.1:1\nmetrics [::1]:2\n");
  EXPECT_FALSE(ReadFile(path + ".partial", 1 << 10).ok());
}

// --port-file /dev/stdout once took the device's place.
TEST(PortFile, WhatIsNoRegularFileStays) {
  std::string directory = testing::TempDir() + "/port-file-XXXXXX";
  ASSERT_NE(mkdtemp(directory.data()), nullptr);
  const std::string pipe = directory + "/pipe", link = directory + "/link";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  ASSERT_EQ(symlink(pipe.c_str(), link.c_str()), 0);
  for (const std::string& path : {pipe, link, directory}) {
    const absl::Status status = WritePortFile(path, {{"a", "b:1"}});
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(path));
  }
  struct stat info;
  ASSERT_EQ(lstat(pipe.c_str(), &info), 0);
  EXPECT_TRUE(S_ISFIFO(info.st_mode));
  ASSERT_EQ(lstat(link.c_str(), &info), 0);
  EXPECT_TRUE(S_ISLNK(info.st_mode));
  // Nor is a pipe opened, and waited for, that has the name of the half-written file.
  ASSERT_EQ(mkfifo((directory + "/ports.partial").c_str(), 0600), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(WritePortFile(directory + "/ports", {{"a", "b:1"}})));
}

TEST(PortFile, SaysWhatCannotBeWritten) {
  EXPECT_TRUE(absl::IsUnavailable(WritePortFile("/no/such/directory/ports", {{"a", "b:1"}})));
  EXPECT_TRUE(WritePortFile("", {{"a", "b:1"}}).ok());
}

}  // namespace
}  // namespace bellwether
