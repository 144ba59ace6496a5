#include "common/host_port.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

std::string Reread(std::string_view text, bool any_port = false) {
  const absl::StatusOr<HostPort> address = ParseHostPort(text, any_port);
  return address.ok() ? address->ToString() : std::string(address.status().message());
}

TEST(HostPortTest, NamesAndAddresses) {
  for (const char* text :
       {"127.0.0.1:7400", "localhost:1", "gpu-1.lab.example:65535", "my_host:80", "0.0.0.0:7400",
        "[::1]:7400", "[::]:7400", "[2001:db8::10]:443", "unix:7400", "dns:7400"}) {
    EXPECT_EQ(Reread(text), text);
  }
  EXPECT_EQ(Reread("127.0.0.1:0", /*any_port=*/true), "127.0.0.1:0");
  EXPECT_EQ(Reread("[::1]:0", /*any_port=*/true), "[::1]:0");
}

// gRPC listens on port 443 for the first, on 34463 for the second, and waits for ever with the third.
TEST(HostPortTest, WhatIsNoAddressIsRefusedWithWhatToWrite) {
  const struct {
    const char* text;
    const char* why;
  } cases[] = {{"127.0.0.1", "no port"},
               {"127.0.0.1:99999", "1 to 65535"},
               {"[::1]", "no port"},
               {"", "no port"},
               {"7400", "no port"},
               {":7400", "neither a name"},
               {"localhost:", "1 to 65535"},
               {"localhost:0", "1 to 65535"},
               {"localhost:-1", "1 to 65535"},
               {"localhost:+80", "1 to 65535"},
               {"localhost:80 ", "1 to 65535"},
               {"localhost:0x50", "1 to 65535"},
               {"localhost:http", "1 to 65535"},
               {"localhost:000080", "1 to 65535"},
               {"localhost:65536", "1 to 65535"},
               {"::1:7400", "in brackets"},
               {"2001:db8::1", "in brackets"},
               {"[::1]7400", "no port"},
               {"[::1:7400", "no port"},
               {"[]:7400", "no IPv6"},
               {"[127.0.0.1]:7400", "no IPv6"},
               {"[localhost]:7400", "no IPv6"},
               {"http://localhost:7400", "brackets"},
               {"unix:/tmp/socket", "1 to 65535"},
               {"a b:7400", "neither a name"},
               {"a/b:7400", "neither a name"},
               {"-a:7400", "neither a name"},
               {"a..b:7400", "neither a name"},
               {"127.0.0.1.5:7400", "neither a name"},
               {"999.0.0.1:7400", "neither a name"},
               {"h\xE9:7400", "neither a name"}};
  for (const auto& bad : cases) {
    EXPECT_THAT(Reread(bad.text), HasSubstr(bad.why)) << bad.text;
    EXPECT_THAT(Reread(bad.text), HasSubstr("write HOST:PORT")) << bad.text;
  }
  EXPECT_THAT(Reread(std::string(254, 'a') + ":1"), HasSubstr("neither a name"));
}

TEST(HostPortTest, Loopback) {
  for (const char* text : {"127.0.0.1:1", "127.1.2.3:1", "localhost:1", "LocalHost:1", "[::1]:1"})
    EXPECT_TRUE(ParseHostPort(text)->IsLoopback()) << text;
  for (const char* text : {"10.0.0.1:1", "[::]:1", "0.0.0.0:1", "localhost.example:1", "127.example:1"})
    EXPECT_FALSE(ParseHostPort(text)->IsLoopback()) << text;
}

}  // namespace
}  // namespace bellwether
