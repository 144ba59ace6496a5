#include "coordinator/http_targets.h"

#include "common/json.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(Targets, AreTheCoordinatorAndTheWorkersThatHaveMetrics) {
  ClusterSnapshot cluster;
  cluster.workers = {{.name = "a", .metrics_address = "10.0.0.1:7491"},
                     {.name = "b"},
                     {.name = "c", .metrics_address = "[::1]:7491", .metrics_tls = true}};
  const auto groups = ParseJson(TargetsJson("10.0.0.9:7490", /*tls=*/false, cluster));
  ASSERT_TRUE(groups.ok()) << groups.status();
  ASSERT_EQ(groups->size(), 3u);
  EXPECT_EQ((*groups)[0]["targets"][0].text(), "10.0.0.9:7490");
  EXPECT_EQ((*groups)[0]["labels"]["__meta_bellwether_program"].text(), "coordinator");
  EXPECT_EQ((*groups)[1]["targets"][0].text(), "10.0.0.1:7491");
  EXPECT_EQ((*groups)[1]["labels"]["__meta_bellwether_worker"].text(), "a");
  EXPECT_EQ((*groups)[2]["targets"][0].text(), "[::1]:7491");
  // Prometheus' own label for how it asks.
  EXPECT_FALSE((*groups)[0]["labels"].contains("__scheme__"));
  EXPECT_EQ((*groups)[2]["labels"]["__scheme__"].text(), "https");
}

TEST(Targets, WhoAsksByNoAddressFindsTheWorkersAlone) {
  EXPECT_EQ(TargetsJson("", /*tls=*/false, {}), "[]\n");
  EXPECT_EQ(TargetsJson("nonsense \"", /*tls=*/true, {}), "[]\n");
}

}  // namespace
}  // namespace bellwether
