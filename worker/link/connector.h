#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "common/tls_options.h"
#include "worker/link/link.h"

namespace bellwether {

// A worker to make a link to.
struct LinkPeer {
  int index = 0;             // in the flat order of the layout (stage by stage, rank by rank)
  std::string name;          // for errors: "worker 3 (stage 1, rank 0)"
  std::string unix_socket;   // what its LinkListener says; empty if unknown
  std::string grpc_address;  // "host:port"; empty if it does not listen for other hosts
};

// Where the peers of this worker find it, for the life of the process; makes the links of one epoch after
// another.
//
// Of two workers the one with the smaller index connects and the other accepts. Both on one host is proven by
// opening the Unix socket: then the link is shared memory, else a gRPC stream. A connection shows epoch,
// indices and secret; one of an old epoch or with another secret is refused and disturbs nobody; one of a
// later epoch waits for it.
//
// All functions may be called from any thread, but Connect by one at a time.
class LinkListener {
 public:
  struct Options {
    // "host:port" to listen on for workers of other hosts, port 0 for any; empty: shared memory only.
    std::string grpc_listen_address;
    TlsOptions tls;  // of links between hosts, for both sides
  };
  static absl::StatusOr<std::unique_ptr<LinkListener>> Start(const Options& options);
  virtual ~LinkListener() = default;  // gRPC links that were accepted through it end

  // For the worker's join message. grpc_address: the host of grpc_listen_address and the port in use, or
  // empty.
  virtual std::string unix_socket() const = 0;
  virtual std::string grpc_address() const = 0;

  struct Request {
    Epoch epoch;         // larger than in every call before
    std::string secret;  // equal for all workers of the epoch
    int own_index = 0;
    std::vector<LinkPeer> peers;                       // not this worker
    absl::Duration connect_limit = absl::Seconds(30);  // until all links are up
    absl::Duration wait_limit = absl::Seconds(30);     // of the links: for a wait in which nothing moves
    int spin_pauses = 1000;  // of shared memory links, before they sleep; 0 where cores are short
  };
  // The links to request.peers, in their order. DeadlineExceeded naming the peers that did not come,
  // Unavailable if one cannot be reached, PermissionDenied if one refused, Cancelled after Cancel.
  virtual absl::StatusOr<std::vector<std::unique_ptr<Link>>> Connect(const Request& request) = 0;

  // Connect of this epoch or an earlier one ends at once, now or later.
  virtual void Cancel(Epoch epoch) = 0;
};

}  // namespace bellwether
