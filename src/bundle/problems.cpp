#include "bundle/problems.h"

#include "lmfusion/errors.h"

namespace lmfusion {
namespace {

constexpr size_t kMostProblems = 1000;

// A line that any terminal and any reader of UTF-8 can show, whatever bytes the file holds.
std::string Printable(const std::string& text) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string line;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      line += c;
    } else {
      line += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return line;
}

}  // namespace

void Problems::Add(const std::string& part, const std::string& field, const std::string& what) {
  if (lines_.size() >= kMostProblems) return;
  lines_.push_back(Printable(part + ": " + (field.empty() ? "" : field + ": ") + what));
}

void Problems::ThrowIfAny(const std::string& path) const {
  if (lines_.empty()) return;
  std::string text = path + ": " + lines_.front();
  if (lines_.size() > 1) {
    text += " (and " + std::to_string(lines_.size() - 1) +
            " more; `python -m lmfusion inspect --verify` lists them)";
  }
  throw ModelFileError(text);
}

}  // namespace lmfusion
