#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/build_id.h"
#include "common/defaults.h"
#include "common/descriptors.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/metrics/addresses.h"
#include "common/port_file.h"
#include "common/program_flags.h"
#include "common/service_notify.h"
#include "common/status.h"
#include "common/stop_signal.h"
#include "common/tls_flags.h"
#include "model/checkpoint/read_flags.h"
#include "proto/grpc_log.h"
#include "worker/device/open_device.h"
#include "worker/inventory.h"
#include "worker/session.h"
#include "worker/worker_server.h"

namespace bellwether {
namespace {

struct Flags {
  WorkerSession::Options session;
  std::string device = "cpu";
  std::string collectives = "auto";
  std::string nccl_library = NcclLibrary::kDefaultName;
  std::string cpus;
  std::string kernel_level;
  std::string metrics_listen = kDefaultWorkerMetricsAddress;
  TlsOptions metrics_tls;
  std::string port_file;
  std::string join_secret;
  LogOptions log;
  bool print_config = false;
};

// "0,1,4-7"
absl::StatusOr<std::vector<int>> ParseCpus(const std::string& text) {
  std::vector<int> cpus;
  if (text.empty()) return cpus;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::vector<absl::string_view> ends = absl::StrSplit(part, absl::MaxSplits('-', 1));
    int first = 0, last = 0;
    if (!absl::SimpleAtoi(ends.front(), &first) || !absl::SimpleAtoi(ends.back(), &last) || first < 0 ||
        last < first || last >= 4096) {
      return absl::InvalidArgumentError(
          absl::StrCat("cpus is \"", text, "\", expected numbers and ranges: 0,1,4-7"));
    }
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

void AddFlags(CLI::App* app, Flags* flags) {
  WorkerSession::Options& session = flags->session;
  session.coordinator = kDefaultWorkerAddress;
  session.name = DefaultWorkerName();
  session.threads = 0;
  AddFlag(app, "--coordinator", session.coordinator, "Where the coordinator listens for workers, HOST:PORT")
      ->check(Address({}));
  AddFlag(app, "--model", session.model, kModelHelp);
  AddFlag(app, "--model-root", session.model_root,
          "Instead of --model: a directory of checkpoints, where the coordinator's is looked for by its id");
  AddReadFlags(app, &session.read);
  AddFlag(app, "--name", session.name, "How messages call this worker");
  AddFlag(
      app, "--device", flags->device,
      "What computes: cpu, cuda:N (a GPU, of those that CUDA_VISIBLE_DEVICES shows), auto (the first GPU, "
      "or the CPU where there is none), or emulated (GPU kernels without a GPU, very slow, for tests)")
      ->check([](const std::string& name) { return std::string(ParseDeviceName(name).status().message()); });
  AddFlag(
      app, "--collectives", flags->collectives,
      "How GPU workers talk to each other: nccl, staged (through host memory), or auto (nccl where all of "
      "them have it)")
      ->check(CLI::IsMember({"auto", "nccl", "staged"}));
  AddFlag(app, "--nccl-library", flags->nccl_library, "NCCL, a path or a name that the loader finds");
  AddFlag(app, "--threads", session.threads,
          "Threads that compute; 0: one for each CPU of --cpus, or of the affinity mask");
  AddFlag(
      app, "--cpus", flags->cpus,
      "CPUs to keep to, such as 0,1,4-7, with a computing thread on each; empty: wherever the system likes")
      ->check([](const std::string& cpus) { return std::string(ParseCpus(cpus).status().message()); });
  AddMemoryFlags(app, session.memory_bytes, "What this worker's host may be planned to use of its memory");
  AddFlag(app, "--verify-stream", session.verify_stream,
          "Checksums of layers that are streamed: first, when a block is read the first time, or always")
      ->check(CLI::IsMember({"first", "always"}));
  AddFlag(app, "--shard-cache", session.shard_cache,
          "Where packed layers are kept for the next start, and streamed from: a directory on a fast drive, "
          "off, or auto "
          "(below $XDG_CACHE_HOME or ~/.cache, and only while some layers are streamed)");
  AddFlag(app, "--link-listen", session.link_listen,
          "HOST:PORT for workers on other machines, which must reach it; empty: this machine only")
      ->check(Address({.any_port = true, .empty = true}));
  AddTlsFlags(app, "cluster-", &session.tls, "the coordinator and the other workers");
  AddFlag(app, "--join-secret", flags->join_secret, kJoinSecretHelp);
  AddServerNameFlag(app, "cluster-", &session.tls);
  app->add_flag("--insecure", session.insecure, kInsecureHelp);
  AddFlag(app, "--metrics-listen", flags->metrics_listen,
          "Address for monitoring, HOST:PORT: /metrics, /healthz, /readyz. The coordinator tells Prometheus "
          "of it. Port 0 "
          "takes any, as does a default that is taken; empty: none")
      ->check(Address({.any_port = true, .empty = true}));
  AddTlsFlags(app, "metrics-", &flags->metrics_tls, "who monitors");
  AddFlag(app, "--port-file", flags->port_file, "Gets the line \"metrics HOST:PORT\" once it listens");
  AddFlag(app, "--host-id", session.host_id,
          "Workers of one id share memory; empty: by the machine. Containers may need to say");
  AddFlag(app, "--kernel-level", flags->kernel_level,
          "Highest instruction set to offer; empty: what the device has");
  AddLogFlags(app, &flags->log);
}

absl::StatusOr<WorkerSession::Options> SessionOptions(const Flags& flags) {
  WorkerSession::Options options = flags.session;
  if (options.model.empty() == options.model_root.empty()) {
    return absl::InvalidArgumentError("give one of --model and --model-root");
  }
  BW_ASSIGN_OR_RETURN(options.cpus, ParseCpus(flags.cpus));
  if (!options.cpus.empty()) {
    BW_RETURN_IF_ERROR(KeepToCpus(options.cpus));
    options.cpus = AllowedCpus();
  }
  if (options.threads == 0) options.threads = static_cast<int>(AllowedCpus().size());
  if (options.threads < 1 || options.threads > kWorkerThreadsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads is ", options.threads, ", allowed is 0 to ", kWorkerThreadsMax));
  }
  BW_ASSIGN_OR_RETURN(options.join_secret, SharedSecret::Read(flags.join_secret));
  options.build_id = BuildId();
  return options;
}

absl::StatusOr<OpenedDevice> OpenDeviceFor(const Flags& flags, const WorkerSession::Options& options) {
  BW_ASSIGN_OR_RETURN(const DeviceName name, ParseDeviceName(flags.device));
  BW_ASSIGN_OR_RETURN(OpenedDevice opened,
                      OpenDevice({.name = name, .threads = options.threads, .cpus = options.cpus}));
  if (flags.kernel_level.empty()) return opened;
  std::vector<std::string>& levels = opened.kernel_levels;
  const auto at = std::find(levels.begin(), levels.end(), flags.kernel_level);
  if (at == levels.end()) {
    return absl::InvalidArgumentError(absl::StrCat("kernel-level is \"", flags.kernel_level, "\", ",
                                                   opened.gpu ? "this GPU" : "this CPU", " has ",
                                                   absl::StrJoin(levels, ", ")));
  }
  levels.erase(at + 1, levels.end());
  return opened;
}

// Ends the process: the coordinator takes it for lost, which it is.
void EndStuck() {
  LogError("NCCL has not ended its work of the last epoch and holds this process: it ends");
  std::_Exit(3);
}

absl::StatusOr<NcclUse> NcclUseFor(const Flags& flags, const OpenedDevice& device) {
  const bool required = flags.collectives == "nccl";
  if (!device.gpu || flags.collectives == "staged") return NcclUse{};
  if (!required && flags.device == "emulated") return NcclUse{};  // of which NCCL knows nothing
  auto library = NcclLibrary::Load(flags.nccl_library);
  if (library.ok()) return NcclUse{.library = *library, .required = required, .on_stuck = EndStuck};
  if (required) return library.status();
  LogWarning(library.status().message(), "; GPU workers talk through host memory");
  return NcclUse{};
}

// Null without --metrics-listen.
absl::StatusOr<std::unique_ptr<WorkerServer>> StartServer(const Flags& flags) {
  std::unique_ptr<WorkerServer> server;
  if (!flags.metrics_listen.empty()) {
    BW_ASSIGN_OR_RETURN(server, WorkerServer::Start(flags.metrics_listen, flags.metrics_tls, BuildId()));
  }
  BW_RETURN_IF_ERROR(
      WritePortFile(flags.port_file, {{"metrics", server != nullptr ? server->address() : std::string()}}));
  return server;
}

int Work(const Flags& flags, WorkerSession::Options options) {
  const absl::StatusOr<std::unique_ptr<WorkerServer>> server = StartServer(flags);
  if (!server.ok()) {
    LogError(server.status().message());
    return 1;
  }
  if (*server != nullptr) {
    options.metrics_address = (*server)->address();
    options.metrics_tls = flags.metrics_tls.wanted();
  }
  absl::StatusOr<std::unique_ptr<WorkerSession>> session = WorkerSession::Start(std::move(options));
  if (!session.ok()) {
    LogError(session.status().message());
    return 1;
  }
  const std::shared_ptr<WorkerSession> running = *std::move(session);
  if (*server != nullptr) (*server)->Show(running);
  std::thread([session = std::weak_ptr<WorkerSession>(running)] {
    WaitForStopSignal();
    NotifyService("STOPPING=1");
    LogInfo("told to stop: requests that run may end; a second signal ends the worker at once");
    if (const auto still = session.lock()) still->Leave();
    WaitForStopSignal();
    LogInfo("told to stop again");
    if (const auto still = session.lock()) still->Stop();
  }).detach();
  // It serves once the coordinator gives it a part, and waits for that as long as it takes.
  NotifyService("READY=1");
  const absl::Status status = running->Run();
  if (!status.ok()) LogError(status.message());
  return status.ok() ? 0 : 1;
}

int Main(int argc, char** argv) {
  FillStandardDescriptors(argv);
  SayWhatWasShort();
  BlockStopSignals();
  IgnoreBrokenPipes();
  CLI::App app("A worker of a Bellwether cluster: joins a coordinator and computes its part of the model.",
               "bellwether-worker");
  Flags flags;
  AddFlags(&app, &flags);
  AddConfigFlags(&app, &flags.print_config);
  AddVersionFlag(&app, [&app] { return VersionLine(app.get_name()) + MachineLine(); });
  if (const int status = ParseFlags(argc, argv, flags.print_config, &app); status >= 0) return status;
  InitLogging("worker", flags.log);
  TakeOverGrpcLog();
  for (const absl::Status& enough : {RaiseDescriptorLimit(), CheckAddressSpace()}) {
    if (enough.ok()) continue;
    LogError(enough.message());
    return 1;
  }
  absl::StatusOr<WorkerSession::Options> options = SessionOptions(flags);
  if (!options.ok()) {
    std::fprintf(stderr, "%s\n", std::string(options.status().message()).c_str());
    return 2;
  }
  absl::StatusOr<OpenedDevice> device = OpenDeviceFor(flags, *options);
  if (absl::IsInvalidArgument(device.status())) {
    std::fprintf(stderr, "%s\n", std::string(device.status().message()).c_str());
    return 2;
  }
  if (!device.ok()) {
    LogError("device ", flags.device, ": ", device.status().message());
    return 1;
  }
  absl::StatusOr<NcclUse> nccl = NcclUseFor(flags, *device);
  if (!nccl.ok()) {
    LogError(nccl.status().message());
    return 1;
  }
  options->device = *std::move(device);
  options->nccl = *std::move(nccl);
  return Work(flags, *std::move(options));
}

}  // namespace
}  // namespace bellwether

int main(int argc, char** argv) { return bellwether::Main(argc, argv); }
