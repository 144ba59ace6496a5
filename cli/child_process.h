#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace bellwether {

// A program that this one has started. It gets its settings as arguments; our variables BELLWETHER_* are not
// handed on. It is killed if this process dies, however it dies, and by the destructor. Movable.
class ChildProcess {
 public:
  struct Options {
    std::string program;
    std::vector<std::string> arguments;
    std::string log_file;  // stdout and stderr are appended to it; empty: shared with this process
  };
  static absl::StatusOr<ChildProcess> Start(const Options& options);

  ChildProcess() = default;
  ChildProcess(ChildProcess&& other) noexcept { *this = std::move(other); }
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  // Collects the child if it has ended, without waiting.
  bool Running();
  // By SIGSTOP or the like, and not going on yet.
  bool Stopped() const;
  // "exit code 1", "signal 9"; "" while it runs.
  const std::string& ending() const { return ending_; }
  bool ended_well() const { return ended_well_; }

  void Signal(int signal) const;
  // Waits for the end for at most `limit`; false if it still runs.
  bool WaitFor(absl::Duration limit);

 private:
  void Collect(int status);
  pid_t pid_ = -1;
  int pidfd_ = -1;
  std::string ending_;
  bool ended_well_ = false;
};

// Path of a program that lies beside the running one.
std::string SiblingProgram(const std::string& name);

}  // namespace bellwether
