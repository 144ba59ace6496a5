#include "cli/flags.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <iterator>
#include <optional>
#include <type_traits>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "cli/terminal.h"
#include "common/defaults.h"
#include "common/device_name.h"
#include "common/metrics/addresses.h"
#include "common/program_flags.h"
#include "common/quote.h"
#include "common/read_file.h"
#include "common/status.h"
#include "common/tls_flags.h"
#include "common/utf8.h"
#include "model/checkpoint/read_flags.h"
#include "model/option_names.h"
#include "model/shapes.h"

namespace bellwether {
namespace {

template <typename T>
CLI::Option* Add(CLI::App& app, const std::string& flag, T& value, const std::string& help) {
  return AddFlag(&app, flag, value, help);
}

// Absent unless given, so that the coordinator's default holds.
template <typename T>
CLI::Option* AddOptional(CLI::App& app, const std::string& flag, std::optional<T>& value,
                         const std::string& help) {
  CLI::Option* option = app.add_option_function<T>(
      flag, [&value](const T& given) { value = given; }, help);
  if constexpr (std::is_floating_point_v<T>) option->check(FiniteNumber<T>());
  return option;
}
template <typename T>
void AddOptionalNumber(CLI::App& app, const std::string& flag, std::optional<T>& value,
                       const std::string& help, const std::string& instead = "") {
  AddOptional(app, flag, value, help)->check(WholeNumber<T>(instead));
}

constexpr char kClusterGroup[] = "Cluster";
constexpr char kContextTokensHelp[] =
    "longest prompt and answer together; 0: what the model can, at most 4096";

// The names of --devices, each by itself.
std::string CheckDevices(const std::string& list) {
  if (list.empty()) return "";
  for (const absl::string_view name : absl::StrSplit(list, ',')) {
    const absl::Status parsed = ParseDeviceName({name.data(), name.size()}).status();
    if (!parsed.ok()) return std::string(parsed.message());
  }
  return "";
}

constexpr char kLayoutHelp[] =
    "the layout itself instead: stages LAYERSxRANKS or LAYERSxSLICES+SLICES, such as 16x2,16x10+6";

constexpr char kOffloadHelp[] =
    "layers that do not fit in memory: nvme reads them from the drive in every step, host keeps those of "
    "GPUs in the host's memory, auto takes that where it has room, off refuses the model";

constexpr char kPlanForBatchHelp[] =
    "sequences at once to plan for where layers are streamed: their KV cache takes memory from layers";

void AddClusterFlags(CLI::App& app, ClusterOptions& options) {
  app.option_defaults()->group(kClusterGroup);
  Add(app, "--model", options.model,
      absl::StrCat(kModelHelp, "; or random:SHAPE[:FORMAT] (", absl::StrJoin(ShapeNames(), ", "), ")"));
  AddReadFlags(&app, &options.read);
  Add(app, "--tensor-parallel", options.tensor_parallel,
      "ranks that share each layer (default: the planner decides)")
      ->check(CLI::Range(0, kLocalWorkersMax));
  Add(app, "--pipeline-parallel", options.pipeline_parallel,
      "stages of consecutive layers (default: the planner decides)")
      ->check(CLI::Range(0, kLocalWorkersMax));
  Add(app, "--layout", options.layout, kLayoutHelp);
  Add(app, "--devices", options.devices,
      "a worker on each: cuda:0,cuda:1 or cpu (as bellwether devices lists them); GPUs and cpu together are "
      "stages of one pipeline, and answers then depend on which computes what")
      ->check(CheckDevices);
  Add(app, "--device-memory-fraction", options.device_memory_fraction,
      "of what a GPU has free, how much to plan with")
      ->check(FloatRange(0.01, 1));
  AddMemoryFlags(&app, options.memory_bytes, "memory of this machine to plan with");
  Add(app, "--offload", options.offload, kOffloadHelp)->check(CLI::IsMember({"auto", "nvme", "host", "off"}));
  Add(app, "--plan-for-batch", options.plan_for_batch, kPlanForBatchHelp)
      ->check(CLI::Range(1, kSequencesMax));
  AddStepTokensFlag(&app, options.step_tokens);
  Add(app, "--shard-cache", options.shard_cache,
      "where packed layers are kept: a directory on a fast drive, off, or auto (below $XDG_CACHE_HOME or "
      "~/.cache, and only while some layers are streamed)");
  Add(app, "--threads", options.threads, "threads of each worker (default: the cores, shared out)")
      ->check(CLI::Range(0, kWorkerThreadsMax));
  Add(app, "--quantize", options.quantize, "round float weights at load: none, int8 or int4")
      ->check(CLI::IsMember({"none", "int8", "int4"}));
  Add(app, "--kv-type", options.kv_type,
      "KV cache: auto (fp32 beside fp32 weights, else bf16), fp32, bf16 or fp16")
      ->check(CLI::IsMember({"auto", "fp32", "bf16", "fp16"}));
  Add(app, "--kernel-level", options.kernel_level,
      "instruction set: reference, portable, avx2, avx512, avx512_bf16, or a GPU's class such as cuda_sm90 "
      "(default: the best all workers have)");
  Add(app, "--context-tokens", options.context_tokens, kContextTokensHelp)
      ->check(CLI::Range(0, kContextTokensMax));
  Add(app, "--chat-template", options.chat_template,
      "family of prompts (default: chosen from the checkpoint)");
  app.add_flag("--no-prefix-cache", options.no_prefix_cache,
               "compute every prompt whole, also what earlier requests began with");
  app.add_flag("--no-template-stop", options.no_template_stop,
               "chats do not end at the template's own stop strings, such as \"Human:\"");
  Add(app, "--give-up-seconds", options.give_up_seconds,
      "end if the model has come no nearer to being served for so long")
      ->check(FloatRange(1, 86400));
  AddLogFlags(&app, &options.log);
  app.option_defaults()->group("Options");
}

void AddSessionFlags(CLI::App& app, SessionOptions& options) {
  Add(app, "--connect", options.connect,
      "HOST:PORT of a running coordinator, instead of --model and a private cluster")
      ->check(Address({.empty = true}));
  AddTlsFlags(&app, "", &options.tls, "the coordinator");
  AddServerNameFlag(&app, "", &options.tls);
  app.add_flag("--tls", options.tls.system_authorities,
               "Encrypt, and trust whom this system trusts; --tls-authority says the same of its file");
  app.add_flag("--insecure", options.insecure, kInsecureHelp);
  Add(app, kApiKeyFlag, options.api_key,
      "says who asks, where the coordinator wants to know; others see flags, so better BELLWETHER_API_KEY")
      ->check([](const std::string& key) {  // anything else could end the header, and begin another
        return std::string(
            IsPlainWord(key) ? "" : "it holds a space, a line feed or a character that is not ASCII");
      });
  AddClusterFlags(app, options.cluster);
}

// Flags of a private cluster that are given beside --connect and ask for something, for people.
std::string FlagsAgainstConnect(CLI::App& command) {
  const CLI::Option* connect = command.get_option_no_throw("--connect");
  if (connect == nullptr || connect->count() == 0 || connect->results().back().empty()) return "";
  std::vector<std::string> given;
  for (const CLI::Option* option : Settings(&command)) {
    const bool cluster = option->get_group() == kClusterGroup && option->count() > 0;
    if (cluster && option->results().back() != option->get_default_str())
      given.push_back("--" + option->get_lnames().front());
  }
  return absl::StrJoin(given, ", ");
}

// What each flag says instead of others, whichever command they belong to.
Displacements AllDisplacements(const CLI::App& with_cluster) {
  Displacements displacements = SharedDisplacements();
  for (const std::vector<std::string>& kinds :
       std::vector<std::vector<std::string>>{{"prompt", "prompt-ids", "prompt-file"},
                                             {"text", "token-ids", "prompt-file"},
                                             {"worker", "workers"}}) {
    for (const std::string& kind : kinds) {
      std::copy_if(kinds.begin(), kinds.end(), std::back_inserter(displacements[kind]),
                   [&kind](const std::string& other) { return other != kind; });
    }
  }
  displacements["model"].push_back("connect");
  for (const CLI::Option* option : with_cluster.get_options()) {
    if (option->get_group() == kClusterGroup)
      displacements["connect"].push_back(option->get_lnames().front());
  }
  return displacements;
}

// "1,2,3" or "1 2 3"; an empty text is an empty list, but between two commas there is a number.
std::optional<std::vector<TokenId>> ParseIds(const std::string& text) {
  std::vector<TokenId> ids;
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ',');
  for (const absl::string_view part : parts) {
    const size_t before = ids.size();
    for (const absl::string_view id : absl::StrSplit(part, absl::ByAnyChar(" \n"), absl::SkipEmpty())) {
      if (!absl::SimpleAtoi(id, &ids.emplace_back())) return std::nullopt;
    }
    if (ids.size() == before && parts.size() > 1) return std::nullopt;
  }
  return ids;
}
std::string CheckIds(const std::string& text) {
  return ParseIds(text).has_value() ? std::string() : text + " is not a list of token ids such as 1,2,3";
}

std::optional<std::pair<TokenId, float>> ParseBias(const std::string& entry) {
  const std::pair<std::string, std::string> pair = absl::StrSplit(entry, absl::MaxSplits(':', 1));
  TokenId token = 0;
  float bias = 0;
  if (!absl::SimpleAtoi(pair.first, &token) || !absl::SimpleAtof(pair.second, &bias) || !std::isfinite(bias))
    return std::nullopt;
  return std::pair{token, bias};
}

void AddGenerationFlags(CLI::App& app, GenerationOptions& options, bool& model_defaults) {
  const std::string group = "Generation";
  auto* section = app.add_option_group(group);
  section->add_flag(
      "--model-defaults", model_defaults,
      "what is not given is as the model's authors have it: generation_config.json, else their card");
  AddOptionalNumber(*section, "--max-tokens", options.max_tokens, "longest answer");
  AddOptionalNumber(*section, "--min-tokens", options.min_tokens,
                    "end-of-sequence and stop tokens are masked before, --stop is not looked for");
  AddOptional(*section, "--temperature", options.temperature, "0 takes the most likely token; default 1");
  AddOptionalNumber(*section, "--top-k", options.top_k, "keep the k most likely; 0 = off");
  AddOptional(*section, "--top-p", options.top_p, "keep the most likely that make up p");
  AddOptional(*section, "--min-p", options.min_p, "drop those below p times the most likely");
  AddOptional(*section, "--repetition-penalty", options.repetition_penalty,
              "over prompt and answer; 1 = off");
  AddOptional(*section, "--presence-penalty", options.presence_penalty, "for tokens already generated");
  AddOptional(*section, "--frequency-penalty", options.frequency_penalty, "the same, times how often");
  section
      ->add_option_function<std::vector<std::string>>(
          "--logit-bias",
          [&options](const std::vector<std::string>& entries) {
            for (const std::string& entry : entries) options.logit_bias.push_back(*ParseBias(entry));
            std::sort(options.logit_bias.begin(), options.logit_bias.end());
          },
          "TOKEN_ID:BIAS, may be repeated")
      ->check([](const std::string& entry) {
        return ParseBias(entry).has_value() ? std::string() : entry + " is not TOKEN_ID:BIAS";
      });
  AddOptionalNumber(*section, "--seed", options.seed, "the same seed gives the same answer",
                    kRandomSeedAdvice);
  // Not a vector option: CLI11 would take "[8]" for a list.
  section
      ->add_option("--stop", CLI::callback_t([&options](const CLI::results_t& texts) {
                     options.stop = texts;
                     return true;
                   }),
                   "end before this text; may be repeated")
      ->type_name("TEXT")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  section
      ->add_option_function<std::string>(
          "--stop-token-ids", [&options](const std::string& ids) { options.stop_token_ids = *ParseIds(ids); },
          "end at these tokens: 1,2,3")
      ->check(CheckIds);
  section->add_flag("--ignore-eos", options.ignore_eos, "go on after end-of-sequence");
  AddOptionalNumber(*section, "--logprobs", options.logprobs,
                    "log-probabilities of each token and of the n most likely");
  AddOptionalNumber(*section, "--n", options.n, "answers to the same prompt");
}

// One of `text_flag`, `ids_flag` and --prompt-file; absent ones leave the prompt empty, which the command
// refuses.
void AddPromptFlags(CLI::App& app, PromptInput& prompt, std::string& file, const std::string& text_flag,
                    const std::string& ids_flag) {
  auto* source = app.add_option_group("Prompt", "one of these")->require_option(1);
  AddOptional(*source, text_flag, prompt.text, "the text");
  source
      ->add_option_function<std::string>(
          ids_flag, [&prompt](const std::string& ids) { prompt.token_ids = *ParseIds(ids); },
          "token ids, taken as they are: 1,2,3")
      ->check(CheckIds);
  source->add_option("--prompt-file", file, "the text of this file");
  app.add_flag("--parse-special-tokens", prompt.parse_special_tokens,
               "special tokens in the text count as such");
  app.add_flag("--no-special-tokens", prompt.no_special_tokens, "leave out the beginning-of-sequence token");
}

// Into the command's prompt, without the byte-order mark that some editors write.
absl::Status ReadPromptFile(CommandLine& line) {
  if (line.prompt_file.empty()) return absl::OkStatus();
  BW_ASSIGN_OR_RETURN(const std::string text,
                      ReadFile(line.prompt_file, static_cast<size_t>(kClientMessageBytesMax)));
  (line.command == "score" ? line.score.prompt : line.generate.prompt).text = WithoutByteOrderMark(text);
  return absl::OkStatus();
}

void AddUp(CLI::App& app, CommandLine& line) {
  CLI::App* up = app.add_subcommand("up", "serve a model with a coordinator and workers on this machine");
  AddClusterFlags(*up, line.up);
  line.up.listen = kDefaultClientAddress;
  line.up.worker_listen = kDefaultWorkerAddress;
  line.up.http_listen = kDefaultHttpAddress;
  line.up.metrics_listen = kDefaultCoordinatorMetricsAddress;
  line.up.log_to_stderr = true;
  Add(*up, "--workers", line.up.workers, "workers to start (default: stages x ranks)")
      ->check(CLI::Range(0, kLocalWorkersMax));
  Add(*up, "--listen", line.up.listen, "HOST:PORT for clients")->check(Address({.any_port = true}));
  Add(*up, "--worker-listen", line.up.worker_listen, "HOST:PORT for workers")
      ->check(Address({.any_port = true}));
  Add(*up, "--http-listen", line.up.http_listen,
      "HOST:PORT for clients that speak HTTP as OpenAI's do; empty: none")
      ->check(Address({.any_port = true, .empty = true}));
  Add(*up, "--http-allow-origin", line.up.http_allow_origin,
      "web pages of other sites that may use it, such as https://chat.example.com, with commas; * for all");
  Add(*up, "--api-keys", line.up.api_keys,
      "file of who may ask: a line {\"name\": ..., \"sha256\": ...} for each key (default: everybody)");
  Add(*up, "--served-model-name", line.up.served_model_name,
      "what they call the model, several names with commas (default: as its file or directory is called)")
      ->check(NameList());
  up->add_flag("--insecure", line.up.insecure, kInsecureHelp);
  Add(*up, "--metrics-listen", line.up.metrics_listen,
      "HOST:PORT for monitoring: /metrics of the coordinator, /http_sd for Prometheus to find all; empty: "
      "none")
      ->check(Address({.any_port = true, .empty = true}));
  Add(*up, "--drain-seconds", line.drain_seconds, "how long running answers may take at the end")
      ->check(SecondsRange());
  Add(*up, "--resume-seconds", line.resume_seconds,
      "how long answers wait for a lost worker to be back, to go on then; 0: they end at once")
      ->check(SecondsRange());
  up->get_option("--model")->required();
}

void AddPlan(CLI::App& app, CommandLine& line) {
  CLI::App* plan =
      app.add_subcommand("plan", "what would fit where, and how fast, before anything is loaded");
  Add(*plan, "--model", line.plan.model, "as for up; random:SHAPE:FORMAT plans without a checkpoint")
      ->required();
  AddReadFlags(plan, &line.plan.read);
  Add(*plan, "--tensor-parallel", line.plan.tensor_parallel, "ranks that share each layer (default: decide)")
      ->check(CLI::Range(0, kWorkersMax));
  Add(*plan, "--pipeline-parallel", line.plan.pipeline_parallel, "stages (default: decide)")
      ->check(CLI::Range(0, kWorkersMax));
  Add(*plan, "--layout", line.plan.layout, kLayoutHelp);
  Add(*plan, "--quantize", line.plan.quantize, "round float weights at load")
      ->check(CLI::IsMember({"none", "int8", "int4"}));
  Add(*plan, "--kv-type", line.plan.kv_type, "KV cache")
      ->check(CLI::IsMember({"auto", "fp32", "bf16", "fp16"}));
  Add(*plan, "--kernel-level", line.plan.kernel_level, "default: the best all workers have");
  Add(*plan, "--context-tokens", line.plan.context_tokens, kContextTokensHelp)
      ->check(CLI::Range(0, kContextTokensMax));
  plan->add_option(
      "--worker", line.plan.workers,
      "name=a,host=h,memory=16GB,threads=8,bandwidth=40GB/s (else 20GB/s, a GPU's 1TB/s); once for each "
      "worker. "
      "Workers of one host share its memory. With gpu=80GB it computes on a GPU of that memory, which gets "
      "copy=25GB/s from the "
      "host's. With drive=2GB/s it may stream layers that do not fit; gflops=200 says how fast batches can "
      "be at most. Default: this machine, measured");
  plan->add_flag("--mix-devices", line.plan.mix_devices, "GPUs and CPUs may be stages of one pipeline");
  Add(*plan, "--device-memory-fraction", line.plan.device_memory_fraction,
      "of what a GPU has free, how much to plan with")
      ->check(FloatRange(0.01, 1));
  Add(*plan, "--offload", line.plan.offload, kOffloadHelp)
      ->check(CLI::IsMember({"auto", "nvme", "host", "off"}));
  Add(*plan, "--plan-for-batch", line.plan.plan_for_batch, kPlanForBatchHelp)
      ->check(CLI::Range(1, kSequencesMax));
  AddStepTokensFlag(plan, line.plan.step_tokens);
  Add(*plan, "--workers", line.plan.local_workers, "plan for this many workers on this machine")
      ->check(CLI::Range(0, kWorkersMax));
  plan->add_flag("--json", line.plan.json, "one JSON object");
}

void AddBench(CLI::App& app, CommandLine& line) {
  CLI::App* bench = app.add_subcommand("bench", "how fast, as shares of what this machine can do");
  Add(*bench, "--shape", line.bench.shape,
      absl::StrCat(absl::StrJoin(ShapeNames(), ", "), " or a small shape"));
  Add(*bench, "--weights", line.bench.weights, "fp32, bf16, fp16, int8 or int4");
  Add(*bench, "--layouts", line.bench.layouts,
      "TENSORxPIPELINE[tTHREADS], comma-separated; threads are of each worker")
      ->delimiter(',')
      ->default_str("1x1,2x1,1x2");
  Add(*bench, "--prompt-tokens", line.bench.prompt_tokens, "prompt of the prefill run")
      ->check(CLI::Range(1, kContextTokensMax));
  Add(*bench, "--decode-tokens", line.bench.decode_tokens, "tokens of the decode run")
      ->check(CLI::Range(2, kContextTokensMax));
  Add(*bench, "--repeats", line.bench.repeats, "runs of each, the median counts")->check(CLI::Range(1, 1000));
  AddMemoryFlags(bench, line.bench.memory_bytes,
                 "instead: weights that do not fit are streamed; memory of this machine to plan with");
  Add(*bench, "--offload", line.bench.offload,
      absl::StrCat("likewise, with all memory unless --memory is given; ", kOffloadHelp))
      ->check(CLI::IsMember({"", "auto", "nvme", "host", "off"}));
  Add(*bench, "--shard-cache", line.bench.shard_cache,
      "where streamed weights are kept while it runs: a directory on the drive that counts, or auto (below "
      "$XDG_CACHE_HOME or ~/.cache)");
  bench->add_flag("--json", line.bench.json, "one JSON object");
}

void AddLoad(CLI::App& app, CommandLine& line) {
  LoadOptions& options = line.load;
  CLI::App* load = app.add_subcommand("load", "load a server as its users would, and tell what they feel");
  AddSessionFlags(*load, options.session);
  Add(*load, "--url", options.url,
      "http:// or https://HOST:PORT of a server that speaks OpenAI's HTTP, this project's or another, "
      "instead of gRPC");
  Add(*load, "--served-model", options.served_model,
      "with --url: the model's name there (default: the first listed)");
  Add(*load, "--prompts", options.prompts, "JSON lines as of batch, taken in turn (default: random prompts)");
  Add(*load, "--prompt-tokens", options.prompt_tokens,
      "length of random prompts: 256, 100-300 (each as likely) or 256~64 (mean and deviation); with --url "
      "words");
  Add(*load, "--output-tokens", options.output_tokens, "length of answers, likewise");
  Add(*load, "--temperature", options.temperature, "0 takes the most likely token")
      ->check(FloatRange(0, 100));
  load->add_flag("--stop-at-eos", options.stop_at_eos, "answers may end before their length");
  Add(*load, "--concurrency", options.concurrency, "requests at once; with --rate the most there may be")
      ->check(CLI::Range(1, kLoadConcurrencyMax));
  Add(*load, "--rate", options.rate,
      "requests a second, as a Poisson process; latency counts from when each is due")
      ->check(FloatRange(0, 1e6));
  Add(*load, "--requests", options.requests,
      "how many (default: 10 for each at once, or what --duration lets)")
      ->check(CLI::Range(0, 10'000'000));
  Add(*load, "--duration", options.duration_seconds, "seconds after which none begins")
      ->check(SecondsRange());
  Add(*load, "--warm-up", options.warm_up, "requests before, which do not count")
      ->check(CLI::Range(0, 100'000));
  load->add_flag("--sweep", options.sweep, "1, 2, 4 ... at once up to --concurrency, and where the knee is");
  Add(*load, "--objective-ttft", options.objectives.time_to_first_token,
      "seconds to the first token, for goodput")
      ->check(SecondsRange());
  Add(*load, "--objective-tpot", options.objectives.time_per_output_token, "seconds a token after it")
      ->check(SecondsRange());
  Add(*load, "--objective-e2e", options.objectives.end_to_end, "seconds to the end")->check(SecondsRange());
  Add(*load, "--seed", options.seed,
      "of lengths, random prompts and arrivals; a server that keeps what it has read answers the same ones "
      "faster the second time")
      ->check(WholeNumber<uint64_t>(""));
  load->add_flag("--json", options.json, "one JSON object");
}

void AddAnswering(CLI::App& app, CommandLine& line) {
  CLI::App* generate = app.add_subcommand("generate", "continue a text or token ids");
  AddSessionFlags(*generate, line.generate.session);
  AddPromptFlags(*generate, line.generate.prompt, line.prompt_file, "--prompt", "--prompt-ids");
  AddGenerationFlags(*generate, line.generate.generation, line.generate.session.model_defaults);
  generate->add_flag("--json", line.generate.json, "one JSON object instead of a stream of text");

  CLI::App* score = app.add_subcommand("score", "log-probability of every given token; perplexity");
  AddSessionFlags(*score, line.score.session);
  AddPromptFlags(*score, line.score.prompt, line.prompt_file, "--text", "--token-ids");
  score->add_flag("--json", line.score.json, "one JSON object");

  CLI::App* chat = app.add_subcommand("chat", "a conversation on the terminal");
  AddSessionFlags(*chat, line.chat.session);
  AddGenerationFlags(*chat, line.chat.generation, line.chat.session.model_defaults);
  chat->add_option("--system", line.chat.system, "system message (default: the template's own)");
  chat->add_option("--question", line.chat.question, "ask this and end, instead of a conversation");
  chat->add_flag("--json", line.chat.json, "with --question: one JSON object");
}

void AddBatch(CLI::App& app, CommandLine& line) {
  CLI::App* batch =
      app.add_subcommand("batch", "answer every line of a file of JSON; goes on where it was ended");
  AddSessionFlags(*batch, line.batch.session);
  AddGenerationFlags(*batch, line.batch.generation, line.batch.session.model_defaults);
  Add(*batch, "--input", line.batch.input,
      "one JSON object a line: {\"text\"} or {\"question\"}, {\"instruction\", \"input\"}, {\"messages\"}, "
      "{\"turns\"}: several questions, {\"prompt\"}: continued without a template")
      ->required();
  Add(*batch, "--output", line.batch.output,
      "one JSON object a line; the answers that it has already are not asked for again")
      ->required();
  Add(*batch, "--system", line.batch.system, "system message where a line has none");
  Add(*batch, "--concurrency", line.batch.concurrency,
      "requests under way at once; answers do not depend on it")
      ->check(CLI::Range(1, kBatchConcurrencyMax));
  for (const char* several : {"--n", "--logprobs"}) batch->get_option(several)->group("");  // refused
  batch->add_flag("--in-order", line.batch.in_order, "answers in the order of the lines, not as they come");
}

void AddPerplexity(CLI::App& app, CommandLine& line) {
  CLI::App* perplexity =
      app.add_subcommand("perplexity", "how well a model foretells a text, by sliding windows");
  AddSessionFlags(*perplexity, line.perplexity.session);
  Add(*perplexity, "--file", line.perplexity.file, "a text, or lines of {\"text\": ...}: a document each")
      ->required();
  Add(*perplexity, "--window", line.perplexity.window, "tokens scored in one go (default: the whole context)")
      ->check(CLI::Range(0, kContextTokensMax));
  Add(*perplexity, "--stride", line.perplexity.stride,
      "from one window to the next: what overlaps is context alone (default: 512, or the window)")
      ->check(CLI::Range(0, kContextTokensMax));
  perplexity->add_flag("--json", line.perplexity.json, "one JSON object");
}

void AddInspect(CLI::App& app, CommandLine& line) {
  CLI::App* inspect = app.add_subcommand("inspect", "what is in a checkpoint, and does it load");
  inspect->add_option("--model,model", line.inspect.model, kModelHelp)->required();
  AddReadFlags(inspect, &line.inspect.read);
  inspect->add_flag("--tensors", line.inspect.tensors, "list every tensor");
  inspect->add_flag("--json", line.inspect.json, "one JSON object");
}

void AddConvert(CLI::App& app, CommandLine& line) {
  CLI::App* convert = app.add_subcommand("convert", "write a model as other programs want it");
  convert
      ->add_option(
          "--kind,kind", line.convert.kind,
          "xor: what BELLE encrypted; billa: BiLLa's summed embedding; safetensors: any model, in that form")
      ->required()
      ->check(CLI::IsMember({"xor", "billa", "safetensors"}));
  Add(*convert, "--model,--input", line.convert.model, "what is converted: a directory or a file");
  Add(*convert, "--output", line.convert.output, "a directory; no file in it is overwritten");
  Add(*convert, "--base", line.convert.base, "xor and billa: consolidated.00.pth of Meta's LLaMA");
  convert->add_flag("--force", line.convert.force, "billa: although the numbers speak against it");
  convert
      ->add_option_function<std::string>(
          "--dequantize", [&line](const std::string& name) { line.convert.dequantize = *ParseDType(name); },
          "safetensors: write quantised matrices as fp16, bf16 or fp32 (GGUF, GGML; GPTQ and AWQ, which else "
          "stay as they are)")
      ->check(CLI::IsMember({"fp16", "bf16", "fp32"}));
  AddReadFlags(convert, &line.convert.read);
}

void AddCache(CLI::App& app, CommandLine& line) {
  CLI::App* cache =
      app.add_subcommand("cache", "the packed layers that workers keep on a drive (--shard-cache)");
  Add(*cache, "--action,action", line.cache.action, "list, or prune: take away those used longest ago")
      ->required()
      ->check(CLI::IsMember({"list", "prune"}));
  Add(*cache, "--directory", line.cache.directory,
      "which cache (default: below $XDG_CACHE_HOME or ~/.cache)");
  Add(*cache, "--max-bytes", line.cache.max_bytes, "prune: what may stay, such as 20GB; 0 takes all");
  cache->add_flag("--json", line.cache.json, "one JSON array");
}

void AddDevices(CLI::App& app, CommandLine& line) {
  CLI::App* devices = app.add_subcommand("devices", "what can compute on this machine: its GPUs and its CPU");
  devices->add_flag("--json", line.devices.json, "one JSON object");
}

}  // namespace

bool ParseCommandLine(int argc, char** argv, std::function<std::string()> version, CommandLine& line,
                      int& exit_code) {
  CLI::App app("Serves large language models with a flock of small machines.", "bellwether");
  app.require_subcommand(1);
  if (const std::string first = argc > 1 ? argv[1] : "";
      first.starts_with("--") && first != "--help" && first != "--version") {
    std::fputs("the command comes first: bellwether generate --config FILE\n", stderr);
    exit_code = 2;
    return false;
  }
  bool print_config = false;
  AddUp(app, line);
  AddAnswering(app, line);
  AddBatch(app, line);
  AddPerplexity(app, line);
  AddPlan(app, line);
  AddInspect(app, line);
  AddConvert(app, line);
  AddDevices(app, line);
  AddCache(app, line);
  AddBench(app, line);
  AddLoad(app, line);
  for (CLI::App* command : app.get_subcommands(nullptr)) AddConfigFlags(command, &print_config);
  AddVersionFlag(&app, std::move(version));
  exit_code = ParseFlags(argc, argv, print_config, &app, AllDisplacements(*app.get_subcommand("generate")));
  if (exit_code >= 0) return false;
  CLI::App& command = *app.get_subcommands().front();
  if (const std::string flags = FlagsAgainstConnect(command); !flags.empty()) {
    std::fprintf(stderr, "--connect takes the cluster as it is: leave out %s\n", flags.c_str());
    exit_code = 2;
    return false;
  }
  line.command = command.get_name();
  if (const absl::Status prompt = ReadPromptFile(line); !prompt.ok()) {
    exit_code = ReportError(Annotate(prompt, "--prompt-file"));
    return false;
  }
  return true;
}

}  // namespace bellwether
