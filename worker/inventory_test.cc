#include "worker/inventory.h"

#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace bellwether {
namespace {

class InventoryTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove_all(root_); }  // of a run before
  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  const std::string root_ =
      ::testing::TempDir() + "/inventory_" + ::testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(InventoryTest, MemoryIsWhatTheSystemHasLeft) {
  Write("/proc/meminfo", "MemTotal:       1000 kB\nMemFree: 10 kB\nMemAvailable:    500 kB\n");
  Write("/proc/self/cgroup", "0::/\n");
  EXPECT_EQ(AvailableMemoryBytes(root_), 500 * 1024);
}

TEST_F(InventoryTest, AVersion2GroupAboveLimitsIt) {
  Write("/proc/meminfo", "MemAvailable:    500 kB\n");
  Write("/proc/self/cgroup", "0::/a/b\n");
  Write("/sys/fs/cgroup/a/memory.max", "4096\n");
  Write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  EXPECT_EQ(AvailableMemoryBytes(root_), 4096);
}

TEST_F(InventoryTest, AVersion1GroupLimitsItAlsoInsideAContainer) {
  Write("/proc/meminfo", "MemAvailable:    500 kB\n");
  Write("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/outside\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "8192\n");
  EXPECT_EQ(AvailableMemoryBytes(root_), 8192);
}

// What a group has taken is not there for more, but for what files' pages take.
TEST_F(InventoryTest, OfAGroupsLimitThatIsFreeWhichNobodyHasTaken) {
  Write("/proc/meminfo", "MemAvailable:    500 kB\n");
  Write("/proc/self/cgroup", "0::/a/b\n");
  Write("/sys/fs/cgroup/a/memory.max", "100000\n");
  EXPECT_EQ(FreeMemoryBytes(root_), 100000) << "nobody says what is taken";
  Write("/sys/fs/cgroup/a/memory.current", "90000\n");
  Write("/sys/fs/cgroup/a/memory.stat", "anon 60000\nfile 30000\ninactive_file 20000\nactive_file 5000\n");
  EXPECT_EQ(FreeMemoryBytes(root_), 35000);
  EXPECT_EQ(AvailableMemoryBytes(root_), 100000);
  Write("/sys/fs/cgroup/a/b/memory.max", "50000\n");
  Write("/sys/fs/cgroup/a/b/memory.current", "50001\n");
  EXPECT_EQ(FreeMemoryBytes(root_), 0);
  Write("/proc/self/cgroup", "4:memory:/docker/outside\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "8192\n");
  Write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "8000\n");
  Write("/sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 400\n");
  EXPECT_EQ(FreeMemoryBytes(root_), 592);
}

TEST_F(InventoryTest, NothingKnownIsNoLimit) {
  EXPECT_EQ(AvailableMemoryBytes(root_ + "/nowhere"), std::numeric_limits<int64_t>::max());
}

TEST_F(InventoryTest, AGroupOfEitherVersionMayLimitTheTimeOnCores) {
  Write("/proc/self/cgroup", "0::/a/b\n");
  Write("/sys/fs/cgroup/a/cpu.max", "150000 100000\n");
  Write("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(CpuQuota(root_), 1.5);
  Write("/proc/self/cgroup", "5:cpu,cpuacct:/docker/outside\n4:memory:/\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CpuQuota(root_), 2);
  Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(CpuQuota(root_), 0);
}

// With 32 threads the sample took 6.2 GiB, and a container was killed before its worker had joined.
TEST_F(InventoryTest, TheBandwidthSampleIsBoundedByWhatIsFree) {
  constexpr int64_t kMiB = 1 << 20;
  EXPECT_EQ(ReadSampleBytes(std::numeric_limits<int64_t>::max()), 64 * kMiB);
  EXPECT_EQ(ReadSampleBytes(400 * kMiB), 50 * kMiB);
  EXPECT_EQ(ReadSampleBytes(0), 0);
  EXPECT_GE(SampleReadBandwidth(/*threads=*/2, /*seconds=*/0), 1e6);
}

TEST_F(InventoryTest, TheCpuTypeIsTheProcessorsName) {
  Write("/proc/cpuinfo", "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some CPU @ 2.00GHz\nstepping: 7\n");
  EXPECT_EQ(CpuType(root_), "Some CPU @ 2.00GHz");
  EXPECT_EQ(CpuType(root_ + "/nowhere"), "");
}

TEST_F(InventoryTest, ThisMachineHasSomething) {
  EXPECT_FALSE(AllowedCpus().empty());
  EXPECT_GT(AvailableMemoryBytes(), 0);
  EXPECT_EQ(HostId(), HostId());
  EXPECT_FALSE(KernelLevelNames().empty());
  EXPECT_NE(DefaultWorkerName().find('/'), std::string::npos);
}

TEST_F(InventoryTest, KeepsToAllowedCpusAlone) {
  std::thread([] {
    const std::vector<int> allowed = AllowedCpus();
    EXPECT_EQ(KeepToCpus({1000000}).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(AllowedCpus(), allowed);
    EXPECT_TRUE(KeepToCpus({1000000, allowed.back()}).ok());
    EXPECT_EQ(AllowedCpus(), std::vector<int>{allowed.back()});
  }).join();
}

}  // namespace
}  // namespace bellwether
