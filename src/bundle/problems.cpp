#include "bundle/problems.h"

#include "base/printable.h"
#include "lmfusion/errors.h"

namespace lmfusion {
namespace {

constexpr size_t kMostProblems = 1000;

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
