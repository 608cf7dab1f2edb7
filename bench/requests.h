#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace lmfusion {

// One call of a decoder, as recorded in one line of a request file.
struct Request {
  enum class Kind { kContinuations, kTexts, kEndings };
  Kind kind = Kind::kContinuations;
  int64_t utterance = 0;
  std::vector<std::string> contexts;                      // kContinuations
  std::vector<std::vector<std::string>> candidate_words;  // kContinuations, one list per context
  std::vector<std::string> texts;                         // kTexts, kEndings
  bool eos = false;                                       // kTexts: the end-of-text token too
  std::vector<std::string> endings;                       // kEndings

  size_t Candidates() const;
};

// Reads the first `limit` requests (0: all) of a file of JSON lines; bench/README.md has the
// format. Empty lines are passed over. Throws std::invalid_argument, as "file:line: what is wrong
// and what was expected", also where there is no request at all.
std::vector<Request> ReadRequests(const std::string& path, size_t limit);

}  // namespace lmfusion
