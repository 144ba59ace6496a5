#include <string>

#include "cli/flags.h"
#include "cli/terminal.h"
#include "cli/up.h"
#include "common/build_id.h"
#include "common/descriptors.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/stop_signal.h"
#include "worker/inventory.h"

namespace {

absl::Status Run(const bellwether::CommandLine& line) {
  using namespace bellwether;  // NOLINT: one line a command
  if (line.command == "up") {
    ClusterOptions cluster = line.up;
    cluster.drain = absl::Seconds(line.drain_seconds);
    cluster.resume_wait = absl::Seconds(line.resume_seconds);
    return RunUp(cluster);
  }
  if (line.command == "generate") return RunGenerate(line.generate);
  if (line.command == "score") return RunScore(line.score);
  if (line.command == "chat") return RunChat(line.chat);
  if (line.command == "batch") return RunBatch(line.batch);
  if (line.command == "perplexity") return RunPerplexity(line.perplexity);
  if (line.command == "plan") return RunPlan(line.plan);
  if (line.command == "devices") return RunDevices(line.devices);
  if (line.command == "cache") return RunCache(line.cache);
  if (line.command == "inspect") return RunInspect(line.inspect);
  if (line.command == "convert") return RunConvert(line.convert);
  if (line.command == "load") return RunLoad(line.load);
  return RunBench(line.bench);
}

std::string Version() { return bellwether::VersionLine("bellwether") + bellwether::MachineLine(); }

}  // namespace

int main(int argc, char** argv) {
  bellwether::FillStandardDescriptors(argv);
  bellwether::SayWhatWasShort();
  bellwether::IgnoreBrokenPipes();  // an answer that nobody reads is an error, told like others
  bellwether::InitLogging("bellwether", {.level = "warning"});
  bellwether::CommandLine line;
  int exit_code = 0;
  if (!bellwether::ParseCommandLine(argc, argv, Version, line, exit_code)) return exit_code;
  return bellwether::ReportError(Run(line));
}
