#include "base/library_beside.h"

#include <dlfcn.h>

namespace lmfusion {

std::string LibraryBeside(const std::string& name) {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&LibraryBeside), &info) == 0) return name;
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? name : path.substr(0, slash + 1) + name;
}

}  // namespace lmfusion
