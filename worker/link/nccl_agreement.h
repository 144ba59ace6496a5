#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "model/assignment.h"
#include "worker/link/link.h"
#include "worker/link/nccl_library.h"

namespace bellwether {

// The workers of a layout that one communicator joins: those of a run of neighbouring stages that all compute
// on GPUs. One communicator, not one a pair: of several, one that waits can keep another's abort from ending.
struct NcclMembers {
  int first_stage = 0, end_stage = 0;
  int first = 0;  // flat index of rank 0 of the communicator; the others follow
  int size = 0;

  bool Has(int flat_index) const { return first <= flat_index && flat_index < first + size; }
};

// The run with the stage of `assignment`; of no workers if that computes on CPUs.
NcclMembers MembersWith(const Assignment& assignment);

// What the members have found out.
struct NcclAgreement {
  std::vector<int> versions;         // of the members' libraries, in their order; 0: none
  std::optional<nccl::UniqueId> id;  // if all have the same one
};

// Every member says which NCCL it has (`library`, null for none) and learns what the others have. Versions
// go up the stages to the first member, by way of the rank 0 of each stage; that member makes the id, whose
// socket is then part of its process, and it comes down the same way. By worker-to-worker links, so that
// nobody else has to know it. `links` are in flat order, to LinkedWorkers(assignment).
//
// The error of the link that failed, or of NCCL.
absl::StatusOr<NcclAgreement> AgreeOnNccl(const Assignment& assignment, const NcclMembers& members,
                                          const NcclLibrary* library, const std::vector<Link*>& links);

}  // namespace bellwether
