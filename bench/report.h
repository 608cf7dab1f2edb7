#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "lmfusion/scorer.h"
#include "replay.h"

namespace lmfusion {

// The value below which the fraction `rank` (0 to 1) of the values lies, linear between
// neighbours. `values` is not empty.
double Quantile(std::vector<double> values, double rank);

// What was measured, what with, and on which machine; bench/README.md lists the fields.
nlohmann::ordered_json Report(const LMFusionScorer& scorer, const std::vector<Request>& requests,
                              const ReplayOptions& options, const Replay& replay,
                              const std::string& command);

// A few lines for people.
std::string Summary(const nlohmann::ordered_json& report);

}  // namespace lmfusion
