#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lmfusion {

// A token that is looked for in the text itself, before the text is split.
struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;      // a control token: where text spells it, it stays text
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // looked for in normalised text
};

// Finds added tokens: from left to right, the longest first. Immutable and thread safe.
class AddedTokenMatcher {
 public:
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  struct Part {
    std::string_view text;
    int32_t id;  // -1: ordinary text
  };
  // `text` as ordinary parts and tokens; no part is empty.
  std::vector<Part> Split(std::string_view text) const;
  // Whether a first byte of a token is in `text`; if not, Split gives `text` itself.
  bool MayMatch(std::string_view text) const;

  // Whether a space between two characters of the kind that IsCutNeighbour accepts is always
  // outside every match, and no match reaches across it.
  bool AllowsCuts() const;

 private:
  struct Node {
    std::vector<std::pair<char, int32_t>> next;  // byte, node
    int32_t token = -1;                          // index of the token that ends here
  };
  // The longest token at text[at]; -1 where there is none.
  int32_t LongestAt(std::string_view text, size_t at) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::array<bool, 256> first_bytes_{};
};

}  // namespace lmfusion
