#include "common/metrics/metric_table.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <set>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/metrics/metric_docs.h"
#include "common/read_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bellwether {
namespace {

constexpr char kDocs[] = "docs/metrics.md";
constexpr size_t kNameBytesMax = 64;

bool IsName(absl::string_view text) {
  return !text.empty() && absl::ascii_islower(text[0]) && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_';
  });
}

bool IsNumber(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

bool EndsInUnit(const MetricSpec& spec) {
  absl::string_view name = spec.name;
  absl::ConsumeSuffix(&name, "_total");
  return absl::EndsWith(name, absl::string_view("_" + std::string(spec.unit)));
}

class MetricTableTest : public testing::TestWithParam<MetricSpec> {};

// What `promtool check metrics` asks for, and what it does not.
TEST_P(MetricTableTest, NameFollowsPrometheus) {
  const MetricSpec& spec = GetParam();
  EXPECT_TRUE(IsName(spec.name));
  EXPECT_LE(spec.name.size(), kNameBytesMax);
  EXPECT_TRUE(absl::StartsWith(spec.name, "bellwether_") || absl::StartsWith(spec.name, "process_"));
  EXPECT_EQ(absl::EndsWith(spec.name, "_total"), spec.type == MetricType::kCounter);
  for (const char* suffix : {"_bucket", "_sum", "_count"}) EXPECT_FALSE(absl::EndsWith(spec.name, suffix));
  const bool info = absl::EndsWith(spec.name, "_info");
  EXPECT_TRUE(!info || (spec.type == MetricType::kGauge && spec.unit.empty() && !spec.labels.empty()));
  // Units that Prometheus knows are base units, and part of the name.
  for (const char* unit : {"milliseconds", "minutes", "percent", "kilobytes"}) EXPECT_NE(spec.unit, unit);
  for (const char* unit : {"seconds", "bytes", "ratio", "tokens_per_second"}) {
    EXPECT_TRUE(spec.unit != unit || EndsInUnit(spec));
  }
}

TEST_P(MetricTableTest, HasOneLineOfHelp) {
  const MetricSpec& spec = GetParam();
  EXPECT_TRUE(absl::EndsWith(spec.help, "."));
  EXPECT_FALSE(absl::StrContains(spec.help, "\n"));
  EXPECT_FALSE(absl::StrContains(spec.help, "|"));  // it is a cell of docs/metrics.md
}

TEST_P(MetricTableTest, LabelsAreNamesOfTheirOwn) {
  const MetricSpec& spec = GetParam();
  std::set<absl::string_view> seen;
  for (const absl::string_view label : spec.labels) {
    EXPECT_TRUE(IsName(label)) << label;
    EXPECT_TRUE(seen.insert(label).second) << label;
    // Those are Prometheus' own.
    for (const char* taken : {"le", "quantile", "job", "instance"}) EXPECT_NE(label, taken);
    for (const absl::string_view value : LabelValuesOf(spec.id, label)) {
      EXPECT_TRUE(IsName(value) || IsNumber(value)) << value;
    }
  }
}

TEST_P(MetricTableTest, HistogramsHaveAscendingBuckets) {
  const MetricSpec& spec = GetParam();
  EXPECT_EQ(spec.buckets.empty(), spec.type != MetricType::kHistogram);
  EXPECT_TRUE(std::is_sorted(spec.buckets.begin(), spec.buckets.end(), std::less_equal<>()));
}

INSTANTIATE_TEST_SUITE_P(All, MetricTableTest, testing::ValuesIn(kMetricTable.begin(), kMetricTable.end()),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(MetricTable, NamesAreThereOnce) {
  std::set<absl::string_view> names;
  for (const MetricSpec& spec : kMetricTable) EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
}

TEST(MetricTable, ListedValuesBelongToLabels) {
  for (const MetricLabelValues& it : kMetricLabelValues) {
    EXPECT_THAT(SpecOf(it.metric).labels, testing::Contains(it.label)) << SpecOf(it.metric).name;
  }
}

TEST(MetricTable, SectionsCoverAllRows) {
  ASSERT_FALSE(kMetricSections.empty());
  EXPECT_EQ(kMetricSections[0].first, kMetricTable[0].id);
  for (size_t i = 1; i < kMetricSections.size(); ++i) {
    EXPECT_LT(kMetricSections[i - 1].first, kMetricSections[i].first);
  }
}

TEST(MetricTable, DocumentationIsUpToDate) {
  const std::string wanted = MetricsMarkdown();
  if (std::getenv("BELLWETHER_WRITE_DOCS") != nullptr) std::ofstream(kDocs) << wanted;
  const auto written = ReadFile(kDocs, 1 << 20);
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_TRUE(*written == wanted) << "run this test with BELLWETHER_WRITE_DOCS=1 in the root of the sources";
}

// What people copy from a page is a metric.
TEST(MetricTable, PagesNameMetricsOfTheTable) {
  constexpr char kPrefix[] = "bellwether_";
  constexpr char kNameCharacters[] = "abcdefghijklmnopqrstuvwxyz0123456789_";
  std::set<std::string> known;
  for (const MetricSpec& spec : kMetricTable) {
    for (const char* suffix : {"", "_bucket", "_sum", "_count"})
      known.insert(absl::StrCat(spec.name, suffix));
  }
  int named = 0;
  for (const char* page :
       {"README.md", "docs/deploy.md", "docs/http.md", "docs/offload.md", "docs/runbook.md"}) {
    const auto text = ReadFile(page, 1 << 20);
    ASSERT_TRUE(text.ok()) << text.status();
    for (size_t at = text->find(kPrefix); at != std::string::npos; at = text->find(kPrefix, at + 1)) {
      const std::string name = text->substr(at, text->find_first_not_of(kNameCharacters, at) - at);
      if (name.back() == '_') continue;  // what several begin with
      EXPECT_TRUE(known.contains(name)) << page << " names " << name;
      ++named;
    }
  }
  EXPECT_GT(named, 0);
}

}  // namespace
}  // namespace bellwether
