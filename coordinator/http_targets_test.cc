#include "coordinator/http_targets.h"

#include "common/json.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(Targets, AreTheCoordinatorAndTheWorkersThatHaveMetrics) {
  ClusterSnapshot cluster;
  cluster.workers = {{.name = "a", .metrics_address = "10.0.0.1:7491"},
                     {.name = "b"},
                     {.name = "c", .metrics_address = "[::1]:7491"}};
  const auto groups = ParseJson(TargetsJson("10.0.0.9:7490", cluster));
  ASSERT_TRUE(groups.ok()) << groups.status();
  ASSERT_EQ(groups->size(), 3u);
  EXPECT_EQ((*groups)[0]["targets"][0].text(), "10.0.0.9:7490");
  EXPECT_EQ((*groups)[0]["labels"]["__meta_bellwether_program"].text(), "coordinator");
  EXPECT_EQ((*groups)[1]["targets"][0].text(), "10.0.0.1:7491");
  EXPECT_EQ((*groups)[1]["labels"]["__meta_bellwether_worker"].text(), "a");
  EXPECT_EQ((*groups)[2]["targets"][0].text(), "[::1]:7491");
}

TEST(Targets, WhoAsksByNoAddressFindsTheWorkersAlone) {
  EXPECT_EQ(TargetsJson("", {}), "[]\n");
  EXPECT_EQ(TargetsJson("nonsense \"", {}), "[]\n");
}

}  // namespace
}  // namespace bellwether
