#pragma once

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/mutex.h"

// What gpu_bench has measured: a row as it comes, and a table of all at the end, beside what the rows must
// reach and aim at.

namespace bellwether {

struct BenchRow {
  std::string name;              // "7B bf16, decode, batch 1"
  double host = 0, device = 0;   // seconds, by either clock; 0 where it has none
  double tokens_per_second = 0;  // or 0
  double share = 0;              // of `of`, by the host's clock; 0 if that is unknown
  std::string of;                // "the copy rate"
};

class BenchTable {
 public:
  // Lines "NAME: TOKENS PER SECOND" of tools/bench_transformers.py, or one that says why there are none.
  explicit BenchTable(const std::string& transformers_path) {
    std::ifstream file(transformers_path);
    for (std::string line; std::getline(file, line);) {
      const size_t colon = line.rfind(": ");
      char* end = nullptr;
      const double rate = colon == std::string::npos ? 0 : strtod(line.c_str() + colon + 2, &end);
      if (rate > 0 && *end == '\0') {
        transformers_[line.substr(0, colon)] = rate;
      } else {
        note_ = line;
      }
    }
    if (transformers_path.empty()) note_ = "transformers: not asked";
  }

  void Add(const BenchRow& row) {
    std::string text = absl::StrFormat("%-34s %9.3f ms", row.name, row.host * 1e3);
    if (row.device > 0) absl::StrAppendFormat(&text, " (%9.3f on the card)", row.device * 1e3);
    if (row.tokens_per_second > 0) absl::StrAppendFormat(&text, "  %9.1f tokens/s", row.tokens_per_second);
    if (row.share > 0) absl::StrAppendFormat(&text, "  %5.1f %% of %s", 100 * row.share, row.of);
    MutexLock lock(&mutex_);
    printf("%s\n", text.c_str());
    fflush(stdout);
    rows_.push_back(row);
  }

  // From any thread.
  void Print() const {
    MutexLock lock(&mutex_);
    printf("\n%-34s %11s %11s %11s %8s %6s %6s  %s\n", "", "host ms", "card ms", "tokens/s", "share", "must",
           "aim", "transformers tokens/s");
    for (const BenchRow& row : rows_) {
      const Goal* const goal = GoalOf(row.name);
      const auto rate = transformers_.find(row.name);
      printf("%-34s %11.3f %11s %11s %8s %6s %6s  %s\n", row.name.c_str(), row.host * 1e3,
             Number(row.device * 1e3, 3).c_str(), Number(row.tokens_per_second, 1).c_str(),
             Percent(row.share).c_str(), goal == nullptr ? "" : Percent(goal->must).c_str(),
             goal == nullptr ? "" : Percent(goal->aim).c_str(),
             rate == transformers_.end()
                 ? ""
                 : absl::StrFormat("%.1f (%.2f times)", rate->second, row.tokens_per_second / rate->second)
                       .c_str());
    }
    if (!note_.empty()) printf("%s\n", note_.c_str());
    printf(
        "medians, of loading the better of two; shares by the host's clock, of what the card itself copies "
        "and multiplies in this run\n");
    fflush(stdout);
  }

 private:
  struct Goal {
    const char* row;
    double must, aim;
  };
  static const Goal* GoalOf(const std::string& name) {
    static constexpr Goal kGoals[] = {
        {"7B bf16, decode, batch 1", 0.65, 0.85},     {"7B int8 g32, decode, batch 1", 0.50, 0.75},
        {"7B int4 g32, decode, batch 1", 0.38, 0.60}, {"7B int4 g128, decode, batch 1", 0.38, 0.60},
        {"1.1B bf16, decode, batch 1", 0.40, 0.70},   {"7B bf16, prefill 2048", 0.35, 0.65},
        {"7B bf16, decode, batch 64", 0.45, 0.75},
    };
    for (const Goal& goal : kGoals) {
      if (name == goal.row) return &goal;
    }
    return nullptr;
  }
  static std::string Number(double value, int digits) {
    return value > 0 ? absl::StrFormat("%.*f", digits, value) : "";
  }
  static std::string Percent(double share) {
    return share > 0 ? absl::StrFormat("%.1f %%", 100 * share) : "";
  }

  mutable Mutex mutex_;
  std::vector<BenchRow> rows_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, double> transformers_;
  std::string note_;
};

}  // namespace bellwether
