#include "common/config.h"

#include <fstream>
#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ConfigTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::vector<std::string>> Layered(const std::vector<std::string>& arguments) {
    return LayeredArguments(arguments, {"model", "step-tokens", "config"}, [this](const std::string& name) {
      const auto it = environment_.find(name);
      return it == environment_.end() ? nullptr : it->second.c_str();
    });
  }
  std::string File(const std::string& text) {
    const std::string path = ::testing::TempDir() + "/config_test.conf";
    std::ofstream(path) << text;
    return path;
  }
  std::map<std::string, std::string> environment_;
};

TEST_F(ConfigTest, FlagsComeAfterVariablesAfterTheFile) {
  environment_ = {{"BELLWETHER_STEP_TOKENS", "7"}, {"BELLWETHER_OTHER", "x"}};
  const std::string file = File("# comment\n\n model = /a b \nstep-tokens=\"5\"\n");
  EXPECT_THAT(*Layered({"--config", file, "--step-tokens", "9"}),
              ElementsAre("--model=/a b", "--step-tokens=5", "--step-tokens=7", "--config", file,
                          "--step-tokens", "9"));
}

TEST_F(ConfigTest, TheFileMayBeNamedByAVariable) {
  environment_ = {{"BELLWETHER_CONFIG", File("model=m\n")}};
  EXPECT_THAT(*Layered({}), ElementsAre("--model=m"));
}

TEST_F(ConfigTest, ABrokenLineIsNamed) {
  const auto layered = Layered({"--config=" + File("model=m\nnonsense\n")});
  EXPECT_EQ(layered.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(layered.status().message()), HasSubstr(":2:"));
  EXPECT_EQ(Layered({"--config=/nowhere"}).status().code(), absl::StatusCode::kNotFound);
}

TEST(EnvironmentName, IsUpperCaseWithoutDashes) {
  EXPECT_EQ(EnvironmentName("step-tokens"), "BELLWETHER_STEP_TOKENS");
}

}  // namespace
}  // namespace bellwether
