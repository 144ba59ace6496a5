#include "cli/load/load_report.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/quote.h"

namespace bellwether {
namespace {

constexpr double kKneeShare = 0.9;

bool Keeps(const LoadResult& result, const LoadObjectives& objectives) {
  const auto within = [](double value, double limit) { return limit <= 0 || value <= limit; };
  return within(absl::ToDoubleSeconds(result.TimeToFirstToken()), objectives.time_to_first_token) &&
         within(result.TimePerOutputToken(), objectives.time_per_output_token) &&
         within(absl::ToDoubleSeconds(result.EndToEnd()), objectives.end_to_end);
}

Json ToJson(const LoadQuantiles& quantiles) {
  return Json::object({{"mean", quantiles.mean},
                       {"p50", quantiles.p50},
                       {"p90", quantiles.p90},
                       {"p99", quantiles.p99},
                       {"max", quantiles.most}});
}

std::string Row(std::string_view name, const LoadQuantiles& quantiles) {
  return absl::StrFormat("%-24s %9.3f %9.3f %9.3f %9.3f %9.3f\n", name, quantiles.mean, quantiles.p50,
                         quantiles.p90, quantiles.p99, quantiles.most);
}

}  // namespace

LoadQuantiles QuantilesOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto count = static_cast<double>(values.size());
  const auto at = [&](double share) {
    const auto rank = static_cast<size_t>(std::ceil(share * count));
    return values[std::clamp<size_t>(rank, 1, values.size()) - 1];
  };
  return {.mean = std::accumulate(values.begin(), values.end(), 0.0) / count,
          .p50 = at(0.5),
          .p90 = at(0.9),
          .p99 = at(0.99),
          .most = values.back()};
}

LoadReport MakeLoadReport(absl::Span<const LoadResult> results, const LoadObjectives& objectives) {
  LoadReport report;
  report.requests = static_cast<int64_t>(results.size());
  report.has_objectives = objectives.any();
  if (results.empty()) return report;
  absl::Duration begin = absl::InfiniteDuration(), end = -absl::InfiniteDuration();
  std::vector<double> first, gaps, per_token, whole, late;
  for (const LoadResult& result : results) {
    begin = std::min(begin, result.due);
    end = std::max(end, result.end);
    late.push_back(absl::ToDoubleSeconds(result.sent - result.due));
    if (!result.error.empty()) {
      ++report.errors[result.error];
      if (!result.why.empty()) report.why.emplace(result.error, result.why);
      continue;
    }
    ++report.answered;
    report.prompt_tokens += result.prompt_tokens;
    report.generated_tokens += result.generated_tokens;
    first.push_back(absl::ToDoubleSeconds(result.TimeToFirstToken()));
    whole.push_back(absl::ToDoubleSeconds(result.EndToEnd()));
    if (result.generated_tokens > 1) per_token.push_back(result.TimePerOutputToken());
    gaps.insert(gaps.end(), result.gaps.begin(), result.gaps.end());
    report.within += objectives.any() && Keeps(result, objectives) ? 1 : 0;
  }
  report.seconds = absl::ToDoubleSeconds(end - begin);
  report.time_to_first_token = QuantilesOf(std::move(first));
  report.between_tokens = QuantilesOf(std::move(gaps));
  report.time_per_output_token = QuantilesOf(std::move(per_token));
  report.end_to_end = QuantilesOf(std::move(whole));
  report.lateness = QuantilesOf(std::move(late));
  return report;
}

Json ToJson(const LoadReport& report) {
  Json errors = Json::object();
  for (const auto& [kind, count] : report.errors) errors[kind] = count;
  Json json = Json::object({{"load", report.name},
                            {"requests", report.requests},
                            {"answered", report.answered},
                            {"errors", errors},
                            {"seconds", report.seconds},
                            {"requests_per_second", report.RequestsPerSecond()},
                            {"prompt_tokens", report.prompt_tokens},
                            {"generated_tokens", report.generated_tokens},
                            {"generated_tokens_per_second", report.TokensPerSecond()},
                            {"time_to_first_token_seconds", ToJson(report.time_to_first_token)},
                            {"inter_token_seconds", ToJson(report.between_tokens)},
                            {"time_per_output_token_seconds", ToJson(report.time_per_output_token)},
                            {"end_to_end_seconds", ToJson(report.end_to_end)},
                            {"sent_late_seconds", ToJson(report.lateness)},
                            {"own_cpu_seconds", report.own_cpu_seconds}});
  if (report.has_objectives) {
    json["within_objectives"] = report.within;
    json["goodput_requests_per_second"] = report.Goodput();
  }
  return json;
}

std::vector<std::string> ErrorLines(const LoadReport& report) {
  std::vector<std::string> lines;
  for (const auto& [kind, count] : report.errors) {
    std::string line = absl::StrCat(count, " failed: ", kind);
    if (const auto why = report.why.find(kind); why != report.why.end())
      absl::StrAppend(&line, ", the first: ", Printable(why->second));
    lines.push_back(std::move(line));
  }
  return lines;
}

std::string ToText(const LoadReport& report) {
  std::string text = absl::StrFormat(
      "%s: %d requests in %.1f s, %d answered; %.2f requests/s, %.1f tokens/s generated (%d of them, "
      "after %d of prompts)\n",
      report.name, report.requests, report.seconds, report.answered, report.RequestsPerSecond(),
      report.TokensPerSecond(), report.generated_tokens, report.prompt_tokens);
  for (const std::string& line : ErrorLines(report)) absl::StrAppend(&text, "  ", line, "\n");
  if (report.answered > 0) {
    absl::StrAppend(
        &text, absl::StrFormat("%-24s %9s %9s %9s %9s %9s\n", "seconds", "mean", "p50", "p90", "p99", "max"),
        Row("time to first token", report.time_to_first_token), Row("between tokens", report.between_tokens),
        Row("time per output token", report.time_per_output_token), Row("end to end", report.end_to_end));
  }
  if (report.has_objectives) {
    absl::StrAppend(&text, absl::StrFormat("within the objectives: %d of %d, goodput %.2f requests/s\n",
                                           report.within, report.requests, report.Goodput()));
  }
  absl::StrAppend(&text,
                  absl::StrFormat("this tool: %.1f %% of a core, requests left %.1f ms late at p99\n",
                                  report.seconds > 0 ? 100 * report.own_cpu_seconds / report.seconds : 0,
                                  1000 * report.lateness.p99));
  return text;
}

size_t KneeOf(absl::Span<const LoadReport> reports) {
  double most = 0;
  for (const LoadReport& report : reports) most = std::max(most, report.TokensPerSecond());
  for (size_t i = 0; i < reports.size(); ++i) {
    if (reports[i].TokensPerSecond() >= kKneeShare * most) return i;
  }
  return 0;
}

std::string SweepText(absl::Span<const LoadReport> reports) {
  std::string text = absl::StrFormat("%-12s %9s %9s | %9s %9s | %9s %9s | %9s %7s\n", "load", "tokens/s",
                                     "req/s", "TTFT p50", "p99", "TPOT p50", "p99", "goodput", "errors");
  const size_t knee = KneeOf(reports);
  for (size_t i = 0; i < reports.size(); ++i) {
    const LoadReport& report = reports[i];
    absl::StrAppend(
        &text, absl::StrFormat("%-12s %9.1f %9.2f | %9.3f %9.3f | %9.4f %9.4f | %9s %7d%s\n", report.name,
                               report.TokensPerSecond(), report.RequestsPerSecond(),
                               report.time_to_first_token.p50, report.time_to_first_token.p99,
                               report.time_per_output_token.p50, report.time_per_output_token.p99,
                               report.has_objectives ? absl::StrFormat("%.2f", report.Goodput()) : "-",
                               report.requests - report.answered, i == knee ? "  <- the knee" : ""));
  }
  return text;
}

}  // namespace bellwether
