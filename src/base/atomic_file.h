#pragma once

#include <cstddef>
#include <string>

namespace lmfusion {

// A file that appears at its place whole or not at all: it is written beside it under a name of its
// own, and takes its place once it is on the disk. Throws std::system_error with the file's name.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  // Removes what was written, unless it was committed.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void Write(const void* bytes, size_t size);
  void Commit();

 private:
  const std::string path_;
  std::string beside_;  // empty once there is nothing to remove
  int descriptor_ = -1;
};

}  // namespace lmfusion
