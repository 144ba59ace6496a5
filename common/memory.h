#pragma once

namespace bellwether {

// From now on big blocks go back to the system as soon as they are freed; else the allocator keeps what it
// thinks will be needed again, tens of megabytes a thread. To be called by main, before any thread starts.
void ReturnBigBlocksAtOnce();

}  // namespace bellwether
