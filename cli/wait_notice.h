#pragma once

#include <string>
#include <thread>

#include "cli/inference_client.h"

namespace bellwether {

// Says on stderr that something is still awaited, and for how long already: after 10 seconds, and then with
// pauses that double.
class WaitNotice {
 public:
  explicit WaitNotice(std::string what);
  ~WaitNotice() { End(); }
  // It has come. May be called again.
  void End();

 private:
  Cancellation ended_;
  std::thread thread_;
};

}  // namespace bellwether
