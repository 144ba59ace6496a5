#include "http/router.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

class HttpRouterTest : public ::testing::Test {
 protected:
  // The number of the route that is found, or the methods that are allowed.
  std::string Find(std::string_view method, std::string_view path) {
    const HttpRouter::Match match = router_.Find(method, path);
    if (match.handler == nullptr) return match.allow;
    (*match.handler)({}, nullptr);
    return std::to_string(called_);
  }
  HttpHandler Number(int number) {
    return [this, number](HttpRequest, std::shared_ptr<HttpExchange>) { called_ = number; };
  }

  int called_ = 0;
  const HttpRouter router_{{{"GET", "/a", Number(1)},
                            {"POST", "/a", Number(2)},
                            {"GET", "/models/*", Number(3)},
                            {"GET", "/models/x", Number(4)}}};
};

TEST_F(HttpRouterTest, GoesByMethodAndPath) {
  EXPECT_EQ(Find("GET", "/a"), "1");
  EXPECT_EQ(Find("HEAD", "/a"), "1");
  EXPECT_EQ(Find("POST", "/a"), "2");
  EXPECT_EQ(Find("GET", "/models/org/name"), "3");
  EXPECT_EQ(Find("GET", "/models/x"), "3") << "the first route that fits";
}

TEST_F(HttpRouterTest, SaysWhichMethodsThereAre) {
  EXPECT_EQ(Find("PUT", "/a"), "GET, HEAD, POST");
  EXPECT_EQ(Find("get", "/a"), "GET, HEAD, POST") << "case counts";
  EXPECT_EQ(Find("GET", "/a/"), "");
  EXPECT_EQ(Find("GET", "/models/"), "") << "nothing stands for the star";
}

}  // namespace
}  // namespace bellwether
