#include "proto/assignment_codec.h"

#include <functional>
#include <memory>

#include "common/defaults.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

using ::testing::HasSubstr;

AssignmentMessage MakeAssignment() {
  AssignmentMessage message;
  Assignment& assignment = message.assignment;
  assignment.epoch = {5};
  assignment.model_id = "abc";
  assignment.layout.stages = {{.layers = {0, 2},
                               .ranks = {{.slices = {0, 3}, .embedding_rows = {0, 10}},
                                         {.slices = {3, 4}, .embedding_rows = {10, 20}}}},
                              {.layers = {2, 3}, .ranks = {{.slices = {0, 4}, .head_rows = {0, 20}}}}};
  assignment.stage = 0;
  assignment.rank = 1;
  assignment.numeric = {.kernel_level = "avx2", .quantize = Quantize::kInt4, .kv_type = DType::kBF16};
  assignment.stage_kernel_levels = {"avx2", "cuda_sm90"};
  assignment.kv_blocks = 100;
  assignment.context_tokens = 2048;
  assignment.step_tokens = 512;
  assignment.step_deadline = absl::Seconds(7);
  assignment.cores_are_short = true;
  assignment.streamed_layers = 2;
  assignment.stream_home = WeightHome::kHost;
  assignment.streamed_ends = {.embedding = true};
  message.peers = {
      {.name = "a", .stage = 0, .rank = 0, .host_id = "h", .unix_socket = "s1", .link_address = "x:1"},
      {.name = "b", .stage = 0, .rank = 1, .host_id = "h", .unix_socket = "s2"},
      {.name = "c", .stage = 1, .rank = 0, .host_id = "i", .link_address = "y:1"}};
  message.link_secret = "secret";
  return message;
}

v1::Assignment Encoded() {
  v1::Assignment message;
  Encode(MakeAssignment(), &message);
  return message;
}

TEST(AssignmentCodec, SurvivesTheWire) {
  const absl::StatusOr<AssignmentMessage> decoded = Decode(Encoded());
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  const AssignmentMessage expected = MakeAssignment();
  EXPECT_EQ(decoded->assignment.epoch, expected.assignment.epoch);
  EXPECT_EQ(decoded->assignment.model_id, "abc");
  EXPECT_EQ(decoded->assignment.layout, expected.assignment.layout);
  EXPECT_EQ(decoded->assignment.rank, 1);
  EXPECT_EQ(decoded->assignment.numeric, expected.assignment.numeric);
  EXPECT_EQ(decoded->assignment.stage_kernel_levels, expected.assignment.stage_kernel_levels);
  EXPECT_EQ(decoded->assignment.kv_blocks, 100);
  EXPECT_EQ(decoded->assignment.step_deadline, absl::Seconds(7));
  EXPECT_TRUE(decoded->assignment.cores_are_short);
  EXPECT_EQ(decoded->assignment.streamed_layers, 2);
  EXPECT_EQ(decoded->assignment.stream_home, WeightHome::kHost);
  EXPECT_EQ(decoded->assignment.streamed_ends, expected.assignment.streamed_ends);
  ASSERT_EQ(decoded->peers.size(), 3u);
  EXPECT_EQ(decoded->peers[2].link_address, "y:1");
  EXPECT_EQ(decoded->link_secret, "secret");
}

TEST(AssignmentCodec, AHeldPartSurvivesTheWireAndItsPlaceIsChecked) {
  const AssignmentMessage assigned = MakeAssignment();
  const HeldPart held{.model_id = "abc",
                      .quantize = Quantize::kInt8,
                      .layout = std::make_shared<const Layout>(assigned.assignment.layout),
                      .stage = 1,
                      .rank = 0};
  v1::HeldPart message;
  Encode(held, &message);
  const absl::StatusOr<HeldPart> decoded = Decode(message);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->model_id, "abc");
  EXPECT_EQ(decoded->quantize, Quantize::kInt8);
  EXPECT_EQ(*decoded->layout, *held.layout);
  EXPECT_EQ(decoded->stage, 1);
  message.set_rank(1);
  EXPECT_THAT(std::string(Decode(message).status().message()), HasSubstr("rank is 1"));
  message.clear_layout();
  EXPECT_THAT(std::string(Decode(message).status().message()), HasSubstr("number of stages"));
}

// A coordinator that plans for longer steps is refused by its own workers.
TEST(AssignmentCodec, TheLongestStepDeadlineOfAPlanIsTaken) {
  AssignmentMessage message = MakeAssignment();
  message.assignment.step_deadline = kStepDeadlineMax;
  v1::Assignment encoded;
  Encode(message, &encoded);
  EXPECT_EQ(Decode(encoded)->assignment.step_deadline, kStepDeadlineMax);
  encoded.set_step_deadline_seconds(absl::ToDoubleSeconds(kStepDeadlineMax) + 1);
  EXPECT_THAT(std::string(Decode(encoded).status().message()), HasSubstr("step_deadline"));
}

TEST(AssignmentCodec, HostileAssignmentsAreRefusedByField) {
  using Spoil = std::function<void(v1::Assignment&)>;
  const std::pair<const char*, Spoil> cases[] = {
      {"number of stages", [](v1::Assignment& m) { m.mutable_layout()->clear_stages(); }},
      {"number of ranks", [](v1::Assignment& m) { m.mutable_layout()->mutable_stages(1)->clear_ranks(); }},
      {"layers.end",
       [](v1::Assignment& m) { m.mutable_layout()->mutable_stages(0)->mutable_layers()->set_end(-1); }},
      {"slices.begin",
       [](v1::Assignment& m) {
         m.mutable_layout()->mutable_stages(0)->mutable_ranks(0)->mutable_slices()->set_begin(-1);
       }},
      {"head_rows.end",
       [](v1::Assignment& m) {
         m.mutable_layout()->mutable_stages(1)->mutable_ranks(0)->mutable_head_rows()->set_end(1LL << 40);
       }},
      {"stage", [](v1::Assignment& m) { m.set_stage(2); }},
      {"rank", [](v1::Assignment& m) { m.set_rank(-1); }},
      {"streamed_layers", [](v1::Assignment& m) { m.set_streamed_layers(3); }},
      {"streamed_head", [](v1::Assignment& m) { m.set_streamed_head(true); }},
      {"streamed_embedding",
       [](v1::Assignment& m) {
         m.set_stage(1);
         m.set_rank(0);
         m.set_streamed_layers(0);
       }},
      {"kv_blocks", [](v1::Assignment& m) { m.set_kv_blocks(0); }},
      {"context_tokens", [](v1::Assignment& m) { m.set_context_tokens(-1); }},
      {"step_tokens", [](v1::Assignment& m) { m.set_step_tokens(1 << 30); }},
      {"stage_kernel_levels", [](v1::Assignment& m) { m.add_stage_kernel_levels("avx2"); }},
      {"quantize", [](v1::Assignment& m) { m.set_quantize("int3"); }},
      {"type", [](v1::Assignment& m) { m.set_kv_type("fp8"); }},
      {"step_deadline", [](v1::Assignment& m) { m.set_step_deadline_seconds(0); }},
      {"number of peers", [](v1::Assignment& m) { m.mutable_peers()->RemoveLast(); }},
      {"not in order", [](v1::Assignment& m) { m.mutable_peers(2)->set_rank(1); }},
      {"peer.name", [](v1::Assignment& m) { m.mutable_peers(0)->set_name(std::string(5000, 'x')); }},
  };
  for (const auto& [field, spoil] : cases) {
    v1::Assignment message = Encoded();
    spoil(message);
    const absl::StatusOr<AssignmentMessage> decoded = Decode(message);
    ASSERT_FALSE(decoded.ok()) << field;
    EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(decoded.status().message()), HasSubstr(field));
  }
}

}  // namespace
}  // namespace bellwether
