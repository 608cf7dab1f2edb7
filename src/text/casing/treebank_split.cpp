#include <algorithm>
#include <utility>

#include "text/casing/treebank.h"
#include "text/casing/treebank_rules.h"
#include "text/unicode/python_string.h"

namespace lmfusion {
namespace {

using namespace treebank;  // NOLINT: these rules are its only purpose

Text PadEach(View text, View set) {
  return Rewrite(text, [&](size_t at, Text* out) {
    if (!IsIn(text[at], set)) return kNoMatch;
    *out += {U' ', text[at], U' '};
    return at + 1;
  });
}

// Spaces around every run of at least `least` marks.
Text PadRuns(View text, char32_t mark, size_t least) {
  return Rewrite(text, [&](size_t at, Text* out) {
    const size_t end = std::min(text.find_first_not_of(mark, at), text.size());
    if (end - at < least) return kNoMatch;
    out->append(1, U' ').append(end - at, mark).append(1, U' ');
    return end;
  });
}

Text SplitContractions(Text text) {
  for (const Contraction& contraction : kContractions) {
    text = Rewrite(text, [&](size_t at, Text* out) {
      if (at > 0 && IsPythonWord(text[at - 1])) return kNoMatch;
      const size_t end = EndOfContraction(text, at, contraction, U"", Engine::kRe);
      if (end == kNoMatch) return kNoMatch;
      const size_t middle = at + contraction.head.size();
      *out += U" " + text.substr(at, middle - at) + U" " + text.substr(middle, end - middle) + U" ";
      return end;
    });
  }
  for (const Contraction& contraction : kTis) {
    text = Rewrite(text, [&](size_t at, Text* out) {
      if (text[at] != U' ') return kNoMatch;
      const size_t end = EndOfContraction(text, at + 1, contraction, U"", Engine::kRe);
      if (end == kNoMatch) return kNoMatch;
      const size_t middle = at + 1 + contraction.head.size();
      *out += text.substr(at, middle - at) + U" " + text.substr(middle, end - middle) + U" ";
      return end;
    });
  }
  return text;
}

// An apostrophe that opens a quotation: before a word, but not before a clitic of its own.
bool OpensQuotation(View text, size_t at) {
  if (text[at] != U'\'' || (at > 0 && IsRegexWord(text[at - 1]))) return false;
  if (!IsWordAt(text, at + 1, Engine::kRegex)) return false;
  for (const View clitic : {U"re", U"ve", U"ll", U"m", U"t", U"s", U"d", U"n"}) {
    if (ReadsAt(text, at + 1, clitic, Engine::kRegex) &&
        !IsWordAt(text, at + 1 + clitic.size(), Engine::kRegex)) {
      return false;
    }
  }
  return true;
}

Text SplitOpeningQuotes(Text text) {
  text = PadEach(text, U"«“‘„");
  text = PadRuns(text, U'`', 1);
  if (!text.empty() && text[0] == U'"') text.replace(0, 1, U"``");
  text = Replace(text, U"``", U" `` ");
  text = Rewrite(text, [&](size_t at, Text* out) {
    const size_t quote = HasAt(text, at + 1, U"\"") ? 1 : HasAt(text, at + 1, U"''") ? 2 : 0;
    if (at + 1 >= text.size() || !IsIn(text[at], U" ([{<") || quote == 0) return kNoMatch;
    *out += text[at];
    *out += U" `` ";
    return at + 1 + quote;
  });
  return Rewrite(text, [&](size_t at, Text* out) {
    if (!OpensQuotation(text, at)) return kNoMatch;
    *out += U"' ";
    return at + 1;
  });
}

// Cuts off the last period of the text, where only `closers` and spaces follow; they stay, with
// `between` before them.
Text SplitFinalPeriod(Text text, View closers, View between) {
  for (size_t at = 1; at < text.size(); ++at) {
    if (text[at] != U'.' || text[at - 1] == U'.') continue;
    size_t closed = at + 1;
    while (closed < text.size() && IsIn(text[closed], closers)) ++closed;
    size_t end = closed;
    while (end < text.size() && IsRegexSpace(text[end])) ++end;
    if (end != text.size()) continue;
    Text out = text.substr(0, at) + U" .";
    out += between;
    return out + text.substr(at + 1, closed - at - 1) + U" ";
  }
  return text;
}

// Colons and commas, unless a digit follows.
Text SplitCommas(Text text) {
  text = Rewrite(text, [&](size_t at, Text* out) {
    const bool last = at + 1 == text.size();
    if (!IsIn(text[at], U":,") || last || IsDecimalDigit(text[at + 1])) return kNoMatch;
    *out += {U' ', text[at], U' ', text[at + 1]};
    return at + 2;
  });
  const size_t line_end = !text.empty() && text.back() == U'\n' ? text.size() - 1 : text.size();
  return Rewrite(text, [&](size_t at, Text* out) {
    if (!IsIn(text[at], U":,") || (at + 1 != text.size() && at + 1 != line_end)) return kNoMatch;
    *out += {U' ', text[at], U' '};
    return at + 1;
  });
}

Text SplitPunctuation(Text text) {
  text = SplitFinalPeriod(text, U"])}>\"'»”’ ", U" ");
  text = SplitCommas(std::move(text));
  text = PadRuns(text, U'.', 2);
  text = PadEach(text, U";@#$%&\u2012\u2013\u2014\u2015");
  text = SplitFinalPeriod(std::move(text), U"])}>\"'", U"");
  text = PadEach(text, U"?!");
  text = Rewrite(text, [&](size_t at, Text* out) {
    if (text[at] == U'\'' || !HasAt(text, at + 1, U"' ")) return kNoMatch;
    *out += text[at];
    *out += U" ' ";
    return at + 3;
  });
  text = PadEach(text, U"*[](){}<>");
  return Replace(text, U"--", U" -- ");
}

template <size_t N>
Text SplitClitics(View text, const View (&clitics)[N]) {
  return Rewrite(text, [&](size_t at, Text* out) {
    const View clitic = IsIn(text[at], U"' ") ? View() : CliticAt(text, at + 1, clitics);
    if (clitic.empty()) return kNoMatch;
    *out += text[at];
    out->append(1, U' ').append(clitic).append(1, U' ');
    return at + 1 + clitic.size() + 1;
  });
}

Text SplitClosingQuotes(Text text) {
  text = PadEach(text, U"»”’");
  text = Replace(text, U"''", U" '' ");
  text = Replace(text, U"\"", U" '' ");
  text = Rewrite(text, [&](size_t at, Text* out) {
    size_t end = at;
    while (end < text.size() && IsRegexSpace(text[end])) ++end;
    if (end == at) return kNoMatch;
    *out += U' ';
    return end;
  });
  return SplitClitics(SplitClitics(text, kShortClitics), kLongClitics);
}

// One of kContractions; true for a few words more, which costs time only.
bool MayBeContraction(std::string_view word) {
  if (word.size() != 5 && word.size() != 6) return false;
  const char last = word.back() | 0x20, before = word[word.size() - 2] | 0x20;
  return (before == 'm' && last == 'e') || (before == 'n' && last == 'a') ||
         (before == 't' && last == 'a') || (before == 'o' && last == 't');
}

}  // namespace

std::vector<std::string> SplitTreebankWords(std::string_view utf8) {
  if (IsPlainWord(utf8) && !MayBeContraction(utf8)) return {std::string(utf8)};
  Text text = SplitPunctuation(SplitOpeningQuotes(DecodeUtf8(utf8)));
  text = SplitContractions(SplitClosingQuotes(U" " + text + U" "));
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && !IsPythonSpace(text[end])) ++end;
    if (end > at) words.push_back(EncodeUtf8(View(text).substr(at, end - at)));
    at = end + 1;
  }
  return words;
}

}  // namespace lmfusion
