#pragma once

#include <string>
#include <string_view>

namespace lmfusion {

// Strings as Python's `str` and its pattern modules see them, for rules that must give the very
// result of Python code. Strings are valid UTF-8. All functions are thread safe.

// str.lower(), str.title() and str.capitalize(): full case mappings, so the number of code points
// may change ("ß".title() is "Ss").
std::string PythonLower(std::string_view text);
std::string PythonTitle(std::string_view text);
std::string PythonCapitalize(std::string_view text);

// The lower-case form of one code point where that is one code point; else `c`.
char32_t SimpleLower(char32_t c);

bool IsPythonSpace(char32_t c);  // str.isspace(), `\s` of the module re
bool IsRegexSpace(char32_t c);   // `\s` of the module regex: not the separators U+001C..U+001F
bool IsRegexWord(char32_t c);    // `\w` of the module regex: also marks, all connectors, joiners
bool IsDecimalDigit(char32_t c);
bool IsLetter(char32_t c);

}  // namespace lmfusion
