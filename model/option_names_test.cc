#include "model/option_names.h"

#include "gtest/gtest.h"

namespace bellwether {
namespace {

TEST(OptionNames, EveryArchitectureHasANameThatFindsIt) {
  for (const Architecture architecture : kArchitectures) {
    EXPECT_NE(Name(architecture), "unknown");
    EXPECT_EQ(FindArchitecture(Name(architecture)), architecture);
  }
  EXPECT_EQ(FindArchitecture("gpt2"), std::nullopt);
}

TEST(OptionNames, RoundTrip) {
  for (const Quantize value : {Quantize::kNone, Quantize::kInt8, Quantize::kInt4}) {
    EXPECT_EQ(*ParseQuantize(Name(value)), value);
  }
  for (const DType value : {DType::kF32, DType::kBF16, DType::kF16})
    EXPECT_EQ(*ParseDType(Name(value)), value);
}

TEST(OptionNames, OthersAreRefusedWithWhatIsAllowed) {
  EXPECT_EQ(ParseQuantize("int5").status().message(), "quantize is \"int5\", allowed: none, int8, int4");
  EXPECT_EQ(ParseDType("").status().message(), "type is \"\", allowed: fp32, bf16, fp16");
}

}  // namespace
}  // namespace bellwether
