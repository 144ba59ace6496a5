#include <cstddef>
#include <cstdint>

#include "common/check.h"
#include "proto/assignment_codec.h"
#include "proto/step_codec.h"

// Whatever a peer sends is either refused or comes back the same from a second trip over the wire.
namespace bellwether {
namespace {

template <typename Message>
void RoundTrip(const uint8_t* data, size_t size) {
  Message message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) return;
  const auto decoded = Decode(message);
  if (!decoded.ok()) return;
  Message again;
  Encode(*decoded, &again);
  const auto second = Decode(again);
  BW_CHECK(second.ok());
  Message third;
  Encode(*second, &third);
  BW_CHECK(third.SerializeAsString() == again.SerializeAsString());
}

}  // namespace
}  // namespace bellwether

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  switch (data[0] % 3) {
    case 0:
      bellwether::RoundTrip<bellwether::v1::Step>(data + 1, size - 1);
      break;
    case 1:
      bellwether::RoundTrip<bellwether::v1::StepResult>(data + 1, size - 1);
      break;
    default:
      bellwether::RoundTrip<bellwether::v1::Assignment>(data + 1, size - 1);
  }
  return 0;
}
