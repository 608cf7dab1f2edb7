#pragma once

#include <string>
#include <string_view>

namespace lmfusion {

// How byte-level vocabularies write bytes as printable characters ("Ġthe" for " the").
std::string WriteByteLevel(std::string_view bytes);
// The bytes a piece stands for; a piece with any other character stands for itself.
std::string ReadByteLevel(std::string_view piece);

}  // namespace lmfusion
