// score_text MODEL TEXT: prints the log-probability of a text, nats.
#include <cstdio>
#include <exception>

#include "lmfusion/scorer.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: score_text MODEL TEXT\n");
    return 2;
  }
  try {
    lmfusion::LMFusionScorer scorer(argv[1]);
    std::printf("%.6f\n", scorer.score_texts({argv[2]}).front());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "score_text: %s\n", error.what());
    return 1;
  }
}
