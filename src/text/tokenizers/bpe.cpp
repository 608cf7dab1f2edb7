#include "text/tokenizers/bpe.h"

#include <algorithm>
#include <queue>

#include "lmfusion/errors.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

uint64_t Key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// A pair that may be joined: the symbol at `place` and the next one.
struct Candidate {
  uint32_t rank;
  int32_t place;
  int32_t id;  // of the pair when it was queued
  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : place > other.place;
  }
};

}  // namespace

Bpe::Bpe(Definition definition) : definition_(std::move(definition)) {
  int32_t largest = -1;
  for (const auto& entry : definition_.vocabulary) largest = std::max(largest, entry.second);
  forbidden_.resize(static_cast<size_t>(largest) + 1);
  for (const int32_t id : definition_.forbidden) {
    if (id <= largest) forbidden_[static_cast<size_t>(id)] = true;
  }
  merges_.reserve(definition_.merges.size());
  for (size_t rank = 0; rank < definition_.merges.size(); ++rank) {
    const auto& [left, right] = definition_.merges[rank];
    const int32_t left_id = Id(left), right_id = Id(right), id = Id(left + right);
    if (left_id < 0 || right_id < 0 || id < 0) {
      throw TokenizerError("tokenizer: merge " + std::to_string(rank) + " (\"" + left + "\", \"" +
                           right + "\") has a part or a result that is not in the vocabulary");
    }
    if (forbidden_[static_cast<size_t>(id)]) continue;
    merges_[Key(left_id, right_id)] = {static_cast<uint32_t>(rank), id};
    merged_.push_back(left + right);
  }
  definition_.merges.clear();
  definition_.merges.shrink_to_fit();
  if (!definition_.unknown_token.empty()) {
    unknown_id_ = Id(definition_.unknown_token);
    if (unknown_id_ < 0) {
      throw TokenizerError("tokenizer: the unknown token \"" + definition_.unknown_token +
                           "\" is not in the vocabulary");
    }
  }
  if (definition_.byte_fallback) {
    constexpr std::string_view kDigits = "0123456789ABCDEF";
    for (size_t byte = 0; byte < 256; ++byte) {
      byte_ids_.push_back(
          Id(std::string{'<', '0', 'x', kDigits[byte / 16], kDigits[byte % 16], '>'}));
    }
  }
}

int32_t Bpe::Id(std::string_view piece) const {
  const auto found = definition_.vocabulary.find(std::string(piece));
  return found == definition_.vocabulary.end() ? -1 : found->second;
}

bool Bpe::DividesBefore(std::string_view mark) const {
  if (definition_.whole_words || Id(mark) < 0) return false;
  return std::none_of(merged_.begin(), merged_.end(), [mark](const std::string& piece) {
    bool other = false;
    for (size_t at = 0; at < piece.size(); at += Utf8Length(piece[at])) {
      const bool is_mark = piece.compare(at, mark.size(), mark) == 0;
      if (is_mark && other) return true;
      other = other || !is_mark;
    }
    return false;
  });
}

const Bpe::Merge* Bpe::Find(int32_t left, int32_t right) const {
  const auto found = merges_.find(Key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::vector<Bpe::Symbol> Bpe::Symbols(std::string_view word) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  const auto add = [&symbols](int32_t id) { symbols.push_back({id, -1, -1, true}); };
  bool unknown = false;  // an unknown token is due
  for (size_t at = 0; at < word.size();) {
    const size_t length = Utf8Length(word[at]);
    const std::string_view character = word.substr(at, length);
    at += length;
    if (const int32_t id = Id(character); id >= 0) {
      if (unknown) add(unknown_id_);
      unknown = false;
      add(id);
      continue;
    }
    const auto has_token = [this](char byte) {
      return byte_ids_[static_cast<unsigned char>(byte)] >= 0;
    };
    if (!byte_ids_.empty() && std::all_of(character.begin(), character.end(), has_token)) {
      // An unknown token that is due is written only before the next known character, after these
      // bytes, as in the package tokenizers.
      for (const char byte : character) add(byte_ids_[static_cast<unsigned char>(byte)]);
      continue;
    }
    if (unknown_id_ < 0) continue;
    if (unknown && !definition_.fuse_unknown) add(unknown_id_);
    unknown = true;
  }
  if (unknown) add(unknown_id_);
  for (size_t i = 0; i < symbols.size(); ++i) {
    symbols[i].previous = static_cast<int32_t>(i) - 1;
    symbols[i].next = i + 1 < symbols.size() ? static_cast<int32_t>(i) + 1 : -1;
  }
  return symbols;
}

void Bpe::Join(std::vector<Symbol>* symbols) const {
  std::vector<Symbol>& all = *symbols;
  std::vector<Candidate> heap;
  const auto consider = [&](int32_t place, auto&& push) {
    const int32_t next = place < 0 ? -1 : all[static_cast<size_t>(place)].next;
    if (next < 0) return;
    const Merge* merge =
        Find(all[static_cast<size_t>(place)].id, all[static_cast<size_t>(next)].id);
    if (merge != nullptr) push(Candidate{merge->rank, place, merge->id});
  };
  for (size_t i = 0; i < all.size(); ++i) {
    consider(static_cast<int32_t>(i), [&heap](Candidate c) { heap.push_back(c); });
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue(std::greater<>{},
                                                                               std::move(heap));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = all[static_cast<size_t>(top.place)];
    if (!left.alive || left.next < 0) continue;
    Symbol& right = all[static_cast<size_t>(left.next)];
    // Out of date where one of the two has been joined since.
    const Merge* merge = Find(left.id, right.id);
    if (merge == nullptr || merge->id != top.id) continue;
    left.id = top.id;
    right.alive = false;
    left.next = right.next;
    if (left.next >= 0) all[static_cast<size_t>(left.next)].previous = top.place;
    consider(left.previous, [&queue](Candidate c) { queue.push(c); });
    consider(top.place, [&queue](Candidate c) { queue.push(c); });
  }
}

void Bpe::Encode(std::string_view word, std::vector<int32_t>* ids) const {
  if (definition_.whole_words) {
    const int32_t id = Id(word);
    if (id >= 0 && !forbidden_[static_cast<size_t>(id)]) {
      ids->push_back(id);
      return;
    }
  }
  std::vector<Symbol> symbols = Symbols(word);
  Join(&symbols);
  for (const Symbol& symbol : symbols) {
    if (symbol.alive) ids->push_back(symbol.id);
  }
}

}  // namespace lmfusion
