#pragma once

#include <pybind11/pybind11.h>

#include "lmfusion/options.h"

namespace lmfusion {

// Options by the names of options_fields.inc, and `tokenizer`; `casing` and `tokenizer` may be
// functions. Throws TypeError for a name that is none and a value of another type, ValueError.
ScorerOptions ReadOptions(const pybind11::dict& given);

// The other way; what is no plain value is left out.
pybind11::dict OptionsDict(const ScorerOptions& options);

}  // namespace lmfusion
