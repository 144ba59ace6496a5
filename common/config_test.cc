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
    return LayeredArguments(arguments, {"model", "step-tokens", "connect", "config"},
                            {{"connect", {"model", "step-tokens"}}, {"model", {"connect"}}},
                            [this](const std::string& name) {
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
              ElementsAre("--model=/a b", "--config", file, "--step-tokens", "9"));
  EXPECT_THAT(*Layered({"--config", file}), ElementsAre("--model=/a b", "--step-tokens=7", "--config", file));
  environment_ = {{"BELLWETHER_STEP_TOKENS", ""}};
  EXPECT_THAT(*Layered({"--config", file}), ElementsAre("--model=/a b", "--step-tokens=5", "--config", file))
      << "an empty variable says nothing";
}

TEST_F(ConfigTest, AHigherLayerDisplacesWhatSaysTheSame) {
  const std::string file = File("model = m\nstep-tokens = 5\n");
  EXPECT_THAT(*Layered({"--config", file, "--connect", "c"}),
              ElementsAre("--config", file, "--connect", "c"));
  environment_ = {{"BELLWETHER_CONNECT", "c"}};
  EXPECT_THAT(*Layered({"--config", file}), ElementsAre("--connect=c", "--config", file));
  EXPECT_THAT(*Layered({"--config", file, "--model", "x"}),
              ElementsAre("--step-tokens=5", "--config", file, "--model", "x"))
      << "the displaced displaces nothing";
  environment_ = {{"BELLWETHER_CONNECT", "c"}, {"BELLWETHER_MODEL", "x"}};
  EXPECT_THAT(*Layered({}), ElementsAre("--model=x", "--connect=c")) << "one layer's own contradiction stays";
}

TEST_F(ConfigTest, LinesGiveTheirValuesBack) {
  for (const std::string value :
       {"plain", "two words", " spaces around ", "a\nb\tc", "\"quoted\"", "\\n", "写诗", "#", "a = b", "'"}) {
    EXPECT_THAT(*Layered({"--config=" + File(ConfigLine("model", value))}),
                ElementsAre("--model=" + value, "--config=" + ::testing::TempDir() + "/config_test.conf"));
  }
  EXPECT_THAT(*Layered({"--config=" + File(ConfigLine("model", ""))}),
              ElementsAre("--model", "", ::testing::_));
  EXPECT_THAT(*Layered({"--config=" + File("model = \n")}), ::testing::SizeIs(1)) << "the default";
  EXPECT_THAT(*Layered({"--config=" + File("model = a\nmodel = b\n")}), ::testing::SizeIs(3))
      << "a list has a line for each entry";
}

TEST_F(ConfigTest, AnUnknownKeyIsNamed) {
  const auto layered = Layered({"--config=" + File("model = m\nmodle = n\n")});
  EXPECT_EQ(layered.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(layered.status().message()), HasSubstr(":2: there is no flag \"modle\""));
  EXPECT_FALSE(Layered({"--config=" + File("model = \"a\\xzz\"\n")}).ok()) << "no such escape";
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

TEST(EnvironmentWithoutSettings, LeavesOursOut) {
  ASSERT_EQ(setenv("BELLWETHER_LAYOUT", "1x1", 1), 0);
  ASSERT_EQ(setenv("NOT_BELLWETHER_LAYOUT", "1x1", 1), 0);
  const std::vector<std::string> variables = EnvironmentWithoutSettings();
  EXPECT_THAT(variables, ::testing::Contains("NOT_BELLWETHER_LAYOUT=1x1"));
  EXPECT_THAT(variables, ::testing::Each(::testing::Not(::testing::StartsWith("BELLWETHER_"))));
}

TEST(EnvironmentName, IsUpperCaseWithoutDashes) {
  EXPECT_EQ(EnvironmentName("step-tokens"), "BELLWETHER_STEP_TOKENS");
}

TEST_F(ConfigTest, AFileMayBeginWithAByteOrderMark) {
  const auto layered = Layered({"--config", File("\xEF\xBB\xBFmodel = m\r\n")});
  ASSERT_TRUE(layered.ok()) << layered.status();
  EXPECT_EQ(layered->front(), "--model=m");
}

// gRPC's rules: the first of three variables that is there, unless an exemption ends the host's name.
TEST_F(ConfigTest, TheProxyThatGrpcTakes) {
  const auto proxy = [](const std::string& host, std::map<std::string, std::string> variables) {
    return ProxyVariable(host, [&](const std::string& name) {
      const auto found = variables.find(name);
      return found == variables.end() ? nullptr : found->second.c_str();
    });
  };
  EXPECT_EQ(proxy("a.lab", {}), "");
  EXPECT_EQ(proxy("a.lab", {{"http_proxy", "p:1"}}), "http_proxy");
  EXPECT_EQ(proxy("a.lab", {{"http_proxy", "p:1"}, {"https_proxy", "q:1"}}), "https_proxy");
  EXPECT_EQ(proxy("a.lab", {{"grpc_proxy", ""}, {"https_proxy", "q:1"}}), "");
  EXPECT_EQ(proxy("a.lab", {{"https_proxy", "q:1"}, {"no_proxy", "other, .LAB"}}), "");
  EXPECT_EQ(proxy("a.lab", {{"https_proxy", "q:1"}, {"no_proxy", "b.lab,"}}), "https_proxy");
  EXPECT_EQ(proxy("a.lab", {{"https_proxy", "q:1"}, {"no_proxy", "lab"}, {"no_grpc_proxy", "other"}}),
            "https_proxy");
}

}  // namespace
}  // namespace bellwether
