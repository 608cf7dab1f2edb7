#pragma once

#include <string>

namespace lmfusion {

// The path of a library that is installed beside liblmfusion.
std::string LibraryBeside(const std::string& name);

}  // namespace lmfusion
