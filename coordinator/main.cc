#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/build_id.h"
#include "common/defaults.h"
#include "common/descriptors.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/program_flags.h"
#include "common/service_notify.h"
#include "common/stop_signal.h"
#include "common/tls_flags.h"
#include "coordinator/coordinator_server.h"
#include "model/checkpoint/read_flags.h"
#include "proto/grpc_log.h"

namespace bellwether {
namespace {

struct Flags {
  CoordinatorOptions options;
  double step_deadline_seconds = 0;
  double drain_seconds = absl::ToDoubleSeconds(kDefaultDrain);
  double replace_seconds = absl::ToDoubleSeconds(kDefaultReplaceWait);
  double resume_seconds = absl::ToDoubleSeconds(kDefaultResumeWait);
  LogOptions log;
  bool print_config = false;
};

// How the model is spread over the workers, and what they compute.
void AddPlanFlags(CLI::App* app, CoordinatorOptions* options) {
  AddFlag(app, "--workers", options->workers, "Workers to wait for; 0: tensor-parallel x pipeline-parallel");
  AddFlag(app, "--workers-min", options->workers_min,
          "As few serve where workers are lost and stay away, if the model fits into them; all of them serve "
          "again when they are back; 0: as many as --workers");
  AddFlag(app, "--tensor-parallel", options->tensor_parallel,
          "Ranks of each stage; 0 lets the planner choose");
  AddFlag(app, "--pipeline-parallel", options->pipeline_parallel, "Stages; 0 lets the planner choose");
  AddFlag(app, "--layout", options->layout,
          "The layout itself instead: stages LAYERSxRANKS or LAYERSxSLICES+SLICES, such as 16x2,16x10+6");
  AddFlag(app, "--quantize", options->quantize, "Round float weights at load: none, int8 or int4");
  AddFlag(app, "--kv-type", options->kv_type, "Type of the KV cache: auto, fp32, bf16 or fp16");
  AddFlag(
      app, "--kernel-level", options->kernel_level,
      "What all workers compute as: reference, portable, avx2, avx512, avx512_bf16, or a GPU's class such "
      "as cuda_sm90 (default: the highest they share)");
  app->add_flag(
      "--mix-devices", options->mix_devices,
      "GPUs and CPUs may serve together, stage by stage; answers then depend on which computes what");
  AddFlag(
      app, "--offload", options->offload,
      "Layers that do not fit in memory: nvme lets each worker read them from its drive in every step, host "
      "keeps those of GPUs in the memory of their hosts, auto takes that where it has room, off refuses the "
      "model");
  AddFlag(app, "--plan-for-batch", options->plan_for_batch,
          "Sequences at once to plan for where layers are streamed: their KV cache takes memory from layers")
      ->check(CLI::Range(1, kSequencesMax));
  app->add_flag(
      "--no-prefix-cache", options->no_prefix_cache,
      "Compute every prompt whole; else what it begins with is taken from KV blocks that earlier requests "
      "have left, which changes no answer");
  AddFlag(app, "--device-memory-fraction", options->device_memory_fraction,
          "Of what a GPU has free, how much to plan with; the rest is for whatever else runs on it")
      ->check(FloatRange(0.01, 1));
}

void AddFlags(CLI::App* app, Flags* flags) {
  CoordinatorOptions& options = flags->options;
  AddFlag(app, "--model", options.model, kModelHelp);
  AddReadFlags(app, &options.read);
  AddFlag(app, "--listen", options.listen, "Address for clients, HOST:PORT; port 0 takes any")
      ->check(Address({.any_port = true}));
  AddFlag(app, "--worker-listen", options.worker_listen, "Address for workers, HOST:PORT")
      ->check(Address({.any_port = true}));
  AddFlag(app, "--http-listen", options.http_listen,
          "Address for clients that speak HTTP as OpenAI's do, HOST:PORT; port 0 takes any, empty: none")
      ->check(Address({.any_port = true, .empty = true}));
  AddFlag(app, "--http-allow-origin", options.http_allow_origin,
          "Web pages of other sites that may use it, such as https://chat.example.com, several with commas; "
          "* for all");
  AddFlag(app, "--served-model-name", options.served_model_name,
          "What they call the model, several names with commas (default: as its file or directory is called)")
      ->check(NameList());
  AddFlag(app, "--metrics-listen", options.metrics_listen,
          "Address for monitoring, HOST:PORT: /metrics, /healthz, /readyz, and /http_sd, by which Prometheus "
          "finds the whole cluster; port 0 takes any, as does a default that is taken; empty: none")
      ->check(Address({.any_port = true, .empty = true}));
  AddFlag(app, "--port-file", options.port_file,
          "Gets a line for each port once it listens: client, worker, http or metrics, and HOST:PORT");
  AddFlag(app, "--api-keys", options.api_keys,
          "File of who may ask, over gRPC and HTTP: a line {\"name\": ..., \"sha256\": ...} for each key "
          "(default: everybody may)");
  AddTlsFlags(app, "", &options.tls, "clients");
  AddTlsFlags(app, "cluster-", &options.cluster_tls, "workers");
  AddFlag(app, "--join-secret", options.join_secret, kJoinSecretHelp);
  AddTlsFlags(app, "metrics-", &options.metrics_tls, "who monitors");
  app->add_flag("--insecure", options.insecure, kInsecureHelp);
  AddPlanFlags(app, &options);
  AddFlag(app, "--chat-template", options.chat_template,
          "Family of the chat template (default: by the checkpoint)");
  app->add_flag("--no-template-stop", options.no_template_stop,
                "Chats do not end at the template's own stop strings, such as \"Human:\"");
  AddFlag(app, "--context-tokens", options.context_tokens,
          "Prompt and answer together, at most; 0: what the model can, at most 4096");
  AddFlag(app, "--kv-blocks-max", options.kv_blocks_max,
          "KV blocks of 32 tokens, at most, but enough for one context; 0: what memory holds, at most 4096");
  AddStepTokensFlag(app, options.step_tokens);
  AddFlag(app, "--sequences-max", options.sequences_max,
          absl::StrCat("Sequences that run at once, at most (at most ", kSequencesMax, ")"));
  AddFlag(app, "--requests-waiting-max", options.requests_waiting_max,
          "Requests that may wait, beyond as many as --sequences-max; more are refused");
  app->add_option("--seed", options.seed,
                  "Of the seeds drawn for requests that bring none; 0 takes a random one")
      ->capture_default_str()
      ->check(WholeNumber<uint64_t>(kRandomSeedAdvice));
  AddFlag(app, "--step-deadline-seconds", flags->step_deadline_seconds,
          "A worker without progress for so long within a step is hung; 0 takes it from the plan")
      ->check(SecondsRange());
  AddFlag(app, "--drain-seconds", flags->drain_seconds,
          "How long SIGTERM, here or of a worker, lets running requests go on")
      ->check(SecondsRange());
  AddFlag(
      app, "--replace-seconds", flags->replace_seconds,
      "With --workers-min: how long a lost worker, or another in its place, is waited for before fewer serve")
      ->check(SecondsRange());
  AddFlag(
      app, "--resume-seconds", flags->resume_seconds,
      "How long answers wait for a lost worker, or another in its place, to go on then; 0: they end at once")
      ->check(SecondsRange());
  AddLogFlags(app, &flags->log);
  app->add_flag("--log-prompts", options.log_prompts,
                "Write prompts and answers into the log, which holds none otherwise");
}

int Serve(const Flags& flags) {
  CoordinatorOptions options = flags.options;
  if (options.model.empty()) {
    std::fprintf(stderr, "--model is missing: give a directory or a file of weights\n");
    return 2;
  }
  options.build_id = BuildId();
  options.step_deadline = absl::Seconds(flags.step_deadline_seconds);
  options.drain = absl::Seconds(flags.drain_seconds);
  options.replace_wait = absl::Seconds(flags.replace_seconds);
  options.resume_wait = absl::Seconds(flags.resume_seconds);
  const auto server = CoordinatorServer::Start(std::move(options));
  if (!server.ok()) {
    LogError(server.status().message());
    return 1;
  }
  NotifyService("READY=1");
  WaitForStopSignal();
  NotifyService("STOPPING=1");
  LogInfo("told to stop: running requests have ", flags.drain_seconds,
          " s; a second signal ends them at once");
  std::thread([] {
    WaitForStopSignal();
    LogInfo("told to stop again");
    std::_Exit(1);  // also where whoever started this has ended in the meantime
  }).detach();
  (*server)->Shutdown(absl::Seconds(flags.drain_seconds));
  return 0;
}

int Main(int argc, char** argv) {
  FillStandardDescriptors(argv);
  SayWhatWasShort();
  BlockStopSignals();
  IgnoreBrokenPipes();
  ReturnBigBlocksAtOnce();  // texts of megabytes come and go
  CLI::App app(
      "The coordinator of a Bellwether cluster: takes requests over gRPC and leads the workers that join it.",
      "bellwether-coordinator");
  Flags flags;
  AddFlags(&app, &flags);
  AddConfigFlags(&app, &flags.print_config);
  AddVersionFlag(&app, [&app] { return VersionLine(app.get_name()); });
  if (const int status = ParseFlags(argc, argv, flags.print_config, &app); status >= 0) return status;
  InitLogging("coordinator", flags.log);
  TakeOverGrpcLog();
  for (const absl::Status& enough : {RaiseDescriptorLimit(), CheckAddressSpace()}) {
    if (enough.ok()) continue;
    LogError(enough.message());
    return 1;
  }
  return Serve(flags);
}

}  // namespace
}  // namespace bellwether

int main(int argc, char** argv) { return bellwether::Main(argc, argv); }
