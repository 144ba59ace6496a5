#include "model/tokenizer/sentencepiece_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <sstream>
#include <string>

#include "model/tokenizer/scored_bpe.h"

namespace bellwether {
namespace {

using testing::HasSubstr;

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}
std::string Number(int field, uint64_t value) { return Varint(field << 3) + Varint(value); }
std::string Bytes(int field, const std::string& bytes) {
  return Varint(field << 3 | 2) + Varint(bytes.size()) + bytes;
}
std::string Piece(const std::string& text, int type) { return Bytes(1, Bytes(1, text) + Number(3, type)); }

const std::string kPieces = Piece("<unk>", 2) + Piece("<s>", 3) + Piece("a", 1);
const std::string kBpe = Bytes(2, Number(3, 2));

std::string Golden() {
  std::ifstream file("tests/goldens/tokenizer/llama_spm/tokenizer.model", std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

TEST(SentencepieceModelTest, ReadsPiecesAndRules) {
  const auto model = ParseSentencepieceModel(kPieces + Bytes(2, Number(3, 2) + Bytes(46, "a")) +
                                             Bytes(3, Bytes(1, "identity") + Number(3, 0) + Number(4, 0)));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->pieces.size(), 3u);
  EXPECT_EQ(model->unknown_id, 0);
  EXPECT_EQ(model->bos_id, std::nullopt);  // "a" is no control piece
  EXPECT_FALSE(model->add_dummy_prefix);
  EXPECT_FALSE(model->remove_extra_whitespaces);
  EXPECT_TRUE(model->escape_whitespaces);
}

TEST(SentencepieceModelTest, OtherKindsAreRefusedByName) {
  EXPECT_THAT(ParseSentencepieceModel(kPieces).status().message(), HasSubstr("unigram"));
  EXPECT_THAT(ParseSentencepieceModel(kPieces + Bytes(2, Number(3, 4))).status().message(),
              HasSubstr("char"));
  EXPECT_THAT(ParseSentencepieceModel(kPieces + Bytes(2, Number(3, 2) + Number(24, 1))).status().message(),
              HasSubstr("treat_whitespace_as_suffix"));
  const auto with_map =
      ParseSentencepieceModel(kPieces + kBpe + Bytes(3, Bytes(1, "nmt_nfkc") + Bytes(2, "x")));
  EXPECT_EQ(with_map.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(with_map.status().message(), HasSubstr("nmt_nfkc"));
}

TEST(SentencepieceModelTest, DamageIsRefusedWithItsPlace) {
  const auto message = [](const std::string& file) {
    return std::string(ParseSentencepieceModel(file).status().message());
  };
  EXPECT_THAT(message(kBpe), HasSubstr("no pieces"));
  EXPECT_THAT(message(kPieces + kBpe + Piece("a", 1)), HasSubstr("pieces 2 and 3 are both \"a\""));
  EXPECT_THAT(message(kPieces + kBpe + Piece("", 1)), HasSubstr("piece 3 is empty"));
  EXPECT_THAT(message(kPieces + kBpe + Piece("b", 9)), HasSubstr("piece 3 has the unknown type 9"));
  EXPECT_THAT(message(kPieces + kBpe + Piece("<0xZZ>", 6)), HasSubstr("byte piece 3"));
  EXPECT_THAT(message(kPieces + Bytes(2, Number(3, 2) + Number(35, 1))), HasSubstr("byte fallback"));
  EXPECT_THAT(message(kBpe + Piece("a", 1)), HasSubstr("neither byte pieces nor an unknown piece"));
  EXPECT_THAT(message(kPieces + kBpe + "\x0A\x7F"), HasSubstr("cut short"));
}

TEST(SentencepieceModelTest, NoDamageToARealFileCrashes) {
  const std::string file = Golden();
  ASSERT_FALSE(file.empty());
  std::mt19937 random(3);
  for (int round = 0; round < 500; ++round) {
    std::string damaged = file;
    for (int i = 0; i < 3; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
    if (round % 2 == 0) damaged.resize(random() % damaged.size());
    auto model = ParseSentencepieceModel(damaged);
    if (!model.ok()) continue;
    auto parts = MakeScoredBpe(*std::move(model));
    ASSERT_TRUE(parts.ok()) << parts.status();
    const auto ids = ComposeTokenizer(*std::move(parts))->Encode("The quick 你好 \xFF fox", {});
    EXPECT_TRUE(ids.ok());
  }
}

}  // namespace
}  // namespace bellwether
