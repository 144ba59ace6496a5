#include "http/operations_server.h"

#include <atomic>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "http/testing/raw_client.h"

namespace bellwether {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr DescriptorRange kDescriptors = {.first = 100, .end = 1000};

class OperationsServerTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& address,
                                                    const std::string& default_address) {
    return StartOperationsServer(
        {.listen = {.address = address, .name = "monitoring", .descriptors = kDescriptors},
         .default_address = default_address},
        {.metrics = [] { return std::string("bellwether_epoch 1\n"); },
         .ready = [this] { return not_ready_ ? absl::UnavailableError("0 of 2") : absl::OkStatus(); },
         .alive = [this] { return hangs_ ? absl::UnavailableError("stands still") : absl::OkStatus(); }});
  }
  std::string Get(const std::string& path) {
    RawClient client(server_->address());
    client.Send(absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    return client.ReadAll();
  }
  void SetUp() override {
    auto started = Start("127.0.0.1:0", "127.0.0.1:7490");
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }

  std::atomic<bool> not_ready_{false}, hangs_{false};  // asked by the server's thread
  std::unique_ptr<HttpServer> server_;
};

TEST_F(OperationsServerTest, ServesMetrics) {
  EXPECT_THAT(Get("/metrics"), AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr("text/plain; version=0.0.4"),
                                     EndsWith("\r\n\r\nbellwether_epoch 1\n")));
}

TEST_F(OperationsServerTest, ProbesSayWhetherItIsReady) {
  EXPECT_THAT(Get("/healthz"), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Get("/readyz"), StartsWith("HTTP/1.1 200 "));
  not_ready_ = true;
  EXPECT_THAT(Get("/readyz"), AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("0 of 2")));
  EXPECT_THAT(Get("/healthz"), StartsWith("HTTP/1.1 200 ")) << "it need not be started anew";
  hangs_ = true;
  EXPECT_THAT(Get("/healthz"), AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("stands still")));
  EXPECT_THAT(Get("/else"), StartsWith("HTTP/1.1 404 "));
}

// Several workers of one machine have the same default.
TEST_F(OperationsServerTest, ADefaultThatIsTakenGivesWay) {
  const std::string taken = server_->address();
  const auto second = Start(taken, taken);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_NE((*second)->address(), taken);
  EXPECT_TRUE(absl::IsAlreadyExists(Start(taken, "127.0.0.1:1").status())) << "what was asked for does not";
}

}  // namespace
}  // namespace bellwether
