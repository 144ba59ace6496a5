// The demo model on several layouts, against what transformers answers with the same weights widened to fp32
// (tests/goldens/demo). Skipped where the model has not been fetched: tests download nothing.

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/e2e/test_cluster.h"

namespace bellwether {
namespace {

// Where tools/fetch_demo_model.sh puts it.
std::string DemoModel(const std::string& file) {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::string base = cache != nullptr ? cache : std::string(home == nullptr ? "" : home) + "/.cache";
  return base + "/bellwether/" + file;
}

struct Demo {
  std::string model;
  nlohmann::json answers;
};
Demo ReadDemo() {
  std::ifstream file("tests/goldens/demo/smollm2.json");
  const nlohmann::json golden = nlohmann::json::parse(file);
  return {DemoModel(golden["file"].get<std::string>()), golden["answers"]};
}

std::vector<CollectedAnswer> AskAll(TestCluster& cluster, const nlohmann::json& answers) {
  std::vector<CollectedAnswer> collected;
  for (const nlohmann::json& answer : answers) {
    const auto tokens = answer["token_ids"].get<std::vector<TokenId>>();
    collected.push_back(Generate(cluster.client(),
                                 Ids(answer["prompt_token_ids"].get<std::vector<TokenId>>()),
                                 {.max_tokens = static_cast<int32_t>(tokens.size()),
                                  .temperature = 0,
                                  .ignore_eos = true,
                                  .logprobs = 2}));
    EXPECT_TRUE(collected.back().status.ok()) << collected.back().status;
    EXPECT_EQ(collected.back().broken_rule, "");
  }
  return collected;
}

TEST(DemoModel, EveryLayoutAnswersAlikeAndAsTransformers) {
  const Demo demo = ReadDemo();
  if (!std::filesystem::exists(demo.model))
    GTEST_SKIP() << demo.model << " is not there (tools/fetch_demo_model.sh)";
  std::vector<CollectedAnswer> expected;
  for (const auto& [ranks, stages] : {std::pair{1, 1}, {3, 1}, {1, 2}}) {
    auto cluster =
        TestCluster::Start({.model = demo.model, .tensor_parallel = ranks, .pipeline_parallel = stages});
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    std::vector<CollectedAnswer> answers = AskAll(**cluster, demo.answers);
    if (expected.empty()) expected = answers;
    for (size_t i = 0; i < answers.size(); ++i)
      EXPECT_EQ(answers[i].choices, expected[i].choices) << ranks << "x" << stages;
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(expected[i].choices.size(), 1u);
    const std::vector<TokenId>& tokens = expected[i].choices[0].tokens;
    const auto golden = demo.answers[i]["token_ids"].get<std::vector<TokenId>>();
    const auto margins = demo.answers[i]["margins"].get<std::vector<double>>();
    size_t equal = 0;
    while (equal < tokens.size() && tokens[equal] == golden[equal]) ++equal;
    printf("prompt %zu: %zu of %zu tokens equal", i, equal, golden.size());
    if (equal < golden.size()) printf(", margin there %.4f", margins[equal]);
    printf("\n");
    EXPECT_GE(equal, 32u) << "prompt " << i;
  }
}

}  // namespace
}  // namespace bellwether
