#include "proto/assignment_codec.h"

#include <cmath>
#include <cstdint>

#include "common/defaults.h"
#include "common/status.h"
#include "model/config.h"
#include "model/option_names.h"

namespace bellwether {
namespace {

constexpr size_t kTextBytesMax = 1024;  // names, addresses, ids, secrets
constexpr int64_t kKvBlocksMax = 1 << 24;

absl::Status Wrong(absl::string_view field, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("assignment.", field, " ", what));
}

absl::Status CheckRange(absl::string_view field, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    return Wrong(field, absl::StrCat("is ", value, ", allowed is ", low, " to ", high));
  }
  return absl::OkStatus();
}

absl::Status CheckText(absl::string_view field, const std::string& text) {
  if (text.size() > kTextBytesMax) {
    return Wrong(field, absl::StrCat("has ", text.size(), " bytes, allowed are ", kTextBytesMax));
  }
  return absl::OkStatus();
}

void Encode(int64_t begin, int64_t end, v1::Range* out) {
  out->set_begin(begin);
  out->set_end(end);
}

absl::StatusOr<Range> Decode(absl::string_view field, const v1::Range& message, int64_t limit) {
  BW_RETURN_IF_ERROR(CheckRange(absl::StrCat(field, ".begin"), message.begin(), 0, limit));
  BW_RETURN_IF_ERROR(CheckRange(absl::StrCat(field, ".end"), message.end(), message.begin(), limit));
  return Range{message.begin(), message.end()};
}

absl::StatusOr<StageLayout> Decode(const v1::StageLayout& message) {
  StageLayout stage;
  BW_ASSIGN_OR_RETURN(stage.layers, Decode("layers", message.layers(), kLayersMax));
  BW_RETURN_IF_ERROR(CheckRange("number of ranks", message.ranks_size(), 1, kHeadsMax));
  for (const v1::RankLayout& rank : message.ranks()) {
    RankLayout decoded;
    BW_ASSIGN_OR_RETURN(const Range slices, Decode("slices", rank.slices(), kHeadsMax));
    decoded.slices = {static_cast<int>(slices.begin), static_cast<int>(slices.end)};
    BW_ASSIGN_OR_RETURN(decoded.embedding_rows, Decode("embedding_rows", rank.embedding_rows(), kVocabMax));
    BW_ASSIGN_OR_RETURN(decoded.head_rows, Decode("head_rows", rank.head_rows(), kVocabMax));
    stage.ranks.push_back(decoded);
  }
  return stage;
}

absl::StatusOr<AssignedPeer> Decode(const v1::Peer& message) {
  BW_RETURN_IF_ERROR(CheckText("peer.name", message.name()));
  BW_RETURN_IF_ERROR(CheckText("peer.host_id", message.host_id()));
  BW_RETURN_IF_ERROR(CheckText("peer.unix_socket", message.unix_socket()));
  BW_RETURN_IF_ERROR(CheckText("peer.link_address", message.link_address()));
  return AssignedPeer{.name = message.name(),
                      .stage = message.stage(),
                      .rank = message.rank(),
                      .host_id = message.host_id(),
                      .unix_socket = message.unix_socket(),
                      .link_address = message.link_address()};
}

// The peers of a layout come in its flat order, so that an index names a worker.
absl::StatusOr<std::vector<AssignedPeer>> DecodePeers(const v1::Assignment& message, const Layout& layout) {
  BW_RETURN_IF_ERROR(CheckRange("number of peers", message.peers_size(), layout.workers(), layout.workers()));
  std::vector<AssignedPeer> peers;
  for (int stage = 0; stage < static_cast<int>(layout.stages.size()); ++stage) {
    for (int rank = 0; rank < static_cast<int>(layout.stages[stage].ranks.size()); ++rank) {
      BW_ASSIGN_OR_RETURN(AssignedPeer peer, Decode(message.peers(static_cast<int>(peers.size()))));
      if (peer.stage != stage || peer.rank != rank) {
        return Wrong("peers",
                     absl::StrCat("are not in order: ", peer.name, " is stage ", peer.stage, ", rank ",
                                  peer.rank, " where stage ", stage, ", rank ", rank, " should be"));
      }
      peers.push_back(std::move(peer));
    }
  }
  return peers;
}

absl::StatusOr<absl::Duration> DecodeDeadline(double seconds) {
  const double limit = absl::ToDoubleSeconds(kStepDeadlineMax);
  if (!std::isfinite(seconds) || seconds <= 0 || seconds > limit) {
    return Wrong("step_deadline_seconds", absl::StrCat("is ", seconds, ", allowed is above 0 to ", limit));
  }
  return absl::Seconds(seconds);
}

absl::Status CheckPlace(const Layout& layout, int64_t stage, int64_t rank) {
  BW_RETURN_IF_ERROR(CheckRange("stage", stage, 0, static_cast<int64_t>(layout.stages.size()) - 1));
  return CheckRange("rank", rank, 0, static_cast<int64_t>(layout.stages[stage].ranks.size()) - 1);
}

}  // namespace

void Encode(const Layout& layout, v1::Layout* out) {
  for (const StageLayout& stage : layout.stages) {
    v1::StageLayout* stage_out = out->add_stages();
    Encode(stage.layers.begin, stage.layers.end, stage_out->mutable_layers());
    for (const RankLayout& rank : stage.ranks) {
      v1::RankLayout* rank_out = stage_out->add_ranks();
      Encode(rank.slices.begin, rank.slices.end, rank_out->mutable_slices());
      Encode(rank.embedding_rows.begin, rank.embedding_rows.end, rank_out->mutable_embedding_rows());
      Encode(rank.head_rows.begin, rank.head_rows.end, rank_out->mutable_head_rows());
    }
  }
}

absl::StatusOr<Layout> Decode(const v1::Layout& message) {
  BW_RETURN_IF_ERROR(CheckRange("number of stages", message.stages_size(), 1, kLayersMax));
  Layout layout;
  for (const v1::StageLayout& stage : message.stages()) {
    BW_ASSIGN_OR_RETURN(StageLayout decoded, Decode(stage));
    layout.stages.push_back(std::move(decoded));
  }
  BW_RETURN_IF_ERROR(CheckRange("number of workers", layout.workers(), 1, kWorkersMax));
  return layout;
}

void Encode(const HeldPart& held, v1::HeldPart* out) {
  out->set_model_id(held.model_id);
  out->set_quantize(std::string(Name(held.quantize)));
  Encode(*held.layout, out->mutable_layout());
  out->set_stage(held.stage);
  out->set_rank(held.rank);
}

absl::StatusOr<HeldPart> Decode(const v1::HeldPart& message) {
  BW_RETURN_IF_ERROR(CheckText("model_id", message.model_id()));
  BW_ASSIGN_OR_RETURN(const Quantize quantize, ParseQuantize(message.quantize()));
  BW_ASSIGN_OR_RETURN(Layout layout, Decode(message.layout()));
  BW_RETURN_IF_ERROR(CheckPlace(layout, message.stage(), message.rank()));
  return HeldPart{.model_id = message.model_id(),
                  .quantize = quantize,
                  .layout = std::make_shared<const Layout>(std::move(layout)),
                  .stage = message.stage(),
                  .rank = message.rank()};
}

void Encode(const AssignmentMessage& message, v1::Assignment* out) {
  const Assignment& assignment = message.assignment;
  out->set_epoch(assignment.epoch.value);
  out->set_model_id(assignment.model_id);
  Encode(assignment.layout, out->mutable_layout());
  out->set_stage(assignment.stage);
  out->set_rank(assignment.rank);
  out->set_kernel_level(assignment.numeric.kernel_level);
  for (const std::string& level : assignment.stage_kernel_levels) out->add_stage_kernel_levels(level);
  out->set_quantize(std::string(Name(assignment.numeric.quantize)));
  out->set_kv_type(std::string(Name(assignment.numeric.kv_type)));
  out->set_kv_blocks(assignment.kv_blocks);
  out->set_context_tokens(assignment.context_tokens);
  out->set_step_tokens(assignment.step_tokens);
  out->set_step_deadline_seconds(absl::ToDoubleSeconds(assignment.step_deadline));
  out->set_cores_are_short(assignment.cores_are_short);
  out->set_streamed_layers(assignment.streamed_layers);
  out->set_streams_from_host(assignment.stream_home == WeightHome::kHost);
  out->set_streamed_embedding(assignment.streamed_ends.embedding);
  out->set_streamed_head(assignment.streamed_ends.head);
  out->set_link_secret(message.link_secret);
  for (const AssignedPeer& peer : message.peers) {
    v1::Peer* peer_out = out->add_peers();
    peer_out->set_name(peer.name);
    peer_out->set_stage(peer.stage);
    peer_out->set_rank(peer.rank);
    peer_out->set_host_id(peer.host_id);
    peer_out->set_unix_socket(peer.unix_socket);
    peer_out->set_link_address(peer.link_address);
  }
}

absl::StatusOr<AssignmentMessage> Decode(const v1::Assignment& message) {
  AssignmentMessage decoded;
  Assignment& assignment = decoded.assignment;
  assignment.epoch.value = message.epoch();
  BW_RETURN_IF_ERROR(CheckText("model_id", message.model_id()));
  BW_RETURN_IF_ERROR(CheckText("kernel_level", message.kernel_level()));
  BW_RETURN_IF_ERROR(CheckText("link_secret", message.link_secret()));
  BW_ASSIGN_OR_RETURN(assignment.layout, Decode(message.layout()));
  BW_RETURN_IF_ERROR(CheckPlace(assignment.layout, message.stage(), message.rank()));
  if (message.stage_kernel_levels_size() != static_cast<int>(assignment.layout.stages.size())) {
    return absl::InvalidArgumentError("stage_kernel_levels is not one for each stage");
  }
  for (const std::string& level : message.stage_kernel_levels()) {
    BW_RETURN_IF_ERROR(CheckText("stage_kernel_levels", level));
  }
  const Range layers = assignment.layout.stages[message.stage()].layers;
  BW_RETURN_IF_ERROR(CheckRange("streamed_layers", message.streamed_layers(), 0, layers.size()));
  const int last_stage = static_cast<int>(assignment.layout.stages.size()) - 1;
  if ((message.streamed_embedding() && message.stage() != 0) ||
      (message.streamed_head() && message.stage() != last_stage)) {
    return absl::InvalidArgumentError("streamed_embedding or streamed_head of a stage that has none");
  }
  BW_RETURN_IF_ERROR(CheckRange("kv_blocks", message.kv_blocks(), 1, kKvBlocksMax));
  BW_RETURN_IF_ERROR(CheckRange("context_tokens", message.context_tokens(), 1, 1 << 24));
  BW_RETURN_IF_ERROR(CheckRange("step_tokens", message.step_tokens(), 1, 1 << 20));
  BW_ASSIGN_OR_RETURN(assignment.numeric.quantize, ParseQuantize(message.quantize()));
  BW_ASSIGN_OR_RETURN(assignment.numeric.kv_type, ParseDType(message.kv_type()));
  BW_ASSIGN_OR_RETURN(assignment.step_deadline, DecodeDeadline(message.step_deadline_seconds()));
  BW_ASSIGN_OR_RETURN(decoded.peers, DecodePeers(message, assignment.layout));
  assignment.model_id = message.model_id();
  assignment.stage = message.stage();
  assignment.rank = message.rank();
  assignment.numeric.kernel_level = message.kernel_level();
  assignment.stage_kernel_levels = {message.stage_kernel_levels().begin(),
                                    message.stage_kernel_levels().end()};
  assignment.kv_blocks = message.kv_blocks();
  assignment.context_tokens = message.context_tokens();
  assignment.step_tokens = message.step_tokens();
  assignment.cores_are_short = message.cores_are_short();
  assignment.streamed_layers = message.streamed_layers();
  assignment.stream_home = message.streams_from_host() ? WeightHome::kHost : WeightHome::kDrive;
  assignment.streamed_ends = {.embedding = message.streamed_embedding(), .head = message.streamed_head()};
  decoded.link_secret = message.link_secret();
  return decoded;
}

}  // namespace bellwether
