#pragma once

#include <utf8proc.h>

#include "text/unicode/unicode_additions.h"

namespace lmfusion {

// The general category of a character; unassigned (CN) where it came after Unicode 16, whatever
// utf8proc is linked, and where that is older than the character, of which AddedCategory knows.
inline utf8proc_category_t Category(char32_t c) {
  if (IsAfterUnicode16(c)) return UTF8PROC_CATEGORY_CN;
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

}  // namespace lmfusion
