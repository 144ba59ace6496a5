#include "cli/child_process.h"

#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);

TEST(ChildProcess, SaysWhetherItIsStopped) {
  auto child = ChildProcess::Start({.program = "/usr/bin/tail", .arguments = {"-f", "/dev/null"}});
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_FALSE(child->Stopped());
  child->Signal(SIGSTOP);
  while (!child->Stopped()) {
  }
  EXPECT_TRUE(child->Stopped()) << "it is still";
  EXPECT_TRUE(child->Running());
  child->Signal(SIGCONT);
  while (child->Stopped()) {
  }
  child->Signal(SIGSTOP);
  child->Signal(SIGKILL);
  ASSERT_TRUE(child->WaitFor(kPatience));
  EXPECT_FALSE(child->Stopped());
  EXPECT_EQ(child->ending(), "signal 9");
}

TEST(ChildProcess, DoesNotInheritOurSettings) {
  ASSERT_EQ(setenv("BELLWETHER_LAYOUT", "1x1", 1), 0);
  ASSERT_EQ(setenv("NOT_BELLWETHER_LAYOUT", "1x1", 1), 0);
  const std::string log = ::testing::TempDir() + "/child_process_test.log";
  std::remove(log.c_str());
  auto child = ChildProcess::Start({.program = "/usr/bin/env", .arguments = {}, .log_file = log});
  ASSERT_TRUE(child.ok()) << child.status();
  ASSERT_TRUE(child->WaitFor(kPatience));
  EXPECT_TRUE(child->ended_well());
  std::ifstream file(log);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  EXPECT_THAT(lines, ::testing::Contains("NOT_BELLWETHER_LAYOUT=1x1"));
  EXPECT_THAT(lines, ::testing::Each(::testing::Not(::testing::StartsWith("BELLWETHER_"))));
}

}  // namespace
}  // namespace bellwether
