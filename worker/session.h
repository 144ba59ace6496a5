#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/shared_secret.h"
#include "common/tls_options.h"
#include "model/checkpoint/read_options.h"
#include "worker/device/open_device.h"
#include "worker/epoch_runner.h"
#include "worker/link/nccl_library.h"

namespace bellwether {

// A worker's life with its coordinator: joins, says how it is, does as it is told, and joins again whenever
// the connection breaks.
class WorkerSession {
 public:
  struct Options {
    std::string coordinator;  // host:port
    std::string model;        // checkpoint, or
    std::string model_root;   // a directory of checkpoints
    ReadOptions read;         // how it is read
    std::string build_id;
    std::string name;          // for people; printable, without spaces
    std::string host_id;       // equal on workers that share memory; empty: the machine's
    std::string link_listen;   // host:port for workers of other hosts; empty: shared memory only
    TlsOptions tls;            // with the coordinator and with workers of other hosts
    SharedSecret join_secret;  // that the coordinator asks for
    bool insecure = false;     // nothing need be encrypted
    OpenedDevice device;       // that computes; its kernel levels are those to offer
    int threads = 1;           // of the host
    std::vector<int> cpus;     // of the threads; empty: wherever the system likes
    NcclUse nccl;              // between GPUs
    int64_t memory_bytes = 0;  // of the host, what to tell the planner; 0: what is available
    std::string verify_stream =
        "first";  // when checksums of layers that are streamed are looked at, or "always"
    std::string shard_cache = "auto";  // where packed layers are kept: a directory, "off", or "auto"
    std::string metrics_address;  // where this worker's metrics are, to tell the coordinator; empty: nowhere
    bool metrics_tls = false;     // they are there by TLS
  };
  // Starts listening for peers and opening the model.
  static absl::StatusOr<std::unique_ptr<WorkerSession>> Start(Options options);
  virtual ~WorkerSession() = default;

  // Returns OK after Stop, FailedPrecondition with the coordinator's words if it refuses this worker, or the
  // error of the model. Anything else it tries again, more and more slowly.
  virtual absl::Status Run() = 0;
  // Both from any thread, also before Run, and without a wait.
  // Asks the coordinator to be let go, which ends Run: it lets the requests that run end, for as long as its
  // drain time. Without a coordinator, Stop.
  virtual void Leave() = 0;
  // Ends Run at once.
  virtual void Stop() = 0;

  struct Snapshot {
    std::string name;  // as the coordinator calls it
    bool joined = false;
    EpochRunner::Progress progress;
  };
  // From any thread, for metrics and probes.
  virtual Snapshot snapshot() const = 0;
};

}  // namespace bellwether
