#include "lmfusion/truecaser.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "lmfusion/errors.h"
#include "lmfusion/join.h"
#include "text/casing/treebank.h"
#include "text/casing/truecase_memo.h"
#include "truecaser_file.h"

namespace lmfusion {
namespace {

std::shared_ptr<const Truecaser> Tiny(bool compat) {
  return TruecaserFromBytes(TinyTruecaserFile(), compat);
}

// A word with the space that joins it.
std::string Joined(const std::string& context, const std::string& word) {
  return std::string(Separator(context, word, Join::kSpace)) + word;
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
      TruecaserFile().Form("i", "I", 9).Form("may", "May", 20).Form("may", "may", 20).Bytes();
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
    const CasedText cased = Tiny(compat)->Apply(context, Joined(context, word));
    return cased.text.substr(0, cased.context_bytes) + "|" + cased.text.substr(cased.context_bytes);
  };
  for (const bool compat : {false, true}) {
    EXPECT_EQ(split(compat, "the new", "york"), "The New| York");
    EXPECT_EQ(split(compat, "", "york in"), "|York in");
    EXPECT_EQ(split(compat, "the new", ""), "The new|");
    EXPECT_EQ(split(compat, "the new", "york york york"), "The New| York York York");
  }
  EXPECT_EQ(split(true, "i", "'am"), "I'| Am");
  EXPECT_EQ(split(false, "i", "'am"), "I| 'Am");
  EXPECT_EQ(split(true, "i can", "not"), "I| cannot");
  EXPECT_EQ(split(false, "i can", "not"), "I can| not");
  EXPECT_EQ(split(false, "the  ", "york"), "The  |York");
  EXPECT_EQ(split(false, "the", "  york"), "The|  York");
  EXPECT_EQ(split(false, "the ", " york"), "The | York");
  EXPECT_EQ(split(false, "ⱥ é the", "york"), "Ⱥ É the| York");  // Ⱥ has a byte less
}

// Found by text_fuzzer: one word of context and candidate together, of more characters when cased,
// which the drop-in truecaser refused with the error of a caller's casing function.
TEST(TruecaserTest, AWordThatBecomesLongerIsStillSplit) {
  const CasedText cased = Tiny(true)->Apply("ß", "zz");
  EXPECT_EQ(cased.text, "Sszz");
  EXPECT_EQ(cased.context_bytes, 1u);
  EXPECT_EQ(Tiny(false)->Apply("ß", "zz").context_bytes, 2u);  // left as it is
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
      const std::string word = Joined(context, pieces[pick(pieces.size())]);
      const CasedText cased = shared->Apply(context, word);
      const std::string whole = context + word;
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

// By NLTK 3.10, whose rules these are.
TEST(TreebankTest, WordsOfMarks) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(SplitTreebankWords("a{b"), (Words{"a", "{", "b"}));
  EXPECT_EQ(SplitTreebankWords(std::string(50, '[')), Words(50, "["));
  Words quotes(20, "''");
  quotes[0] = quotes[1] = "``";
  EXPECT_EQ(SplitTreebankWords(std::string(20, '"')), quotes);
}

TEST(TreebankTest, Boundaries) {
  const auto next = [](std::string_view text, size_t from) {
    return NextTreebankGap(text, from).begin;
  };
  constexpr size_t kNone = std::string_view::npos;
  EXPECT_EQ(next("A 1", 0), 1u);
  EXPECT_EQ(next("a  b c", 0), 1u);
  EXPECT_EQ(next("a  b c", 2), 4u) << "the first gap begins before";
  for (const char* text : {"a {", "{ a", "can not", "CAN NOT", "İ a", "a ı", "ſ a", "a"}) {
    EXPECT_EQ(next(text, 0), kNone) << text;
  }
  EXPECT_EQ(next("É a", 0), 2u);
}

TEST(TruecaserTest, CostsTheNewWords) {
  const auto truecaser = Tiny(true);
  std::string context = "the";
  for (int i = 0; i < 400; ++i) context += " york";
  truecaser->Apply(context, " in");
  EXPECT_EQ(truecaser->WordsDecided(), 402u);
  for (const char* word : {" may", " not", " new"}) truecaser->Apply(context, word);
  EXPECT_EQ(truecaser->WordsDecided(), 402u + 3 * 2);
  truecaser->Apply(context + " may", " i");
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

TEST(TruecaseMemoTest, ForgetsWhatBeginsSo) {
  TruecaseMemo memo(64 << 10);
  const auto add = [&memo](const std::string& source, size_t bytes = 0) {
    auto prefix = std::make_shared<TruecasePrefix>();
    prefix->source = source;
    prefix->settled = std::string(bytes, 'x');
    memo.Add(prefix);
  };
  add("ours, old");
  for (int i = 0; i < 60; ++i) add("theirs " + std::to_string(i), 512);  // the old ones go below
  add("ours, new");
  ASSERT_NE(memo.Find("ours, new"), nullptr);
  memo.Forget("ours");
  EXPECT_EQ(memo.Find("ours, old"), nullptr);
  EXPECT_EQ(memo.Find("ours, new"), nullptr);
  EXPECT_NE(memo.Find("theirs 59"), nullptr);
  add("theirs 59", 512);  // it is there: nothing is added
  EXPECT_NE(memo.Find("theirs 59"), nullptr);
  add("large", 4 << 10);  // more than a sixteenth of half of it
  EXPECT_EQ(memo.Find("large"), nullptr);
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
  const std::string good = TinyTruecaserFile();
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

TEST(TruecaserFileTest, IsReadFromAFile) {
  const std::string path = testing::TempDir() + "truecaser" + std::to_string(getpid());
  std::ofstream(path, std::ios::binary) << TinyTruecaserFile();
  const auto truecaser = TruecaserFromFile(path, true);
  EXPECT_EQ(truncate(path.c_str(), 0), 0);  // by another program: nothing reads it any more
  EXPECT_EQ(Cased(*truecaser, "new york"), Cased(*Tiny(true), "new york"));
  std::string odd = TinyTruecaserFile() + "odd";
  const uint64_t size = odd.size();
  std::memcpy(&odd[16], &size, sizeof size);
  std::ofstream(path, std::ios::binary) << TruecaserFile::Signed(odd);
  EXPECT_THROW(TruecaserFromFile(path, true), ModelFileError);
  std::ofstream(path, std::ios::binary).flush();  // empty
  EXPECT_THROW(TruecaserFromFile(path, true), ModelFileError);
  std::remove(path.c_str());
}

TEST(TruecaserFileTest, OlderVersionsSayHowToWriteThemAnew) {
  std::string old = TinyTruecaserFile();
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
  const std::string good = TinyTruecaserFile();
  std::mt19937 random(9);
  for (int round = 0; round < 20000; ++round) {
    std::string bad = good;
    for (size_t n = 1 + random() % 3; n > 0; --n) {
      const size_t at = 32 + random() % (bad.size() - 32);
      bad[at] = static_cast<char>(random() % 4 == 0 ? random() : random() % 4);
    }
    try {
      const auto truecaser = TruecaserFromBytes(TruecaserFile::Signed(bad), true);
      truecaser->Apply("the new york in may", "not");
    } catch (const ModelFileError&) {
    }
  }
}

}  // namespace
}  // namespace lmfusion
