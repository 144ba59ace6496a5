#pragma once

#include <string_view>

namespace bellwether {

// Tells the service manager how it is with this process, in the words of sd_notify(3): "READY=1",
// "STOPPING=1", "STATUS=...". Does nothing where no manager asks (NOTIFY_SOCKET is not set), and never waits.
// Any thread.
void NotifyService(std::string_view state);

}  // namespace bellwether
