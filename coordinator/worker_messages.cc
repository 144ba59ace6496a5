#include "coordinator/worker_messages.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/defaults.h"
#include "common/host_port.h"
#include "common/quote.h"
#include "common/status.h"
#include "proto/worker_state_codec.h"

namespace bellwether {
namespace {

constexpr size_t kTextBytesMax = 512;
constexpr int kKernelLevelsMax = 32;
constexpr size_t kReadOptionsMax = 16;
constexpr int kThreadsMax = 4096;
constexpr int kCpusMax = 4096;
constexpr int64_t kBytesMax = int64_t{1} << 50;
constexpr uint64_t kLastEpochMax = uint64_t{1} << 62;

std::string Cut(const std::string& text) { return std::string(CutText(text, kTextBytesMax)); }

absl::Status CheckRate(const char* field, double per_second) {
  constexpr double kRateMax = 1e15;  // neither memory nor arithmetic of one worker is near it
  if (per_second >= 0 && per_second <= kRateMax) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", per_second, ", allowed is 0 to ", kRateMax));
}

}  // namespace

absl::Status CheckJoin(const v1::JoinRequest& join) {
  if (join.kernel_levels_size() > kKernelLevelsMax)
    return absl::InvalidArgumentError("too many kernel_levels");
  if (join.read_options().size() > kReadOptionsMax)
    return absl::InvalidArgumentError("too many read_options");
  std::vector<const std::string*> texts = {
      &join.build_id(), &join.name(),     &join.host_id(),    &join.unix_socket(), &join.link_address(),
      &join.model_id(), &join.cpu_type(), &join.gpu().name(), &join.gpu().uuid(),  &join.metrics_address()};
  for (const std::string& level : join.kernel_levels()) texts.push_back(&level);
  for (const auto& [flag, value] : join.read_options()) texts.insert(texts.end(), {&flag, &value});
  for (const std::string* text : texts) {
    if (text->size() > kTextBytesMax) {
      return absl::InvalidArgumentError(absl::StrCat("a text of the join message has ", text->size(),
                                                     " bytes, allowed are ", kTextBytesMax));
    }
  }
  const bool printable =
      std::all_of(join.name().begin(), join.name().end(), [](char c) { return c > ' ' && c < 127; });
  if (join.name().empty() || !printable) {
    return absl::InvalidArgumentError("name must be printable ASCII without spaces");
  }
  if (!join.metrics_address().empty()) {
    BW_RETURN_IF_ERROR(Annotate(ParseHostPort(join.metrics_address()).status(), "metrics_address"));
  }
  if (join.threads() < 1 || join.threads() > kThreadsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads is ", join.threads(), ", allowed is 1 to ", kThreadsMax));
  }
  if (join.last_epoch() > kLastEpochMax) return absl::InvalidArgumentError("last_epoch is no epoch");
  if (join.memory_bytes() < 0 || join.memory_bytes() > kBytesMax) {
    return absl::InvalidArgumentError("memory_bytes is out of range");
  }
  if (join.cpus_size() > kCpusMax) return absl::InvalidArgumentError("too many cpus");
  if (!(join.cpu_quota() >= 0 && std::isfinite(join.cpu_quota())))
    return absl::InvalidArgumentError("cpu_quota is not a number of cores");
  if (!(join.read_bytes_per_second() > 0)) {
    return absl::InvalidArgumentError("read_bytes_per_second is not above 0");
  }
  BW_RETURN_IF_ERROR(CheckRate("read_bytes_per_second", join.read_bytes_per_second()));
  BW_RETURN_IF_ERROR(CheckRate("drive_bytes_per_second", join.drive_bytes_per_second()));
  BW_RETURN_IF_ERROR(CheckRate("float_operations_per_second", join.float_operations_per_second()));
  BW_RETURN_IF_ERROR(CheckRate("int8_operations_per_second", join.int8_operations_per_second()));
  if (join.has_gpu()) {
    if (join.gpu().uuid().empty()) return absl::InvalidArgumentError("gpu.uuid is empty");
    for (const int64_t bytes : {join.gpu().memory_bytes(), join.gpu().free_bytes()}) {
      if (bytes < 0 || bytes > kBytesMax)
        return absl::InvalidArgumentError("a size of the gpu's memory is out of range");
    }
    BW_RETURN_IF_ERROR(CheckRate("gpu.copy_bytes_per_second", join.gpu().copy_bytes_per_second()));
  }
  return absl::OkStatus();
}

JoiningWorker FromProto(const v1::JoinRequest& join) {
  JoiningWorker worker = {
      .protocol_version = join.protocol_version(),
      .build_id = join.build_id(),
      .inventory = {.name = join.name(),
                    .host = join.host_id(),
                    .cpu_type = join.cpu_type(),
                    .memory_bytes = join.memory_bytes(),
                    .threads = join.threads(),
                    .cpus = {join.cpus().begin(), join.cpus().end()},
                    .cpu_quota = join.cpu_quota(),
                    .read_bytes_per_second = join.read_bytes_per_second(),
                    .drive_bytes_per_second = join.drive_bytes_per_second(),
                    .arithmetic = {.floats = join.float_operations_per_second(),
                                   .int8 = join.int8_operations_per_second()},
                    .kernel_levels = {join.kernel_levels().begin(), join.kernel_levels().end()}},
      .unix_socket = join.unix_socket(),
      .link_address = join.link_address(),
      .model_id = join.model_id(),
      .reading = {join.read_options().begin(), join.read_options().end()},
      .last_epoch = {join.last_epoch()},
      .metrics_address = join.metrics_address(),
      .metrics_tls = join.metrics_tls()};
  if (join.has_gpu()) {
    worker.inventory.gpu = {.name = Printable(join.gpu().name()),
                            .uuid = Printable(join.gpu().uuid()),
                            .memory_bytes = join.gpu().memory_bytes(),
                            .free_bytes = join.gpu().free_bytes(),
                            .copy_bytes_per_second = join.gpu().copy_bytes_per_second()};
  }
  return worker;
}

absl::StatusOr<WorkerProgress> FromProto(const v1::Heartbeat& beat) {
  BW_ASSIGN_OR_RETURN(const WorkerState state, Decode(beat.state()));
  if (beat.waits_size() > kWorkersMax) return absl::InvalidArgumentError("heartbeat: too many waits");
  std::vector<WorkerProgress::Wait> waits;
  for (const v1::PeerWait& wait : beat.waits()) {
    if (wait.peer() < 0 || wait.peer() >= kWorkersMax ||
        !(wait.seconds() >= 0 && std::isfinite(wait.seconds()))) {
      return absl::InvalidArgumentError("heartbeat: a wait is out of range");
    }
    waits.push_back({.peer = wait.peer(), .seconds = wait.seconds()});
  }
  return WorkerProgress{.epoch = {beat.epoch()},
                        .state = state,
                        .loaded_bytes = std::clamp<int64_t>(beat.loaded_bytes(), 0, kBytesMax),
                        .total_bytes = std::clamp<int64_t>(beat.total_bytes(), 0, kBytesMax),
                        .step = {beat.step_id()},
                        .layer = beat.layer(),
                        .waiting_for = Cut(beat.waiting_for()),
                        .waiting_for_some_peer = beat.waiting_for_some_peer(),
                        .counter = beat.progress(),
                        .waits = std::move(waits)};
}

absl::StatusOr<WorkerReady> FromProto(WorkerId id, const v1::Ready& ready) {
  if (ready.weight_bytes() < 0 || ready.kv_bytes() < 0 || ready.weight_bytes() > kBytesMax ||
      ready.kv_bytes() > kBytesMax) {
    return absl::InvalidArgumentError("ready: bytes out of range");
  }
  if (ready.hashes_size() > kWeightHashesMax) return absl::InvalidArgumentError("ready: too many hashes");
  WorkerReady event{id, {ready.epoch()}, ready.weight_bytes(), ready.kv_bytes()};
  for (const v1::WeightHash& hash : ready.hashes()) {
    const bool printable =
        std::all_of(hash.what().begin(), hash.what().end(), [](char c) { return c >= ' ' && c < 127; });
    if (!printable || hash.what().size() > kWeightHashNameBytesMax) {
      return absl::InvalidArgumentError("ready: the name of a hash is too long or not printable");
    }
    event.hashes.push_back({hash.what(), hash.hash()});
  }
  return event;
}

bool TokensInRange(const StepResult& result, int32_t vocab) {
  for (const StepOutput& output : result.outputs) {
    if (output.token < -1 || output.token >= vocab) return false;
    for (const TokenLogprob& top : output.top) {
      if (top.token < 0 || top.token >= vocab) return false;
    }
  }
  return true;
}

WorkerFailed FromProto(WorkerId id, const v1::Failure& failure) {
  const auto code =
      static_cast<absl::StatusCode>(failure.code() > 0 && failure.code() <= 16 ? failure.code() : 2);
  return {.id = id,
          .epoch = {failure.epoch()},
          .reason = absl::Status(code, Cut(failure.message())),
          .blamed = Cut(failure.blamed_worker()),
          .of_some_peer = failure.of_some_peer()};
}

std::string ReachableAddress(const std::string& address, const std::string& peer) {
  absl::StatusOr<HostPort> own = ParseHostPort(address);
  if (!own.ok()) return "";
  const size_t scheme = std::min(peer.find(':'), peer.size());
  const std::string called_from = absl::StrReplaceAll(peer.substr(scheme), {{"%5B", "["}, {"%5D", "]"}});
  const absl::StatusOr<HostPort> other = ParseHostPort(called_from.empty() ? "" : called_from.substr(1));
  if (own->IsLoopback() && other.ok() && !other->IsLoopback()) return "";  // another machine's own
  if (own->host != "0.0.0.0" && own->host != "::") return address;
  if (!other.ok()) return "";
  own->host = other->host;
  return own->ToString();
}

}  // namespace bellwether
