#include "worker/weights/drive_rate.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/read_file.h"
#include "gtest/gtest.h"
#include "model/checkpoint/testing_files.h"

namespace bellwether {
namespace {

constexpr int64_t kSample = int64_t{8} << 20;

class DriveRateTest : public ::testing::Test {
 protected:
  std::string remembered() const {
    return ReadFile(directory_.path() + "/drive-bytes-per-second", /*bytes_max=*/100).value_or("nothing");
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    std::error_code error;
    for (std::filesystem::directory_iterator entry(directory_.path(), error), end; !error && entry != end;
         entry.increment(error)) {
      names.push_back(entry->path().filename().string());
    }
    return names;
  }

  testing_files::TemporaryDirectory directory_;
};

TEST_F(DriveRateTest, IsMeasuredOnceAndRemembered) {
  const auto rate = DriveRate(directory_.path(), kSample);
  ASSERT_TRUE(rate.ok()) << rate.status();
  EXPECT_GT(*rate, 0);
  EXPECT_EQ(remembered(), absl::StrCat(*rate, "\n"));
  EXPECT_EQ(files(), std::vector<std::string>{"drive-bytes-per-second"}) << "no sample is left";
  // A drive is never so fast, so this was not measured.
  directory_.Write("drive-bytes-per-second", "123456789012\n");
  EXPECT_EQ(DriveRate(directory_.path(), kSample).value_or(0), 123456789012.0);
}

TEST_F(DriveRateTest, WhatIsNoRateIsMeasuredAnew) {
  for (const char* text : {"", "fast\n", "-5\n", "0\n", "1e30\n", "nan\n", "4e8 bytes\n"}) {
    directory_.Write("drive-bytes-per-second", text);
    const auto rate = DriveRate(directory_.path(), kSample);
    ASSERT_TRUE(rate.ok()) << rate.status();
    EXPECT_EQ(remembered(), absl::StrCat(*rate, "\n")) << text;
  }
}

// Each would have seen a part of the drive.
TEST_F(DriveRateTest, WorkersThatStartTogetherHearTheSame) {
  std::vector<double> rates(4, 0);
  std::vector<std::thread> workers;
  workers.reserve(rates.size());
  for (double& rate : rates)
    workers.emplace_back([&rate, this] { rate = DriveRate(directory_.path(), kSample).value_or(0); });
  for (std::thread& worker : workers) worker.join();
  EXPECT_GT(rates[0], 0);
  for (const double rate : rates) EXPECT_NEAR(rate, rates[0], rates[0] * 1e-5) << "as it is written";
}

TEST_F(DriveRateTest, MeasuringAloneRemembersNothing) {
  const auto rate = MeasureDriveRate(directory_.path(), kSample);
  ASSERT_TRUE(rate.ok()) << rate.status();
  EXPECT_GT(*rate, 0);
  EXPECT_TRUE(files().empty());
}

TEST_F(DriveRateTest, ADirectoryThatIsNotThereIsNamed) {
  const std::string nowhere = directory_.path() + "/nowhere";
  for (const auto& rate : {DriveRate(nowhere, kSample), MeasureDriveRate(nowhere, kSample)}) {
    ASSERT_FALSE(rate.ok());
    EXPECT_NE(std::string(rate.status().message()).find(nowhere), std::string::npos) << rate.status();
  }
}

}  // namespace
}  // namespace bellwether
