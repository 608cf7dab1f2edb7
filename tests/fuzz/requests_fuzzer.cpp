#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "requests.h"

// Any bytes are requests, each with as many lists of words as contexts, or an error that names the
// line.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const int file = memfd_create("requests", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  if (ftruncate(file, 0) != 0 || pwrite(file, data, size, 0) != static_cast<ssize_t>(size)) {
    std::abort();
  }
  try {
    for (const lmfusion::Request& request : lmfusion::ReadRequests(path, 0)) {
      if (request.contexts.size() != request.candidate_words.size()) std::abort();
      request.Candidates();
    }
  } catch (const std::invalid_argument& error) {
    if (std::string(error.what()).find(path) != 0) std::abort();
  }
  return 0;
}
