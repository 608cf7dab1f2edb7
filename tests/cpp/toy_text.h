#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/token_paths.h"
#include "hash_lm.h"
#include "lmfusion/tokenizer.h"

namespace lmfusion {

// The longest piece first, from left to right; a byte that begins no piece is a token of its own.
// Pieces may hold a space after b or a space ("b a"), so tokens span joins; there is a cut before
// every space that follows anything else.
class ToyTokenizer : public Tokenizer {
 public:
  // dummy_prefix: a whole text is read as if it began with a space, what follows a cut is not.
  explicit ToyTokenizer(std::vector<std::string> pieces, bool dummy_prefix = false)
      : pieces_(std::move(pieces)), dummy_prefix_(dummy_prefix) {}

  std::vector<int32_t> Encode(std::string_view text) const override {
    return EncodeAfterCut((dummy_prefix_ && !text.empty() ? " " : "") + std::string(text));
  }
  size_t LastCut(std::string_view text, size_t at) const override {
    for (size_t c = std::min(at, text.size()); c > 0; --c) {
      if (c < text.size() && text[c] == ' ' && text[c - 1] != 'b' && text[c - 1] != ' ') return c;
    }
    return 0;
  }
  std::vector<int32_t> EncodeAfterCut(std::string_view rest) const override {
    std::vector<int32_t> ids;
    while (!rest.empty()) {
      size_t best = 0;
      int32_t id = size() + static_cast<unsigned char>(rest[0]);
      for (int32_t i = 0; i < size(); ++i) {
        if (pieces_[i].size() > best && rest.substr(0, pieces_[i].size()) == pieces_[i]) {
          best = pieces_[i].size();
          id = i;
        }
      }
      ids.push_back(id);
      rest.remove_prefix(std::max<size_t>(1, best));
    }
    return ids;
  }
  bool BeginsWord(int32_t id) const override { return id < size() && pieces_[id][0] == ' '; }
  std::string Piece(int32_t id) const override { return id < size() ? pieces_[id] : "<byte>"; }
  int32_t PieceId(std::string_view) const override { return -1; }
  int32_t VocabularySize() const override { return size() + 256; }

  int32_t size() const { return static_cast<int32_t>(pieces_.size()); }

 private:
  const std::vector<std::string> pieces_;
  const bool dummy_prefix_;
};

// A language model over the pieces of a toy tokenizer and an end token, ids [0, size], whose
// distribution depends on every token before; bytes have a weight outside of it.
class ToyLM {
 public:
  explicit ToyLM(const ToyTokenizer& tokenizer) : tokenizer_(tokenizer) {}

  int32_t end_token() const { return tokenizer_.size() + 256; }

  double LogProb(uint64_t before, int32_t token) const {
    return HashModel::Logit(before, token) - LogSum(before, false);
  }
  double WordEnd(uint64_t before) const { return LogSum(before, true) - LogSum(before, false); }

  // The scored part of a path.
  double Score(const TokenPaths::Path& path) const {
    double sum = 0;
    uint64_t hash = 1;
    for (int32_t i = 0; i < path.size(); ++i) {
      const int32_t token =
          i < path.prefix_size ? (*path.prefix)[i] : path.tail[i - path.prefix_size];
      if (i >= path.scored_begin) sum += LogProb(hash, token);
      hash = HashModel::Extend(hash, token);
    }
    return path.sign * (sum + (path.ends_word ? WordEnd(hash) : 0));
  }

  // [candidates], by the definition in token_paths.h.
  std::vector<double> Score(const TokenPaths& paths) const {
    std::vector<double> alternatives(paths.candidate_of.size(), 0.0);
    for (const TokenPaths::Path& path : paths.paths) alternatives[path.alternative] += Score(path);
    std::vector<double> scores(paths.candidates, 0.0);
    for (size_t begin = 0, end = 0; begin < alternatives.size(); begin = end) {
      double sum = 0;
      while (end < alternatives.size() && paths.candidate_of[end] == paths.candidate_of[begin]) {
        sum += std::exp(alternatives[end++] - alternatives[begin]);
      }
      scores[paths.candidate_of[begin]] = alternatives[begin] + std::log(sum);
    }
    return scores;
  }

 private:
  double LogSum(uint64_t before, bool only_beginnings) const {
    double sum = std::exp(double{HashModel::Logit(before, end_token())});
    for (int32_t id = 0; id < tokenizer_.size(); ++id) {
      if (!only_beginnings || tokenizer_.BeginsWord(id)) {
        sum += std::exp(double{HashModel::Logit(before, id)});
      }
    }
    return std::log(sum);
  }

  const ToyTokenizer& tokenizer_;
};

}  // namespace lmfusion
