#include "model/checkpoint/foreign_file.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/match.h"
#include "model/checkpoint/ggml.h"
#include "model/checkpoint/gguf.h"
#include "model/checkpoint/safetensors.h"

namespace bellwether {
namespace {

using namespace std::string_view_literals;  // some begin with a zero

struct Kind {
  std::string_view beginning;
  const char* means;
};
constexpr char kPacked[] = "a packed archive: unpack it first";
constexpr Kind kKinds[] = {
    {"\x89HDF\r\n\x1a\n"sv, "an HDF5 file, as TensorFlow and Keras write: convert it to safetensors"},
    {"\x93NUMPY"sv, "an array of NumPy: convert it to safetensors"},
    {"\x1f\x8b"sv, kPacked},  // gzip
    {"BZh"sv, kPacked},       // bzip2
    {"\xfd"
     "7zXZ\0"sv,
     kPacked},                          // xz
    {"\x28\xb5\x2f\xfd"sv, kPacked},    // Zstandard
    {"7z\xbc\xaf\x27\x1c"sv, kPacked},  // 7-Zip
    {"Rar!\x1a\x07"sv, kPacked},
    {"{"sv, "a text of JSON and no weights: is it an answer that was saved instead of the file?"},
};

// Pages of websites that ask for a login, or say that there is no such file.
bool IsWebPage(std::string_view text) {
  while (text.starts_with(' ') || text.starts_with('\n') || text.starts_with('\r')) text.remove_prefix(1);
  return absl::StartsWithIgnoreCase({text.data(), text.size()}, "<!doctype html") ||
         absl::StartsWithIgnoreCase({text.data(), text.size()}, "<html");
}

}  // namespace

std::string DescribeForeignFile(absl::Span<const std::byte> file) {
  constexpr size_t kBytesSeen = 512;
  const std::string_view text(reinterpret_cast<const char*>(file.data()), std::min(file.size(), kBytesSeen));
  if (IsSafetensors(file)) return "";  // whose length may begin like something else
  if (IsGgml(file)) {
    return "a GGML file, of llama.cpp before GGUF, whatever it is called: give --model its path";
  }
  if (IsGguf(file)) return "a GGUF file, whatever it is called: give --model its path";
  if (IsWebPage(text)) return "a web page that was saved instead of the file: fetch it anew";
  for (const Kind& kind : kKinds) {
    if (text.starts_with(kind.beginning)) return kind.means;
  }
  return "";
}

}  // namespace bellwether
