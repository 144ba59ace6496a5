#include "http/message.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(HttpMessage, FindsAHeaderWhateverItsCase) {
  const HttpHeaders headers = {{"Content-Type", "a"}, {"content-type", "b"}, {"X", "c"}};
  ASSERT_NE(FindHeader(headers, "CONTENT-TYPE"), nullptr);
  EXPECT_EQ(*FindHeader(headers, "CONTENT-TYPE"), "a");
  EXPECT_EQ(FindHeader(headers, "Content"), nullptr);
}

struct Target {
  const char* text;
  const char* path;  // null: refused
  const char* query;
};

class HttpTargets : public ::testing::TestWithParam<Target> {};

TEST_P(HttpTargets, AreSplitAndDecoded) {
  const auto target = ParseTarget(GetParam().text);
  if (GetParam().path == nullptr) {
    EXPECT_EQ(target.status().code(), absl::StatusCode::kInvalidArgument);
    return;
  }
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_EQ(target->path, GetParam().path);
  EXPECT_EQ(target->query, GetParam().query);
}

INSTANTIATE_TEST_SUITE_P(
    All, HttpTargets,
    ::testing::Values(Target{"/", "/", ""}, Target{"/v1/models?a=%20&b", "/v1/models", "a=%20&b"},
                      Target{"/a%2Fb%20c", "/a/b c", ""}, Target{"/?", "/", ""},
                      Target{"http://host:80/x?y", "/x", "y"}, Target{"HTTP://host", "/", ""},
                      Target{"http://host?q", "/", "q"}, Target{"", nullptr, ""}, Target{"*", nullptr, ""},
                      Target{"host:443", nullptr, ""}, Target{"/%", nullptr, ""}, Target{"/%4", nullptr, ""},
                      Target{"/%4g", nullptr, ""}, Target{"/%41", "/A", ""}, Target{"/a%0d%0ab", nullptr, ""},
                      Target{"/%00", nullptr, ""}));

}  // namespace
}  // namespace bellwether
