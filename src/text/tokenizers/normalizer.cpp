#include "text/tokenizers/normalizer.h"

#include <utf8proc.h>

#include <algorithm>

#include "lmfusion/errors.h"
#include "text/tokenizers/space_mark.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

constexpr size_t kMaxGrowth = 64;  // of a text, in bytes, before it is refused

// Nothing below U+0300 has a part in a composition with a neighbour below U+0300, and all of it is
// composed. The first byte of U+0300 is 0xcc.
bool IsSurelyComposed(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0xcc; });
}

int CombiningClass(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

// utf8proc's own ordering of combining marks takes quadratic time for long runs of them.
void OrderMarks(std::vector<utf8proc_int32_t>* text) {
  const auto is_starter = [](utf8proc_int32_t c) { return CombiningClass(c) == 0; };
  for (auto run = text->begin(); run != text->end();) {
    run = std::find_if_not(run, text->end(), is_starter);
    const auto end = std::find_if(run, text->end(), is_starter);
    std::stable_sort(run, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return CombiningClass(a) < CombiningClass(b);
    });
    run = end;
  }
}

std::string Replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t at = 0;
  for (size_t found; (found = text.find(from, at)) != std::string_view::npos;) {
    out.append(text.substr(at, found - at)).append(to);
    at = found + from.size();
  }
  return out.append(text.substr(at));
}

std::string Replaced(std::string_view text, const SplitPattern& pattern, std::string_view to) {
  std::string out;
  size_t at = 0, begin = 0, end = 0;
  while (at < text.size() && pattern.Find(text, at, &begin, &end)) {
    out.append(text.substr(at, begin - at)).append(to);
    at = end;
  }
  return out.append(text.substr(at));
}

}  // namespace

std::string Nfc(std::string_view text) {
  if (IsSurelyComposed(text)) return std::string(text);
  constexpr auto kOptions = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  std::vector<utf8proc_int32_t> decomposed;
  decomposed.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Character c = CharacterAt(text, at);
    at += c.bytes;
    utf8proc_int32_t parts[8];
    const auto count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(c.value), parts, 8,
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), nullptr);
    if (count < 0 || count > 8) throw Error("utf8proc cannot decompose a character");
    decomposed.insert(decomposed.end(), parts, parts + count);
  }
  OrderMarks(&decomposed);
  const auto size = utf8proc_normalize_utf32(
      decomposed.data(), static_cast<utf8proc_ssize_t>(decomposed.size()), kOptions);
  if (size < 0) throw Error("utf8proc cannot compose a text");
  return EncodeUtf8(std::u32string(decomposed.begin(), decomposed.begin() + size));
}

void Normalizer::AddNfc() { steps_.push_back({Step::Kind::kNfc, "", "", nullptr}); }

void Normalizer::AddPrepend(std::string prefix) {
  allows_cuts_ = allows_cuts_ && prefix == kSpaceMarkUtf8;
  steps_.push_back({Step::Kind::kPrepend, "", std::move(prefix), nullptr});
}

void Normalizer::AddReplace(std::string from, std::string to) {
  const bool space_marks = from == " " && to == kSpaceMarkUtf8;
  writes_space_marks_ = writes_space_marks_ || space_marks;
  allows_cuts_ = allows_cuts_ && space_marks;
  steps_.push_back({Step::Kind::kReplace, std::move(from), std::move(to), nullptr});
}

void Normalizer::AddReplacePattern(SplitPattern pattern, std::string to) {
  allows_cuts_ = false;
  steps_.push_back({Step::Kind::kReplacePattern, "", std::move(to),
                    std::make_shared<const SplitPattern>(std::move(pattern))});
}

bool Normalizer::Keeps(std::string_view text) const {
  return std::all_of(steps_.begin(), steps_.end(), [text](const Step& step) {
    return step.kind == Step::Kind::kNfc && IsSurelyComposed(text);
  });
}

std::string Normalizer::Apply(std::string_view text, bool after_cut) const {
  std::string out(text);
  const size_t limit = kMaxGrowth * (text.size() + kMaxGrowth);
  for (const Step& step : steps_) {
    if (out.size() > limit) {
      throw Error("the tokenizer's normalizer makes more than " + std::to_string(limit) +
                  " bytes of a text of " + std::to_string(text.size()));
    }
    switch (step.kind) {
      case Step::Kind::kNfc: out = Nfc(out); break;
      case Step::Kind::kPrepend:
        if (!after_cut && !out.empty()) out.insert(0, step.to);
        break;
      case Step::Kind::kReplace: out = Replaced(out, step.from, step.to); break;
      case Step::Kind::kReplacePattern: out = Replaced(out, *step.pattern, step.to); break;
    }
  }
  return out;
}

}  // namespace lmfusion
