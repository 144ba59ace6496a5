#include "coordinator/core_shortage.h"

#include <vector>

#include "gtest/gtest.h"

namespace bellwether {
namespace {

WorkerInventory Worker(int32_t threads, std::vector<int32_t> cpus, double cpu_quota = 0) {
  return {.host = "here", .threads = threads, .cpus = std::move(cpus), .cpu_quota = cpu_quota};
}

// Of each worker, in their order.
std::vector<bool> Short(const std::vector<WorkerInventory>& workers) {
  std::vector<const WorkerInventory*> all;
  for (const WorkerInventory& worker : workers) all.push_back(&worker);
  std::vector<bool> result;
  for (const WorkerInventory& worker : workers) result.push_back(CoresAreShort(worker, all));
  return result;
}

using Answers = std::vector<bool>;

TEST(CoreShortage, WorkersThatShareACoreHaveToSleep) {
  EXPECT_EQ(Short({Worker(1, {0, 1}), Worker(1, {0, 1})}), Answers({false, false}));
  EXPECT_EQ(Short({Worker(1, {0, 1}), Worker(1, {0, 1}), Worker(1, {0, 1})}), Answers({true, true, true}));
  EXPECT_EQ(Short({Worker(3, {0, 1})}), Answers({true}));
}

// As `taskset` or `--cpus` gives them out. The machine's number of cores said that there were enough in the
// first case only.
TEST(CoreShortage, EachWorkerOnItsOwnCoresMaySpin) {
  EXPECT_EQ(Short({Worker(2, {0, 1}), Worker(2, {2, 3})}), Answers({false, false}));
  EXPECT_EQ(Short({Worker(2, {0, 1}), Worker(1, {1}), Worker(2, {2, 3})}), Answers({true, true, false}));
}

TEST(CoreShortage, OtherHostsHaveCoresOfTheirOwn) {
  WorkerInventory other = Worker(1, {0});
  other.host = "there";
  EXPECT_EQ(Short({Worker(1, {0}), other}), Answers({false, false}));
}

TEST(CoreShortage, AControlGroupMayGiveLessThanTheCores) {
  EXPECT_EQ(Short({Worker(4, {0, 1, 2, 3}, /*cpu_quota=*/4)}), Answers({false}));
  EXPECT_EQ(Short({Worker(4, {0, 1, 2, 3}, /*cpu_quota=*/2.5)}), Answers({true}));
}

TEST(CoreShortage, NothingKnownIsEnough) {
  EXPECT_EQ(Short({Worker(4, {}), Worker(4, {})}), Answers({false, false}));
}

}  // namespace
}  // namespace bellwether
