#include "text/casing/treebank.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "text/casing/substitution.h"
#include "text/unicode/python_string.h"
#include "text/unicode/utf8.h"

// Note [Treebank rules]
// The substitutions of nltk 3.10.4 in its order: NLTKWordTokenizer.tokenize (nltk/tokenize/
// destructive.py) and TreebankWordDetokenizer.tokenize (nltk/tokenize/treebank.py). nltk compiles
// most of its patterns with the module `regex`, those that split contractions with `re`. The two
// and PCRE2 differ in what a word character, white space or the letter i in another case is, so
// these are spelled out below.

// A word character for `re` (RE_WORD) and for `regex` (REGEX_WORD): only the latter has marks, all
// connectors, joiners and circled letters. A word ends where none follows.
#define RE_WORD "[\\p{L}\\p{N}_]"
#define REGEX_WORD                                       \
  "[\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{200c}\\x{200d}" \
  "\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}]"
#define RE_BEGIN "(?<!" RE_WORD ")"
#define RE_END "(?!" RE_WORD ")"
#define REGEX_BEGIN "(?<!" REGEX_WORD ")"
#define REGEX_END "(?!" REGEX_WORD ")"
// White space for `regex`; for `re` it includes the four separators.
#define REGEX_SPACE                                                           \
  "[\\t-\\r\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}" \
  "\\x{202f}\\x{205f}\\x{3000}]"
#define RE_SPACE                                                                    \
  "[\\x{1c}-\\x{1f}\\t-\\r\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}" \
  "\\x{2029}\\x{202f}\\x{205f}\\x{3000}]"
// What equals the letter i but for its case.
#define RE_I "[i\\x{130}\\x{131}]"
#define REGEX_I "[i\\x{130}]"

namespace lmfusion {
namespace {

class Rules {
 public:
  Rules(std::initializer_list<std::pair<const char*, const char*>> table) {
    for (const auto& [pattern, replacement] : table) rules_.emplace_back(pattern, replacement);
  }
  void Apply(std::string* text) const {
    for (const Substitution& rule : rules_) rule.Apply(text);
  }

 private:
  std::vector<Substitution> rules_;
};

void SplitMarks(std::string* text) {
  static const Rules rules{
      // Opening quotes.
      {"[«“‘„]|`+", " $0 "},
      {"^\"", "``"},
      {"``", " `` "},
      {"([ (\\[{<])(?:\"|'')", "$1 `` "},
      {"(?i)" REGEX_BEGIN "'(?!(?:re|ve|ll|m|t|s|d|n)" REGEX_END ")(?=" REGEX_WORD ")", "' "},
      // Punctuation.
      {"([^.])\\.([\\])}>\"'»”’ ]*+)" REGEX_SPACE "*$", "$1 . $2 "},
      {"([:,])([^\\p{Nd}])", " $1 $2"},
      {"[:,]$", " $0 "},
      {"\\.{2,}", " $0 "},
      {"[;@#$%&]", " $0 "},
      {"[\\x{2012}-\\x{2015}]", " $0 "},
      {"([^.])\\.([\\])}>\"']*)" REGEX_SPACE "*$", "$1 .$2 "},
      {"[?!]", " $0 "},
      {"([^'])' ", "$1 ' "},
      {"[*\\[\\](){}<>]", " $0 "},
      {"--", " -- "}};
  rules.Apply(text);
}

void SplitQuotesAndClitics(std::string* text) {
  static const Rules rules{// Closing quotes.
                           {"[»”’]", " $0 "},
                           {"''", " '' "},
                           {"\"", " '' "},
                           {REGEX_SPACE "+", " "},
                           // Clitics.
                           {"([^' ])('[sS]|'[mM]|'[dD]|') ", "$1 $2 "},
                           {"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", "$1 $2 "},
                           // Words written as one.
                           {"(?i)" RE_BEGIN "(can)(not)" RE_END, " $1 $2 "},
                           {"(?i)" RE_BEGIN "(d)('ye)" RE_END, " $1 $2 "},
                           {"(?i)" RE_BEGIN "(g" RE_I "m)(me)" RE_END, " $1 $2 "},
                           {"(?i)" RE_BEGIN "(gon)(na)" RE_END, " $1 $2 "},
                           {"(?i)" RE_BEGIN "(got)(ta)" RE_END, " $1 $2 "},
                           {"(?i)" RE_BEGIN "(lem)(me)" RE_END, " $1 $2 "},
                           {"(?i)" RE_BEGIN "(more)('n)" RE_END, " $1 $2 "},
                           {"(?i)" RE_BEGIN "(wan)(na)(?=" RE_SPACE ")", " $1 $2 "},
                           {"(?i) ('t)(" RE_I "s)" RE_END, " $1 $2 "},
                           {"(?i) ('t)(was)" RE_END, " $1 $2 "}};
  rules.Apply(text);
}

// The only white space in the text is single spaces and what is inside of words.
void JoinClitics(std::string* text) {
  static const Rules rules{// Words written as one.
                           {"(?i) ('t) (" REGEX_I "s)" REGEX_END, "$1$2"},
                           {"(?i) ('t) (was)" REGEX_END, "$1$2"},
                           {"(?i)" REGEX_BEGIN "(can) (not)" REGEX_END, "$1$2"},
                           {"(?i)" REGEX_BEGIN "(d) ('ye)" REGEX_END, "$1$2"},
                           {"(?i)" REGEX_BEGIN "(g" REGEX_I "m) (me)" REGEX_END, "$1$2"},
                           {"(?i)" REGEX_BEGIN "(gon) (na)" REGEX_END, "$1$2"},
                           {"(?i)" REGEX_BEGIN "(got) (ta)" REGEX_END, "$1$2"},
                           {"(?i)" REGEX_BEGIN "(lem) (me)" REGEX_END, "$1$2"},
                           {"(?i)" REGEX_BEGIN "(more) ('n)" REGEX_END, "$1$2"},
                           {"(?i)" REGEX_BEGIN "(wan) (na)(?= )", "$1$2"},
                           // Clitics and closing quotes.
                           {"([^' ]) ('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", "$1$2 "},
                           {"([^' ]) ('[sS]|'[mM]|'[dD]|') ", "$1$2 "},
                           {"([^' ]) ''", "$1''"},
                           {"([,.;:!?']) +(\"|'')", "$1$2"},
                           {"'' ([.,:)\\]>};%])", "''$1"},
                           {"''", "\""},
                           {"([,.;:!?])\"'", "$1'\""}};
  rules.Apply(text);
}

void JoinMarks(std::string* text) {
  static const Rules rules{{" -- ", "--"},
                           // Brackets.
                           {"([\\[({<]) ", "$1"},
                           {" ([\\])}>])", "$1"},
                           {"([\\])}>]) ([:;,.])", "$1$2"},
                           // Punctuation.
                           {"([^']) ' ", "$1' "},
                           {" ([?!])", "$1"},
                           {"([^.]) \\.(?!\\.)([\\])}>\"']*)", "$1.$2"},
                           {"([#$]) ", "$1"},
                           {" ([;%])", "$1"},
                           {" \\.\\.\\. ", "..."},
                           {" ([:,])", "$1"},
                           // Opening quotes.
                           {"([ (\\[{<]) ``", "$1``"},
                           {"`` ", "``"},
                           {"``", "\""}};
  rules.Apply(text);
}

// Letters and digits only, so that no rule but those for words written as one has anything to do.
bool IsPlainWord(std::string_view text) {
  const auto plain = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  };
  return !text.empty() && std::all_of(text.begin(), text.end(), plain);
}

// A word that the rules split; true for a few words more, which costs time only.
bool MayBeTwoWords(std::string_view word) {
  if (word.size() != 5 && word.size() != 6) return false;
  const char last = word.back() | 0x20, before = word[word.size() - 2] | 0x20;
  return (before == 'm' && last == 'e') || (before == 'n' && last == 'a') ||
         (before == 't' && last == 'a') || (before == 'o' && last == 't');
}

void Strip(std::string* text) {
  text->erase(text->find_last_not_of(' ') + 1);
  text->erase(0, text->find_first_not_of(' '));
}

}  // namespace

std::vector<std::string> SplitTreebankWords(std::string_view given) {
  if (IsPlainWord(given) && !MayBeTwoWords(given)) return {std::string(given)};
  CheckUtf8(given);
  std::string text(given);
  SplitMarks(&text);
  text = " " + text + " ";
  SplitQuotesAndClitics(&text);
  std::vector<std::string> words;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Character c = CharacterAt(text, at);
    const bool space = IsPythonSpace(c.value);
    if (space && begin < at) words.push_back(text.substr(begin, at - begin));
    at += c.bytes;
    if (space) begin = at;
  }
  if (begin < text.size()) words.push_back(text.substr(begin));
  return words;
}

std::string JoinTreebankWords(const std::vector<std::string>& words) {
  if (words.size() == 1 && IsPlainWord(words[0])) return words[0];
  std::string text = " ";
  for (const std::string& word : words) text.append(word).append(" ");
  JoinClitics(&text);
  Strip(&text);
  JoinMarks(&text);
  Strip(&text);
  return text;
}

}  // namespace lmfusion
