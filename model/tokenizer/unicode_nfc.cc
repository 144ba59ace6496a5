#include "model/tokenizer/unicode_nfc.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/utf8.h"

namespace bellwether {
namespace {

struct Decomposition {
  uint32_t whole;
  uint32_t first;
  uint32_t second;  // 0: none
};
struct CombiningRange {
  uint32_t first;
  uint32_t last;
  uint8_t combining_class;
};
#include "model/tokenizer/unicode_nfc_data.inc"

// Hangul syllables follow from their parts by arithmetic (Unicode standard, section 3.12).
constexpr uint32_t kSyllables = 0xAC00, kLeads = 0x1100, kVowels = 0x1161, kTails = 0x11A7;
constexpr uint32_t kLeadCount = 19, kVowelCount = 21, kTailCount = 28;
constexpr uint32_t kSyllableCount = kLeadCount * kVowelCount * kTailCount;

struct Character {
  uint32_t code_point;
  uint8_t combining_class;
};

uint8_t CombiningClass(uint32_t c) {
  const auto range = std::lower_bound(std::begin(kCombiningRanges), std::end(kCombiningRanges), c,
                                      [](const CombiningRange& r, uint32_t value) { return r.last < value; });
  return range != std::end(kCombiningRanges) && range->first <= c ? range->combining_class : 0;
}

uint64_t PairKey(uint32_t first, uint32_t second) { return (uint64_t{first} << 32) | second; }

class Tables {
 public:
  static const Tables& Get() {
    static const Tables tables;
    return tables;
  }
  const Decomposition* Decompose(uint32_t c) const {
    const auto found = decompositions_.find(c);
    return found == decompositions_.end() ? nullptr : found->second;
  }
  // The composite of two characters, 0 when there is none.
  uint32_t Compose(uint32_t first, uint32_t second) const {
    if (first - kLeads < kLeadCount && second - kVowels < kVowelCount) {
      return kSyllables + ((first - kLeads) * kVowelCount + (second - kVowels)) * kTailCount;
    }
    const uint32_t syllable = first - kSyllables;
    if (syllable < kSyllableCount && syllable % kTailCount == 0 && second - kTails - 1 < kTailCount - 1) {
      return first + (second - kTails);
    }
    const auto found = composites_.find(PairKey(first, second));
    return found == composites_.end() ? 0 : found->second;
  }

 private:
  Tables() {
    for (const Decomposition& d : kComposites) {
      composites_.emplace(PairKey(d.first, d.second), d.whole);
      decompositions_.emplace(d.whole, &d);
    }
    for (const Decomposition& d : kDecompositions) decompositions_.emplace(d.whole, &d);
  }
  absl::flat_hash_map<uint32_t, const Decomposition*> decompositions_;
  absl::flat_hash_map<uint64_t, uint32_t> composites_;
};

void AppendDecomposed(uint32_t c, std::vector<Character>* out) {
  const uint32_t syllable = c - kSyllables;
  if (syllable < kSyllableCount) {
    out->push_back({kLeads + syllable / (kVowelCount * kTailCount), 0});
    out->push_back({kVowels + syllable / kTailCount % kVowelCount, 0});
    if (syllable % kTailCount != 0) out->push_back({kTails + syllable % kTailCount, 0});
    return;
  }
  const Decomposition* parts = Tables::Get().Decompose(c);
  if (parts == nullptr) {
    out->push_back({c, CombiningClass(c)});
    return;
  }
  AppendDecomposed(parts->first, out);  // at most a few levels deep: the tables have no cycles
  if (parts->second != 0) AppendDecomposed(parts->second, out);
}

void SortMarks(std::vector<Character>* text) {
  for (auto begin = text->begin(); begin != text->end();) {
    if (begin->combining_class == 0) {
      ++begin;
      continue;
    }
    const auto end =
        std::find_if(begin, text->end(), [](const Character& c) { return c.combining_class == 0; });
    std::stable_sort(begin, end, [](const Character& a, const Character& b) {
      return a.combining_class < b.combining_class;
    });
    begin = end;
  }
}

// Joins each mark to the last starter unless a mark in between blocks it; what is left stays in place.
void Compose(std::vector<Character>* text) {
  std::vector<Character>& row = *text;
  size_t kept = 0;
  size_t starter = row.size();  // index in the kept part; row.size() while there is none
  for (size_t i = 0; i < row.size(); ++i) {
    const Character c = row[i];
    if (starter < row.size()) {
      const bool adjacent = kept == starter + 1;
      const uint8_t last_class = row[kept - 1].combining_class;
      if (adjacent || (last_class != 0 && last_class < c.combining_class)) {
        if (const uint32_t whole = Tables::Get().Compose(row[starter].code_point, c.code_point); whole != 0) {
          row[starter].code_point = whole;
          continue;
        }
      }
    }
    if (c.combining_class == 0) starter = kept;
    row[kept++] = c;
  }
  row.resize(kept);
}

void FlushComposed(std::vector<Character>* run, std::string* out) {
  SortMarks(run);
  Compose(run);
  for (const Character& c : *run) AppendUtf8(c.code_point, out);
  run->clear();
}

}  // namespace

std::string ToNfc(std::string_view text) {
  // No character below U+0300 (first byte 0xCC) takes part in any change.
  const bool plain =
      std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0xCC; });
  if (plain) return std::string(text);
  std::string out;
  std::vector<Character> run;
  while (!text.empty()) {
    const Utf8Step step = ReadUtf8(text);
    if (step.kind == Utf8Step::Kind::kCharacter) {
      AppendDecomposed(step.code_point, &run);
    } else {
      FlushComposed(&run, &out);
      out += text.substr(0, step.length);
    }
    text.remove_prefix(step.length);
  }
  FlushComposed(&run, &out);
  return out;
}

}  // namespace bellwether
