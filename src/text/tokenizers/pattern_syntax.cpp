#include "text/tokenizers/pattern_syntax.h"

#include <cctype>
#include <cstring>

#include "lmfusion/errors.h"
#include "text/unicode/unicode_additions.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

// Note [Patterns]
// Tokenizer files are written for Oniguruma (Ruby's syntax). Only constructs that mean the same in
// PCRE2, or that are rewritten here, are let through. Rewritten: `\s`, which in PCRE2 also holds
// U+180E, `\d`, and `\p{..}` of the categories that have grown (kUnicodeAdditions). `^` and `$` are
// those of lines in both (PCRE2_MULTILINE).
constexpr const char* kSpace = R"(\t-\r\x{85}\p{Z})";

// The characters of a category, "\\p{L}", that Unicode has gained since PCRE2's version, as members
// of a class.
std::string Additions(std::string_view property) {
  const std::string_view category = property.substr(3, property.size() - 4);
  std::string members;
  for (const UnicodeAddition& addition : kUnicodeAdditions) {
    if (category.empty() || addition.category.substr(0, category.size()) != category) continue;
    members += EncodeUtf8({&addition.first, 1}) + "-" + EncodeUtf8({&addition.last, 1});
  }
  return members;
}

bool Is(char c, const char* set) { return c != '\0' && std::strchr(set, c) != nullptr; }

class Reader {
 public:
  explicit Reader(std::string_view pattern) : in_(pattern) { out_.alternatives.emplace_back(); }

  PatternSyntax Read() {
    Alternatives(0);
    if (!Done()) Refuse("an unmatched )");
    return std::move(out_);
  }

 private:
  bool Done() const { return at_ >= in_.size(); }
  bool Next(std::string_view what) const { return in_.substr(at_, what.size()) == what; }

  [[noreturn]] void Refuse(const std::string& what) const {
    throw TokenizerError("tokenizer.json: the pattern \"" + std::string(in_) + "\" has " + what +
                         " at byte " + std::to_string(at_) + ", which is not implemented");
  }

  void Emit(std::string_view text) { out_.pcre += text; }

  // depth 0: the top level, whose structure is recorded.
  void Alternatives(int depth) {
    if (depth > 50) Refuse("too many nested groups");
    while (!Done() && in_[at_] != ')') {
      if (in_[at_] == '|') {
        Emit("|");
        ++at_;
        if (depth == 0) out_.alternatives.emplace_back();
        continue;
      }
      ReadAtom(depth);
    }
  }

  void ReadAtom(int depth) {
    PatternSyntax::Atom atom;
    const size_t begin = out_.pcre.size();
    const char c = in_[at_];
    if (c == '(') {
      ReadGroup(depth, &atom);
    } else if (c == '[') {
      ReadClass();
    } else if (c == '$') {
      atom.before_space_end = true;
      Emit("$");
      ++at_;
    } else if (c == '^') {
      out_.local = false;
      Emit("^");
      ++at_;
    } else if (c == '\\') {
      Emit(Escape(false));
    } else if (Is(c, "*+?{")) {
      Refuse("a repetition of nothing");
    } else {
      const size_t length = Utf8Length(c);
      Emit(in_.substr(at_, length));
      at_ += length;
    }
    if (!atom.before_space_end && !atom.group) {
      atom.characters.push_back(out_.pcre.substr(begin));
    }
    atom.repeats = ReadRepetition();
    if (depth == 0) {
      out_.alternatives.back().push_back(std::move(atom));
    } else {
      out_.local = out_.local && !atom.before_space_end;
      group_characters_.insert(group_characters_.end(), atom.characters.begin(),
                               atom.characters.end());
    }
  }

  void ReadGroup(int depth, PatternSyntax::Atom* atom) {
    const char* opening = nullptr;
    for (const char* known : {"(?:", "(?i:", "(?!", "(?=", "(?<!", "(?<=", "(?>"}) {
      if (Next(known)) opening = known;
    }
    if (Next("(?!\\S)")) {
      atom->before_space_end = true;
      Emit(std::string("(?![^") + kSpace + "])");
      at_ += 6;
      return;
    }
    if (opening == nullptr && Next("(?")) Refuse("a group of this kind");
    const std::string_view open = opening == nullptr ? "(?:" : opening;
    if (open.find_first_of("!=") != std::string_view::npos) out_.local = false;
    Emit(open);
    at_ += opening == nullptr ? 1 : open.size();
    if (depth == 0) group_characters_.clear();
    Alternatives(depth + 1);
    if (Done()) Refuse("a group without end");
    Emit(")");
    ++at_;
    atom->group = true;
    if (depth == 0) atom->characters = group_characters_;
  }

  // Whether the atom before can match more than once.
  bool ReadRepetition() {
    if (Done() || !Is(in_[at_], "*+?{")) return false;
    bool repeats = in_[at_] != '?';
    if (in_[at_] == '{') {
      const size_t end = in_.find('}', at_);
      const std::string_view count = in_.substr(at_ + 1, end - at_ - 1);
      if (end == std::string_view::npos || count.empty() || count[0] == ',' ||
          count.find_first_not_of("0123456789,") != std::string_view::npos) {
        Refuse("a { that is not a repetition {n,m}");
      }
      Emit(in_.substr(at_, end + 1 - at_));
      at_ = end + 1;
      if (!Done() && Is(in_[at_], "+*")) Refuse("a repetition of a repetition");
    } else {
      Emit(in_.substr(at_++, 1));
      if (!Done() && in_[at_] == '+') Emit(in_.substr(at_++, 1));  // possessive
    }
    if (!Done() && in_[at_] == '?') Emit(in_.substr(at_++, 1));  // as few as possible
    if (!Done() && Is(in_[at_], "*+?{")) Refuse("a repetition of a repetition");
    return repeats;
  }

  void ReadClass() {
    Emit("[");
    ++at_;
    if (Next("^")) {
      Emit("^");
      ++at_;
    }
    if (Next("]")) Refuse("an empty class");
    while (!Next("]")) {
      if (Done()) Refuse("a class without end");
      if (in_[at_] == '[') Refuse("a class within a class");
      if (Next("&&")) Refuse("an intersection of classes");
      if (in_[at_] == '\\') {
        Emit(Escape(true));
        continue;
      }
      const size_t length = Utf8Length(in_[at_]);
      Emit(in_.substr(at_, length));
      at_ += length;
    }
    Emit("]");
    ++at_;
  }

  std::string Escape(bool in_class) {
    const char c = at_ + 1 < in_.size() ? in_[at_ + 1] : '\0';
    const std::string space = kSpace;
    std::string out;
    size_t length = 2;
    if (c == 's') {
      out = in_class ? space : "[" + space + "]";
    } else if (c == 'S' && !in_class) {
      out = "[^" + space + "]";
    } else if (c == 'd') {
      out = "\\p{Nd}";
    } else if (c == 'p' || c == 'P' || Next("\\x{")) {
      const size_t end = in_.find('}', at_);
      if (at_ + 2 >= in_.size() || in_[at_ + 2] != '{' || end == std::string_view::npos) {
        Refuse("an escape without its braces");
      }
      length = end + 1 - at_;
      out = in_.substr(at_, length);
      const std::string additions = c == 'x' ? "" : Additions(out);
      if (!additions.empty() && in_class && c == 'P') Refuse("\\P in a class");
      if (!additions.empty() && c == 'p') out += additions;
      if (!additions.empty() && c == 'P') out = "^\\p" + out.substr(2) + additions;
      if (!additions.empty() && !in_class) out = "[" + out + "]";
    } else if (c == 'u') {
      const std::string digits(in_.substr(at_ + 2, 4));
      if (digits.size() < 4 ||
          digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) {
        Refuse("an escape \\u without four digits");
      }
      length = 6;
      out = "\\x{" + digits + "}";
    } else if (Is(c, "rntf") || std::ispunct(static_cast<unsigned char>(c)) || c == ' ') {
      out = in_.substr(at_, length);
    } else {
      Refuse(std::string("the escape \\") + c);
    }
    at_ += length;
    return out;
  }

  std::string_view in_;
  size_t at_ = 0;
  PatternSyntax out_;
  std::vector<std::string> group_characters_;
};

}  // namespace

PatternSyntax ReadPattern(std::string_view oniguruma) { return Reader(oniguruma).Read(); }

std::string QuotePattern(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::ispunct(static_cast<unsigned char>(c))) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace lmfusion
