#pragma once

namespace bellwether {

// Whether this is compiled for a sanitizer, under which all takes many times as long and memory is not what
// it is.
bool IsSanitized();

}  // namespace bellwether
