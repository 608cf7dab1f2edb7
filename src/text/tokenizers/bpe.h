#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lmfusion {

// Byte-pair encoding of one word: its characters are joined pair by pair, the pair of the lowest
// rank first. Immutable and thread safe.
class Bpe {
 public:
  struct Definition {
    std::unordered_map<std::string, int32_t> vocabulary;
    std::vector<std::pair<std::string, std::string>> merges;  // by rank
    std::string unknown_token;       // empty: unknown characters are left out
    bool fuse_unknown = false;       // a run of unknown characters is one unknown token
    bool byte_fallback = false;      // an unknown character becomes the tokens <0x..> of its bytes
    bool whole_words = false;        // a word of the vocabulary is its token, whatever the merges
    std::vector<int32_t> forbidden;  // ids that no merge and no whole word may give
  };
  // Throws TokenizerError where a merge names what is not in the vocabulary.
  explicit Bpe(Definition definition);

  // Appends the ids of `word`, valid UTF-8 as the vocabulary writes it. O(n log n).
  void Encode(std::string_view word, std::vector<int32_t>* ids) const;

  // -1 where there is none.
  int32_t Id(std::string_view piece) const;

  // Whether no token that merges can give has `mark` after another character: then a word may be
  // encoded in parts that begin with runs of `mark`.
  bool DividesBefore(std::string_view mark) const;

 private:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  struct Symbol {
    int32_t id;
    int32_t previous, next;  // -1: none
    bool alive;
  };
  const Merge* Find(int32_t left, int32_t right) const;
  std::vector<Symbol> Symbols(std::string_view word) const;
  void Join(std::vector<Symbol>* symbols) const;

  Definition definition_;  // without merges
  std::unordered_map<uint64_t, Merge> merges_;
  std::vector<bool> forbidden_;      // by id
  std::vector<std::string> merged_;  // what merges give
  std::vector<int32_t> byte_ids_;    // 256, or empty
  int32_t unknown_id_ = -1;
};

}  // namespace lmfusion
