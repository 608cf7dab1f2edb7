#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/checksum.h"

namespace lmfusion {

// A truecaser file, written by hand as src/text/casing/truecase_model.h describes it.
class TruecaserFile {
 public:
  using Pair = std::pair<std::string, std::string>;

  // A form of `key`; forms in the order of preference.
  TruecaserFile& Form(const std::string& key, const std::string& form, uint32_t count) {
    forms_[key].emplace_back(form, count);
    return *this;
  }
  TruecaserFile& Before(const std::string& word, const std::string& form, uint32_t count) {
    before_[form].emplace(word, std::make_pair(count, std::map<std::string, uint32_t>()));
    return *this;
  }
  TruecaserFile& After(const std::string& form, const std::string& word, uint32_t count) {
    after_[form][word] = count;
    return *this;
  }
  TruecaserFile& Between(const Pair& around, const std::string& form, uint32_t count) {
    Before(around.first, form, 0);
    before_[form][around.first].second[around.second] = count;
    return *this;
  }

  std::string Bytes() const {
    const std::vector<std::string> words = Words();
    const auto number = [&words](const std::string& word) {
      const auto at = std::lower_bound(words.begin(), words.end(), word);
      return static_cast<uint32_t>(at - words.begin());
    };
    std::vector<uint32_t> strings{0}, form_begin{0}, form_word, form_count, backward{0}, forward{0};
    std::vector<uint32_t> backward_word, backward_count, trigram{0}, forward_word, forward_count;
    std::vector<uint32_t> trigram_word, trigram_count;
    std::string letters;
    for (const std::string& word : words) {
      letters += word;
      strings.push_back(static_cast<uint32_t>(letters.size()));
      const auto forms = forms_.find(word);
      for (const auto& [form, count] : forms == forms_.end() ? Forms() : forms->second) {
        form_word.push_back(number(form));
        form_count.push_back(count);
        for (const auto& [previous, entry] : Get(before_, form)) {
          backward_word.push_back(number(previous));
          backward_count.push_back(entry.first);
          for (const auto& [next, triples] : entry.second) {
            trigram_word.push_back(number(next));
            trigram_count.push_back(triples);
          }
          trigram.push_back(static_cast<uint32_t>(trigram_word.size()));
        }
        for (const auto& [next, pairs] : Get(after_, form)) {
          forward_word.push_back(number(next));
          forward_count.push_back(pairs);
        }
        backward.push_back(static_cast<uint32_t>(backward_word.size()));
        forward.push_back(static_cast<uint32_t>(forward_word.size()));
      }
      form_begin.push_back(static_cast<uint32_t>(form_word.size()));
    }
    std::string body;
    for (const auto* section : {&strings, &form_begin, &form_word, &form_count, &backward, &forward,
                                &backward_word, &backward_count, &trigram, &forward_word,
                                &forward_count, &trigram_word, &trigram_count}) {
      body.append(reinterpret_cast<const char*>(section->data()), 4 * section->size());
    }
    const size_t sizes[] = {words.size(),        form_word.size(),    backward_word.size(),
                            forward_word.size(), trigram_word.size(), letters.size()};
    body += letters;
    body.resize((body.size() + 7) / 8 * 8);
    std::string header = "LMFTRUEC";
    Put<uint32_t>(&header, 2);
    Put<uint32_t>(&header, 0x0A0B0C0D);
    Put<uint64_t>(&header, 64 + body.size());
    Put<uint64_t>(&header, 0);
    for (const size_t size : sizes) Put<uint32_t>(&header, static_cast<uint32_t>(size));
    Put<uint64_t>(&header, 0);
    return Signed(header + body);
  }

  // `file` with the checksum that fits it.
  static std::string Signed(std::string file) {
    const uint64_t checksum = Checksum(file.data() + 64, file.size() - 64);
    std::memcpy(file.data() + 24, &checksum, 8);
    return file;
  }

 private:
  using Forms = std::vector<std::pair<std::string, uint32_t>>;
  using Entry = std::pair<uint32_t, std::map<std::string, uint32_t>>;

  template <typename T>
  static void Put(std::string* out, T value) {
    out->append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  template <typename Map>
  static typename Map::mapped_type Get(const Map& map, const std::string& key) {
    const auto found = map.find(key);
    return found == map.end() ? typename Map::mapped_type() : found->second;
  }
  std::vector<std::string> Words() const {
    std::set<std::string> words;
    for (const auto& [key, forms] : forms_) {
      words.insert(key);
      for (const auto& form : forms) words.insert(form.first);
    }
    for (const auto& [form, entries] : before_) {
      for (const auto& [previous, entry] : entries) {
        words.insert(previous);
        for (const auto& next : entry.second) words.insert(next.first);
      }
    }
    for (const auto& [form, entries] : after_) {
      for (const auto& next : entries) words.insert(next.first);
    }
    return {words.begin(), words.end()};
  }

  std::map<std::string, Forms> forms_;
  std::map<std::string, std::map<std::string, Entry>> before_;
  std::map<std::string, std::map<std::string, uint32_t>> after_;
};

inline std::string TinyTruecaserFile() {
  return TruecaserFile()
      .Form("i", "I", 9)
      .Form("'am", "'am", 1)
      .Form("new", "new", 50)
      .Form("new", "New", 40)
      .After("New", "york", 30)
      .Form("york", "York", 30)
      .Form("in", "in", 90)
      .Form("in", "In", 9)
      .Between({"York", "may"}, "in", 2)
      .Form("may", "may", 20)
      .Form("may", "May", 20)
      .Before("in", "May", 9)
      .Form("not", "not", 80)
      .Form("not", "Not", 3)
      .Form("can", "can", 5)
      .Form("the", "the", 99)
      .Form("the", "The", 9)
      .Form("mcdonald", "McDonald", 2)
      .Bytes();
}

}  // namespace lmfusion
