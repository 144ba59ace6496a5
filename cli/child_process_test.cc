#include "cli/child_process.h"

#include <signal.h>

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

}  // namespace
}  // namespace bellwether
