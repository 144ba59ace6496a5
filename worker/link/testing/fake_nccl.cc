// A library with the interface of NCCL (worker/link/nccl_library.h) whose ranks are threads of one process
// and whose memory is the host's: really moves data, and does on demand what NCCL does on bad days.
//
// A group of copies stays in progress until each of them has met its other half; whoever asks for the state
// of a communicator gets things on. fake_nccl_set(what, value) from the test, by dlsym; 0 undoes it:
//   "version"        what ncclGetVersion says
//   "init_hangs"     a communicator with this many ranks never completes
//   "async_error"    what every communicator's state is from now on, or
//   "error_of"       that of the rank before this one alone
//   "abort_hangs"    aborts do not return; also by FAKE_NCCL_ABORT_HANGS in the environment
// and fake_nccl_get tells besides those:
//   "live"           communicators that have not been aborted
//   "copies"         made so far
//   "cpus"           that the last thread to join may run on
//   "foreign_calls"  made for a communicator by another thread than the one that made it, which are refused

#include <sched.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "common/mutex.h"

namespace {

enum Result { kSuccess = 0, kInvalidArgument = 4, kInvalidUsage = 5, kInProgress = 7 };

using bellwether::Mutex;
using bellwether::MutexLock;

struct Copy {
  const void* from = nullptr;  // or
  void* to = nullptr;
  size_t bytes = 0;
  int rank = 0, peer = 0;
};

struct World;

}  // namespace

// NOLINTBEGIN(readability-identifier-naming): NCCL's own names.
struct ncclComm {
  World* world = nullptr;
  int rank = 0;
  int pending = 0;  // copies that have not met their other half
  int error = kSuccess;
  bool grouped = false;  // the group under way has copies of it
  const std::thread::id thread = std::this_thread::get_id();
};

struct ncclUniqueId {
  char bytes[128];
};
struct ncclConfig {
  size_t size;
  unsigned int magic, version;
  int blocking;
};
// NOLINTEND(readability-identifier-naming)

namespace {

// The ranks of one id.
struct World {
  std::vector<ncclComm*> ranks;  // null: not there yet, or not any more
  int joined = 0;
  std::map<std::pair<int, int>, std::deque<Copy>> sends, receives;  // by (from, to)
};

struct Library {
  Mutex mutex;
  std::map<std::string, World> worlds;
  std::map<std::string, int> settings = {{"version", 22809}};
  uint64_t ids = 0;
  int live = 0;
  int copies = 0;
  std::atomic<int> foreign_calls = 0;
};

// Never destroyed: threads of a test may end after static objects.
Library& TheLibrary() {
  static Library& library = *[] {
    auto* made = new Library;
    if (std::getenv("FAKE_NCCL_ABORT_HANGS") != nullptr) made->settings["abort_hangs"] = 1;
    return made;
  }();
  return library;
}

thread_local int group_depth = 0;
thread_local std::vector<std::pair<ncclComm*, Copy>> group;

// Copies what has both halves.
int Meet(World& world, std::pair<int, int> way) {
  std::deque<Copy>&sends = world.sends[way], &receives = world.receives[way];
  while (!sends.empty() && !receives.empty()) {
    const Copy send = sends.front(), receive = receives.front();
    sends.pop_front();
    receives.pop_front();
    ncclComm &from = *world.ranks[send.rank], &to = *world.ranks[receive.rank];
    --from.pending;
    --to.pending;
    if (send.bytes != receive.bytes) return from.error = to.error = kInvalidUsage;
    std::memcpy(receive.to, send.from, send.bytes);
  }
  return kSuccess;
}

bool IsForeign(const ncclComm& comm) {
  const bool foreign = comm.thread != std::this_thread::get_id();
  if (foreign) ++TheLibrary().foreign_calls;
  return foreign;
}

int Add(const Copy& copy, ncclComm* comm) {
  if (IsForeign(*comm)) return kInvalidUsage;
  group.emplace_back(comm, copy);
  return kSuccess;
}

}  // namespace

extern "C" {

void fake_nccl_set(const char* what, int value) {
  Library& library = TheLibrary();
  MutexLock lock(&library.mutex);
  library.settings[what] = value;
  if (std::strcmp(what, "foreign_calls") == 0) library.foreign_calls = value;
}

int fake_nccl_get(const char* what) {
  Library& library = TheLibrary();
  MutexLock lock(&library.mutex);
  if (std::strcmp(what, "live") == 0) return library.live;
  if (std::strcmp(what, "copies") == 0) return library.copies;
  if (std::strcmp(what, "foreign_calls") == 0) return library.foreign_calls;
  return library.settings[what];
}

int ncclGetVersion(int* version) {
  *version = fake_nccl_get("version");
  return kSuccess;
}

const char* ncclGetErrorString(int result) {
  return result == kInvalidUsage ? "invalid usage" : "a fault on demand";
}
const char* ncclGetLastError(ncclComm*) { return "of the test double"; }

int ncclGetUniqueId(ncclUniqueId* id) {
  Library& library = TheLibrary();
  MutexLock lock(&library.mutex);
  std::memset(id->bytes, 0xff, sizeof(id->bytes));  // NaNs, for those who take it for numbers
  ++library.ids;
  std::memcpy(id->bytes, &library.ids, sizeof(library.ids));
  return kSuccess;
}

int ncclCommInitRankConfig(ncclComm** comm, int size, ncclUniqueId id, int rank, ncclConfig* config) {
  if (config->magic != 0xcafebeef || config->blocking != 0 || rank < 0 || rank >= size) {
    return kInvalidArgument;
  }
  Library& library = TheLibrary();
  MutexLock lock(&library.mutex);
  World& world = library.worlds[std::string(id.bytes, sizeof(id.bytes))];
  if (world.ranks.empty()) world.ranks.resize(size);
  if (world.ranks.size() != static_cast<size_t>(size) || world.ranks[rank] != nullptr)
    return kInvalidArgument;
  ++world.joined;
  ++library.live;
  cpu_set_t cpus;
  if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0) library.settings["cpus"] = CPU_COUNT(&cpus);
  if (library.settings["abort_hangs"] != 0)
    std::fprintf(stderr, "fake NCCL: rank %d of %d joins and will not be aborted\n", rank, size);
  *comm = world.ranks[rank] = new ncclComm{.world = &world, .rank = rank};
  return kInProgress;
}

int ncclCommGetAsyncError(ncclComm* comm, int* result) {
  if (IsForeign(*comm)) return kInvalidUsage;
  Library& library = TheLibrary();
  MutexLock lock(&library.mutex);
  const int size = static_cast<int>(comm->world->ranks.size());
  const bool joins = comm->world->joined < size || library.settings["init_hangs"] == size;
  const int error_of = library.settings["error_of"];
  const bool fails = error_of == 0 || error_of == comm->rank + 1;
  *result = fails && library.settings["async_error"] != 0 ? library.settings["async_error"]
            : comm->error != kSuccess                     ? comm->error
            : joins || comm->pending > 0                  ? kInProgress
                                                          : kSuccess;
  return kSuccess;
}

int ncclGroupStart() {
  ++group_depth;
  return kSuccess;
}

int ncclSend(const void* from, size_t count, int type, int peer, ncclComm* comm, void*) {
  if (group_depth == 0 || type != 7) return kInvalidUsage;
  return Add({.from = from, .bytes = count * 4, .rank = comm->rank, .peer = peer}, comm);
}

int ncclRecv(void* to, size_t count, int type, int peer, ncclComm* comm, void*) {
  if (group_depth == 0 || type != 7) return kInvalidUsage;
  return Add({.to = to, .bytes = count * 4, .rank = comm->rank, .peer = peer}, comm);
}

int ncclGroupEnd() {
  if (--group_depth > 0) return kSuccess;
  Library& library = TheLibrary();
  MutexLock lock(&library.mutex);
  for (const auto& [comm, copy] : group) {
    World& world = *comm->world;
    const bool send = copy.to == nullptr;
    const std::pair<int, int> way = send ? std::pair(copy.rank, copy.peer) : std::pair(copy.peer, copy.rank);
    (send ? world.sends : world.receives)[way].push_back(copy);
    ++comm->pending;
    if (send) ++library.copies;
    Meet(world, way);
  }
  group.clear();
  return kInProgress;
}

int ncclCommAbort(ncclComm* comm) {
  if (IsForeign(*comm)) return kInvalidUsage;
  Library& library = TheLibrary();
  MutexLock lock(&library.mutex);
  const auto released = [&library] { return library.settings["abort_hangs"] == 0; };
  library.mutex.Await(released);
  World& world = *comm->world;
  world.ranks[comm->rank] = nullptr;
  for (auto* ways : {&world.sends, &world.receives}) {
    for (auto& [way, copies] : *ways) {
      const bool own = comm->rank == (ways == &world.sends ? way.first : way.second);
      if (own) copies.clear();
    }
  }
  --library.live;
  delete comm;
  return kSuccess;
}

}  // extern "C"
