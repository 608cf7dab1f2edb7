#pragma once

#include <cstdint>
#include <string>

namespace lmfusion {

// What a scorer has done since it was made or its counters were reset: numbers by the names of
// stats_fields.inc, which says what each is.
struct Stats {
#define LMFUSION_STATS_FIELD(kind, type, name, initial, text) type name = initial;
#include "lmfusion/stats_fields.inc"
#undef LMFUSION_STATS_FIELD

  // Of several scorers together.
  Stats& operator+=(const Stats& other);
  friend Stats operator+(Stats a, const Stats& b) { return a += b; }

  // What was counted after `before`, an earlier state of the same scorer; levels stay.
  Stats Since(const Stats& before) const;

  std::string ToString() const;  // Stats(calls=1, ...)
  std::string ToJson() const;    // {"calls": 1, ...}
};

// A line of the table.
struct StatsField {
  enum Kind { kCount, kLevel, kLargest, kAll };
  const char* name;
  Kind kind;
  const char* text;
};

// Calls visit(StatsField, member) for every field in order, where member is &Stats::calls and so
// on.
template <typename Visit>
void ForEachStatsField(Visit&& visit) {
#define LMFUSION_STATS_FIELD(kind, type, name, initial, text) \
  visit(StatsField{#name, StatsField::kind, text}, &Stats::name);
#include "lmfusion/stats_fields.inc"
#undef LMFUSION_STATS_FIELD
}

}  // namespace lmfusion
