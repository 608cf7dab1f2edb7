#include "lmfusion/join.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace lmfusion {
namespace {

struct Case {
  std::string context, word, text;
};

std::string Joined(const Case& one, Join join) {
  return one.context + std::string(Separator(one.context, one.word, join)) + one.word;
}

// The texts as people write them.
TEST(Join, AutoWritesAsPeopleDo) {
  for (const Case& one :
       std::vector<Case>{{"the cat", "sat", "the cat sat"},
                         {"chapter", "3", "chapter 3"},
                         {"3", "4", "3 4"},
                         {"she said", "naïve", "she said naïve"},
                         // Chinese, Japanese, Thai, Khmer, Lao, Myanmar; Korean
                         {"今天天气", "很好", "今天天气很好"},
                         {"私は", "学生です", "私は学生です"},
                         {"コーヒー", "を飲む", "コーヒーを飲む"},
                         {"ฉันชอบ", "กินข้าว", "ฉันชอบกินข้าว"},
                         {"ខ្ញុំ", "ចូលចិត្ត", "ខ្ញុំចូលចិត្ត"},
                         {"ຂ້ອຍ", "ມັກ", "ຂ້ອຍມັກ"},
                         {"ကျွန်တော်", "ကြိုက်တယ်", "ကျွန်တော်ကြိုက်တယ်"},
                         {"저는", "학생입니다", "저는 학생입니다"},
                         {"大韓民國", "서울", "大韓民國 서울"},
                         {"서울", "大韓民國", "서울 大韓民國"},
                         // with marks between, and mixed
                         {"今天，", "很好", "今天，很好"},
                         {"今天,", "很好", "今天,很好"},
                         {"今天", "。", "今天。"},
                         {"今天", "“很好", "今天“很好"},
                         {"今天", "iPhone", "今天iPhone"},
                         {"iPhone", "很好", "iPhone很好"},
                         {"最新の", "iPhone", "最新のiPhone"},
                         {"2024", "年", "2024年"},
                         {"第", "3", "第3"},
                         {"今天", "😀", "今天😀"},
                         {"ใช้", "iPhone", "ใช้ iPhone"},
                         {"ปี", "2024", "ปี 2024"},
                         {"hello", "😀", "hello 😀"},
                         // punctuation
                         {"i like tea", ".", "i like tea."},
                         {"what", "?!", "what?!"},
                         {"well", "...", "well..."},
                         {"(so", ")", "(so)"},
                         {"about 50", "%", "about 50%"},
                         {"he said", ":", "he said:"},
                         {"so", ".5", "so .5"},
                         {"the", ".net", "the .net"},
                         {"so", "(", "so ("},
                         {"so (", "then", "so (then"},
                         {"so", "“", "so “"},
                         {"so “", "then", "so “then"},
                         {"so “then", "”", "so “then”"},
                         {"so “then”", "he", "so “then” he"},
                         {"he said", "\"", "he said \""},
                         {"he said \"", "so", "he said \"so"},
                         {"he said \"so", "\"", "he said \"so\""},
                         {"he said \"so\"", "and", "he said \"so\" and"},
                         {"he said \"so", "\".", "he said \"so\"."},
                         {"¿", "qué", "¿qué"},
                         {"¡", "hola", "¡hola"},
                         {"he said (\"", "so", "he said (\"so"},
                         {"he said “'", "so", "he said “'so"},
                         {"so", "\"(", "so \"("},
                         {"so", "- x", "so - x"},
                         {"a$", "5", "a$ 5"},
                         {"well-", "known", "well-known"},
                         {"he said -", "and", "he said - and"},
                         {"and/", "or", "and/or"},
                         {"it costs $", "5", "it costs $5"},
                         {"the $", "sign", "the $ sign"},
                         {"क्या", "।", "क्या।"},
                         // clitics
                         {"it", "'s", "it's"},
                         {"it", "’s", "it’s"},
                         {"do", "n't", "don't"},
                         {"do", "n’t", "don’t"},
                         {"DO", "N'T", "DON'T"},
                         {"they", "'re", "they're"},
                         {"i", "'LL", "i'LL"},
                         {"is", "n't,", "isn't,"},
                         {"the dogs", "'", "the dogs'"},
                         {"the dogs'", "bowl", "the dogs' bowl"},
                         {"get", "'em", "get 'em"},
                         {"it", "'tis", "it 'tis"},
                         {"a", "n", "a n"},
                         {"l'", "homme", "l'homme"},
                         {"'", "tis", "'tis"},
                         {"5'", "tall", "5' tall"},
                         {"tu'", "x", "tu' x"},
                         {"parce qu’", "il", "parce qu’il"},
                         {"i", "'d've", "i'd've"},
                         {"they", "’LL’VE.", "they’LL’VE."},
                         {"could", "n't've", "couldn't've"},
                         {"(it", "'s)", "(it's)"},
                         {"“it", "’s”", "“it’s”"},
                         {"it", "'st", "it 'st"},
                         {"it", "'s'x", "it 's'x"},
                         {"it", "n'tn't", "it n'tn't"},
                         {"and", "'tis", "and 'tis"},
                         {"five", "o'clock", "five o'clock"},
                         {"the", "'90s", "the '90s"},
                         {"rock", "'n'", "rock 'n'"},
                         {"dell'", "arte", "dell'arte"},
                         {"(Nell’", "acqua", "(Nell’acqua"},
                         {"aujourd'", "hui", "aujourd'hui"},
                         {"the bell", "'s", "the bell's"},
                         {"a mandell'", "x", "a mandell' x"},
                         {"the parliamentarians'", "x", "the parliamentarians' x"},
                         {"caffè'", "x", "caffè' x"},
                         {"a", "\u20dd", "a\u20dd"},
                         {"chapter 3", "-in-law", "chapter 3 -in-law"},
                         {"the dogs’", "bowl", "the dogs’ bowl"},
                         // hyphens, signs, marks that are put onto a character
                         {"well", "-known", "well-known"},
                         {"mother", "-in-law", "mother-in-law"},
                         {"c'est", "‑à‑dire", "c'est‑à‑dire"},
                         {"minus", "-5", "minus -5"},
                         {"5", "-x", "5 -x"},
                         {"so", "-", "so -"},
                         {"so", "—then", "so —then"},
                         {"so—", "then", "so—then"},
                         {"€", "5", "€5"},
                         {"for ₹", "5", "for ₹5"},
                         {"5 €", "7", "5 € 7"},
                         {"5", "€", "5 €"},
                         {"5", "€5", "5 €5"},
                         {"x", "²", "x²"},
                         {"lmfusion", "™", "lmfusion™"},
                         {"٥٠", "٪", "٥٠٪"},
                         {"20", "°", "20°"},
                         {"20", "°C", "20 °C"},
                         {"שלום", "׃", "שלום׃"},
                         {"क", "\u093e", "क\u093e"},
                         {"e", "\u0301", "e\u0301"},
                         {"👍", "🏽", "👍🏽"},
                         {"👩", "\u200d👩", "👩\u200d👩"},
                         {"👩\u200d", "👩", "👩\u200d👩"},
                         {"می\u200c", "خواهم", "می\u200cخواهم"},
                         {"❤", "\ufe0f", "❤\ufe0f"},
                         // white space of all kinds
                         {"", "a", "a"},
                         {"a", "", "a"},
                         {"a ", "b", "a b"},
                         {"a", " b", "a b"},
                         {"a\n", "b", "a\nb"},
                         {"a", "\tb", "a\tb"},
                         {"a\u00a0", "b", "a\u00a0b"},
                         {"a", "\u3000b", "a\u3000b"},
                         {"ฉัน\u200b", "ชอบ", "ฉัน\u200bชอบ"},
                         {"so", "\u200bthen", "so\u200bthen"}}) {
    EXPECT_EQ(Joined(one, Join::kAuto), one.text);
  }
}

TEST(Join, SpaceAndNoneAskNobody) {
  for (const Case& one :
       std::vector<Case>{{"今天", "很好", ""}, {"it", "'s", ""}, {"a", "b", ""}}) {
    EXPECT_EQ(Joined(one, Join::kSpace), one.context + " " + one.word);
    EXPECT_EQ(Joined(one, Join::kNone), one.context + one.word);
  }
  for (const char* space : {" ", "\n", "\t", "\u00a0", "\u2028", "\u3000"}) {
    EXPECT_EQ(Separator(std::string("a") + space, "b", Join::kSpace), "");
    EXPECT_EQ(Separator("a", std::string(space) + "b", Join::kSpace), "");
  }
  EXPECT_EQ(Separator("", "b", Join::kSpace), "");
  EXPECT_EQ(Separator("a", "", Join::kSpace), "");
}

TEST(Join, ScriptsWithoutSpaces) {
  for (const char32_t c : U"日は、ฉ") {
    if (c == 0) continue;
    EXPECT_TRUE(IsWrittenWithoutSpaces(c)) << static_cast<uint32_t>(c);
  }
  for (const char32_t c : U"aé1 \u3000\u200b서") {
    EXPECT_FALSE(IsWrittenWithoutSpaces(c)) << static_cast<uint32_t>(c);
  }
}

TEST(Join, ByName) {
  for (const char* name : {"auto", "space", "none"}) EXPECT_STREQ(Name(JoinByName(name)), name);
  EXPECT_THROW(JoinByName("no"), std::invalid_argument);
}

}  // namespace
}  // namespace lmfusion
