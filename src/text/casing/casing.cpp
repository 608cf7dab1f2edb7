#include "lmfusion/casing.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "lmfusion/errors.h"
#include "text/casing/cased_span.h"
#include "text/unicode/python_string.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

void CheckNamed(std::string_view text, const char* what) {
  try {
    CheckUtf8(text);
  } catch (const TextError& error) {
    throw TextError(std::string(what) + ": " + error.what());
  }
}

void CheckBoth(std::string_view context, std::string_view word) {
  CheckNamed(context, "context");
  CheckNamed(word, "candidate");
}

std::string Joined(std::string_view context, std::string_view word) {
  std::string text;
  text.reserve(context.size() + word.size());
  text += context;
  text += word;
  return text;
}

bool IsAsciiSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Where the first letter or digit of valid UTF-8 is; the end of the text where there is none.
size_t FirstLetterOrDigit(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Utf8Character character = CharacterAt(text, at);
    if (IsLetter(character.value) || IsDecimalDigit(character.value)) break;
    at += character.bytes;
  }
  return at;
}

// Capitalises the first letter from byte `from` on, unless a digit comes before it.
void CapitaliseFirstLetter(size_t from, std::string* text) {
  const size_t at = from + FirstLetterOrDigit(std::string_view(*text).substr(from));
  if (at == text->size()) return;
  const size_t bytes = CharacterAt(*text, at).bytes;
  text->replace(at, bytes, PythonTitle(std::string_view(*text).substr(at, bytes)));
}

// Letters that have no capital of one character become several ("ß" is "SS").
std::string Upper(std::string_view text) {
  std::string titles;
  for (size_t at = 0; at < text.size(); at += Utf8Length(text[at])) {
    titles += PythonTitle(text.substr(at, Utf8Length(text[at])));
  }
  std::u32string letters = DecodeUtf8(titles);
  for (char32_t& c : letters) {
    c = static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)));
  }
  return EncodeUtf8(letters);
}

constexpr std::u32string_view kOpening = U"\"'“‘„‚«‹([{¿¡";

// Whether text[at, end) is the word i: alone, before an apostrophe (i'm, i’ll), before marks (i,),
// or before a script that is written without spaces.
bool IsFirstPerson(std::string_view text, size_t at, size_t end) {
  if (at >= end || text[at] != 'i') return false;
  const std::u32string rest = DecodeUtf8(text.substr(at + 1, end - at - 1));
  if (rest.empty() || rest[0] == U'\'' || rest[0] == U'’' || rest[0] >= 0xe00) return true;
  return rest[0] != U'-' && rest[0] != U'/' &&
         std::none_of(rest.begin(), rest.end(),
                      [](char32_t c) { return IsLetter(c) || IsDecimalDigit(c); });
}

// In the words that end after byte `from`, where it stands at `from` or later.
void CapitaliseFirstPerson(size_t from, std::string* text) {
  size_t begin = from;
  while (begin > 0 && !IsAsciiSpace((*text)[begin - 1])) --begin;
  for (size_t end = begin; begin < text->size(); begin = end + 1) {
    for (end = begin; end < text->size() && !IsAsciiSpace((*text)[end]);) ++end;
    Utf8Character mark = CharacterAt(*text, begin);
    while (begin < end && kOpening.find(mark.value) != std::u32string_view::npos) {
      mark = CharacterAt(*text, begin += mark.bytes);
    }
    if (begin >= from && IsFirstPerson(*text, begin, end)) (*text)[begin] = 'I';
  }
}

class AsGiven final : public LeftToRightCasing {
 public:
  std::string Context(std::string_view context) const override { return std::string(context); }

  void Append(std::string_view word, std::string* text) const override { *text += word; }
};

// What joins to a context without a space (join.h, "auto") does not change whether its last word is
// the word i, so no word of the context depends on what follows.
class Sentence final : public LeftToRightCasing {
 public:
  std::string Context(std::string_view context) const override {
    std::string text(context);
    Case(0, &text);
    return text;
  }

  void Append(std::string_view word, std::string* text) const override {
    const size_t from = text->size();
    *text += word;
    Case(from, text);
  }

 private:
  // Cases text[from, end).
  static void Case(size_t from, std::string* text) {
    CapitaliseFirstPerson(from, text);
    const std::string_view before = std::string_view(*text).substr(0, from);
    if (FirstLetterOrDigit(before) == before.size()) CapitaliseFirstLetter(from, text);
  }
};

class Variants final : public Casing {
 public:
  CasedText Apply(std::string_view context, std::string_view word) const override {
    CheckBoth(context, word);
    return {Joined(context, word), context.size()};
  }

  std::vector<CasedText> Alternatives(std::string_view context,
                                      std::string_view word) const override {
    CheckBoth(context, word);
    std::array<std::string, 3> forms{std::string(word), std::string(word), Upper(word)};
    CapitaliseFirstLetter(0, &forms[1]);
    std::vector<CasedText> texts;
    for (auto form = forms.begin(); form != forms.end(); ++form) {
      if (std::find(forms.begin(), form, *form) != form) continue;
      texts.push_back({Joined(context, *form), context.size()});
    }
    return texts;
  }
};

class FromFunction final : public Casing {
 public:
  explicit FromFunction(std::function<std::string(const std::string&)> function)
      : function_(std::move(function)) {}

  CasedText Apply(std::string_view context, std::string_view word) const override {
    CheckBoth(context, word);
    const std::string given = Joined(context, word);
    CasedText cased{function_(given), 0};
    CheckNamed(cased.text, "result of the casing function");
    if (context.empty()) return cased;
    const auto found = SameCharacters(given, context.size(), cased.text, CountWords(word));
    if (!found) {
      throw std::invalid_argument(
          "the casing function changed the text so that the candidate cannot be told from the "
          "context: it has neither as many characters, letters or digits as before, nor a word to "
          "spare for the context");
    }
    cased.context_bytes = *found;
    return cased;
  }

 private:
  const std::function<std::string(const std::string&)> function_;
};

}  // namespace

std::vector<CasedText> Casing::Alternatives(std::string_view context, std::string_view word) const {
  return {Apply(context, word)};
}

CasedText LeftToRightCasing::Apply(std::string_view context, std::string_view word) const {
  CheckBoth(context, word);
  CasedText cased{Context(context), 0};
  cased.context_bytes = cased.text.size();
  Append(word, &cased.text);
  return cased;
}

std::shared_ptr<const Casing> CasingByName(std::string_view name) {
  if (name == "none") return std::make_shared<const AsGiven>();
  if (name == "sentence") return std::make_shared<const Sentence>();
  if (name == "variants") return std::make_shared<const Variants>();
  throw std::invalid_argument("casing '" + std::string(name) +
                              "' is not known here: it is none, sentence or variants (truecase "
                              "and truecase-compat are made from a truecaser file)");
}

std::shared_ptr<const Casing> CasingFromFunction(std::function<std::string(const std::string&)> f) {
  if (!f) throw std::invalid_argument("the casing function is empty");
  return std::make_shared<const FromFunction>(std::move(f));
}

}  // namespace lmfusion
