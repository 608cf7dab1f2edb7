#include "text/casing/truecase_model.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

#include "base/checksum.h"
#include "lmfusion/errors.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

constexpr char kMagic[8] = {'L', 'M', 'F', 'T', 'R', 'U', 'E', 'C'};
constexpr uint32_t kVersion = 2;
constexpr uint32_t kByteOrder = 0x0A0B0C0D;
constexpr size_t kHeaderBytes = 64;
constexpr double kPseudoCount = 5.0;
constexpr const char* kAdvice =
    "; write it anew with: python -m lmfusion export-truecaser. A model file that holds it has to "
    "be "
    "exported again";

template <typename T>
T Load(const char* data) {
  T value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

[[noreturn]] void Fail(const std::string& name, const std::string& what) {
  throw ModelFileError("truecaser " + name + ": " + what + kAdvice);
}

bool HasMagic(std::string_view bytes) {
  return bytes.size() >= kHeaderBytes && std::memcmp(bytes.data(), kMagic, sizeof kMagic) == 0;
}

// The next bytes of a file, or those that it has.
void Append(std::istream* file, size_t count, std::string* bytes) {
  const size_t before = bytes->size();
  bytes->resize(before + count);
  file->read(&(*bytes)[before], static_cast<std::streamsize>(count));
  bytes->resize(before + static_cast<size_t>(file->gcount()));
}

}  // namespace

// The four counts of one form of a word in its place.
struct TruecaseModel::Form {
  std::array<double, 4> counts;  // alone, after previous, before next, between both
};

uint32_t TruecaseModel::Table::operator[](size_t i) const { return Load<uint32_t>(data + 4 * i); }

std::shared_ptr<const TruecaseModel> TruecaseModel::FromFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) Fail(path, "cannot be opened: " + std::generic_category().message(errno));
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) Fail(path, "cannot be read: " + error.message());
  std::string bytes;
  Append(&file, std::min<uintmax_t>(size, kHeaderBytes), &bytes);
  if (HasMagic(bytes)) Append(&file, size - kHeaderBytes, &bytes);  // else it may be of any size
  return std::shared_ptr<const TruecaseModel>(new TruecaseModel(std::move(bytes), path));
}

std::shared_ptr<const TruecaseModel> TruecaseModel::FromBytes(std::string bytes) {
  return std::shared_ptr<const TruecaseModel>(new TruecaseModel(std::move(bytes), "in memory"));
}

TruecaseModel::TruecaseModel(std::string bytes, const std::string& name)
    : bytes_(std::move(bytes)) {
  ReadHeader(name);
  CheckSections(name);
}

void TruecaseModel::ReadHeader(const std::string& name) {
  const std::string_view bytes = bytes_;
  const char* data = bytes.data();
  if (!HasMagic(bytes)) Fail(name, "is not a truecaser file");
  if (Load<uint32_t>(data + 12) != kByteOrder) {
    Fail(name, "has the other byte order; only little-endian machines are supported");
  }
  const auto version = Load<uint32_t>(data + 8);
  if (version != kVersion) {
    Fail(name, "has version " + std::to_string(version) + ", this library reads version " +
                   std::to_string(kVersion));
  }
  const auto size = Load<uint64_t>(data + 16);
  if (size != bytes.size() || size % 8 != 0) {
    Fail(name, "has " + std::to_string(bytes.size()) + " bytes of " + std::to_string(size));
  }
  if (Checksum(data + kHeaderBytes, size - kHeaderBytes) != Load<uint64_t>(data + 24)) {
    Fail(name, "is damaged: the checksum does not fit");
  }

  uint64_t counts[6];
  for (size_t i = 0; i < 6; ++i) counts[i] = Load<uint32_t>(data + 32 + 4 * i);
  const auto [words, forms, backward, forward, trigrams, string_bytes] = counts;
  const std::pair<Table*, uint64_t> sections[] = {
      {&string_begin_, words + 1}, {&form_begin_, words + 1},     {&form_word_, forms},
      {&form_count_, forms},       {&backward_begin_, forms + 1}, {&forward_begin_, forms + 1},
      {&backward_word_, backward}, {&backward_count_, backward},  {&trigram_begin_, backward + 1},
      {&forward_word_, forward},   {&forward_count_, forward},    {&trigram_word_, trigrams},
      {&trigram_count_, trigrams}};
  uint64_t at = kHeaderBytes;  // at most 2^37: no overflow
  for (const auto& [table, entries] : sections) {
    at += 4 * entries;
    if (at > size || entries > UINT32_MAX) Fail(name, "is damaged: sections exceed the file");
    *table = {data + at - 4 * entries, static_cast<uint32_t>(entries)};
  }
  if (size - at < string_bytes || size - at - string_bytes >= 8) {
    Fail(name, "is damaged: strings do not end with the file");
  }
  strings_ = bytes.substr(at, string_bytes);
}

void TruecaseModel::CheckSections(const std::string& name) const {
  const auto check = [&name](const Table& begins, uint64_t end) {
    bool rising = begins[0] == 0 && begins[begins.size - 1] == end;
    for (uint32_t i = 1; i < begins.size; ++i) rising = rising && begins[i - 1] <= begins[i];
    if (!rising) Fail(name, "is damaged: a table of positions is not ascending");
  };
  check(string_begin_, strings_.size());
  check(form_begin_, form_word_.size);
  check(backward_begin_, backward_word_.size);
  check(forward_begin_, forward_word_.size);
  check(trigram_begin_, trigram_word_.size);
  const uint32_t words = string_begin_.size - 1;
  for (uint32_t i = 1; i < words; ++i) {
    if (Word(i - 1) >= Word(i)) Fail(name, "is damaged: words are not sorted");
  }
  try {
    for (uint32_t i = 0; i < words; ++i) CheckUtf8(Word(i));
  } catch (const TextError&) {
    Fail(name, "is damaged: a word is not UTF-8");
  }
  for (uint32_t i = 0; i < form_word_.size; ++i) {
    if (form_word_[i] >= words) Fail(name, "is damaged: a form has no word");
  }
}

std::string_view TruecaseModel::Word(WordId word) const {
  return strings_.substr(string_begin_[word], string_begin_[word + 1] - string_begin_[word]);
}

TruecaseModel::WordId TruecaseModel::Find(std::string_view word) const {
  const uint32_t words = string_begin_.size - 1;
  uint32_t first = 0, count = words;
  while (count > 0) {
    const uint32_t half = count / 2;
    if (Word(first + half) < word) {
      first += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return first < words && Word(first) == word ? first : words;
}

namespace {

// The place of `word` in the ascending table[begin, end), or `end`.
template <typename Table>
uint32_t FindIn(const Table& table, uint32_t begin, uint32_t end, uint32_t word) {
  uint32_t first = begin, count = end - begin;
  while (count > 0) {
    const uint32_t half = count / 2;
    if (table[first + half] < word) {
      first += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return first < end && table[first] == word ? first : end;
}

}  // namespace

TruecaseModel::Form TruecaseModel::Count(uint32_t form, const WordId* previous,
                                         const WordId* next) const {
  Form result{{static_cast<double>(form_count_[form]), 0, 0, 0}};
  if (next != nullptr) {
    const uint32_t end = forward_begin_[form + 1];
    const uint32_t at = FindIn(forward_word_, forward_begin_[form], end, *next);
    if (at != end) result.counts[2] = forward_count_[at];
  }
  if (previous == nullptr) return result;
  const uint32_t end = backward_begin_[form + 1];
  const uint32_t at = FindIn(backward_word_, backward_begin_[form], end, *previous);
  if (at == end) return result;
  result.counts[1] = backward_count_[at];
  if (next == nullptr) return result;
  const uint32_t last = trigram_begin_[at + 1];
  const uint32_t trigram = FindIn(trigram_word_, trigram_begin_[at], last, *next);
  if (trigram != last) result.counts[3] = trigram_count_[trigram];
  return result;
}

// The score of a form is the sum of the logarithms of four shares, in this order and in double
// precision, as Python adds them: equal scores there are equal scores here. (Sums of counts are
// whole numbers, so their order does not matter.)
std::optional<std::string_view> TruecaseModel::Choose(std::string_view lower,
                                                      const std::string_view* previous,
                                                      const std::string_view* next_lower) const {
  const WordId key = Find(lower);
  if (key == string_begin_.size - 1) return std::nullopt;
  const uint32_t begin = form_begin_[key], end = form_begin_[key + 1];
  if (begin == end) return std::nullopt;
  if (end - begin == 1) return Word(form_word_[begin]);

  const WordId before = previous == nullptr ? 0 : Find(*previous);
  const WordId after = next_lower == nullptr ? 0 : Find(*next_lower);
  std::vector<Form> forms;
  Form total{};
  for (uint32_t form = begin; form < end; ++form) {
    forms.push_back(Count(form, previous == nullptr ? nullptr : &before,
                          next_lower == nullptr ? nullptr : &after));
    for (size_t i = 0; i < 4; ++i) total.counts[i] += forms.back().counts[i] += kPseudoCount;
  }
  const bool known[] = {true, previous != nullptr, next_lower != nullptr,
                        previous != nullptr && next_lower != nullptr};
  uint32_t best = begin;
  double highest = -INFINITY;
  for (uint32_t form = begin; form < end; ++form) {
    double score = 0;
    for (size_t i = 0; i < 4; ++i) {
      if (known[i]) score += std::log(forms[form - begin].counts[i] / total.counts[i]);
    }
    if (score > highest) {
      highest = score;
      best = form;
    }
  }
  return Word(form_word_[best]);
}

}  // namespace lmfusion
