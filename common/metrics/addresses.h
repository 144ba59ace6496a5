#pragma once

namespace bellwether {

// Where programs serve their metrics unless told otherwise, beside the ports of common/defaults.h. Loopback,
// as nobody asks who is there.
inline constexpr char kDefaultCoordinatorMetricsAddress[] = "127.0.0.1:7490";
inline constexpr char kDefaultWorkerMetricsAddress[] = "127.0.0.1:7491";

}  // namespace bellwether
