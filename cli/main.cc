#include "cli/flags.h"
#include "cli/terminal.h"
#include "cli/up.h"
#include "common/log.h"

namespace {

absl::Status Run(const bellwether::CommandLine& line) {
  using namespace bellwether;  // NOLINT: one line a command
  if (line.command == "up") {
    ClusterOptions cluster = line.up;
    cluster.drain = absl::Seconds(line.drain_seconds);
    return RunUp(cluster);
  }
  if (line.command == "generate") return RunGenerate(line.generate);
  if (line.command == "score") return RunScore(line.score);
  if (line.command == "chat") return RunChat(line.chat);
  if (line.command == "plan") return RunPlan(line.plan);
  if (line.command == "inspect") return RunInspect(line.inspect);
  return RunBench(line.bench);
}

}  // namespace

int main(int argc, char** argv) {
  bellwether::InitLogging("bellwether", bellwether::LogLevel::kWarning);
  bellwether::CommandLine line;
  int exit_code = 0;
  if (!bellwether::ParseCommandLine(argc, argv, line, exit_code)) return exit_code;
  return bellwether::ReportError(Run(line));
}
