#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "bundle/problems.h"

namespace lmfusion {

// A model file as the archive it is: a zip whose entries ("parts") lie below one folder. Reads
// bytes and runs nothing. All of it goes through one open file, so what was checked is what is
// read, also where the path gets another file meanwhile. Not thread safe.
class ModelFile {
 public:
  struct Entry {
    std::string name;  // without the folder: "extra/lmfusion.json", "data/0"
    int64_t bytes = 0;
    uint32_t crc32 = 0;
    bool compressed = false;
    uint64_t index = 0;  // in the archive
  };

  // Throws ModelFileError: no such file, no archive, too many or too large entries.
  explicit ModelFile(const std::string& path);
  ~ModelFile();
  ModelFile(ModelFile&&) noexcept;

  const std::string& path() const { return path_; }
  const std::vector<Entry>& entries() const { return entries_; }
  // Null where there is no such part.
  const Entry* Find(const std::string& name) const;

  // A whole part, empty where there is none. Throws ModelFileError, which names it: longer than
  // `most` bytes (before memory is taken), or other bytes than the archive's checksum is of.
  std::string Read(const std::string& name, int64_t most) const;

  // Reads every part through, and adds those that differ from the archive's checksums.
  void CheckContent(Problems* problems) const;

  // Of the file as a whole.
  uint64_t size() const { return size_; }
  // Up to `count` bytes from `offset` on; how many. Throws ModelFileError.
  size_t ReadAt(uint64_t offset, void* bytes, size_t count) const;
  // All of `count` bytes. Throws ModelFileError, also where the file has become shorter.
  void ReadWhole(uint64_t offset, void* bytes, size_t count) const;

 private:
  struct Archive;

  void ReadEntries();
  // Calls use(bytes, count) for a part, piece by piece. Returns why it cannot be read, or "".
  template <typename Use>
  std::string ForBytes(const Entry& entry, const Use& use) const;

  std::string path_;
  uint64_t size_ = 0;
  std::unique_ptr<Archive> archive_;
  std::vector<Entry> entries_;
  std::unordered_map<std::string, size_t> by_name_;
};

}  // namespace lmfusion
