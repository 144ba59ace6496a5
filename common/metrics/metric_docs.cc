#include "common/metrics/metric_docs.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/metrics/metric_table.h"

namespace bellwether {
namespace {

constexpr char kIntroduction[] =
    "# Metrics\n"
    "\n"
    "Made from `common/metrics/metric_table.h` (`common/metrics/metric_table_test` compares, and says how to "
    "write it\n"
    "anew). Coordinator and workers serve these at `/metrics` of their `--metrics-listen` address, in "
    "Prometheus' text\n"
    "format. A histogram `x` has the series `x_bucket` (with the label `le`), `x_sum` and `x_count`. *From*: "
    "the\n"
    "program that exports it. The last column has the names that vLLM and OpenTelemetry give to the same.\n";

std::string Code(absl::string_view text) { return absl::StrCat("`", text, "`"); }

void AppendCode(std::string* out, absl::string_view text) { out->append(Code(text)); }

std::string Elsewhere(const MetricSpec& spec) {
  std::string text;
  for (const absl::string_view name : {spec.vllm, spec.otel}) {
    if (!name.empty()) absl::StrAppend(&text, text.empty() ? "" : ", ", Code(name));
  }
  return text;
}

std::string Row(const MetricSpec& spec) {
  const std::string labels = absl::StrJoin(spec.labels, ", ", AppendCode);
  return absl::StrCat("| `", spec.name, "` | ", Name(spec.type), " | ", spec.unit, " | ", labels, " | ",
                      Name(spec.source), " | ", spec.help, " | ", Elsewhere(spec), " |\n");
}

// The rows from one section's first to the next one's.
std::string Rows(size_t section) {
  const auto begin_of = [](size_t at) {
    return at < kMetricSections.size() ? static_cast<size_t>(kMetricSections[at].first) : kMetricTable.size();
  };
  std::string rows;
  for (size_t i = begin_of(section); i < begin_of(section + 1); ++i) rows += Row(kMetricTable[i]);
  return rows;
}

std::string LabelValues() {
  std::string text =
      "\n## Label values\n"
      "\n"
      "All that these labels take. Others name the model, workers, API keys and what computes, or are "
      "numbers.\n"
      "\n"
      "| Metric | Label | Values |\n"
      "|---|---|---|\n";
  for (const MetricLabelValues& it : kMetricLabelValues) {
    absl::StrAppend(&text, "| `", SpecOf(it.metric).name, "` | `", it.label, "` | ",
                    absl::StrJoin(it.values, ", ", AppendCode), " |\n");
  }
  return text;
}

std::string Buckets() {
  std::string text = "\n## Buckets\n\n| Histogram | Upper bounds |\n|---|---|\n";
  for (const MetricSpec& spec : kMetricTable) {
    if (spec.type != MetricType::kHistogram) continue;
    absl::StrAppend(&text, "| `", spec.name, "` | ", absl::StrJoin(spec.buckets, " "), " |\n");
  }
  return text;
}

}  // namespace

std::string MetricsMarkdown() {
  std::string text = kIntroduction;
  for (size_t section = 0; section < kMetricSections.size(); ++section) {
    absl::StrAppend(&text, "\n## ", kMetricSections[section].title,
                    "\n\n| Name | Type | Unit | Labels | From | What it says | Elsewhere "
                    "|\n|---|---|---|---|---|---|---|\n",
                    Rows(section));
  }
  return absl::StrCat(text, LabelValues(), Buckets());
}

}  // namespace bellwether
