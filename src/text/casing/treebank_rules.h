#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "text/unicode/python_string.h"

// Every step of splitting and joining rewrites the text once, left to right, without overlaps, as a
// substitution in Python does. Their order matters. Where a step asks for "a word" or "a space",
// nltk splits and joins with two different pattern modules, whose classes differ (python_string.h).

namespace lmfusion::treebank {

using Text = std::u32string;
using View = std::u32string_view;

constexpr size_t kNoMatch = static_cast<size_t>(-1);

inline bool IsIn(char32_t c, View set) { return set.find(c) != View::npos; }
inline bool HasAt(View text, size_t at, View part) { return text.substr(at, part.size()) == part; }

// Calls match(at, &out) at every position. It appends what replaces a match and returns its end,
// or returns kNoMatch and appends nothing.
template <typename Match>
Text Rewrite(View text, Match match) {
  Text out;
  out.reserve(text.size() + 16);
  for (size_t at = 0; at < text.size();) {
    const size_t end = match(at, &out);
    if (end == kNoMatch) {
      out += text[at++];
    } else {
      at = end;
    }
  }
  return out;
}

inline Text Replace(View text, View from, View to) {
  if (text.find(from) == View::npos) return Text(text);
  return Rewrite(text, [&](size_t at, Text* out) {
    if (!HasAt(text, at, from)) return kNoMatch;
    *out += to;
    return at + from.size();
  });
}

// Clitics that are words of their own where a space follows; only in these cases of letters.
inline constexpr View kShortClitics[] = {U"'s", U"'S", U"'m", U"'M", U"'d", U"'D", U"'"};
inline constexpr View kLongClitics[] = {U"'ll", U"'LL", U"'re", U"'RE",
                                        U"'ve", U"'VE", U"n't", U"N'T"};

// The clitic at `at` that a space follows, or nothing.
template <size_t N>
View CliticAt(View text, size_t at, const View (&clitics)[N]) {
  for (const View clitic : clitics) {
    if (HasAt(text, at, clitic) && HasAt(text, at + clitic.size(), U" ")) return clitic;
  }
  return {};
}

// The pattern module that a step is written for.
enum class Engine { kRe, kRegex };

inline bool IsWord(char32_t c, Engine engine) {
  return engine == Engine::kRe ? IsPythonWord(c) : IsRegexWord(c);
}

inline bool IsWordAt(View text, size_t at, Engine engine) {
  return at < text.size() && IsWord(text[at], engine);
}

// `text` at `at` reads `lower` but for case, as that module folds letters.
inline bool ReadsAt(View text, size_t at, View lower, Engine engine) {
  if (at + lower.size() > text.size()) return false;
  for (size_t i = 0; i < lower.size(); ++i) {
    char32_t c = text[at + i];
    if (c >= U'A' && c <= U'Z') c += 32;
    if (c == 0x17f) c = U's';
    if (c == 0x130 || (c == 0x131 && engine == Engine::kRe)) c = U'i';
    if (c != lower[i]) return false;
  }
  return true;
}

// Two Treebank words written as one.
struct Contraction {
  View head, tail;
  bool before_space = false;  // only where a space follows
};
inline constexpr Contraction kContractions[] = {
    {U"can", U"not"}, {U"d", U"'ye"},  {U"gim", U"me"},  {U"gon", U"na"},
    {U"got", U"ta"},  {U"lem", U"me"}, {U"more", U"'n"}, {U"wan", U"na", true}};
inline constexpr Contraction kTis[] = {{U"'t", U"is"}, {U"'t", U"was"}};  // after a space

// The end of `contraction` at `at` with `between` its parts, at the end of a word; or kNoMatch.
inline size_t EndOfContraction(View text, size_t at, const Contraction& contraction, View between,
                               Engine engine) {
  const size_t middle = at + contraction.head.size();
  const size_t tail = middle + between.size();
  const size_t end = tail + contraction.tail.size();
  if (!ReadsAt(text, at, contraction.head, engine) || !HasAt(text, middle, between) ||
      !ReadsAt(text, tail, contraction.tail, engine)) {
    return kNoMatch;
  }
  if (contraction.before_space) {
    return end < text.size() && IsPythonSpace(text[end]) ? end : kNoMatch;
  }
  return IsWordAt(text, end, engine) ? kNoMatch : end;
}

// Letters and digits only, so that no rule but the contractions has anything to do.
inline bool IsPlainWord(std::string_view text) {
  const auto plain = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  };
  return !text.empty() && std::all_of(text.begin(), text.end(), plain);
}

}  // namespace lmfusion::treebank
