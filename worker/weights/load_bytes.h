#pragma once

#include <cstdint>

#include "model/assignment.h"
#include "model/checkpoint/checkpoint.h"
#include "worker/device/device.h"

namespace bellwether {

// What the loading of a shard takes, known before it begins.

// Of matrices and vectors, in the forms that they are loaded in: a GPU's embedding that is streamed in that
// of its host, and as its head once more.
int64_t BytesToLoad(const Checkpoint& checkpoint, const Assignment& assignment, const Device& device);
// In the shard cache, of all that is streamed from there: a little more than its files have.
int64_t StreamedFileBytes(const Checkpoint& checkpoint, const Assignment& assignment, const Device& device);
// Likewise of one with an image of so many bytes.
int64_t FileBytesMax(int64_t image_bytes);

}  // namespace bellwether
