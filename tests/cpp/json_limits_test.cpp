#include "base/json_limits.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace lmfusion {
namespace {

std::string Repeated(const std::string& text, int count) {
  std::string all;
  for (int i = 0; i < count; ++i) all += text;
  return all;
}

constexpr JsonLimits kLimits{16, 1000, 100};

std::string Beyond(const std::string& json) {
  const char* const beyond = BeyondLimits(json, kLimits);
  return beyond == nullptr ? "" : beyond;
}

TEST(JsonLimits, NestingIsLimited) {
  for (const auto& [begin, end] : {std::pair("[", "]"), std::pair("{\"a\":", "}")}) {
    EXPECT_EQ(Beyond(Repeated(begin, 16) + "1" + Repeated(end, 16)), "");
    EXPECT_EQ(Beyond(Repeated(begin, 17) + "1" + Repeated(end, 17)), "it is nested too deeply");
    EXPECT_EQ(Beyond(Repeated(begin, 1000000)), "it is nested too deeply");
  }
  EXPECT_EQ(Beyond("[" + Repeated("[[]],", 200) + "0]"), "") << "what has ended does not count";
}

TEST(JsonLimits, ValuesAreCounted) {
  EXPECT_EQ(Beyond("[" + Repeated("0,", 998) + "0]"), "");
  for (const char* value : {"0", "-1", "1.5", "null", "true", "\"x\"", "[]", "{}"}) {
    EXPECT_EQ(Beyond("[" + Repeated(std::string(value) + ",", 999) + "0]"),
              "it has too many values");
    EXPECT_EQ(Beyond("[" + Repeated("0,", 999) + value + "]"), "it has too many values");
  }
}

TEST(JsonLimits, TextsAndNamesHaveALength) {
  for (const auto& [begin, end] : {std::pair("[\"", "\"]"), std::pair("{\"", "\": 0}")}) {
    EXPECT_EQ(Beyond(begin + Repeated("x", 100) + end), "");
    EXPECT_EQ(Beyond(begin + Repeated("x", 101) + end), "it has a text that is too long");
  }
}

TEST(JsonLimits, WhatIsNoJsonIsForOthersToTell) {
  for (const char* text : {"", "x", "[1", "{\"a\" 1}", "\xff", "9e999"})
    EXPECT_EQ(Beyond(text), "");
}

}  // namespace
}  // namespace lmfusion
