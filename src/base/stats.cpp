#include "lmfusion/stats.h"

#include <algorithm>
#include <iomanip>
#include <sstream>

namespace lmfusion {
namespace {

// Every field as `opening` name `middle` value, with ", " between.
std::string Listed(const Stats& stats, const char* opening, const char* middle, int digits) {
  std::ostringstream out;
  out << std::boolalpha << std::setprecision(digits);
  const char* separator = "";
  ForEachStatsField([&](const StatsField& field, auto member) {
    out << separator << opening << field.name << middle << stats.*member;
    separator = ", ";
  });
  return out.str();
}

}  // namespace

Stats& Stats::operator+=(const Stats& other) {
  ForEachStatsField([&](const StatsField& field, auto member) {
    auto& mine = this->*member;
    const auto& others = other.*member;
    switch (field.kind) {
      case StatsField::kCount:
      case StatsField::kLevel: mine += others; break;
      case StatsField::kLargest: mine = std::max(mine, others); break;
      case StatsField::kAll: mine = mine && others; break;
    }
  });
  return *this;
}

Stats Stats::Since(const Stats& before) const {
  Stats since = *this;
  ForEachStatsField([&](const StatsField& field, auto member) {
    if (field.kind == StatsField::kCount) since.*member -= before.*member;
  });
  return since;
}

std::string Stats::ToString() const { return "Stats(" + Listed(*this, "", "=", 6) + ")"; }
std::string Stats::ToJson() const { return "{" + Listed(*this, "\"", "\": ", 17) + "}"; }

}  // namespace lmfusion
