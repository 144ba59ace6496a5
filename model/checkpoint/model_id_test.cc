#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/testing_files.h"

namespace bellwether {
namespace {

// A copy of a golden checkpoint, and its model id.
class ModelIdTest : public ::testing::Test {
 protected:
  ModelIdTest() { std::filesystem::copy("tests/goldens/models/llama-mha", dir_.path()); }
  std::string weights() const { return dir_.path() + "/model.safetensors"; }

  testing_files::TemporaryDirectory dir_;
};

TEST_F(ModelIdTest, SameBytesSameIdWhereverTheyLie) {
  auto original = Checkpoint::Open("tests/goldens/models/llama-mha");
  ASSERT_TRUE(original.ok()) << original.status();
  auto copy = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ(*(*original)->ModelId(), *(*copy)->ModelId());
  EXPECT_EQ((*copy)->ModelId()->find_first_not_of("0123456789abcdef"), std::string::npos);
}

TEST_F(ModelIdTest, OtherWeightsOrConfigOtherId) {
  auto before = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(before.ok()) << before.status();
  const std::string id = *(*before)->ModelId();
  // The last byte of the file belongs to the last tensor, whose end is sampled.
  const auto size = std::filesystem::file_size(weights());
  std::fstream file(weights(), std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(size) - 1);
  const int last = file.get();
  file.seekp(static_cast<std::streamoff>(size) - 1);
  file.put(static_cast<char>(last ^ 1));
  file.close();
  auto changed = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_NE(*(*changed)->ModelId(), id);
  const std::string changed_id = *(*changed)->ModelId();
  dir_.Write("generation_config.json", R"({"eos_token_id": 5})");
  auto other_config = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(other_config.ok()) << other_config.status();
  EXPECT_NE(*(*other_config)->ModelId(), changed_id);
}

// Coordinators, and workers of what they had no part in, kept half a model mapped for samples of 4 KiB a
// tensor.
TEST_F(ModelIdTest, LeavesNothingOfTheTensorsInMemory) {
  auto checkpoint = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_TRUE((*checkpoint)->ModelId().ok());
  uint64_t header = 0;
  std::ifstream(weights(), std::ios::binary).read(reinterpret_cast<char*>(&header), sizeof(header));
  bool mapped = false;
  std::ifstream maps("/proc/self/smaps");
  for (std::string line; std::getline(maps, line);) {
    if (line.ends_with(".safetensors")) mapped = true;
    if (!mapped || !line.starts_with("Rss:")) continue;
    const uint64_t kib = std::stoull(line.substr(line.find_first_of("0123456789")));
    EXPECT_LE(kib << 10, header + sizeof(header) + 4096) << "the header's pages";
    return;
  }
  FAIL() << "the weights are not mapped";
}

}  // namespace
}  // namespace bellwether
