#pragma once

#include <cmath>
#include <random>
#include <string>
#include <vector>

// What a character recogniser might have heard, noisy; a text sounds the same on every machine.
// Units: 0 blank, 1 space, 2..27 the letters.
constexpr int kUnits = 28, kBlank = 0, kSpace = 1;

inline int UnitOf(char letter) { return letter == ' ' ? kSpace : letter - 'a' + 2; }

using Emissions = std::vector<std::vector<float>>;  // [frames][units] of log p

inline Emissions MakeEmissions(const std::string& text, double noise) {
  std::seed_seq seed(text.begin(), text.end());
  std::mt19937 random(seed);
  // The distributions of <random> differ between libraries; this does not (Box and Muller).
  const auto uniform = [&] { return (static_cast<double>(random()) + 0.5) / 4294967296.0; };
  const auto normal = [&] {
    const double radius = std::sqrt(-2 * std::log(uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
  };
  Emissions emissions;
  const auto add = [&](const std::vector<double>& logits) {
    double sum = 0;
    for (const double logit : logits) sum += std::exp(logit);
    std::vector<float> frame;
    for (const double logit : logits) frame.push_back(static_cast<float>(logit - std::log(sum)));
    emissions.push_back(std::move(frame));
  };
  for (const char letter : text) {
    std::vector<double> heard(kUnits);
    for (double& logit : heard) logit = noise * normal();
    heard[UnitOf(letter)] += 5;
    heard[kBlank] = -5;
    if (letter != ' ') heard[kSpace] = -5;
    add(heard);
    add(heard);
    std::vector<double> pause(kUnits, 0.0);
    pause[kBlank] = 8;
    add(pause);
  }
  return emissions;
}
