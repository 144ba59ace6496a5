#include "cli/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/config.h"

namespace bellwether {
namespace {

// As exec wants them.
std::vector<char*> Pointers(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// In the child, between fork and exec: only calls that are safe there. Ends in exec or in _exit.
[[noreturn]] void BecomeProgram(const ChildProcess::Options& options, char* const* arguments,
                                char* const* environment, pid_t parent) {
  // Not SIGTERM: a program may have been told so already, and two of them that come before it has looked are
  // one.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // the parent died before prctl
  setpgid(0, 0);                        // ^C in a terminal reaches the parent, who ends us in order
  if (!options.log_file.empty()) {
    const int log = open(options.log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log >= 0) {
      dup2(log, STDOUT_FILENO);
      dup2(log, STDERR_FILENO);
    }
  }
  const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (nothing >= 0) dup2(nothing, STDIN_FILENO);
  execve(options.program.c_str(), arguments, environment);
  _exit(127);
}

}  // namespace

absl::StatusOr<ChildProcess> ChildProcess::Start(const Options& options) {
  if (access(options.program.c_str(), X_OK) != 0) {
    return absl::NotFoundError(absl::StrCat(options.program, ": ", std::strerror(errno)));
  }
  std::vector<char*> arguments = Pointers(options.arguments);
  arguments.insert(arguments.begin(), const_cast<char*>(options.program.c_str()));
  const std::vector<std::string> variables = EnvironmentWithoutSettings();
  const std::vector<char*> environment = Pointers(variables);

  ChildProcess child;
  const pid_t parent = getpid();
  child.pid_ = fork();
  if (child.pid_ < 0) return absl::ResourceExhaustedError(absl::StrCat("fork: ", std::strerror(errno)));
  if (child.pid_ == 0) BecomeProgram(options, arguments.data(), environment.data(), parent);
  child.pidfd_ = static_cast<int>(syscall(SYS_pidfd_open, child.pid_, 0));
  return child;
}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(pidfd_, other.pidfd_);
  std::swap(ending_, other.ending_);
  std::swap(ended_well_, other.ended_well_);
  return *this;
}

ChildProcess::~ChildProcess() {
  if (Running()) {
    Signal(SIGKILL);
    WaitFor(absl::Seconds(10));
  }
  if (pidfd_ >= 0) close(pidfd_);
}

void ChildProcess::Collect(int status) {
  if (WIFEXITED(status)) {
    ending_ = absl::StrCat("exit code ", WEXITSTATUS(status));
    ended_well_ = WEXITSTATUS(status) == 0;
  } else {
    ending_ = absl::StrCat("signal ", WTERMSIG(status));
  }
  pid_ = -1;
}

bool ChildProcess::Running() {
  if (pid_ < 0) return false;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return true;
  Collect(status);
  return false;
}

bool ChildProcess::Stopped() const {
  siginfo_t info = {};
  // WNOWAIT: as long as it is stopped, every call says so.
  return pid_ > 0 && waitid(P_PID, static_cast<id_t>(pid_), &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == pid_;
}

void ChildProcess::Signal(int signal) const {
  if (pid_ > 0) kill(pid_, signal);
}

bool ChildProcess::WaitFor(absl::Duration limit) {
  if (!Running()) return true;
  pollfd descriptor = {.fd = pidfd_, .events = POLLIN, .revents = 0};
  poll(&descriptor, 1, static_cast<int>(absl::ToInt64Milliseconds(limit)));
  return !Running();
}

std::string SiblingProgram(const std::string& name) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / name).string();
}

}  // namespace bellwether
