#pragma once

#include <functional>
#include <string>

#include "cli/answers.h"
#include "cli/batch/batch.h"
#include "cli/bench.h"
#include "cli/cache.h"
#include "cli/convert.h"
#include "cli/devices.h"
#include "cli/inspect.h"
#include "cli/load/load.h"
#include "cli/managed_cluster.h"
#include "cli/perplexity.h"
#include "cli/plan.h"
#include "common/defaults.h"

namespace bellwether {

// What the command line asks for.
struct CommandLine {
  std::string command;  // "up", "generate" ...
  ClusterOptions up;
  double drain_seconds = absl::ToDoubleSeconds(kDefaultDrain);
  double resume_seconds = absl::ToDoubleSeconds(kDefaultResumeWait);
  GenerateOptions generate;
  ScoreOptions score;
  ChatOptions chat;
  BatchOptions batch;
  PerplexityOptions perplexity;
  PlanOptions plan;
  InspectOptions inspect;
  ConvertOptions convert;
  DevicesOptions devices;
  CacheOptions cache;
  BenchOptions bench;
  LoadOptions load;
  std::string prompt_file;  // of generate and score: has been read into their prompt
};

// Fills `line`; flag > BELLWETHER_* environment > --config file > default. False if the program should end
// with `exit_code` at once (--help, --version, which prints what `version` makes, or an error that has been
// explained on stderr).
bool ParseCommandLine(int argc, char** argv, std::function<std::string()> version, CommandLine& line,
                      int& exit_code);

}  // namespace bellwether
