#include "metrics/process_samples.h"

#include <unistd.h>

#include <ctime>

#include "gtest/gtest.h"

namespace bellwether {
namespace {

double ValueOf(Metric metric) {
  MetricSamples samples(MetricSource::kWorker);
  AddProcessSamples(samples);
  EXPECT_EQ(samples.of(metric).size(), 1u) << SpecOf(metric).name;
  return samples.of(metric).empty() ? -1 : samples.of(metric)[0].value;
}

TEST(ProcessSamples, SayWhatTheSystemSays) {
  EXPECT_GT(ValueOf(Metric::kProcessResidentMemory), 1 << 20);
  EXPECT_LT(ValueOf(Metric::kProcessResidentMemory), 1e12);
  EXPECT_GE(ValueOf(Metric::kProcessCpuTime), 0);
  EXPECT_GE(ValueOf(Metric::kProcessMaxFds), ValueOf(Metric::kProcessOpenFds));
  const auto now = static_cast<double>(std::time(nullptr));
  EXPECT_LE(ValueOf(Metric::kProcessStartTime), now + 2);  // the boot time is in whole seconds
  EXPECT_GT(ValueOf(Metric::kProcessStartTime), now - 3600);
}

TEST(ProcessSamples, SeeANewDescriptor) {
  const double before = ValueOf(Metric::kProcessOpenFds);
  const int fd = dup(0);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(ValueOf(Metric::kProcessOpenFds), before + 1);
  close(fd);
}

}  // namespace
}  // namespace bellwether
