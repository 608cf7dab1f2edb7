#pragma once

#include <string>
#include <vector>

#include "lmfusion/scorer.h"
#include "requests.h"

namespace lmfusion {

// When the cache starts empty.
enum class Cold {
  kUtterance,  // at every change of "utt", as a decoder that forgets between utterances
  kCall,       // at every call
  kRepeat,     // at every repetition of the whole file
  kNever,      // never: the file is replayed once before anything is measured
};
Cold ColdByName(const std::string& name);  // "utterance", "call", "repeat", "never"
const char* Name(Cold cold);

struct ReplayOptions {
  Cold cold = Cold::kUtterance;
  int repeats = 3;
  int warmup_calls = 20;  // calls before the first repetition; not measured, then forgotten
  int threads = 0;        // torch threads; 0: as torch chooses
  int clients = 1;        // decoder threads, each of which replays all requests
  bool keep_scores = false;
};

// One repetition of all requests by all clients.
struct Repetition {
  double seconds = 0;             // wall time, less the time in which caches were emptied
  double one_client_seconds = 0;  // the same by one client alone; 0 where there is one only
  uint64_t one_client_forwards = 0;
  std::vector<double> call_seconds;  // [clients * requests]
  Stats stats;
};

struct Replay {
  std::vector<Repetition> repetitions;
  // [requests][contexts or texts][candidates], nats weighted as the scorer does; one candidate per
  // text for kTexts. From the last repetition of client 0, where keep_scores.
  std::vector<std::vector<std::vector<double>>> scores;
};

// Replays the requests, in order. Before every repetition of several clients, one replays them
// alone. With several clients, client i starts at utterance i (modulo
// their number), and each client has cache namespaces of its own unless `cold` is kRepeat or
// kNever: they share forward passes, not results.
Replay ReplayRequests(LMFusionScorer* scorer, const std::vector<Request>& requests,
                      const ReplayOptions& options);

}  // namespace lmfusion
