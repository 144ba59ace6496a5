#include "model/checkpoint/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/checkpoint/testing_files.h"

namespace bellwether {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing_files::Bytes;
using testing_files::GgufWriter;

absl::StatusOr<GgufFile> Parse(const std::string& file) {
  return GgufFile::Parse({reinterpret_cast<const std::byte*>(file.data()), file.size()});
}
std::string Refusal(const std::string& file) { return std::string(Parse(file).status().message()); }

TEST(GgufTest, MetadataOfEveryType) {
  GgufWriter writer;
  writer.AddRaw("u8", 0, Bytes(uint8_t{200}));
  writer.AddRaw("i8", 1, Bytes(int8_t{-3}));
  writer.AddRaw("u16", 2, Bytes(uint16_t{60000}));
  writer.AddRaw("i16", 3, Bytes(int16_t{-300}));
  writer.Add("u32", uint32_t{4000000000});
  writer.AddRaw("i32", 5, Bytes(int32_t{-70000}));
  writer.Add("f32", 1.5f);
  writer.Add("bool", true);
  writer.Add("text", std::string("hello"));
  writer.AddRaw("u64", 10, Bytes(uint64_t{1} << 40));
  writer.AddRaw("huge", 10, Bytes(~uint64_t{0}));
  writer.AddRaw("i64", 11, Bytes(int64_t{-5}));
  writer.AddRaw("f64", 12, Bytes(2.25));
  writer.Add("texts", std::vector<std::string>{"a", "", "bc"});
  writer.Add("floats", std::vector<float>{1, 2});
  writer.Add("integers", std::vector<int32_t>{4, -5});
  writer.AddRaw("nested", 9,
                Bytes(uint32_t{9}) + Bytes(uint64_t{1}) + Bytes(uint32_t{0}) + Bytes(uint64_t{2}) + "xy");
  const std::string file = writer.file();
  absl::StatusOr<GgufFile> gguf = Parse(file);
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  EXPECT_EQ(**gguf->Integer("u8"), 200);
  EXPECT_EQ(**gguf->Integer("i8"), -3);
  EXPECT_EQ(**gguf->Integer("u16"), 60000);
  EXPECT_EQ(**gguf->Integer("i16"), -300);
  EXPECT_EQ(**gguf->Integer("u32"), 4000000000);
  EXPECT_EQ(**gguf->Integer("i32"), -70000);
  EXPECT_EQ(**gguf->Integer("u64"), int64_t{1} << 40);
  EXPECT_EQ(**gguf->Integer("i64"), -5);
  EXPECT_EQ(**gguf->Number("f32"), 1.5);
  EXPECT_EQ(**gguf->Number("f64"), 2.25);
  EXPECT_EQ(**gguf->Bool("bool"), true);
  EXPECT_EQ(*gguf->Text("text"), "hello");
  EXPECT_THAT(*gguf->Texts("texts"), ElementsAre("a", "", "bc"));
  EXPECT_THAT(*gguf->Floats("floats"), ElementsAre(1, 2));
  EXPECT_THAT(*gguf->Integers("integers"), ElementsAre(4, -5));

  EXPECT_FALSE(gguf->Integer("none")->has_value());
  EXPECT_EQ(*gguf->Text("none"), "");
  EXPECT_TRUE(gguf->Texts("none")->empty());
  for (const absl::Status& status :
       {gguf->Integer("huge").status(), gguf->Integer("text").status(), gguf->Integer("texts").status(),
        gguf->Number("u8").status(), gguf->Bool("u8").status(), gguf->Text("u8").status(),
        gguf->Texts("floats").status(), gguf->Floats("integers").status(), gguf->Integers("texts").status(),
        gguf->Integers("nested").status(), gguf->Texts("text").status()}) {
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  }
}

TEST(GgufTest, TensorTable) {
  GgufWriter writer;
  writer.AddTensor("a", 0, {3, 2}, std::string(24, 'a'));
  writer.AddTensor("b", 8, {64}, std::string(68, 'b'));
  for (const uint32_t version : {2, 3}) {
    const std::string file = writer.file(version);
    absl::StatusOr<GgufFile> gguf = Parse(file);
    ASSERT_TRUE(gguf.ok()) << gguf.status();
    const std::vector<BlockTensor>& tensors = gguf->tensors();
    ASSERT_EQ(tensors.size(), 2u);
    EXPECT_EQ(tensors[0].rows, 2);
    EXPECT_EQ(tensors[0].cols, 3);
    EXPECT_EQ(tensors[0].bytes, 24u);
    EXPECT_EQ(file[tensors[0].offset], 'a');
    EXPECT_EQ(tensors[1].storage, StorageType::kQ8_0);
    EXPECT_EQ(tensors[1].bytes, 68u);
    EXPECT_EQ(file.substr(tensors[1].offset, 68), std::string(68, 'b'));
  }
}

TEST(GgufTest, EveryTruncationIsRefused) {
  GgufWriter writer;
  writer.Add("texts", std::vector<std::string>{"a", "bc"});
  writer.Add("number", uint32_t{7});
  writer.AddTensor("a", 0, {8}, std::string(32, 'a'));
  const std::string file = writer.file();
  ASSERT_TRUE(Parse(file).ok());
  for (size_t size = 0; size < file.size(); ++size) EXPECT_FALSE(Parse(file.substr(0, size)).ok()) << size;
}

// Found by a fuzzer: one of no bytes was placed where the data begins, beyond the end of a file that was cut
// short in the padding before it.
TEST(GgufTest, ATensorOfNoBytesLiesInTheFileToo) {
  GgufWriter writer;
  writer.AddTensor("none", 0, {0, 2}, "");
  const std::string file = writer.file();
  ASSERT_TRUE(Parse(file).ok()) << Refusal(file);
  for (size_t size = 0; size < file.size(); ++size) EXPECT_FALSE(Parse(file.substr(0, size)).ok()) << size;
}

TEST(GgufTest, ForeignFilesAndVersionsAreRefused) {
  EXPECT_THAT(Refusal("GGML" + std::string(100, 0)), HasSubstr("not a GGUF file"));
  EXPECT_THAT(Refusal(GgufWriter().file(1)), HasSubstr("GGUF version 1; 2 and 3 can be read"));
  EXPECT_THAT(Refusal(GgufWriter().file(4)), HasSubstr("GGUF version 4"));
  EXPECT_THAT(Refusal(GgufWriter().file(3u << 24)), HasSubstr("big-endian"));
}

TEST(GgufTest, ImpossibleClaimsAreRefusedBeforeMemoryIsAskedFor) {
  const auto header = [](uint64_t tensors, uint64_t metadata) {
    return "GGUF" + Bytes(uint32_t{3}) + Bytes(tensors) + Bytes(metadata);
  };
  EXPECT_THAT(Refusal(header(~uint64_t{0}, 0)), HasSubstr("at most 131072 and 65536"));
  EXPECT_THAT(Refusal(header(0, ~uint64_t{0})), HasSubstr("at most 131072 and 65536"));
  EXPECT_THAT(Refusal(header(0, 1) + Bytes(~uint64_t{0})), HasSubstr("cut short"));
  EXPECT_THAT(Refusal(header(0, 1) + Bytes(uint64_t{70000}) + std::string(80000, 'k')),
              HasSubstr("a name of 70000 bytes"));
  const std::string key = header(0, 1) + GgufWriter::Text("key");
  EXPECT_THAT(Refusal(key + Bytes(uint32_t{13}) + std::string(64, 0)), HasSubstr("unknown type 13"));
  EXPECT_THAT(Refusal(key + Bytes(uint32_t{8}) + Bytes(~uint64_t{0})), HasSubstr("cut short"));
  const std::string array = key + Bytes(uint32_t{9});
  EXPECT_THAT(Refusal(array + Bytes(uint32_t{10}) + Bytes(~uint64_t{0} / 4)), HasSubstr("cut short"));
  EXPECT_THAT(Refusal(array + Bytes(uint32_t{8}) + Bytes(~uint64_t{0})), HasSubstr("cut short"));
  EXPECT_THAT(Refusal(array + Bytes(uint32_t{99}) + Bytes(uint64_t{1})), HasSubstr("unknown type 99"));
  std::string nested = array;
  for (int i = 0; i < 1000; ++i) nested += Bytes(uint32_t{9}) + Bytes(uint64_t{1});
  EXPECT_THAT(Refusal(nested), HasSubstr("nested deeper than 4"));

  GgufWriter twice;
  twice.Add("key", uint32_t{1});
  twice.Add("key", uint32_t{1});
  EXPECT_THAT(Refusal(twice.file()), HasSubstr("'key' is there twice"));
  for (const uint32_t alignment : {0u, 4u, 12u, 1u << 30}) {
    GgufWriter writer;
    writer.Add("general.alignment", alignment);
    EXPECT_THAT(Refusal(writer.file()), HasSubstr("an alignment of")) << alignment;
  }
}

TEST(GgufTest, TensorsThatDoNotFitAreRefusedByName) {
  const auto refusal = [](uint32_t type, const std::vector<uint64_t>& sizes, uint64_t offset) {
    GgufWriter writer;
    writer.AddTensor("first", 0, {8}, std::string(32, 'a'));
    writer.AddTensorAt("bad", type, sizes, offset);
    return Refusal(writer.file());
  };
  EXPECT_THAT(refusal(0, {8}, 0), HasSubstr("'first' and 'bad' overlap"));
  EXPECT_THAT(refusal(0, {8}, 32), HasSubstr("'bad' of 32 bytes at 32 does not fit the 32 bytes"));
  EXPECT_THAT(refusal(0, {1}, 16), HasSubstr("does not fit"));
  EXPECT_THAT(refusal(0, {1}, ~uint64_t{31}), HasSubstr("does not fit"));
  EXPECT_THAT(refusal(0, {}, 0), HasSubstr("0 dimensions"));
  EXPECT_THAT(refusal(0, {1, 1, 1, 1, 1}, 0), HasSubstr("5 dimensions"));
  EXPECT_THAT(refusal(8, {33}, 0), HasSubstr("impossible shape"));
  EXPECT_THAT(refusal(0, {1, uint64_t{1} << 62, 4}, 0), HasSubstr("impossible shape"));
  EXPECT_THAT(refusal(0, {uint64_t{1} << 62, 1}, 0), HasSubstr("impossible shape"));
  EXPECT_THAT(refusal(10, {256}, 0), HasSubstr("'bad' has type Q2_K; F32"));
  EXPECT_THAT(refusal(23, {256}, 0), HasSubstr("type IQ4_XS"));
  EXPECT_THAT(refusal(77, {256}, 0), HasSubstr("unknown type 77"));
}

}  // namespace
}  // namespace bellwether
