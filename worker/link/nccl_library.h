#pragma once

#include <climits>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace bellwether {

// What we use of NVIDIA's collectives library: the few types and functions of its C interface, declared here
// and found in libnccl.so.2 when the program runs, so that it builds and runs where there is none.
namespace nccl {

// Results, of which every function returns one.
inline constexpr int kSuccess = 0;
inline constexpr int kUnhandledCudaError = 1;
inline constexpr int kSystemError = 2;
inline constexpr int kRemoteError = 6;
inline constexpr int kInProgress = 7;

inline constexpr int kFloat32 = 7;  // of its data types

struct UniqueId {
  char bytes[128];
};

// The beginning of its configuration, as version 2.14 has it; what comes behind keeps the library's defaults.
struct Config {
  size_t size = sizeof(Config);
  unsigned int magic = 0xcafebeef;
  unsigned int version = 21400;
  int blocking = 0;
  int cga_cluster_size = INT_MIN;  // undefined
};

struct Communicator;

struct Functions {
  int (*get_version)(int* version);
  const char* (*get_error_string)(int result);
  const char* (*get_last_error)(Communicator*);
  int (*get_unique_id)(UniqueId*);
  int (*comm_init_rank_config)(Communicator**, int size, UniqueId, int rank, Config*);
  int (*comm_get_async_error)(Communicator*, int* result);
  int (*comm_abort)(Communicator*);
  int (*group_start)();
  int (*group_end)();
  int (*send)(const void* from, size_t count, int type, int peer, Communicator*, void* stream);
  int (*receive)(void* to, size_t count, int type, int peer, Communicator*, void* stream);
};

}  // namespace nccl

// The library, once it is loaded; it stays for the life of the process, as its threads do. Any thread.
class NcclLibrary {
 public:
  static constexpr char kDefaultName[] = "libnccl.so.2";

  // `name`: what dlopen takes. NotFound if there is no such library, FailedPrecondition if it is too old or
  // lacks a function; both say what to do.
  static absl::StatusOr<std::shared_ptr<const NcclLibrary>> Load(const std::string& name);

  const nccl::Functions& call() const { return functions_; }
  int version() const { return version_; }  // 22809 is 2.28.9
  // OK for kSuccess. Unavailable if a peer or the way to it is the reason, else Internal. `communicator` may
  // be null.
  absl::Status StatusOf(int result, const std::string& what, nccl::Communicator* communicator) const;

 private:
  NcclLibrary() = default;

  nccl::Functions functions_{};
  int version_ = 0;
};

// What a worker does with NCCL.
struct NcclUse {
  // Null: what GPUs tell each other goes through host memory, and so it does where a peer has none or
  // another.
  std::shared_ptr<const NcclLibrary> library;
  bool required = false;  // then that is an error
  // Called while NCCL hangs for good, which only the end of the process ends (nccl_communicator.h).
  std::function<void()> on_stuck = [] {};
};

// "2.28.9"
std::string NcclVersionText(int version);

}  // namespace bellwether
