#include "coordinator/coordinator_server.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/clock.h"
#include "common/descriptors.h"
#include "common/host_port.h"
#include "common/log.h"
#include "common/port_file.h"
#include "common/quote.h"
#include "common/status.h"
#include "common/step.h"
#include "common/step_tokens.h"
#include "common/system_random.h"
#include "coordinator/http_error.h"
#include "coordinator/http_gateway.h"
#include "coordinator/http_targets.h"
#include "coordinator/planner.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "http/operations_server.h"
#include "http/server.h"
#include "model/chat_template/chat_template_hints.h"
#include "model/context_tokens.h"
#include "model/generation_defaults.h"
#include "model/layout_text.h"
#include "model/model_names.h"
#include "model/option_names.h"
#include "proto/grpc_server.h"

namespace bellwether {
namespace {

constexpr char kHealthName[] = "bellwether.v1.Inference";
// Requests still running when their time is over get this long to hear of it.
constexpr absl::Duration kShutdownGrace = absl::Seconds(2);
constexpr absl::Duration kDrainLook = absl::Milliseconds(200);

uint64_t SystemSeed() {
  uint64_t seed = 0;
  FillRandom(&seed, sizeof(seed));
  return seed;
}

// Which of the process's descriptors connections may take; the rest is for files.
constexpr double kClientDescriptors[] = {0.25, 0.5};
constexpr double kHttpDescriptors[] = {0.5, 0.7};
constexpr double kMonitoringDescriptors[] = {0.7, 0.75};
constexpr double kWorkerDescriptors[] = {0.75, 1.0};

absl::StatusOr<std::unique_ptr<GrpcServer>> StartServer(grpc::Service* service, int64_t message_bytes_max,
                                                        GrpcServer::Options options) {
  grpc::ServerBuilder builder;
  // Peers that vanish without a word are noticed, and may check on us as often as they like.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 100);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  builder.SetMaxReceiveMessageSize(static_cast<int>(message_bytes_max));
  builder.RegisterService(service);
  return GrpcServer::Start(&builder, std::move(options));
}

absl::Status CheckSecurity(const CoordinatorOptions& options) {
  // Without an authority anybody's certificate would do, and so would none.
  if (options.cluster_tls.wanted() && options.cluster_tls.authority.empty())
    return absl::InvalidArgumentError(
        "--cluster-tls-authority is missing: whose certificates workers must have");
  if (options.insecure) return absl::OkStatus();
  if (!options.tls.wanted()) {
    BW_RETURN_IF_ERROR(CheckPlaintext("--listen", options.listen, kTlsListenerFlags));
    BW_RETURN_IF_ERROR(CheckPlaintext("--http-listen", options.http_listen, kTlsListenerFlags));
  }
  if (!options.cluster_tls.wanted())
    BW_RETURN_IF_ERROR(CheckPlaintext("--worker-listen", options.worker_listen, kTlsClusterFlags));
  return absl::OkStatus();
}

absl::Status CheckNumbers(const CoordinatorOptions& options) {
  const struct {
    const char* flag;
    int64_t value, low, high;
  } numbers[] = {{"workers", options.workers, 0, kWorkersMax},
                 {"workers-min", options.workers_min, 0, kWorkersMax},
                 {"tensor-parallel", options.tensor_parallel, 0, kWorkersMax},
                 {"pipeline-parallel", options.pipeline_parallel, 0, kWorkersMax},
                 {"context-tokens", options.context_tokens, 0, kContextTokensMax},
                 {"kv-blocks-max", options.kv_blocks_max, 0, 1 << 24},
                 {"sequences-max", options.sequences_max, 1, kSequencesMax},
                 {"requests-waiting-max", options.requests_waiting_max, 0, 1 << 20}};
  for (const auto& number : numbers) {
    if (number.value >= number.low && number.value <= number.high) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(number.flag, " is ", number.value, ", allowed is ", number.low, " to ", number.high));
  }
  if (!(options.device_memory_fraction > 0 && options.device_memory_fraction <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "device-memory-fraction is ", options.device_memory_fraction, ", allowed is above 0 to 1"));
  }
  if (options.step_deadline < absl::ZeroDuration() || options.step_deadline > kStepDeadlineMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("step-deadline-seconds is ", absl::ToDoubleSeconds(options.step_deadline),
                     ", allowed is 0 to ", absl::ToDoubleSeconds(kStepDeadlineMax)));
  }
  return absl::OkStatus();
}

// Whoever chats should not find out from the answers that the template is wrong.
void LogChatTemplate(const ChatTemplateChoice& choice) {
  const std::string name = choice.chosen->name;
  if (name == "none") {
    LogWarning("no chat template: ", choice.reason,
               ". Chat takes single messages as they are; choose a template with --chat-template");
  } else if (choice.own_unrecognised) {
    LogWarning("chat template ", name, " because of ", choice.reason, ". --chat-template chooses another");
  } else {
    LogInfo("chat template ", name, " because of ", choice.reason);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorServer>> CoordinatorServer::Start(CoordinatorOptions options) {
  BW_RETURN_IF_ERROR(CheckSecurity(options));
  std::unique_ptr<CoordinatorServer> server(new CoordinatorServer(std::move(options)));
  BW_RETURN_IF_ERROR(server->OpenModel());
  BW_RETURN_IF_ERROR(server->CheckOptions());
  server->StartEngine();
  BW_RETURN_IF_ERROR(server->Listen());
  BW_RETURN_IF_ERROR(server->ListenForMonitoring());
  BW_RETURN_IF_ERROR(WritePortFile(server->options_.port_file, {{"client", server->client_address_},
                                                                {"worker", server->worker_address_},
                                                                {"http", server->http_address_},
                                                                {"metrics", server->metrics_address_}}));
  LogInfo("clients: ", server->client_address_, ", workers: ", server->worker_address_, ", waiting for ",
          server->options_.workers, " workers");
  return server;
}

CoordinatorServer::CoordinatorServer(CoordinatorOptions options) : options_(std::move(options)) {}

CoordinatorServer::~CoordinatorServer() { Shutdown(absl::ZeroDuration()); }

absl::Status CoordinatorServer::OpenModel() {
  BW_ASSIGN_OR_RETURN(checkpoint_, Checkpoint::Open(options_.model, options_.read));
  formats_ = std::make_unique<CheckpointFormats>(*checkpoint_);
  BW_ASSIGN_OR_RETURN(model_id_, checkpoint_->ModelId());
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = checkpoint_->LoadTokenizer();
  if (tokenizer.ok()) {
    tokenizer_ = *std::move(tokenizer);
  } else if (absl::IsNotFound(tokenizer.status())) {
    LogWarning("no tokenizer: only token ids are taken (", tokenizer.status().message(), ")");
  } else {
    return tokenizer.status();
  }
  const ModelConfig& config = checkpoint_->config();
  LogInfo("model ", options_.model, " (", checkpoint_->container(), "): id ", model_id_, ", ", config.layers,
          " layers, hidden ", config.hidden, ", vocabulary ", config.vocab);
  return absl::OkStatus();
}

absl::Status CoordinatorServer::CheckOptions() {
  BW_RETURN_IF_ERROR(CheckNumbers(options_));
  if (!options_.api_keys.empty()) {
    BW_ASSIGN_OR_RETURN(api_keys_, ApiKeys::Load(options_.api_keys));
  }
  BW_ASSIGN_OR_RETURN(join_secret_, SharedSecret::Read(options_.join_secret));
  const ModelConfig& config = checkpoint_->config();
  if (!options_.layout.empty()) {
    BW_ASSIGN_OR_RETURN(planner_.layout, ParseLayout(config, options_.layout));
    if (options_.workers == 0) options_.workers = planner_.layout->workers();
  }
  if (options_.workers == 0) {
    options_.workers = std::max(1, options_.tensor_parallel) * std::max(1, options_.pipeline_parallel);
  }
  if (options_.workers > kWorkersMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("the layout has ", options_.workers, " workers, allowed are ", kWorkersMax));
  }
  if (options_.workers_min > options_.workers) {
    return absl::InvalidArgumentError(
        absl::StrCat("workers-min is ", options_.workers_min, ", but workers are ", options_.workers));
  }
  BW_ASSIGN_OR_RETURN(options_.context_tokens, ContextTokens(config, options_.context_tokens));
  BW_ASSIGN_OR_RETURN(planner_.quantize, ParseQuantize(options_.quantize));
  if (options_.kv_type == "auto") {
    planner_.kv_type = DefaultKvType(*formats_, planner_.quantize);
  } else {
    const absl::StatusOr<DType> kv_type = ParseDType(options_.kv_type);
    if (!kv_type.ok()) return Annotate(kv_type.status(), "kv-type");
    planner_.kv_type = *kv_type;
  }
  if (!options_.kernel_level.empty()) planner_.kernel_levels = {options_.kernel_level};
  planner_.mix_devices = options_.mix_devices;
  planner_.plan_for_batch = options_.plan_for_batch;
  BW_ASSIGN_OR_RETURN(planner_.offload, ParseOffload(options_.offload));
  planner_.device_memory_share = options_.device_memory_fraction;
  planner_.stages = options_.pipeline_parallel;
  planner_.ranks = options_.tensor_parallel;
  planner_.context_tokens = options_.context_tokens;
  BW_ASSIGN_OR_RETURN(planner_.step_tokens, ParseStepTokens(options_.step_tokens));
  if (options_.kv_blocks_max > 0) {
    planner_.kv_blocks_max = options_.kv_blocks_max;
    const int32_t needed = (options_.context_tokens + kKvBlockTokens - 1) / kKvBlockTokens;
    if (options_.kv_blocks_max < needed) {
      return absl::InvalidArgumentError(absl::StrCat(
          "kv-blocks-max is ", options_.kv_blocks_max, ", one context of ", options_.context_tokens,
          " tokens takes ", needed, ": allow as many, or give a smaller --context-tokens"));
    }
  }
  if (tokenizer_ == nullptr) return absl::OkStatus();
  if (options_.chat_template.empty()) {
    const ChatTemplateChoice choice = ChooseChatTemplate(HintsOf(*checkpoint_));
    chat_template_ = choice.chosen;
    LogChatTemplate(choice);
    return absl::OkStatus();
  }
  chat_template_ = FindChatTemplate(options_.chat_template);
  if (chat_template_ != nullptr) return absl::OkStatus();
  const auto append_name = [](std::string* out, const ChatTemplate& known) { out->append(known.name); };
  return absl::InvalidArgumentError(
      absl::StrCat("chat-template is \"", options_.chat_template,
                   "\", allowed: ", absl::StrJoin(ChatTemplates(), ", ", append_name)));
}

ClusterService::Options CoordinatorServer::ClusterOptions() {
  ClusterService::Options options;
  options.view = {.workers_wanted = options_.workers,
                  .workers_min = options_.workers_min,
                  .replace_wait = options_.replace_wait,
                  .build_id = options_.build_id,
                  .model_id = model_id_,
                  .model_name = options_.model,
                  .reading = checkpoint_->reading(),
                  .step_deadline = options_.step_deadline,
                  .drain = options_.drain,
                  .mix_devices = options_.mix_devices};
  options.plan = [this](absl::Span<const WorkerInventory> workers,
                        const std::vector<std::string>& kernel_levels) {
    PlannerOptions planner = planner_;
    if (!kernel_levels.empty()) planner.kernel_levels = kernel_levels;
    return MakePlan(checkpoint_->config(), *formats_, workers, planner);
  };
  options.join_secret = join_secret_;
  options.context_tokens = options_.context_tokens;
  options.vocab = checkpoint_->config().vocab;
  options.step_took = [this](const StepTime& time) { metrics_->CountStepTime(time); };
  options.idle = [this] { return engine_->WaitUntilIdle(absl::ZeroDuration()); };
  options.post = [this](Event event) { engine_->Post(std::move(event)); };
  options.serving_changed = [this](bool serving) {
    serving_ = serving;
    ShowServing(serving);
  };
  return options;
}

std::string CoordinatorServer::ModelName() const { return Printable(OwnName(options_.model)); }

std::vector<std::string> CoordinatorServer::ServedNames() const {
  std::vector<std::string> names = absl::StrSplit(options_.served_model_name, ',', absl::SkipWhitespace());
  for (std::string& name : names) absl::StripAsciiWhitespace(&name);
  if (names.empty()) names = {ModelName()};
  return names;
}

std::string CoordinatorServer::WeightsName() const {
  const TensorKey key{.role = TensorRole::kQuery};
  return std::string(Name(PackedFormat(key, formats_->FormatOf(key), planner_.quantize).format));
}

CoordinatorMetrics::Options CoordinatorServer::MetricsOptions() const {
  CoordinatorMetrics::Options options;
  options.build_id = options_.build_id;
  options.model = {.name = ServedNames().front(),
                   .id = model_id_,
                   .architecture = std::string(Name(checkpoint_->config().architecture)),
                   .weights = WeightsName()};
  options.context_tokens = options_.context_tokens;
  options.sequences_max = options_.sequences_max;
  options.requests_waiting_max = options_.requests_waiting_max;
  options.engine = [this] { return engine_->snapshot(); };
  options.cluster = [this] { return cluster_->snapshot(); };
  return options;
}

void CoordinatorServer::StartEngine() {
  metrics_ = std::make_unique<CoordinatorMetrics>(MetricsOptions());
  cluster_ = std::make_unique<ClusterService>(ClusterOptions());
  EngineOptions engine{.step_tokens_max = kStepTokensMax,  // each layout says how many
                       .sequences_max = options_.sequences_max,
                       .requests_waiting_max = options_.requests_waiting_max,
                       .context_tokens_max = options_.context_tokens,
                       .eos = checkpoint_->config().eos,
                       .seed = options_.seed != 0 ? options_.seed : SystemSeed(),
                       .prefix_cache = !options_.no_prefix_cache,
                       .resume_wait = options_.resume_wait};
  if (tokenizer_ != nullptr) {
    const std::vector<TokenId>& more = tokenizer_->eos_ids();
    engine.eos.insert(engine.eos.end(), more.begin(), more.end());
    std::sort(engine.eos.begin(), engine.eos.end());
    engine.eos.erase(std::unique(engine.eos.begin(), engine.eos.end()), engine.eos.end());
  }
  EngineLoop::Options loop;
  loop.send_step = [this](const Step& step) {
    metrics_->CountStep(step);
    cluster_->SendStep(step);
  };
  loop.fail_epoch = [this](Epoch epoch, const absl::Status& reason) { cluster_->FailEpoch(epoch, reason); };
  loop.observe = [this](const EngineRequest& request, std::shared_ptr<RequestObserver> observer) {
    return metrics_->requests().Observe(request, std::move(observer));
  };
  engine_ = std::make_unique<EngineLoop>(std::move(engine), tokenizer_.get(), std::move(loop));
  requests_ = std::make_unique<RequestService>(RequestService::Options{
      .limits = {.vocab = checkpoint_->config().vocab,
                 .context_tokens = options_.context_tokens,
                 .has_tokenizer = tokenizer_ != nullptr},
      .tokenizer = tokenizer_.get(),
      .chat_template = chat_template_,
      .template_stop = !options_.no_template_stop,
      .engine = engine_.get(),
      .api_keys = api_keys_.get(),
      .log_prompts = options_.log_prompts,
      .refused = [this](const absl::Status& status) { metrics_->requests().CountRejected(status); }});
}

InferenceService::Options CoordinatorServer::InferenceOptions() {
  InferenceService::Options options;
  options.model = {.name = ModelName(),
                   .id = model_id_,
                   .architecture = std::string(Name(checkpoint_->config().architecture)),
                   .weights = WeightsName()};
  options.model.authors_options = checkpoint_->generation_defaults();
  if (chat_template_ != nullptr) FillIn(chat_template_->CardOptions(), options.model.authors_options);
  options.requests = requests_.get();
  options.cluster_status = [this] { return ClusterStatus(); };
  return options;
}

absl::Status CoordinatorServer::Listen() {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  inference_ = std::make_unique<InferenceService>(InferenceOptions());
  BW_ASSIGN_OR_RETURN(
      client_server_,
      StartServer(
          inference_->service(), kClientMessageBytesMax,
          {.listen = {.address = options_.listen,
                      .name = "clients",
                      .descriptors = DescriptorsBetween(kClientDescriptors[0], kClientDescriptors[1])},
           .tls = options_.tls}));
  client_address_ = client_server_->address();
  ShowServing(serving_);
  BW_ASSIGN_OR_RETURN(
      worker_server_,
      StartServer(
          cluster_->service(), kControlMessageBytesMax,
          {.listen = {.address = options_.worker_listen,
                      .name = "workers",
                      .descriptors = DescriptorsBetween(kWorkerDescriptors[0], kWorkerDescriptors[1])},
           .tls = options_.cluster_tls}));
  worker_address_ = worker_server_->address();
  return options_.http_listen.empty() ? absl::OkStatus() : ListenHttp();
}

absl::Status CoordinatorServer::ListenHttp() {
  HttpGateway::Options gateway{.model_names = ServedNames(),
                               .weights = WeightsName(),
                               .version = options_.build_id,
                               .requests = requests_.get(),
                               .cluster_status = [this] { return ClusterStatus(); }};
  gateway_ = std::make_unique<HttpGateway>(std::move(gateway));
  BW_ASSIGN_OR_RETURN(const HostPort listen, ParseHostPort(options_.http_listen, /*any_port=*/true));
  HttpServer::Options options;
  options.listen = {.address = options_.http_listen,
                    .name = "HTTP clients",
                    .descriptors = DescriptorsBetween(kHttpDescriptors[0], kHttpDescriptors[1])};
  options.routes = gateway_->Routes();
  options.tls = options_.tls;
  options.refusal = RefusalResponse;
  BW_ASSIGN_OR_RETURN(options.origins, OriginRules::Parse(options_.http_allow_origin, listen.IsLoopback()));
  options.answered = [this](int status) { metrics_->requests().CountHttpResponse(status); };
  BW_ASSIGN_OR_RETURN(http_server_, HttpServer::Start(std::move(options)));
  http_address_ = http_server_->address();
  LogInfo("HTTP clients: ", options_.tls.wanted() ? "https" : "http", "://", http_address_);
  return absl::OkStatus();
}

void CoordinatorServer::ShowServing(bool serving) {
  if (client_server_ == nullptr) return;
  grpc::HealthCheckServiceInterface* health = client_server_->health();
  if (health == nullptr) return;
  health->SetServingStatus(kHealthName, serving);
  health->SetServingStatus("", serving);
}

absl::Status CoordinatorServer::ListenForMonitoring() {
  if (options_.metrics_listen.empty()) return absl::OkStatus();
  OperationsPages pages{.metrics = [this] { return metrics_->Text(); }, .ready = [this] { return Ready(); }};
  pages.more = {TargetsRoute(options_.metrics_tls.wanted(), [this] { return cluster_->snapshot(); })};
  TcpListener::Options listen = {
      .address = options_.metrics_listen,
      .name = "monitoring",
      .descriptors = DescriptorsBetween(kMonitoringDescriptors[0], kMonitoringDescriptors[1])};
  BW_ASSIGN_OR_RETURN(monitoring_server_,
                      StartOperationsServer({.listen = std::move(listen),
                                             .tls = options_.metrics_tls,
                                             .default_address = kDefaultCoordinatorMetricsAddress},
                                            std::move(pages)));
  metrics_address_ = monitoring_server_->address();
  return absl::OkStatus();
}

absl::Status CoordinatorServer::Ready() const {
  const ClusterService::Status cluster = ClusterStatus();
  return cluster.serving ? absl::OkStatus() : absl::UnavailableError(cluster.not_serving_reason);
}

// As clients are to see it: who is told to stop serves nobody new.
ClusterService::Status CoordinatorServer::ClusterStatus() const {
  ClusterService::Status status = cluster_->status();
  if (draining_ && status.serving) {
    status.serving = false;
    status.not_serving_reason = "the server is stopping";
  }
  return status;
}

// Workers that are connected may make a layout again in time. Without any there is nobody to hope for: the
// others of an upgrade are of another build.
void CoordinatorServer::Drain(absl::Duration drain) {
  const Clock& clock = *Clock::Real();
  const absl::Duration end = clock.Now() + drain;
  while (!engine_->WaitUntilIdle(std::clamp(end - clock.Now(), absl::ZeroDuration(), kDrainLook))) {
    if (clock.Now() >= end) {
      LogWarning("requests still run after ", absl::FormatDuration(drain), ": they are ended");
      return;
    }
    if (cluster_->snapshot()->workers.empty()) {
      LogWarning("requests wait for workers, and none is connected: they are ended");
      return;
    }
  }
}

void CoordinatorServer::Shutdown(absl::Duration drain) {
  if (draining_.exchange(true)) return;
  if (client_server_ != nullptr) {
    // For good: a layout that comes up at this moment cannot undo it.
    if (auto* health = client_server_->health()) health->Shutdown();
  }
  if (engine_ != nullptr) {
    engine_->Post(DrainRequested{});
    if (drain > absl::ZeroDuration()) Drain(drain);
  }
  // Calls that are left are told that the server ends, and have the grace to hear of it.
  if (engine_ != nullptr) engine_->Stop();
  if (client_server_ != nullptr)
    client_server_->Shutdown(drain > absl::ZeroDuration() ? kShutdownGrace : drain);
  if (http_server_ != nullptr) http_server_->Shutdown(drain > absl::ZeroDuration() ? kShutdownGrace : drain);
  if (cluster_ != nullptr) cluster_->Stop();
  if (worker_server_ != nullptr) worker_server_->Shutdown(kShutdownGrace);
  if (monitoring_server_ != nullptr) monitoring_server_->Shutdown(absl::ZeroDuration());
}

}  // namespace bellwether
