#include "model/checkpoint/torch_legacy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/checkpoint/testing_torch.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;
using testing_files::Bytes;
namespace pickle = testing_files::pickle;

const std::string kMagic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
const std::string kSystem = pickle::Whole("}" + pickle::Text("little_endian") + "\x88s");

// `part` is the persistent id's sixth item.
std::string Storage(const std::string& key, int64_t elements, const std::string& part = "N") {
  return pickle::Tuple({pickle::Text("storage"), pickle::Global("torch", "FloatStorage"), pickle::Text(key),
                        pickle::Text("cpu"), pickle::Integer(elements), part}) +
         "Q";
}

struct File {
  std::string version = pickle::Whole(pickle::Integer(1001));
  std::string system = kSystem;
  std::string tensor = pickle::Tensor(Storage("a", 6), 0, {2, 3}, {3, 1});
  std::vector<std::string> keys = {"a"};
  int64_t elements = 6;
  size_t floats = 6;
};

absl::StatusOr<std::vector<FileTensor>> Parse(const File& file) {
  std::string keys = "](";
  for (const std::string& key : file.keys) keys += pickle::Text(key);
  const std::string bytes =
      kMagic + file.version + file.system + pickle::Whole(pickle::OrderedDict({{"x", file.tensor}})) +
      pickle::Whole(keys + "e") + Bytes(file.elements) + Bytes(std::vector<float>(file.floats, 1.0f));
  return ParseTorchLegacy({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
}

std::string Refusal(const File& file) {
  const auto tensors = Parse(file);
  EXPECT_FALSE(tensors.ok());
  return std::string(tensors.status().message());
}

TEST(TorchLegacyTest, ATensorAndAPartOfAStorage) {
  const auto whole = Parse({});
  ASSERT_TRUE(whole.ok()) << whole.status();
  ASSERT_EQ(whole->size(), 1u);
  EXPECT_EQ((*whole)[0].bytes, 24u);
  const std::string part = pickle::Tuple({pickle::Text("b"), pickle::Integer(2), pickle::Integer(4)});
  const auto of_part = Parse({.tensor = pickle::Tensor(Storage("a", 6, part), 1, {3}, {1})});
  ASSERT_TRUE(of_part.ok()) << of_part.status();
  EXPECT_EQ((*of_part)[0].bytes, 12u);
}

TEST(TorchLegacyTest, DamagedFilesAreRefused) {
  EXPECT_THAT(Refusal({.version = pickle::Whole(pickle::Integer(1002))}), HasSubstr("format 1002"));
  EXPECT_THAT(Refusal({.system = pickle::Whole("}")}), HasSubstr("not little-endian"));
  EXPECT_THAT(Refusal({.system = pickle::Whole("N")}), HasSubstr("which machine"));
  EXPECT_THAT(Refusal({.keys = {"b"}}), HasSubstr("\"b\" is of no known type"));
  EXPECT_THAT(Refusal({.keys = {}}), HasSubstr("lies in \"a\", which is not there"));
  EXPECT_THAT(Refusal({.elements = 7}), HasSubstr("reaches beyond the end of the file"));
  EXPECT_THAT(Refusal({.elements = -1}), HasSubstr("reaches beyond the end of the file"));
  EXPECT_THAT(Refusal({.elements = int64_t{1} << 62}), HasSubstr("reaches beyond the end of the file"));
  EXPECT_THAT(Refusal({.elements = 5}), HasSubstr("6 elements of type F32 should be"));
  const std::string beyond = pickle::Tuple({pickle::Text("b"), pickle::Integer(3), pickle::Integer(4)});
  EXPECT_THAT(Refusal({.tensor = pickle::Tensor(Storage("a", 6, beyond), 1, {3}, {1})}),
              HasSubstr("reaches beyond the 6 elements"));
  const std::string far = pickle::Tuple({pickle::Text("b"), pickle::Integer(INT64_MAX), pickle::Integer(4)});
  EXPECT_THAT(Refusal({.tensor = pickle::Tensor(Storage("a", 6, far), 1, {3}, {1})}),
              HasSubstr("a part of a storage that is none"));
  EXPECT_THAT(Refusal({.tensor = pickle::Tensor(Storage("a", 6, "]"), 1, {3}, {1})}),
              HasSubstr("an unknown persistent id"));
}

// Whatever is cut off its end.
TEST(TorchLegacyTest, NoBeginningOfAFileIsAFile) {
  const std::string bytes =
      kMagic + pickle::Whole(pickle::Integer(1001)) + kSystem +
      pickle::Whole(pickle::OrderedDict({{"x", pickle::Tensor(Storage("a", 1), 0, {1}, {1})}})) +
      pickle::Whole("](" + pickle::Text("a") + "e") + Bytes(int64_t{1}) + Bytes(1.0f);
  const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
  EXPECT_TRUE(ParseTorchLegacy({data, bytes.size()}).ok());
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_FALSE(ParseTorchLegacy({data, size}).ok()) << size;
}

}  // namespace
}  // namespace bellwether
