#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace bellwether {

// The own name of a directory or file, also where the path ends in "/", "." or "..".
std::string OwnName(const std::string& path);

// What a checkpoint at `path` is called, the likeliest name first: its directory's or file's own name, that
// of the model whose snapshot of the Hugging Face hub it lies in (models--ORG--NAME/snapshots/HASH), and the
// same of where symbolic links lead. Directories above it are nobody's name.
std::vector<std::string> ModelNames(const std::string& path);

// The words of a name in lower case: "BELLE-Llama2-13B" is belle, llama2, 13b; a point between digits is
// part of a word.
class NameWords {
 public:
  explicit NameWords(std::string_view name);

  // Whether these stand in it, one after the other.
  bool Have(std::initializer_list<std::string_view> run) const;
  // "llama2" or "llama-2".
  bool HaveVersion(std::string_view family, std::string_view version) const;
  // Whether a word begins so, or follows `family` and continues with a point: "llama-3.1".
  bool HaveMinorVersion(std::string_view family, std::string_view version) const;

 private:
  std::vector<std::string> words_;
};

}  // namespace bellwether
