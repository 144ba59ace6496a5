#include "common/port_file.h"

#include <string>

#include "common/read_file.h"
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

TEST(PortFile, SaysWhatCannotBeWritten) {
  EXPECT_TRUE(absl::IsUnavailable(WritePortFile("/no/such/directory/ports", {{"a", "b:1"}})));
  EXPECT_TRUE(WritePortFile("", {{"a", "b:1"}}).ok());
}

}  // namespace
}  // namespace bellwether
