#include <algorithm>
#include <utility>

#include "text/casing/treebank.h"
#include "text/casing/treebank_rules.h"
#include "text/unicode/python_string.h"

namespace lmfusion {
namespace {

using namespace treebank;  // NOLINT: these rules are its only purpose

Text DropSpaceBefore(View text, View set) {
  return Rewrite(text, [&](size_t at, Text* out) {
    if (text[at] != U' ' || at + 1 == text.size() || !IsIn(text[at + 1], set)) return kNoMatch;
    *out += text[at + 1];
    return at + 2;
  });
}

Text DropSpaceAfter(View text, View set) {
  return Rewrite(text, [&](size_t at, Text* out) {
    if (!IsIn(text[at], set) || !HasAt(text, at + 1, U" ")) return kNoMatch;
    *out += text[at];
    return at + 2;
  });
}

Text Strip(const Text& text) {
  const size_t first = text.find_first_not_of(U' ');
  if (first == Text::npos) return {};
  return text.substr(first, text.find_last_not_of(U' ') + 1 - first);
}

Text JoinContractions(Text text) {
  for (const Contraction& contraction : kTis) {
    text = Rewrite(text, [&](size_t at, Text* out) {  // the space before it goes too
      if (text[at] != U' ') return kNoMatch;
      const size_t end = EndOfContraction(text, at + 1, contraction, U" ", Engine::kRegex);
      if (end == kNoMatch) return kNoMatch;
      const size_t middle = at + 1 + contraction.head.size();
      *out += text.substr(at + 1, middle - at - 1) + text.substr(middle + 1, end - middle - 1);
      return end;
    });
  }
  for (const Contraction& contraction : kContractions) {
    text = Rewrite(text, [&](size_t at, Text* out) {
      if (at > 0 && IsRegexWord(text[at - 1])) return kNoMatch;
      const size_t end = EndOfContraction(text, at, contraction, U" ", Engine::kRegex);
      if (end == kNoMatch) return kNoMatch;
      const size_t middle = at + contraction.head.size();
      *out += text.substr(at, middle - at) + text.substr(middle + 1, end - middle - 1);
      return end;
    });
  }
  return text;
}

template <size_t N>
Text JoinClitics(View text, const View (&clitics)[N]) {
  return Rewrite(text, [&](size_t at, Text* out) {
    if (IsIn(text[at], U"' ") || !HasAt(text, at + 1, U" ")) return kNoMatch;
    const View clitic = CliticAt(text, at + 2, clitics);
    if (clitic.empty()) return kNoMatch;
    *out += text[at];
    out->append(clitic).append(1, U' ');
    return at + 2 + clitic.size() + 1;
  });
}

Text JoinClosingQuotes(Text text) {
  text = JoinClitics(JoinClitics(text, kLongClitics), kShortClitics);
  text = Rewrite(text, [&](size_t at, Text* out) {
    if (IsIn(text[at], U"' ") || !HasAt(text, at + 1, U" ''")) return kNoMatch;
    *out += text[at];
    *out += U"''";
    return at + 4;
  });
  text = Rewrite(text, [&](size_t at, Text* out) {
    if (!IsIn(text[at], U",.;:!?'") || !HasAt(text, at + 1, U" ")) return kNoMatch;
    const size_t quote = std::min(text.find_first_not_of(U' ', at + 1), text.size());
    const View mark = HasAt(text, quote, U"\"") ? U"\"" : HasAt(text, quote, U"''") ? U"''" : U"";
    if (mark.empty()) return kNoMatch;
    *out += text[at];
    *out += mark;
    return quote + mark.size();
  });
  text = Rewrite(text, [&](size_t at, Text* out) {
    if (!HasAt(text, at, U"'' ") || at + 3 == text.size()) return kNoMatch;
    if (!IsIn(text[at + 3], U".,:)]>};%")) return kNoMatch;
    *out += U"''";
    *out += text[at + 3];
    return at + 4;
  });
  text = Replace(text, U"''", U"\"");
  return Rewrite(text, [&](size_t at, Text* out) {
    if (!IsIn(text[at], U",.;:!?") || !HasAt(text, at + 1, U"\"'")) return kNoMatch;
    *out += {text[at], U'\'', U'"'};
    return at + 3;
  });
}

Text JoinBrackets(Text text) {
  text = DropSpaceAfter(text, U"[({<");
  text = DropSpaceBefore(text, U"])}>");
  return Rewrite(text, [&](size_t at, Text* out) {
    if (!IsIn(text[at], U"])}>") || !HasAt(text, at + 1, U" ")) return kNoMatch;
    if (at + 2 == text.size() || !IsIn(text[at + 2], U":;,.")) return kNoMatch;
    *out += {text[at], text[at + 2]};
    return at + 3;
  });
}

Text JoinPunctuation(Text text) {
  text = Rewrite(text, [&](size_t at, Text* out) {
    if (text[at] == U'\'' || !HasAt(text, at + 1, U" ' ")) return kNoMatch;
    *out += {text[at], U'\'', U' '};
    return at + 4;
  });
  text = DropSpaceBefore(text, U"?!");
  text = Rewrite(text, [&](size_t at, Text* out) {
    if (text[at] == U'.' || !HasAt(text, at + 1, U" .") || HasAt(text, at + 3, U".")) {
      return kNoMatch;
    }
    const size_t end = std::min(text.find_first_not_of(U"])}>\"'", at + 3), text.size());
    *out += text[at];
    *out += text.substr(at + 2, end - at - 2);
    return end;
  });
  text = DropSpaceAfter(text, U"#$");
  text = DropSpaceBefore(text, U";%");
  text = Replace(text, U" ... ", U"...");
  return DropSpaceBefore(text, U":,");
}

Text JoinOpeningQuotes(Text text) {
  text = Rewrite(text, [&](size_t at, Text* out) {
    if (!IsIn(text[at], U" ([{<") || !HasAt(text, at + 1, U" ``")) return kNoMatch;
    *out += text[at];
    *out += U"``";
    return at + 4;
  });
  text = Replace(text, U"`` ", U"``");
  return Replace(text, U"``", U"\"");
}

}  // namespace

std::string JoinTreebankWords(const std::vector<std::string>& words) {
  if (words.size() == 1 && IsPlainWord(words[0])) return words[0];
  std::string joined = " ";
  for (const std::string& word : words) joined.append(word).append(" ");
  Text text = Strip(JoinClosingQuotes(JoinContractions(DecodeUtf8(joined))));
  text = JoinBrackets(Replace(text, U" -- ", U"--"));
  return EncodeUtf8(Strip(JoinOpeningQuotes(JoinPunctuation(std::move(text)))));
}

}  // namespace lmfusion
