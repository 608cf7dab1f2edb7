#pragma once

#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>

#include <cstdint>
#include <new>

namespace lmfusion {

// Where PCRE2 writes what it matched; a thread has one of its own. Throws std::bad_alloc where
// there is no memory for it, and then the thread's next call makes it.
class MatchData {
 public:
  explicit MatchData(uint32_t groups) : data_(pcre2_match_data_create(groups, nullptr)) {
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~MatchData() { pcre2_match_data_free(data_); }
  MatchData(const MatchData&) = delete;
  MatchData& operator=(const MatchData&) = delete;
  pcre2_match_data* get() const { return data_; }

 private:
  pcre2_match_data* const data_;
};

}  // namespace lmfusion
