#include "cli/batch/batch_output.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "cli/batch/batch_input.h"
#include "cli/inference_client.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Order = BatchOutput::Order;

class BatchFilesTest : public testing::Test {
 protected:
  BatchFilesTest() : path_(testing::TempDir() + "/batch." + std::to_string(getpid())) {
    std::filesystem::remove(path_);
  }
  ~BatchFilesTest() override { std::filesystem::remove(path_); }

  void Write(const std::string& text) { std::ofstream(path_, std::ios::binary) << text; }
  std::string Text() const {
    std::stringstream text;
    text << std::ifstream(path_, std::ios::binary).rdbuf();
    return text.str();
  }
  const std::string path_;
};

Json::Object Record(const char* output) { return {{"output", output}}; }

TEST_F(BatchFilesTest, ARunGoesOnWhereAnotherHasEnded) {
  {
    const auto output = *BatchOutput::Open(path_, Order::kAsAnswered);
    EXPECT_TRUE(output->Write(3, 0xabc, Record("c")).ok());
    EXPECT_TRUE(output->Write(1, 7, Record("a")).ok());
    EXPECT_EQ(BatchOutput::Open(path_, Order::kAsAnswered).status().code(), absl::StatusCode::kAlreadyExists);
  }
  const std::string whole = Text();
  EXPECT_EQ(whole,
            "{\"line\":3,\"key\":\"0000000000000abc\",\"output\":\"c\"}\n"
            "{\"line\":1,\"key\":\"0000000000000007\",\"output\":\"a\"}\n");
  Write(whole + "{\"line\":2,\"key\":\"00000");  // killed while it wrote
  const auto output = *BatchOutput::Open(path_, Order::kAsAnswered);
  EXPECT_TRUE(*output->Has(3, 0xabc));
  EXPECT_TRUE(*output->Has(1, 7));
  EXPECT_FALSE(*output->Has(2, 7));
  EXPECT_THAT(std::string(output->Has(1, 8).status().message()),
              HasSubstr("with another model or other options"));
  EXPECT_TRUE(output->Write(2, 5, {{"error", "why"}}).ok());
  EXPECT_EQ(Text(), whole + "{\"line\":2,\"key\":\"0000000000000005\",\"error\":\"why\"}\n");
}

TEST_F(BatchFilesTest, LinesThatCouldNotBeAnsweredAreRemembered) {
  Write(
      "{\"line\":1,\"key\":\"1\",\"error\":\"why\"}\n"
      "{\"line\":2,\"key\":\"1\",\"output\":\"\"}\n");
  EXPECT_EQ((*BatchOutput::Open(path_, Order::kAsAnswered))->old_errors(), 1);
}

TEST_F(BatchFilesTest, OtherFilesAreLeftAlone) {
  for (const char* text :
       {"hello", "{\"text\": \"half", "hello\n", "{\"line\": 1}\n", "{\"line\": -1, \"key\": \"1\"}\n",
        "{\"line\":1,\"key\":\"1\"}\n{\"line\":1,\"key\":\"1\"}\n", "\n"}) {
    Write(text);
    EXPECT_EQ(BatchOutput::Open(path_, Order::kAsAnswered).status().code(),
              absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(Text(), text);
  }
}

TEST_F(BatchFilesTest, InOrderAnswersWaitForTheirTurn) {
  Write("{\"line\":1,\"key\":\"1\"}\n");
  {
    const auto output = *BatchOutput::Open(path_, Order::kAsAsked);
    for (const int64_t line : {2, 4, 5}) output->Expect(line);
    EXPECT_TRUE(output->Write(5, 5, {}).ok());
    EXPECT_TRUE(output->Write(2, 2, {}).ok());
    EXPECT_THAT(Text(), HasSubstr("\"line\":2"));
    EXPECT_THAT(Text(), testing::Not(HasSubstr("\"line\":5")));
    EXPECT_TRUE(output->Write(4, 4, {}).ok());
    EXPECT_THAT(Text(), HasSubstr("\"line\":4,\"key\":\"0000000000000004\"}\n{\"line\":5"));
  }
  const auto output = *BatchOutput::Open(path_, Order::kAsAsked);
  EXPECT_FALSE(*output->Has(6, 6));
  EXPECT_THAT(std::string(output->Has(3, 3).status().message()), HasSubstr("--in-order cannot go on"));
}

// A first line that takes long must not make the others pile up without end.
TEST_F(BatchFilesTest, OnlySoManyAnswersWaitForTheFirst) {
  const auto output = *BatchOutput::Open(path_, Order::kAsAsked);
  const auto early = static_cast<int64_t>(BatchOutput::kEarlyMax);
  for (int64_t line = 1; line <= early + 2; ++line) output->Expect(line);
  for (int64_t line = 2; line <= early + 1; ++line) ASSERT_TRUE(output->Write(line, 1, {}).ok());
  Cancellation written;
  std::thread late([&] {
    EXPECT_TRUE(output->Write(early + 2, 1, {}).ok());
    written.Cancel();
  });
  // Long enough for one that does not wait to be seen.
  EXPECT_FALSE(written.WaitFor(absl::Milliseconds(200))) << "it waits for the first";
  EXPECT_TRUE(output->Write(1, 1, {}).ok());
  late.join();
  const std::string text = Text();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), early + 2);

  output->Expect(early + 3);
  output->Close();
  EXPECT_EQ(output->Write(early + 3, 1, {}).code(), absl::StatusCode::kCancelled);
}

TEST_F(BatchFilesTest, LongLinesAreNotRead) {
  Write("short\n" + std::string(3000, 'x'));
  const UniqueFd file(open(path_.c_str(), O_RDONLY));
  LineReader reader(file.get(), path_, /*line_bytes_max=*/1000);
  std::string line;
  EXPECT_TRUE(*reader.Next(line));
  EXPECT_EQ(line, "short");
  EXPECT_TRUE(reader.ended());
  EXPECT_THAT(std::string(reader.Next(line).status().message()),
              HasSubstr("line 2 is longer than 1000 bytes"));
}

TEST_F(BatchFilesTest, WhatCannotBeWrittenIsAnError) {
  const auto output = *BatchOutput::Open("/dev/full", Order::kAsAnswered);
  EXPECT_THAT(std::string(output->Write(1, 1, {}).message()), HasSubstr("/dev/full"));
  EXPECT_FALSE(output->Write(2, 2, {}).ok());
  EXPECT_FALSE(BatchOutput::Open("/nowhere/at/all", Order::kAsAnswered).ok());
}

TEST_F(BatchFilesTest, TheLongestLinesComeFirstAndEmptyOnesCount) {
  Write(
      "\xEF\xBB\xBF"
      "a\n\n \r\nccc\nbb");
  BatchInput input = *BatchInput::Open(path_, BatchInput::Order::kLongestFirst);
  EXPECT_EQ(input.lines(), 3);
  std::vector<std::pair<int64_t, std::string>> lines;
  const std::vector<BatchLine> window = *input.NextWindow();
  for (const BatchLine& line : window) lines.emplace_back(line.number, line.text);
  EXPECT_THAT(lines, ElementsAre(testing::Pair(4, "ccc"), testing::Pair(5, "bb"), testing::Pair(1, "a")));
  EXPECT_TRUE(input.NextWindow()->empty());
  EXPECT_FALSE(BatchInput::Open("/nowhere", BatchInput::Order::kAsWritten).ok());
  EXPECT_THAT(std::string(BatchInput::Open("/dev/null", BatchInput::Order::kAsWritten).status().message()),
              HasSubstr("not a file"));
}

}  // namespace
}  // namespace bellwether
