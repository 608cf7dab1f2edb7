#include "bundle/model_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <system_error>

#include "lmfusion/errors.h"

// Note [What an archive may be]
// TorchScript writes weights as they are and compresses code. So nothing but code may be
// compressed, and no more of it than the file has bytes, or kMostCode; the other parts do not
// overlap. All parts together take no more memory and time than twice the file, or little.
// Checksums are zlib's crc32, which the zip format has for every entry and libzip compares at the
// end of an entry; the exporter's table (part_table.h) says which they must be.

namespace lmfusion {
namespace {

constexpr int64_t kMostEntries = 1 << 16;
constexpr uint64_t kMostCode = uint64_t{1} << 24;  // bytes, in a file that is shorter than that
constexpr std::string_view kCode = "code/";
constexpr size_t kPieceBytes = size_t{1} << 18;

}  // namespace

struct ModelFile::Archive {
  int descriptor = -1;
  zip_t* zip = nullptr;

  ~Archive() {
    if (zip != nullptr) zip_discard(zip);
    if (descriptor >= 0) close(descriptor);
  }
};

ModelFile::ModelFile(const std::string& path) : path_(path), archive_(std::make_unique<Archive>()) {
  archive_->descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (archive_->descriptor < 0) {
    const int error = errno;
    throw ModelFileError((error == ENOENT ? "no such model file: " + path
                                          : path + ": " + std::generic_category().message(error)));
  }
  struct stat state {};
  if (fstat(archive_->descriptor, &state) != 0 || !S_ISREG(state.st_mode)) {
    throw ModelFileError(path + ": it is no file");
  }
  size_ = static_cast<uint64_t>(state.st_size);
  const int copy = fcntl(archive_->descriptor, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) throw ModelFileError(path + ": " + std::generic_category().message(errno));
  int code = 0;
  archive_->zip = zip_fdopen(copy, ZIP_CHECKCONS, &code);
  if (archive_->zip == nullptr) {
    close(copy);
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    const std::string reason = zip_error_strerror(&error);
    zip_error_fini(&error);
    throw ModelFileError(path + " is not a model file: " + reason);
  }
  ReadEntries();
}

ModelFile::~ModelFile() = default;
ModelFile::ModelFile(ModelFile&&) noexcept = default;

void ModelFile::ReadEntries() {
  const int64_t count = zip_get_num_entries(archive_->zip, 0);
  if (count > kMostEntries) throw ModelFileError(path_ + " is not a model file: too many entries");
  std::string folder;
  uint64_t compressed = 0, stored = 0;
  for (int64_t i = 0; i < count; ++i) {
    zip_stat_t state;
    zip_stat_init(&state);
    constexpr zip_uint64_t kNeeded =
        ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_CRC | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD;
    if (zip_stat_index(archive_->zip, i, 0, &state) != 0 || (state.valid & kNeeded) != kNeeded) {
      throw ModelFileError(path_ + " is not a model file: its directory cannot be read");
    }
    const std::string name = state.name;
    const size_t slash = name.find('/');
    if (i == 0 && slash != std::string::npos) folder = name.substr(0, slash + 1);
    if (folder.empty() || name.compare(0, folder.size(), folder) != 0) {
      throw ModelFileError(path_ + " is not a model file: " + name + " lies outside its folder");
    }
    Entry entry;
    entry.name = name.substr(folder.size());
    entry.index = static_cast<uint64_t>(i);
    entry.crc32 = state.crc;
    entry.compressed = state.comp_method != ZIP_CM_STORE;
    if (entry.compressed && entry.name.compare(0, kCode.size(), kCode) != 0) {
      throw ModelFileError(path_ + ": " + entry.name + ": it is compressed, as only code may be");
    }
    const uint64_t most = entry.compressed ? std::max(size_, kMostCode) : size_;
    if (state.size > most || (!entry.compressed && state.size != state.comp_size)) {
      throw ModelFileError(path_ + ": " + entry.name + ": it says to have " +
                           std::to_string(state.size) + " bytes, which is not possible");
    }
    entry.bytes = static_cast<int64_t>(state.size);
    uint64_t& sum = entry.compressed ? compressed : stored;
    sum += state.size;
    if (sum > most) {
      throw ModelFileError(path_ + ": " + entry.name + ": with the parts before it, it is more " +
                           (entry.compressed ? "code than a file of this size may have"
                                             : "than the file has bytes"));
    }
    if (!by_name_.emplace(entry.name, entries_.size()).second) {
      throw ModelFileError(path_ + ": " + entry.name + ": there are two parts of this name");
    }
    entries_.push_back(std::move(entry));
  }
}

const ModelFile::Entry* ModelFile::Find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

template <typename Use>
std::string ModelFile::ForBytes(const Entry& entry, const Use& use) const {
  const std::unique_ptr<zip_file_t, decltype(&zip_fclose)> opened(
      zip_fopen_index(archive_->zip, entry.index, 0), &zip_fclose);
  if (opened == nullptr) return zip_strerror(archive_->zip);
  std::vector<char> piece(kPieceBytes);
  int64_t done = 0;
  while (true) {  // until the end of the entry, where libzip compares the checksum
    const int64_t got = zip_fread(opened.get(), piece.data(), piece.size());
    if (got < 0) return zip_file_strerror(opened.get());
    if (got == 0) break;
    done += got;
    if (done > entry.bytes) break;
    use(piece.data(), static_cast<size_t>(got));
  }
  return done == entry.bytes ? "" : "it does not have the bytes that it says to have";
}

std::string ModelFile::Read(const std::string& name, int64_t most) const {
  const Entry* entry = Find(name);
  if (entry == nullptr) return "";
  if (entry->bytes > most) {
    throw ModelFileError(path_ + ": " + name + ": it has " + std::to_string(entry->bytes) +
                         " bytes, and at most " + std::to_string(most) + " are read");
  }
  std::string content;
  content.reserve(static_cast<size_t>(entry->bytes));
  const std::string reason =
      ForBytes(*entry, [&](const char* bytes, size_t count) { content.append(bytes, count); });
  if (!reason.empty()) throw ModelFileError(path_ + ": " + name + ": it is damaged: " + reason);
  return content;
}

void ModelFile::CheckContent(Problems* problems) const {
  for (const Entry& entry : entries_) {
    const std::string reason = ForBytes(entry, [](const char*, size_t) {});
    if (!reason.empty()) problems->Add(entry.name, "", "it is damaged: " + reason);
  }
}

size_t ModelFile::ReadAt(uint64_t offset, void* bytes, size_t count) const {
  size_t done = 0;
  while (done < count && offset + done < size_) {
    const ssize_t got = pread(archive_->descriptor, static_cast<char*>(bytes) + done, count - done,
                              static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw ModelFileError(path_ + ": " + std::generic_category().message(errno));
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

void ModelFile::ReadWhole(uint64_t offset, void* bytes, size_t count) const {
  if (ReadAt(offset, bytes, count) == count) return;
  throw ModelFileError(path_ +
                       ": the file was shortened while it was loaded; load it again when it is "
                       "whole (who writes a file anew should write another one and rename it)");
}

}  // namespace lmfusion
