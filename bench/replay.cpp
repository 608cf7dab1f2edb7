#include "replay.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <future>
#include <stdexcept>
#include <thread>

namespace lmfusion {
namespace {

using Clock = std::chrono::steady_clock;
using Scores = std::vector<std::vector<double>>;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Scores Score(LMFusionScorer* scorer, const Request& request, const std::string& cache_namespace) {
  switch (request.kind) {
    case Request::Kind::kContinuations:
      return scorer->score_continuations(request.contexts, request.candidate_words,
                                         cache_namespace);
    case Request::Kind::kEndings:
      return scorer->score_endings(request.texts, request.endings, cache_namespace);
    case Request::Kind::kTexts: break;
  }
  Scores scores;
  for (double score : scorer->score_texts(request.texts, request.eos, cache_namespace)) {
    scores.push_back({score});
  }
  return scores;
}

// Where client `client` starts: the first request of its utterance.
size_t FirstRequest(const std::vector<Request>& requests, int client) {
  std::vector<size_t> starts;
  for (size_t i = 0; i < requests.size(); ++i) {
    if (i == 0 || requests[i].utterance != requests[i - 1].utterance) starts.push_back(i);
  }
  return starts[client % starts.size()];
}

// One decoder's calls, in one repetition.
class Client {
 public:
  Client(LMFusionScorer* scorer, const std::vector<Request>& requests, const ReplayOptions& options,
         int index)
      : scorer_(scorer), requests_(&requests), options_(&options), index_(index) {}

  void Run() {
    if (options_->threads > 0) at::set_num_threads(options_->threads);
    const size_t count = requests_->size(), first = FirstRequest(*requests_, index_);
    call_seconds.reserve(count);
    if (options_->keep_scores) scores.resize(count);
    for (size_t i = 0; i < count; ++i) {
      const size_t at = (first + i) % count;
      if (StartsCold(i, at)) StartCold();
      const Clock::time_point start = Clock::now();
      Scores result = Score(scorer_, (*requests_)[at], cache_namespace_);
      call_seconds.push_back(SecondsSince(start));
      if (options_->keep_scores) scores[at] = std::move(result);
    }
  }

  std::vector<double> call_seconds;
  double clearing_seconds = 0;
  std::vector<Scores> scores;

 private:
  bool StartsCold(size_t call, size_t at) const {
    if (options_->cold == Cold::kCall) return true;
    return options_->cold == Cold::kUtterance &&
           (call == 0 || at == 0 || (*requests_)[at].utterance != (*requests_)[at - 1].utterance);
  }

  // One client empties the cache; several would empty each other's.
  void StartCold() {
    if (options_->clients > 1) {
      cache_namespace_ = std::to_string(index_) + "/" + std::to_string(++namespaces_);
      return;
    }
    const Clock::time_point start = Clock::now();
    scorer_->clear_cache();
    clearing_seconds += SecondsSince(start);
  }

  LMFusionScorer* scorer_;
  const std::vector<Request>* requests_;
  const ReplayOptions* options_;
  int index_;
  std::string cache_namespace_;
  int namespaces_ = 0;
};

void RunTogether(std::vector<Client>* clients) {
  if (clients->size() == 1) return clients->front().Run();
  std::promise<void> go;
  std::shared_future<void> started = go.get_future().share();
  std::vector<std::exception_ptr> errors(clients->size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < clients->size(); ++i) {
    threads.emplace_back([&, i] {
      started.wait();
      try {
        (*clients)[i].Run();
      } catch (...) {
        errors[i] = std::current_exception();
      }
    });
  }
  go.set_value();
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

Repetition Repeat(LMFusionScorer* scorer, const std::vector<Request>& requests,
                  const ReplayOptions& options, std::vector<Scores>* scores) {
  std::vector<Client> clients;
  for (int i = 0; i < options.clients; ++i) {
    clients.emplace_back(scorer, requests, options, i);
  }
  if (options.cold != Cold::kNever) scorer->clear_cache();
  scorer->reset_stats();
  const Clock::time_point start = Clock::now();
  RunTogether(&clients);
  Repetition repetition;
  repetition.seconds = SecondsSince(start);
  repetition.stats = scorer->stats();
  for (const Client& client : clients) {
    repetition.seconds -= client.clearing_seconds;
    repetition.call_seconds.insert(repetition.call_seconds.end(), client.call_seconds.begin(),
                                   client.call_seconds.end());
  }
  if (options.keep_scores) *scores = std::move(clients.front().scores);
  return repetition;
}

void WarmUp(LMFusionScorer* scorer, const std::vector<Request>& requests, int calls) {
  const size_t count = std::min(requests.size(), static_cast<size_t>(std::max(calls, 0)));
  for (size_t i = 0; i < count; ++i) Score(scorer, requests[i], "");
}

}  // namespace

Cold ColdByName(const std::string& name) {
  for (Cold cold : {Cold::kUtterance, Cold::kCall, Cold::kRepeat, Cold::kNever}) {
    if (name == Name(cold)) return cold;
  }
  throw std::invalid_argument("cold: \"" + name +
                              "\" is none of \"utterance\", \"call\", \"repeat\", \"never\"");
}

const char* Name(Cold cold) {
  switch (cold) {
    case Cold::kUtterance: return "utterance";
    case Cold::kCall: return "call";
    case Cold::kRepeat: return "repeat";
    case Cold::kNever: break;
  }
  return "never";
}

Replay ReplayRequests(LMFusionScorer* scorer, const std::vector<Request>& requests,
                      const ReplayOptions& options) {
  if (options.threads > 0) at::set_num_threads(options.threads);
  const bool warm = options.cold == Cold::kNever;
  WarmUp(scorer, requests, warm ? static_cast<int>(requests.size()) : options.warmup_calls);
  Replay replay;
  ReplayOptions alone = options;
  alone.clients = 1;
  for (int i = 0; i < options.repeats; ++i) {
    Repetition one;
    if (options.clients > 1) one = Repeat(scorer, requests, alone, &replay.scores);
    replay.repetitions.push_back(Repeat(scorer, requests, options, &replay.scores));
    replay.repetitions.back().one_client_seconds = one.seconds;
    replay.repetitions.back().one_client_forwards = one.stats.forwards;
  }
  return replay;
}

}  // namespace lmfusion
