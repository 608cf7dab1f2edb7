#include "text/tokenizers/pre_tokenizer.h"

#include <utf8proc.h>

#include <algorithm>

#include "text/tokenizers/space_mark.h"
#include "text/unicode/category.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

using Words = PreTokenizer::Words;

bool IsNumeric(char32_t c) {
  if (c < 0x80) return c >= U'0' && c <= U'9';
  const utf8proc_category_t category = Category(c);
  if (category != UTF8PROC_CATEGORY_CN) {
    return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
  }
  return AddedCategory(c).substr(0, 1) == "N";
}

void Apply(const PreTokenizer::Digits& step, std::string_view text, bool, Words* out) {
  size_t open = 0;
  bool in_digits = false;
  for (size_t at = 0; at < text.size();) {
    const Utf8Character c = CharacterAt(text, at);
    const bool digit = IsNumeric(c.value);
    if ((digit != in_digits || (digit && step.individual)) && open < at) {
      out->views.push_back(text.substr(open, at - open));
      open = at;
    }
    in_digits = digit;
    at += c.bytes;
  }
  out->views.push_back(text.substr(open));
}

void Apply(const PreTokenizer::Split& step, std::string_view text, bool, Words* out) {
  step.pattern.Split(text, step.behavior, step.invert, &out->views);
}

void Apply(const PreTokenizer::ByteLevel& step, std::string_view text, bool, Words* out) {
  if (step.add_prefix_space && text.front() != ' ') {
    text = out->rewritten.emplace_back(" " + std::string(text));
  }
  if (step.pattern) {
    step.pattern->Split(text, SplitBehavior::kIsolated, false, &out->views);
  } else {
    out->views.push_back(text);
  }
}

void Apply(const PreTokenizer::Metaspace& step, std::string_view text, bool first, Words* out) {
  using Prepend = PreTokenizer::Metaspace::Prepend;
  const std::string& mark = step.mark;
  std::string marked;
  for (const char c : text) {
    if (c == ' ') {
      marked += mark;
    } else {
      marked += c;
    }
  }
  const bool prepend =
      step.prepend == Prepend::kAlways || (step.prepend == Prepend::kFirst && first);
  if (prepend && marked.compare(0, mark.size(), mark) != 0) marked.insert(0, mark);
  text = out->rewritten.emplace_back(std::move(marked));
  while (!text.empty()) {  // a mark begins a word
    const size_t end = step.split ? text.find(mark, 1) : std::string_view::npos;
    out->views.push_back(text.substr(0, end));
    text.remove_prefix(out->views.back().size());
  }
}

}  // namespace

void PreTokenizer::Apply(std::string_view text, bool first, Words* words) const {
  words->views.assign(1, text);
  std::vector<std::string_view> before;
  for (const Step& step : steps_) {
    before.swap(words->views);
    words->views.clear();
    for (const std::string_view& word : before) {
      if (word.empty()) continue;
      const bool begins = first && &word == before.data();
      std::visit([&](const auto& s) { lmfusion::Apply(s, word, begins, words); }, step);
    }
  }
}

bool PreTokenizer::WritesBytes() const {
  return std::any_of(steps_.begin(), steps_.end(),
                     [](const Step& step) { return std::holds_alternative<ByteLevel>(step); });
}

bool PreTokenizer::WritesSpaceMarks() const {
  return std::any_of(steps_.begin(), steps_.end(), [](const Step& step) {
    const auto* marks = std::get_if<Metaspace>(&step);
    return marks != nullptr && marks->mark == kSpaceMarkUtf8;
  });
}

bool PreTokenizer::AllowsCuts(bool spaces) const {
  for (const Step& step : steps_) {
    if (SplitsAtCuts(step, spaces)) return true;
    if (!RespectsCuts(step, spaces)) return false;
    spaces = spaces && !std::holds_alternative<Metaspace>(step);
  }
  return true;
}

bool PreTokenizer::SplitsAtCuts(bool spaces) const {
  for (const Step& step : steps_) {
    if (SplitsAtCuts(step, spaces)) return true;
    if (!RespectsCuts(step, spaces)) return false;
    spaces = spaces && !std::holds_alternative<Metaspace>(step);
  }
  return false;
}

bool PreTokenizer::RespectsCuts(const Step& step, bool spaces) {
  if (const auto* split = std::get_if<Split>(&step)) {
    return spaces && split->behavior == SplitBehavior::kIsolated && split->pattern.RespectsCuts();
  }
  if (const auto* bytes = std::get_if<ByteLevel>(&step)) {
    return spaces && (!bytes->pattern || bytes->pattern->RespectsCuts());
  }
  return true;
}

bool PreTokenizer::SplitsAtCuts(const Step& step, bool spaces) {
  if (const auto* split = std::get_if<Split>(&step)) {
    const bool keeps = split->behavior == SplitBehavior::kIsolated ||
                       (split->behavior == SplitBehavior::kRemoved && split->invert);
    return spaces && keeps && split->pattern.SplitsAtCuts();
  }
  if (const auto* bytes = std::get_if<ByteLevel>(&step)) {
    return spaces && bytes->pattern && bytes->pattern->SplitsAtCuts();
  }
  const auto* marks = std::get_if<Metaspace>(&step);
  return marks != nullptr && marks->split;
}

}  // namespace lmfusion
