#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/assignment.h"
#include "model/layout.h"
#include "proto/bellwether/v1/cluster.pb.h"

namespace bellwether {

// One worker of a layout, as its peers need to know it.
struct AssignedPeer {
  std::string name;
  int stage = 0;
  int rank = 0;
  std::string host_id;
  std::string unix_socket;   // abstract name, for peers on the same host
  std::string link_address;  // host:port, for others; may be empty
};

// What a worker is told for one epoch.
struct AssignmentMessage {
  Assignment assignment;
  std::vector<AssignedPeer> peers;  // every worker of the layout in flat order, the receiver included
  std::string link_secret;
};

void Encode(const AssignmentMessage& assignment, v1::Assignment* out);
// Counts, ranges and indices are checked: stage and rank exist in the layout, and the peers are its workers
// in flat order. Whether the layout fits the model is Validate's job (model/layout.h). InvalidArgument names
// the field.
absl::StatusOr<AssignmentMessage> Decode(const v1::Assignment& message);

void Encode(const HeldPart& held, v1::HeldPart* out);
absl::StatusOr<HeldPart> Decode(const v1::HeldPart& message);  // checked in the same way

void Encode(const Layout& layout, v1::Layout* out);
absl::StatusOr<Layout> Decode(const v1::Layout& message);

}  // namespace bellwether
