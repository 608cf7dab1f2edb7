#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace lmfusion {

// How often a corpus holds each word in each casing, alone, after, before and between other
// words. Immutable; thread safe.
//
// The file (python/lmfusion/exporter/truecaser.py writes it) is read into memory, and used as it
// is. All numbers are little-endian; sections follow one another without gaps:
//      0  char[8]  "LMFTRUEC"
//      8  uint32   version, 2
//     12  uint32   0x0A0B0C0D, tells the byte order
//     16  uint64   bytes in the file
//     24  uint64   CRC-32 (zlib's) of byte 64 to the end
//     32  uint32   W words, F forms, B backward, N forward, T trigram entries, S string bytes
//     56  uint64   0
//     64  uint32   string_begin[W + 1]     word w is strings[string_begin[w], string_begin[w + 1])
//         uint32   form_begin[W + 1]       the forms of word w where it is a lower-case key
//         uint32   form_word[F]            form -> the word that spells it
//         uint32   form_count[F]           occurrences of the form
//         uint32   backward_begin[F + 1], forward_begin[F + 1]
//         uint32   backward_word[B]        words seen before the form, ascending
//         uint32   backward_count[B]
//         uint32   trigram_begin[B + 1]
//         uint32   forward_word[N]         lower-case words seen after the form, ascending
//         uint32   forward_count[N]
//         uint32   trigram_word[T]         lower-case words seen after backward word and form
//         uint32   trigram_count[T]
//         char[S]  strings, UTF-8, in ascending order of bytes, no two alike
//         zeros to the next multiple of 8 bytes
// The forms of a key stand in the order of preference among equal scores: by falling count, then
// falling code points (lower case before upper case).
class TruecaseModel {
 public:
  // Throw ModelFileError unless the bytes are a whole file as above.
  static std::shared_ptr<const TruecaseModel> FromFile(const std::string& path);
  static std::shared_ptr<const TruecaseModel> FromBytes(std::string bytes);

  // The form in which to write the word whose lower case is `lower`, after `previous` as it was
  // written and before `next_lower` (null: there is none). Nothing where the word is not known.
  std::optional<std::string_view> Choose(std::string_view lower, const std::string_view* previous,
                                         const std::string_view* next_lower) const;

 private:
  struct Form;
  struct Table {
    const char* data = nullptr;  // unaligned uint32
    uint32_t size = 0;
    uint32_t operator[](size_t i) const;
  };
  // A word's number; the number of words where it is not known.
  using WordId = uint32_t;

  TruecaseModel(std::string bytes, const std::string& name);
  void ReadHeader(const std::string& name);
  void CheckSections(const std::string& name) const;
  std::string_view Word(WordId word) const;
  WordId Find(std::string_view word) const;
  Form Count(uint32_t form, const WordId* previous, const WordId* next) const;

  const std::string bytes_;  // of the file; all below is read in it
  Table string_begin_, form_begin_, form_word_, form_count_, backward_begin_, forward_begin_,
      backward_word_, backward_count_, trigram_begin_, forward_word_, forward_count_, trigram_word_,
      trigram_count_;
  std::string_view strings_;
};

}  // namespace lmfusion
