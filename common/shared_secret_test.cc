#include "common/shared_secret.h"

#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

std::string FileWith(const std::string& text) {
  const std::string path = testing::TempDir() + "/secret";
  std::ofstream(path) << text;
  return path;
}

TEST(SharedSecretTest, IsWhatTheFileHolds) {
  const auto secret = SharedSecret::Read(FileWith("0123456789abcdef0123\n"));
  ASSERT_TRUE(secret.ok()) << secret.status();
  EXPECT_TRUE(secret->Matches("0123456789abcdef0123"));
  for (const char* wrong : {"", "0123456789abcdef0123\n", "0123456789abcdef012", "0123456789abcdef0124"}) {
    EXPECT_FALSE(secret->Matches(wrong)) << wrong;
  }
}

TEST(SharedSecretTest, WithoutOneEverybodyMatches) {
  const auto none = SharedSecret::Read("");
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(none->Matches(""));
  EXPECT_TRUE(none->Matches("whatever"));
}

TEST(SharedSecretTest, WhatIsNoSecretIsRefusedByTheFilesName) {
  for (const std::string& text : {std::string(), std::string("too short\n"), std::string(5000, 'x')}) {
    const auto secret = SharedSecret::Read(FileWith(text));
    EXPECT_EQ(secret.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(secret.status().message()), testing::HasSubstr("/secret"));
    EXPECT_THAT(std::string(secret.status().message()), testing::Not(testing::HasSubstr("too short")));
  }
  EXPECT_FALSE(SharedSecret::Read(testing::TempDir() + "/none").ok());
}

}  // namespace
}  // namespace bellwether
