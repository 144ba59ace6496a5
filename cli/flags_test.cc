#include "cli/flags.h"

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

CommandLine Parse(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "bellwether");
  std::vector<char*> argv;
  argv.reserve(arguments.size());
  for (std::string& argument : arguments) argv.push_back(argument.data());
  CommandLine line;
  int exit_code = -1;
  EXPECT_TRUE(ParseCommandLine(static_cast<int>(argv.size()), argv.data(), {}, line, exit_code)) << exit_code;
  return line;
}

// A value of its own for each, so that no two flags can have changed places.
std::vector<std::string> WithGenerationFlags(std::vector<std::string> command) {
  const std::vector<std::string> flags = {"--max-tokens",
                                          "40",
                                          "--min-tokens",
                                          "3",
                                          "--temperature",
                                          "0.5",
                                          "--top-k",
                                          "7",
                                          "--top-p",
                                          "0.75",
                                          "--min-p",
                                          "0.125",
                                          "--repetition-penalty",
                                          "1.25",
                                          "--presence-penalty",
                                          "0.375",
                                          "--frequency-penalty",
                                          "-1.5",
                                          "--logit-bias",
                                          "9:-2",
                                          "--logit-bias",
                                          "4:0.25",
                                          "--seed",
                                          "11",
                                          "--stop",
                                          "a, b",
                                          "--stop",
                                          "[8]",
                                          "--stop-token-ids",
                                          "5,6",
                                          "--ignore-eos",
                                          "--logprobs",
                                          "2",
                                          "--n",
                                          "8"};
  command.insert(command.end(), flags.begin(), flags.end());
  return command;
}

void ExpectAll(const GenerationOptions& options) {
  EXPECT_EQ(options.max_tokens, 40);
  EXPECT_EQ(options.min_tokens, 3);
  EXPECT_EQ(options.temperature, 0.5);
  EXPECT_EQ(options.top_k, 7);
  EXPECT_EQ(options.top_p, 0.75);
  EXPECT_EQ(options.min_p, 0.125);
  EXPECT_EQ(options.repetition_penalty, 1.25);
  EXPECT_EQ(options.presence_penalty, 0.375);
  EXPECT_EQ(options.frequency_penalty, -1.5);
  EXPECT_THAT(options.logit_bias, ElementsAre(Pair(4, 0.25f), Pair(9, -2.0f)));
  EXPECT_EQ(options.seed, 11u);
  EXPECT_THAT(options.stop, ElementsAre("a, b", "[8]"));
  EXPECT_THAT(options.stop_token_ids, ElementsAre(5, 6));
  EXPECT_TRUE(options.ignore_eos);
  EXPECT_EQ(options.logprobs, 2);
  EXPECT_EQ(options.n, 8);
}

TEST(FlagsTest, EveryGenerationFlagSetsItsOwnOption) {
  ExpectAll(Parse(WithGenerationFlags({"generate", "--model", "m", "--prompt", "p"})).generate.generation);
  ExpectAll(Parse(WithGenerationFlags({"chat", "--model", "m"})).chat.generation);
}

TEST(FlagsTest, WhatIsNotGivenIsAbsent) {
  const GenerationOptions options = Parse({"generate", "--model", "m", "--prompt", "p"}).generate.generation;
  for (const auto& integer :
       {options.max_tokens, options.min_tokens, options.top_k, options.logprobs, options.n})
    EXPECT_EQ(integer, std::nullopt);
  for (const auto& real : {options.temperature, options.top_p, options.min_p, options.repetition_penalty,
                           options.presence_penalty, options.frequency_penalty}) {
    EXPECT_EQ(real, std::nullopt);
  }
  EXPECT_EQ(options.seed, std::nullopt);
  EXPECT_FALSE(options.ignore_eos);
}

TEST(FlagsTest, ThePromptAsTextIdsOrFile) {
  PromptInput prompt =
      Parse({"generate", "--model", "m", "--prompt", "p", "--parse-special-tokens"}).generate.prompt;
  EXPECT_EQ(prompt.text, "p");
  EXPECT_EQ(prompt.token_ids, std::nullopt);
  EXPECT_TRUE(prompt.parse_special_tokens);
  EXPECT_FALSE(prompt.no_special_tokens);
  prompt = Parse({"score", "--model", "m", "--text", "t", "--no-special-tokens"}).score.prompt;
  EXPECT_EQ(prompt.text, "t");
  EXPECT_FALSE(prompt.parse_special_tokens);
  EXPECT_TRUE(prompt.no_special_tokens);
  prompt = Parse({"score", "--model", "m", "--token-ids", "3, 1"}).score.prompt;
  EXPECT_EQ(prompt.text, std::nullopt);
  EXPECT_EQ(prompt.token_ids, (std::vector<TokenId>{3, 1}));

  const std::string path = ::testing::TempDir() + "/flags_test_prompt";
  std::ofstream(path, std::ios::binary) << " one\ntwo\n";
  EXPECT_EQ(Parse({"generate", "--model", "m", "--prompt-file", path}).generate.prompt.text, " one\ntwo\n");
}

TEST(FlagsTest, EveryClusterFlagSetsItsOwnOption) {
  const ClusterOptions options = Parse({"up",
                                        "--model",
                                        "m",
                                        "--tensor-parallel",
                                        "2",
                                        "--pipeline-parallel",
                                        "3",
                                        "--threads",
                                        "4",
                                        "--quantize",
                                        "int4",
                                        "--kv-type",
                                        "fp16",
                                        "--kernel-level",
                                        "avx2",
                                        "--context-tokens",
                                        "500",
                                        "--chat-template",
                                        "belle",
                                        "--no-template-stop",
                                        "--log-level",
                                        "error",
                                        "--workers",
                                        "7",
                                        "--listen",
                                        "a:1",
                                        "--worker-listen",
                                        "b:2",
                                        "--http-listen",
                                        "c:3",
                                        "--served-model-name",
                                        "sheep,flock",
                                        "--metrics-listen",
                                        "d:4",
                                        "--devices",
                                        "cuda:0,cuda:1",
                                        "--device-memory-fraction",
                                        "0.5"})
                                     .up;
  EXPECT_EQ(options.model, "m");
  EXPECT_EQ(options.tensor_parallel, 2);
  EXPECT_EQ(options.pipeline_parallel, 3);
  EXPECT_EQ(options.threads, 4);
  EXPECT_EQ(options.quantize, "int4");
  EXPECT_EQ(options.kv_type, "fp16");
  EXPECT_EQ(options.kernel_level, "avx2");
  EXPECT_EQ(options.context_tokens, 500);
  EXPECT_EQ(options.chat_template, "belle");
  EXPECT_TRUE(options.no_template_stop);
  EXPECT_EQ(options.log.level, "error");
  EXPECT_EQ(options.workers, 7);
  EXPECT_EQ(options.listen, "a:1");
  EXPECT_EQ(options.worker_listen, "b:2");
  EXPECT_EQ(options.http_listen, "c:3");
  EXPECT_EQ(options.served_model_name, "sheep,flock");
  EXPECT_EQ(options.metrics_listen, "d:4");
  EXPECT_EQ(options.devices, "cuda:0,cuda:1");
  EXPECT_EQ(options.device_memory_fraction, 0.5);
}

}  // namespace
}  // namespace bellwether
