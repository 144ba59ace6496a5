#include "coordinator/cluster_service.h"

#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

// A client can ask before the service's thread has run for the first time. It was told nothing then.
TEST(ClusterServiceTest, SaysFromTheFirstMomentWhatItWaitsFor) {
  ManualClock clock;
  ClusterService::Options options;
  options.view.workers_wanted = 2;
  options.clock = &clock;
  const ClusterService service(std::move(options));
  EXPECT_FALSE(service.status().serving);
  EXPECT_THAT(service.status().not_serving_reason, testing::HasSubstr("0 of 2"));
}

}  // namespace
}  // namespace bellwether
