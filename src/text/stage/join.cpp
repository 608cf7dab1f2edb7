#include "lmfusion/join.h"

#include <algorithm>
#include <string>

#include "text/unicode/category.h"
#include "text/unicode/python_string.h"
#include "text/unicode/utf8.h"

// Note [Join]
// join="auto" leaves the space out where people do:
//   - before closing punctuation, clitics and chains of them ("'d've"), what is hyphened on
//     ("-in-law");
//   - before marks that are put onto a character (accents, vowel signs, an emoji's skin) and beside
//     joiners, which show no space of their own;
//   - after an opening bracket or quote, a hyphen or slash that is written onto a word, a currency
//     sign before a number, an elided article (l', qu', dell');
//   - where the nearest letters on both sides are of scripts that are written without spaces, or
//     one is of Chinese or Japanese script and the other is not Hangul: these leave no space beside
//     Latin words and numbers either, Thai, Lao, Khmer and Myanmar do.
// It looks at the word and at a few characters of the context; only a lone straight quote, of which
// nobody can tell whether it opens or closes, takes a look at all of it.

namespace lmfusion {
namespace {

constexpr std::u32string_view kClosing =
    U".,?!;:%‰°…‼⁇⁈⁉²³™®"   // Latin
    U"،؛؟۔٪׃।॥·։።፣"         // Arabic, Hebrew, Devanagari, Greek, Armenian, Ethiopic
    U"、。，．！？；：％";  // Chinese, Japanese
constexpr std::u32string_view kApostrophes = U"'’ʼ＇";
constexpr std::u32string_view kQuotes = U"\"'“”‘’«»‹›";
constexpr std::u32string_view kHyphens = U"-‐‑";
constexpr std::u32string_view kConnectors = U"-‐‑–—־/";
constexpr std::u32string_view kCurrency = U"$£¥";
constexpr char32_t kZeroWidthSpace = 0x200b;
constexpr std::u32string_view kJoiners = U"\u200c\u200d\u2060";
constexpr std::u32string_view kClitics[] = {U"'s", U"'m", U"'d", U"'t", U"'ll", U"'re", U"'ve"};
constexpr std::string_view kElided[] = {"un",   "all",   "dall",  "dell", "nell", "sull",
                                        "coll", "quell", "quest", "bell", "sant", "aujourd"};

bool IsOneOf(char32_t c, std::u32string_view set) { return set.find(c) != set.npos; }

bool IsSpace(char32_t c) { return IsPythonSpace(c) || c == kZeroWidthSpace; }
bool IsClosing(char32_t c) {
  return IsOneOf(c, kClosing) || Category(c) == UTF8PROC_CATEGORY_PE ||
         Category(c) == UTF8PROC_CATEGORY_PF;
}
bool IsOpeningBracket(char32_t c) {
  return Category(c) == UTF8PROC_CATEGORY_PS || c == U'¿' || c == U'¡';
}
bool IsLetterOrDigit(char32_t c) { return IsLetter(c) || IsDecimalDigit(c); }

// What is written onto the character before it.
bool IsPutOn(char32_t c) {
  const auto category = Category(c);
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
         category == UTF8PROC_CATEGORY_ME || (c >= 0x1f3fb && c <= 0x1f3ff) || IsOneOf(c, kJoiners);
}

// A mark that opens something: what is before it is the beginning, white space or another one.
bool BeginsAt(std::string_view text, size_t at) {
  const char32_t before = CharacterBefore(text, at).value;
  return before == kNoCharacter || IsSpace(before) || IsOpeningBracket(before) ||
         IsOneOf(before, U"\"“‘«—");
}

// Whether the straight quote that comes next closes one: those before it are odd in number.
bool ClosesQuote(std::string_view context, char32_t quote) {
  if (quote == U'\'') return true;  // far more often an apostrophe: "the dogs '"
  return std::count(context.begin(), context.end(), static_cast<char>(quote)) % 2 == 1;
}

// Whether a word is punctuation alone that is written onto what is before it.
bool IsClosingWord(const std::u32string& word, std::string_view context) {
  const bool marks_alone = std::none_of(word.begin(), word.end(), IsLetterOrDigit);
  if (!marks_alone) return false;
  const char32_t first = word.front();
  if (first != U'"' && first != U'\'') return IsClosing(first);
  return (word.size() > 1 && IsClosing(word[1])) || ClosesQuote(context, first);
}

// "'s", "n't" and the like, one or several ("'d've"), with any apostrophe, in any case, perhaps
// with marks after them.
bool IsClitic(std::u32string_view word) {
  while (!word.empty() && (IsClosing(word.back()) || IsOneOf(word.back(), kQuotes))) {
    word.remove_suffix(1);
  }
  std::u32string plain;
  for (const char32_t c : word) {
    if (c >= 0x80 && !IsOneOf(c, kApostrophes)) return false;
    plain += IsOneOf(c, kApostrophes) ? U'\'' : SimpleLower(c);
  }
  std::u32string_view rest = plain;
  if (rest.substr(0, 3) == U"n't") rest.remove_prefix(3);
  while (!rest.empty()) {
    const auto* begin =
        std::find_if(std::begin(kClitics), std::end(kClitics), [rest](std::u32string_view clitic) {
          return rest.substr(0, clitic.size()) == clitic &&
                 (rest.size() == clitic.size() || rest[clitic.size()] == U'\'');
        });
    if (begin == std::end(kClitics)) return false;
    rest.remove_prefix(begin->size());
  }
  return !plain.empty();
}

// "-known", "-in-law": a hyphen and a letter, after a letter.
bool IsHyphenedOn(const std::u32string& word, std::string_view context) {
  return word.size() > 2 && IsOneOf(word[0], kHyphens) && IsLetter(word[1]) &&
         IsLetter(CharacterBefore(context, context.size()).value);
}

// Whether the apostrophe at `at` ends a word of one letter, one in "qu" (l', d', o', jusqu'), or
// one that Italian and French elide always (dell', un', aujourd').
bool IsElided(std::string_view context, size_t at) {
  const Utf8Character letter = CharacterBefore(context, at);
  if (letter.value == kNoCharacter || !IsLetter(letter.value)) return false;
  if (BeginsAt(context, at - letter.bytes)) return true;
  std::string word;  // its last letters, the first one last
  size_t begin = at;
  while (begin > 0 && word.size() < 8 && !BeginsAt(context, begin)) {
    const Utf8Character each = CharacterBefore(context, begin);
    if (each.value >= 0x80) break;
    word += static_cast<char>(SimpleLower(each.value));
    begin -= each.bytes;
  }
  if (word.substr(0, 2) == "uq") return true;
  std::reverse(word.begin(), word.end());
  return BeginsAt(context, begin) &&
         std::find(std::begin(kElided), std::end(kElided), word) != std::end(kElided);
}

// Whether the context ends in a currency sign that a number is written onto: "$ 5", but "5 €".
bool IsCurrencyBeforeNumber(std::string_view context) {
  const Utf8Character sign = CharacterBefore(context, context.size());
  const size_t at = context.size() - sign.bytes;
  if (!BeginsAt(context, at)) return false;
  if (IsOneOf(sign.value, kCurrency)) return true;
  if (Category(sign.value) != UTF8PROC_CATEGORY_SC) return false;
  const Utf8Character space = CharacterBefore(context, at);
  return at == 0 || !IsDecimalDigit(CharacterBefore(context, at - space.bytes).value);
}

// Whether the context ends in a mark that is written onto what follows.
bool IsOpen(std::string_view context) {
  const Utf8Character last = CharacterBefore(context, context.size());
  const size_t at = context.size() - last.bytes;
  if (IsOpeningBracket(last.value)) return true;
  if (IsOneOf(last.value, kConnectors)) return !BeginsAt(context, at);
  if (IsOneOf(last.value, kApostrophes) && IsElided(context, at)) return true;
  return IsOneOf(last.value, kQuotes) && BeginsAt(context, at);
}

struct Range {
  char32_t first, last;
};
template <size_t N>
bool IsIn(char32_t c, const Range (&ranges)[N]) {
  return std::any_of(std::begin(ranges), std::end(ranges),
                     [c](const Range& range) { return c >= range.first && c <= range.last; });
}

constexpr Range kHangul[] = {
    {0x1100, 0x11ff}, {0x3130, 0x318f}, {0xa960, 0xa97f}, {0xac00, 0xd7ff}, {0xffa0, 0xffdc}};
// Han, Hiragana, Katakana, Bopomofo, Yi, and the punctuation and full-width forms beside them.
constexpr Range kCjk[] = {{0x2e80, 0x2fdf},   {0x2ff0, 0x312f},   {0x3190, 0x4dbf},
                          {0x4e00, 0x9fff},   {0xa000, 0xa4cf},   {0xf900, 0xfaff},
                          {0xfe30, 0xfe4f},   {0xff00, 0xff9f},   {0xffe0, 0xffee},
                          {0x16fe0, 0x18dff}, {0x1aff0, 0x1b2ff}, {0x20000, 0x3ffff}};
// Thai, Lao, Tibetan, Myanmar, Khmer, Tai Le, New Tai Lue, Tai Tham, Balinese, Javanese, Tai Viet.
constexpr Range kUnspaced[] = {{0x0e00, 0x0fff}, {0x1000, 0x109f}, {0x1780, 0x17ff},
                               {0x1950, 0x19ff}, {0x1a20, 0x1aaf}, {0x1b00, 0x1b7f},
                               {0xa980, 0xa9ff}, {0xaa60, 0xaadf}};

}  // namespace

bool IsWrittenWithoutSpaces(char32_t c) {
  return !IsSpace(c) && (IsIn(c, kCjk) || IsIn(c, kUnspaced));
}

JoinAfter::Script JoinAfter::ScriptOf(char32_t c) {
  if (IsIn(c, kHangul)) return Script::kHangul;
  if (IsIn(c, kCjk)) return Script::kCjk;
  if (IsIn(c, kUnspaced)) return Script::kUnspaced;
  return IsLetterOrDigit(c) ? Script::kSpaced : Script::kNone;
}

// Of the nearest character that has one, punctuation being passed over.
JoinAfter::Script JoinAfter::Before(std::string_view context) {
  for (size_t end = context.size(); end > 0;) {
    const Utf8Character c = CharacterBefore(context, end);
    if (IsSpace(c.value)) break;
    if (const Script script = ScriptOf(c.value); script != Script::kNone) return script;
    end -= c.bytes;
  }
  return Script::kNone;
}

JoinAfter::Script JoinAfter::After(std::string_view word) {
  for (size_t at = 0; at < word.size();) {
    const Utf8Character c = CharacterAt(word, at);
    if (IsSpace(c.value)) break;
    if (const Script script = ScriptOf(c.value); script != Script::kNone) return script;
    at += c.bytes;
  }
  return Script::kNone;
}

JoinAfter::JoinAfter(std::string_view context, Join join) : context_(context), join_(join) {
  const Utf8Character last = CharacterBefore(context, context.size());
  open_ = join == Join::kNone || last.value == kNoCharacter || IsPythonSpace(last.value);
  if (open_ || join == Join::kSpace) return;
  open_ = last.value == kZeroWidthSpace || IsOneOf(last.value, kJoiners) || IsOpen(context);
  before_digit_ = IsCurrencyBeforeNumber(context);
  script_ = Before(context);
}

std::string_view JoinAfter::Separator(std::string_view word) const {
  const char32_t first = CharacterAt(word, 0).value;
  if (open_ || first == kNoCharacter || IsPythonSpace(first)) return "";
  if (join_ == Join::kSpace) return " ";
  if (first == kZeroWidthSpace || IsPutOn(first) || (before_digit_ && IsDecimalDigit(first)))
    return "";
  const Script after = After(word);
  if (script_ == Script::kUnspaced && after == Script::kUnspaced) return "";
  if (script_ == Script::kCjk && after != Script::kHangul) return "";
  if (after == Script::kCjk && script_ != Script::kHangul) return "";
  if (IsLetterOrDigit(first) && first != U'n' && first != U'N') return " ";  // the common case
  const std::u32string characters = DecodeUtf8(word);
  const bool put_on = IsClosingWord(characters, context_) || IsClitic(characters) ||
                      IsHyphenedOn(characters, context_);
  return put_on ? "" : " ";
}

std::string_view Separator(std::string_view context, std::string_view word, Join join) {
  return JoinAfter(context, join).Separator(word);
}

}  // namespace lmfusion
