#include "cli/load/load.h"

#include <sys/resource.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/load/load_prompts.h"
#include "cli/load/load_report.h"
#include "cli/load/load_run.h"
#include "cli/load/load_target.h"
#include "cli/stop.h"
#include "cli/terminal.h"
#include "common/host_port.h"
#include "common/json.h"
#include "common/output.h"
#include "common/status.h"

namespace bellwether {
namespace {

constexpr int64_t kRequestsEach = 10;  // for each connection, unless told otherwise
// At an arrival rate: as many as a run of any length could have.
constexpr int64_t kRequestsMax = 10'000'000;

double OwnCpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// What goes out in clear, a key perhaps, must be asked for here too.
absl::Status CheckUrl(const LoadOptions& options) {
  constexpr std::string_view kPlain = "http://", kEncrypted = "https://";
  if (options.url.empty() || options.url.starts_with(kEncrypted)) return absl::OkStatus();
  if (!options.url.starts_with(kPlain))
    return absl::InvalidArgumentError("--url begins with http:// or https://");
  if (options.session.insecure) return absl::OkStatus();
  std::string address = options.url.substr(kPlain.size());
  address.resize(std::min(address.size(), address.find('/')));
  if (!ParseHostPort(address).ok()) address += ":80";
  const absl::StatusOr<HostPort> host = ParseHostPort(address);
  if (!host.ok()) return Annotate(host.status(), "--url");
  if (host->IsLoopback()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--url ", options.url,
      " is not this machine alone, and nothing would be encrypted: take https://, or give --insecure"));
}

absl::Status Check(const LoadOptions& options) {
  if (options.sweep && options.rate > 0)
    return absl::InvalidArgumentError("--sweep goes through numbers of requests at once: leave out --rate");
  return CheckUrl(options);
}

class Load {
 public:
  Load(const LoadOptions& options, LoadTarget& target, const LoadPrompts& prompts)
      : options_(options), target_(target), prompts_(prompts) {}

  // Requests that do not count: connections, caches and pages are cold once.
  void WarmUp() {
    if (options_.warm_up <= 0) return;
    LoadLevel level{.concurrency = std::min(options_.warm_up, options_.concurrency),
                    .requests = options_.warm_up};
    RunOne(level, "warming up");
  }

  LoadReport Run(int concurrency) {
    LoadLevel level{.concurrency = concurrency,
                    .rate = options_.rate,
                    .requests = options_.requests,
                    .seed = options_.seed};
    if (options_.duration_seconds > 0) level.duration = absl::Seconds(options_.duration_seconds);
    if (level.requests == 0)
      level.requests = options_.duration_seconds > 0 ? RequestsWithin(options_.duration_seconds)
                                                     : kRequestsEach * concurrency;
    const std::string name =
        options_.rate > 0 ? absl::StrFormat("%g/s", options_.rate) : absl::StrCat(concurrency, " at once");
    const double cpu = OwnCpuSeconds();
    const std::vector<LoadResult> results = RunOne(level, name);
    LoadReport report = MakeLoadReport(results, options_.objectives);
    report.name = name;
    report.own_cpu_seconds = OwnCpuSeconds() - cpu;
    return report;
  }

 private:
  // Enough for a run of so many seconds, however the gaps fall.
  int64_t RequestsWithin(double seconds) const {
    if (options_.rate <= 0) return kRequestsMax;
    return std::min<int64_t>(kRequestsMax, static_cast<int64_t>(2 * options_.rate * seconds) + 100);
  }

  std::vector<LoadResult> RunOne(const LoadLevel& level, const std::string& name) {
    StatusLine line;
    const auto show = [&](int64_t ended) {
      if (line.rewritten()) line.Show(absl::StrCat(name, ": ", ended, " answers"));
    };
    const int64_t round = rounds_++;
    const auto request = [&](int64_t index) { return prompts_.Request(round, index); };
    return RunLoadLevel(target_, level, request, show);
  }

  const LoadOptions& options_;
  LoadTarget& target_;
  const LoadPrompts& prompts_;
  int64_t rounds_ = 0;  // begun
};

absl::Status Tell(const LoadOptions& options, const LoadTarget& target,
                  const std::vector<LoadReport>& reports) {
  if (options.json) {
    Json::Array loads;
    for (const LoadReport& report : reports) loads.push_back(ToJson(report));
    Json json = Json::object({{"target", target.Describe()}});
    if (options.sweep) json["knee"] = reports[KneeOf(reports)].name;
    json["loads"] = Json(std::move(loads));
    return WriteOutput(WriteJson(json, /*indent=*/2) + "\n");
  }
  const std::string text = options.sweep ? SweepText(reports) : ToText(reports.front());
  return WriteOutput(absl::StrCat(target.Describe(), "\n", text));
}

absl::Status RunOn(const LoadOptions& options, LoadTarget& target) {
  BW_ASSIGN_OR_RETURN(const LoadPrompts prompts, LoadPrompts::Create({.file = options.prompts,
                                                                      .prompt_tokens = options.prompt_tokens,
                                                                      .output_tokens = options.output_tokens,
                                                                      .vocabulary = target.vocabulary(),
                                                                      .seed = options.seed}));
  Load load(options, target, prompts);
  load.WarmUp();
  std::vector<LoadReport> reports;
  for (int concurrency = options.sweep ? 1 : options.concurrency; !StopRequested(); concurrency *= 2) {
    reports.push_back(load.Run(std::min(concurrency, options.concurrency)));
    if (concurrency >= options.concurrency) break;
  }
  if (StopRequested()) return absl::CancelledError("");
  BW_RETURN_IF_ERROR(Tell(options, target, reports));
  for (const LoadReport& report : reports) {
    if (report.answered == 0 && report.requests > 0)
      return absl::UnavailableError(
          absl::StrCat(report.name, ": no request was answered, ", absl::StrJoin(ErrorLines(report), "; ")));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunLoad(const LoadOptions& options) {
  WatchStopSignals();
  BW_RETURN_IF_ERROR(Check(options));
  const LoadSampling sampling{.temperature = options.temperature, .stop_at_eos = options.stop_at_eos};
  if (!options.url.empty()) {
    BW_ASSIGN_OR_RETURN(const std::unique_ptr<LoadTarget> target,
                        NewHttpTarget({.url = options.url,
                                       .model = options.served_model,
                                       .api_key = options.session.api_key,
                                       .tls = options.session.tls,
                                       .sampling = sampling}));
    return RunOn(options, *target);
  }
  BW_ASSIGN_OR_RETURN(Session session, Session::Open(options.session));
  const std::unique_ptr<LoadTarget> target = NewGrpcTarget(session, sampling);
  BW_RETURN_IF_ERROR(RunOn(options, *target));
  return session.Close();
}

}  // namespace bellwether
