#include "lmfusion/truecaser.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/checksum.h"
#include "lmfusion/errors.h"
#include "text/casing/treebank.h"
#include "text/casing/truecase_memo.h"

namespace lmfusion {
namespace {

// A truecaser file, written by hand as src/text/casing/truecase_model.h describes it.
class ModelFile {
 public:
  using Pair = std::pair<std::string, std::string>;

  // A form of `key`; forms in the order of preference.
  ModelFile& Form(const std::string& key, const std::string& form, uint32_t count) {
    forms_[key].emplace_back(form, count);
    return *this;
  }
  ModelFile& Before(const std::string& word, const std::string& form, uint32_t count) {
    before_[form].emplace(word, std::make_pair(count, std::map<std::string, uint32_t>()));
    return *this;
  }
  ModelFile& After(const std::string& form, const std::string& word, uint32_t count) {
    after_[form][word] = count;
    return *this;
  }
  ModelFile& Between(const Pair& around, const std::string& form, uint32_t count) {
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

std::string TinyModel() {
  return ModelFile()
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

std::shared_ptr<const Truecaser> Tiny(bool compat) {
  return TruecaserFromBytes(TinyModel(), compat);
}

std::string Cased(const Truecaser& truecaser, const std::string& text) {
  return truecaser.Apply("", text).text;
}

TEST(TruecaserTest, DecidesByTheWordsAround) {
  for (const bool compat : {false, true}) {
    const auto truecaser = Tiny(compat);
    EXPECT_EQ(Cased(*truecaser, "the new york"), "The New York");
    EXPECT_EQ(Cased(*truecaser, "the new i"), "The new I");
    EXPECT_EQ(Cased(*truecaser, "i may"), "I may");
    EXPECT_EQ(Cased(*truecaser, "york in may"), "York in May");
    EXPECT_EQ(Cased(*truecaser, "the unheard-of mcdonald"), "The Unheard-Of McDonald");
    EXPECT_EQ(Cased(*truecaser, "mcdonald"), "Mcdonald");  // the first word is capitalised
    EXPECT_EQ(Cased(*truecaser, ""), "");
  }
}

TEST(TruecaserTest, TiesGoToTheFirstForm) {
  EXPECT_EQ(Cased(*Tiny(true), "i may i"), "I may I");
  const std::string other =
      ModelFile().Form("i", "I", 9).Form("may", "May", 20).Form("may", "may", 20).Bytes();
  EXPECT_EQ(Cased(*TruecaserFromBytes(other, true), "i may i"), "I May I");
}

TEST(TruecaserTest, CompatMovesCharactersInPlaceDoesNot) {
  EXPECT_EQ(Cased(*Tiny(true), "i 'am"), "I' Am");
  EXPECT_EQ(Cased(*Tiny(false), "i 'am"), "I 'Am");
  EXPECT_EQ(Cased(*Tiny(true), " i  can not "), "I cannot");
  EXPECT_EQ(Cased(*Tiny(false), " i  can not "), " I  can not ");
  EXPECT_EQ(Cased(*Tiny(true), "\"i\" , \"the\""), "\"I\", \"the\"");
  EXPECT_EQ(Cased(*Tiny(false), "\"i\" , \"the\""), "\"I\" , \"the\"");
  EXPECT_EQ(Cased(*Tiny(true), "the ßa"), "The Ssa");
  EXPECT_EQ(Cased(*Tiny(false), "the ßa"), "The ßa");
  EXPECT_EQ(Cased(*Tiny(true), "   "), "");
  EXPECT_EQ(Cased(*Tiny(false), "   "), "   ");
}

TEST(TruecaserTest, ContextBytes) {
  const auto split = [](bool compat, const std::string& context, const std::string& word) {
    const CasedText cased = Tiny(compat)->Apply(context, word);
    return cased.text.substr(0, cased.context_bytes) + "|" + cased.text.substr(cased.context_bytes);
  };
  for (const bool compat : {false, true}) {
    EXPECT_EQ(split(compat, "the new", "york"), "The New| York");
    EXPECT_EQ(split(compat, "", "york in"), "|York in");
    EXPECT_EQ(split(compat, "the new", ""), "The new|");
  }
  EXPECT_EQ(split(true, "i", "'am"), "I'| Am");
  EXPECT_EQ(split(false, "i", "'am"), "I| 'Am");
  EXPECT_EQ(split(true, "i can", "not"), "I| cannot");
  EXPECT_EQ(split(false, "i can", "not"), "I can| not");
  EXPECT_EQ(split(false, "the  ", "york"), "The  |York");
  EXPECT_EQ(split(false, "the", "  york"), "The|  York");
  EXPECT_EQ(split(false, "ⱥ é the", "york"), "Ⱥ É the| York");  // Ⱥ has a byte less
}

TEST(TruecaserTest, IncrementalIsFromScratch) {
  const std::vector<std::string> pieces = {
      "i",  "new", "york", "in", "may", "not", "can", "the", "gon", "na",  "'t",  "is",  "n't",
      "do", "'s",  "'am",  "'",  "\"",  "''",  "``",  ",",   ".",   "...", "(",   ")",   "?",
      "--", "$",   "é",    "ΑΣ", "ı",   "7",   "wan", "m",   "me",  "lem", "u.s", "can", "it's"};
  std::mt19937 random(7);
  const auto pick = [&random](size_t n) { return static_cast<size_t>(random() % n); };
  for (const bool compat : {false, true}) {
    const auto shared = Tiny(compat);
    for (int round = 0; round < 3000; ++round) {
      std::string context;
      for (size_t n = pick(9); n > 0; --n) {
        context += pieces[pick(pieces.size())] + std::string(1 + pick(5) / 4, ' ');
      }
      if (!context.empty() && pick(2) == 0) context.pop_back();
      const std::string word = pieces[pick(pieces.size())];
      const CasedText cased = shared->Apply(context, word);
      const std::string whole = context + (NeedsSpace(context, word) ? " " : "") + word;
      // A fresh truecaser remembers nothing; the joined words of the whole text are known apart.
      ASSERT_EQ(cased.text, Cased(*Tiny(compat), whole)) << whole;
      ASSERT_EQ(cased.context_bytes, Tiny(compat)->Apply(context, word).context_bytes) << whole;
    }
  }
}

// Note [Treebank boundaries]: parts give what the whole gives.
TEST(TreebankTest, BoundariesCutNothing) {
  const std::vector<std::string> pieces = {
      "a",  "can", "not",  "gim", "me", "lem", "gon", "na",  "wan", "got", "ta", "'t",    "'tis",
      "is", "was", "more", "'n",  "d",  "'ye", "do",  "n't", "'s",  "'ll", "'",  "\"",    "''",
      "``", "`",   ",",    ":",   ".",  "...", "(",   ")",   "[",   "]",   "?",  "!",     "--",
      "$",  "%",   "#",    "é",   "\t", "“",   "”",   "7",   "3.5", "_",   "<",  "\u2028"};
  std::mt19937 random(8);
  for (int round = 0; round < 30000; ++round) {
    std::string text;
    for (size_t n = random() % 10; n > 0; --n) {
      text += pieces[random() % pieces.size()];
      if (random() % 3 != 0) text += ' ';
    }
    std::vector<std::string> words;
    std::string joined;
    for (size_t begin = 0; begin <= text.size();) {
      const TreebankGap gap = NextTreebankGap(text, begin);
      const auto part = SplitTreebankWords(text.substr(begin, gap.begin - begin));
      words.insert(words.end(), part.begin(), part.end());
      joined += (begin == 0 ? "" : " ") + JoinTreebankWords(part);
      if (!gap) break;
      ASSERT_EQ(LastTreebankGap(text, gap.begin).begin, gap.begin);
      begin = gap.end;
    }
    ASSERT_EQ(words, SplitTreebankWords(text)) << text;
    ASSERT_EQ(joined, JoinTreebankWords(words)) << text;
  }
}

TEST(TruecaserTest, CostsTheNewWords) {
  const auto truecaser = Tiny(true);
  std::string context = "the";
  for (int i = 0; i < 400; ++i) context += " york";
  truecaser->Apply(context, "in");
  EXPECT_EQ(truecaser->WordsDecided(), 402u);
  for (const char* word : {"may", "not", "new"}) truecaser->Apply(context, word);
  EXPECT_EQ(truecaser->WordsDecided(), 402u + 3 * 2);
  truecaser->Apply(context + " may", "i");
  EXPECT_EQ(truecaser->WordsDecided(), 408u + 3);
}

TEST(TruecaseMemoTest, KeepsToItsBudget) {
  TruecaseMemo memo(64 << 10);
  for (int i = 0; i < 10000; ++i) {
    auto prefix = std::make_shared<TruecasePrefix>();
    prefix->source = "prefix " + std::to_string(i);
    memo.Add(prefix);
    EXPECT_EQ(memo.Find(prefix->source), prefix);
  }
  int kept = 0;
  for (int i = 0; i < 10000; ++i) kept += memo.Find("prefix " + std::to_string(i)) ? 1 : 0;
  EXPECT_GT(kept, 50);
  EXPECT_LT(kept, (64 << 10) / 256 + 1);
}

TEST(TruecaserTest, InvalidUtf8IsATextError) {
  const auto truecaser = Tiny(true);
  for (const char* text : {"\xff", "the \xc3", "\xed\xa0\x80 a", "a \xc0\x80 b"}) {
    EXPECT_THROW(truecaser->Apply("", text), TextError);
    EXPECT_THROW(truecaser->Apply(text, "york"), TextError);
    EXPECT_THROW(truecaser->Apply("york", text), TextError);
  }
  EXPECT_EQ(Cased(*truecaser, "new york"), "New York");
}

TEST(TruecaserFileTest, ForeignAndTruncatedFilesAreModelFileErrors) {
  const std::string good = TinyModel();
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_THROW(TruecaserFromBytes(good.substr(0, size), true), ModelFileError) << size;
  }
  EXPECT_THROW(TruecaserFromBytes(good + std::string(8, '\0'), true), ModelFileError);
  for (size_t at = 0; at < good.size(); ++at) {
    if (at >= 56 && at < 64) continue;  // reserved
    std::string bad = good;
    bad[at] ^= 0x10;
    EXPECT_THROW(TruecaserFromBytes(bad, true), ModelFileError) << at;
  }
  EXPECT_THROW(TruecaserFromFile("/no/such/file", true), ModelFileError);
  EXPECT_THROW(TruecaserFromFile("/tmp", true), ModelFileError);
}

TEST(TruecaserFileTest, OlderVersionsSayHowToWriteThemAnew) {
  std::string old = TinyModel();
  old[8] = 1;
  try {
    TruecaserFromBytes(old, true);
    ADD_FAILURE() << "no error";
  } catch (const ModelFileError& error) {
    EXPECT_NE(std::string(error.what())
                  .find("has version 1, this library reads version 2; write "
                        "it anew with: python -m lmfusion export-truecaser"),
              std::string::npos)
        << error.what();
  }
}

TEST(TruecaserFileTest, DamageWithAFittingChecksumDoesNotCrash) {
  const std::string good = TinyModel();
  std::mt19937 random(9);
  for (int round = 0; round < 20000; ++round) {
    std::string bad = good;
    for (size_t n = 1 + random() % 3; n > 0; --n) {
      const size_t at = 32 + random() % (bad.size() - 32);
      bad[at] = static_cast<char>(random() % 4 == 0 ? random() : random() % 4);
    }
    try {
      const auto truecaser = TruecaserFromBytes(ModelFile::Signed(bad), true);
      truecaser->Apply("the new york in may", "not");
    } catch (const ModelFileError&) {
    }
  }
}

}  // namespace
}  // namespace lmfusion
