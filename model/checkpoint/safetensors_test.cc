#include "model/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/checkpoint/testing_files.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing_files::Bytes;
using testing_files::Safetensors;

absl::StatusOr<std::vector<FileTensor>> Parse(const std::string& file) {
  return ParseSafetensors({reinterpret_cast<const std::byte*>(file.data()), file.size()});
}

std::string Refusal(const std::string& header, const std::string& data = "") {
  return std::string(Parse(Safetensors(header, data)).status().message());
}

std::string Entry(const std::string& name, const std::string& shape, const std::string& offsets,
                  const std::string& dtype = "F32") {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":", shape,
                      ",\"data_offsets\":", offsets, "}");
}

TEST(SafetensorsTest, TableIsInTheOrderOfTheData) {
  const std::string header = "{\"__metadata__\":{\"format\":\"pt\"}," +
                             Entry("b", "[2,3]", "[4,16]", "BF16") + "," + Entry("a", "[]", "[0,4]") + "," +
                             Entry("none", "[0,7]", "[16,16]") + "}   ";
  absl::StatusOr<std::vector<FileTensor>> entries = Parse(Safetensors(header, std::string(16, 'x')));
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 3u);
  EXPECT_EQ((*entries)[0].name, "a");
  EXPECT_EQ((*entries)[0].offset, 8 + header.size());
  EXPECT_TRUE((*entries)[0].shape.empty());
  EXPECT_EQ((*entries)[1].name, "b");
  EXPECT_EQ((*entries)[1].dtype, "BF16");
  EXPECT_THAT((*entries)[1].shape, ElementsAre(2, 3));
  EXPECT_EQ((*entries)[1].offset, 8 + header.size() + 4);
  EXPECT_EQ((*entries)[1].bytes, 12u);
  EXPECT_EQ((*entries)[2].bytes, 0u);
  EXPECT_TRUE(Parse(Safetensors("{}", "")).ok());
}

TEST(SafetensorsTest, TheNoteOfBellwetherConvert) {
  const auto note = [](const std::string& header) {
    const std::string file = Safetensors(header, "");
    std::string read = "untouched";
    const absl::Span<const std::byte> bytes(reinterpret_cast<const std::byte*>(file.data()), file.size());
    EXPECT_TRUE(ParseSafetensors(bytes, &read).ok());
    return read;
  };
  EXPECT_EQ(note("{}"), "");
  EXPECT_EQ(note(R"({"__metadata__":{"format":"pt","bellwether":"subtracted","other":"x"}})"), "subtracted");
  EXPECT_EQ(note("{\"__metadata__\":{\"bellwether\":\"" + std::string(9999, 'a') + "\"}}").size(), 4096u);
}

TEST(SafetensorsTest, AMillionTensorsAreRefusedBeforeTheyAreRead) {
  std::string header = "{" + Entry("t", "[0]", "[0,0]");
  for (size_t i = 0; i < kFileTensorsMax; ++i) header += "," + Entry(std::to_string(i), "[0]", "[0,0]");
  EXPECT_THAT(Refusal(header + "}"), HasSubstr("more than 131072 tensors"));
}

TEST(SafetensorsTest, DamagedLengthsAreRefused) {
  EXPECT_THAT(Parse("").status().message(), HasSubstr("shorter than"));
  EXPECT_THAT(Parse("1234567").status().message(), HasSubstr("shorter than"));
  EXPECT_THAT(Parse(Bytes(uint64_t{3}) + "{}").status().message(),
              HasSubstr("a header of 3 bytes in a file of 10"));
  EXPECT_THAT(Parse(Bytes(uint64_t{100'000'001}) + "{}").status().message(), HasSubstr("at most 100000000"));
  EXPECT_THAT(Parse(Bytes(~uint64_t{0}) + "{}").status().message(), HasSubstr("at most 100000000"));
  EXPECT_THAT(Refusal(""), HasSubstr("does not begin with '{'"));
  EXPECT_THAT(Refusal(" {}"), HasSubstr("does not begin with '{'"));
}

TEST(SafetensorsTest, HeadersOfAnotherStructureAreRefused) {
  EXPECT_THAT(Refusal("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(Refusal("{}x"), HasSubstr("not valid JSON"));
  EXPECT_THAT(Refusal("{\"a\xff\":{}}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(Refusal("{\"a\":1}"), HasSubstr("unexpected 1"));
  EXPECT_THAT(Refusal("{\"a\":null}"), HasSubstr("unexpected null"));
  EXPECT_THAT(Refusal("{\"a\":[]}"), HasSubstr("unexpected list"));
  EXPECT_THAT(Refusal("{\"a\":{}}"), HasSubstr("is missing"));
  EXPECT_THAT(Refusal("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}"), HasSubstr("is missing"));
  EXPECT_THAT(Refusal("{\"a\":{\"shape\":[[1]]}}"), HasSubstr("unexpected list"));
  EXPECT_THAT(Refusal("{\"a\":{\"shape\":{}}}"), HasSubstr("unexpected object"));
  EXPECT_THAT(Refusal("{\"a\":{\"shape\":3}}"), HasSubstr("unexpected 3"));
  EXPECT_THAT(Refusal("{\"a\":{\"dtype\":3}}"), HasSubstr("unexpected 3"));
  EXPECT_THAT(Refusal("{\"a\":{\"extra\":3}}"), HasSubstr("field 'extra'"));
  EXPECT_THAT(Refusal("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}"), HasSubstr("second dtype"));
  EXPECT_THAT(Refusal("{\"__metadata__\":{},\"__metadata__\":{}}"), HasSubstr("second __metadata__"));
  EXPECT_THAT(Refusal("{\"__metadata__\":{\"a\":1}}"), HasSubstr("unexpected 1"));
  EXPECT_THAT(Refusal("{\"__metadata__\":{\"a\":{}}}"), HasSubstr("unexpected object"));
  EXPECT_THAT(Refusal("{" + Entry("a", "[-1]", "[0,4]") + "}"), HasSubstr("unexpected -1"));
  EXPECT_THAT(Refusal("{" + Entry("a", "[1.0]", "[0,4]") + "}"), HasSubstr("unexpected 1.0"));
  EXPECT_THAT(Refusal("{" + Entry("a", "[18446744073709551615]", "[0,4]") + "}"),
              HasSubstr("unexpected 184467"));
  EXPECT_THAT(Refusal("{" + Entry("a", "[1,1,1,1,1,1,1,1,1]", "[0,4]") + "}"),
              HasSubstr("too many dimensions"));
  EXPECT_THAT(Refusal("{" + Entry("a", "[1]", "[0]") + "}"), HasSubstr("no range"));
  EXPECT_THAT(Refusal("{" + Entry("a", "[1]", "[4,0]") + "}"), HasSubstr("no range"));
  EXPECT_THAT(Refusal("{" + Entry("a", "[1]", "[0,4,8]") + "}"), HasSubstr("third of data_offsets"));
  EXPECT_THAT(Refusal("{" + std::string(100000, '[')), HasSubstr("not valid JSON"));
  std::string nested = "{\"a\":{\"dtype\":";
  for (int i = 0; i < 100000; ++i) nested += "{\"b\":";
  EXPECT_THAT(Refusal(nested), HasSubstr("unexpected object"));
}

TEST(SafetensorsTest, DataMustBeCoveredOnce) {
  const std::string eight(8, 'x');
  EXPECT_EQ(Refusal("{" + Entry("a", "[2]", "[0,8]") + "}", eight), "");
  EXPECT_THAT(Refusal("{" + Entry("a", "[1]", "[4,8]") + "}", eight), HasSubstr("begins at byte 4"));
  EXPECT_THAT(Refusal("{" + Entry("a", "[1]", "[0,4]") + "}", eight),
              HasSubstr("4 bytes follow the last tensor"));
  EXPECT_THAT(Refusal("{" + Entry("a", "[3]", "[0,12]") + "}", eight), HasSubstr("ends at byte 12 of 8"));
  EXPECT_THAT(Refusal("{}", eight), HasSubstr("8 bytes follow"));
  EXPECT_THAT(Refusal("{" + Entry("a", "[2]", "[0,8]") + "," + Entry("b", "[1]", "[4,8]") + "}", eight),
              HasSubstr("'b' begins at byte 4 of the data but the tensors before end at 8"));
  EXPECT_THAT(Refusal("{" + Entry("a", "[2]", "[0,8]") + "," + Entry("a", "[0]", "[8,8]") + "}", eight),
              HasSubstr("'a' is there twice"));
}

TEST(SafetensorsTest, SizesMustBeThoseOfShapeAndType) {
  const std::string eight(8, 'x');
  EXPECT_THAT(Refusal("{" + Entry("a", "[3]", "[0,8]") + "}", eight),
              HasSubstr("8 bytes where its shape and type take 12"));
  EXPECT_THAT(Refusal("{" + Entry("a", "[2]", "[0,8]", "F99") + "}", eight), HasSubstr("unknown type 'F99'"));
  EXPECT_THAT(Refusal("{" + Entry("a", "[4294967296,4294967296]", "[0,8]") + "}", eight),
              HasSubstr("impossible shape"));
  EXPECT_THAT(Refusal("{" + Entry("a", "[4611686018427387905]", "[0,4]") + "}", eight),
              HasSubstr("impossible shape"));
  EXPECT_THAT(Refusal("{" + Entry("a", "[3]", "[0,8]", "F4") + "}", eight), HasSubstr("impossible shape"));
  EXPECT_EQ(Refusal("{" + Entry("a", "[16]", "[0,8]", "F4") + "}", eight), "");
}

// Attackers have made readers quadratic with many overlapping tensors.
TEST(SafetensorsTest, ManyOverlappingTensorsAreRefusedQuickly) {
  std::string header = "{";
  for (int i = 0; i < 100'000; ++i) {
    if (i > 0) header += ",";
    header += Entry(absl::StrCat("t", i), "[2]", "[0,8]");
  }
  EXPECT_THAT(Refusal(header + "}", std::string(8, 'x')), HasSubstr("begins at byte 0 of the data but"));
}

}  // namespace
}  // namespace bellwether
