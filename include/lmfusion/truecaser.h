#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "lmfusion/casing.h"

namespace lmfusion {

// The statistical truecaser of the Python package `truecase` (docs/casing.md). Remembers what it
// decided for the contexts it saw last, within a fixed budget of memory; that never changes a
// result. Thread safe.
class Truecaser : public Casing {
 public:
  // Words whose case was decided so far, over all calls and threads: what a call costs.
  virtual uint64_t WordsDecided() const = 0;
};

// `path` and `bytes`: what `python -m lmfusion export-truecaser` writes. A file is memory-mapped.
// compat: the very string of truecase.get_true_case(), which moves apostrophes and joins words;
//   the candidate is the last words of it, as many as `word` has. Otherwise the same decisions
//   change the case of letters in place, and the candidate is its own characters.
// Throws ModelFileError for anything else than a whole file of a version known here.
std::shared_ptr<const Truecaser> TruecaserFromFile(const std::string& path, bool compat);
std::shared_ptr<const Truecaser> TruecaserFromBytes(std::string bytes, bool compat);

}  // namespace lmfusion
