#include "text/tokenizers/added_tokens.h"

#include <algorithm>

#include "text/tokenizers/cuts.h"
#include "text/tokenizers/space_mark.h"
#include "text/unicode/python_string.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

bool IsWordBefore(std::string_view text, size_t at) {
  const Utf8Character c = CharacterBefore(text, at);
  return c.value != kNoCharacter && IsRegexWord(c.value);
}

bool IsWordAt(std::string_view text, size_t at) {
  const Utf8Character c = CharacterAt(text, at);
  return c.value != kNoCharacter && IsRegexWord(c.value);
}

size_t WhiteSpaceBegin(std::string_view text, size_t end) {
  for (;;) {
    const Utf8Character c = CharacterBefore(text, end);
    if (c.value == kNoCharacter || !IsRegexSpace(c.value)) return end;
    end -= c.bytes;
  }
}

size_t WhiteSpaceEnd(std::string_view text, size_t begin) {
  for (;;) {
    const Utf8Character c = CharacterAt(text, begin);
    if (c.value == kNoCharacter || !IsRegexSpace(c.value)) return begin;
    begin += c.bytes;
  }
}

bool IsSpaceOrMark(char32_t c) { return IsRegexSpace(c) || c == kSpaceMark; }

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), nodes_(1) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    if (content.empty()) continue;
    first_bytes_[static_cast<unsigned char>(content[0])] = true;
    size_t node = 0;
    for (const char byte : content) {
      auto& next = nodes_[node].next;
      const auto found = std::find_if(next.begin(), next.end(),
                                      [byte](const auto& entry) { return entry.first == byte; });
      if (found != next.end()) {
        node = static_cast<size_t>(found->second);
        continue;
      }
      next.emplace_back(byte, static_cast<int32_t>(nodes_.size()));
      node = nodes_.size();
      nodes_.emplace_back();
    }
    if (nodes_[node].token < 0) nodes_[node].token = static_cast<int32_t>(i);
  }
}

bool AddedTokenMatcher::MayMatch(std::string_view text) const {
  if (tokens_.empty()) return false;
  return std::any_of(text.begin(), text.end(),
                     [this](char c) { return first_bytes_[static_cast<unsigned char>(c)]; });
}

int32_t AddedTokenMatcher::LongestAt(std::string_view text, size_t at) const {
  int32_t longest = -1;
  size_t node = 0;
  for (; at < text.size(); ++at) {
    const auto& next = nodes_[node].next;
    const auto found = std::find_if(next.begin(), next.end(),
                                    [&](const auto& entry) { return entry.first == text[at]; });
    if (found == next.end()) break;
    node = static_cast<size_t>(found->second);
    if (nodes_[node].token >= 0) longest = nodes_[node].token;
  }
  return longest;
}

std::vector<AddedTokenMatcher::Part> AddedTokenMatcher::Split(std::string_view text) const {
  std::vector<Part> parts;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const bool first = first_bytes_[static_cast<unsigned char>(text[at])];
    const int32_t index = first ? LongestAt(text, at) : -1;
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    size_t begin = at, end = at + token.content.size();
    // A match that is left as text below still takes its characters: no other token is found in
    // them, as in the package tokenizers.
    at = end;
    if (token.special) continue;
    if (token.single_word && (IsWordBefore(text, begin) || IsWordAt(text, end))) continue;
    if (token.lstrip) begin = std::max(done, WhiteSpaceBegin(text, begin));
    if (token.rstrip) end = WhiteSpaceEnd(text, end);
    // The token before it has taken all of its characters, white space, and it takes none.
    if (end <= begin) continue;
    if (done < begin) parts.push_back({text.substr(done, begin - done), -1});
    parts.push_back({text.substr(begin, end - begin), token.id});
    done = end;
  }
  if (done < text.size()) parts.push_back({text.substr(done), -1});
  return parts;
}

bool AddedTokenMatcher::AllowsCuts() const {
  for (const AddedToken& token : tokens_) {
    bool other = false, space = false;
    char32_t last = kNoCharacter;
    for (size_t at = 0; at < token.content.size();) {
      const Utf8Character c = CharacterAt(token.content, at);
      if (c.value == kNoCharacter) return false;
      if (IsSpaceOrMark(c.value) && other) return false;  // may reach across a space
      space = space || IsSpaceOrMark(c.value);
      other = other || !IsSpaceOrMark(c.value);
      last = c.value;
      at += c.bytes;
    }
    if (token.rstrip && IsCutNeighbour(last)) return false;  // may take the space
    if (token.single_word && space) return false;            // looks at what is before the space
  }
  return true;
}

}  // namespace lmfusion
