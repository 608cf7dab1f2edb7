#include "cache/call_chunk.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "base/stopwatch.h"
#include "lmfusion/errors.h"
#include "tree/batch_plan.h"

namespace lmfusion {
namespace {

using Path = TokenPaths::Path;

// Below infinity; a token may have no probability at all, and then the logarithm of it is
// -infinity.
bool AreLogits(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(),
                     [](float value) { return value < std::numeric_limits<float>::infinity(); });
}

// A model that checks its forward passes may still give answers that are no numbers.
void CheckNumbers(const OutputAnswers& answers) {
  const bool finite = std::all_of(answers.normalizers.begin(), answers.normalizers.end(),
                                  [](float value) { return std::isfinite(value); });
  if (!finite || !AreLogits(answers.logits) || !AreLogits(answers.word_end_log_probs)) {
    throw NumericalError(
        "the model gave a log-probability that is not a number; nothing of that forward pass was "
        "kept");
  }
}

}  // namespace

void CallChunk::Add(NodeId root, Call* call, size_t path_index) {
  const Path& path = call->paths->paths[path_index];
  const int32_t begin = paths_.size();
  int32_t last = PinnedPaths::kRoot;
  if (path.prefix != nullptr) {
    const auto key = std::make_tuple(root, path.prefix.get(), path.prefix_size);
    const auto known = prefixes_.find(key);
    if (known != prefixes_.end()) {
      last = known->second;
    } else {
      last = Walk(root, last, path.prefix->data(), path.prefix_size);
      prefixes_.emplace(key, last);
    }
  }
  last = Walk(root, last, path.tail.data(), path.tail.size());
  wanted_.resize(paths_.size());
  int32_t node = last;
  for (int32_t i = path.size(); i > path.scored_begin; --i, node = paths_.parent(node)) {
    wanted_[node].log_prob = true;
  }
  if (last != PinnedPaths::kRoot) {
    if (path.ends_word) wanted_[last].word_end = true;
    if (call->prime && path.scored_begin >= path.size()) wanted_[last].normalizer = true;
  }
  members_.push_back({call, path_index, last, begin, paths_.size()});
  if (shares_.empty() || shares_.back().call != call) {
    shares_.push_back({call, call->paths_done, 0});
  }
  ++shares_.back().paths;
}

int32_t CallChunk::Walk(NodeId root, int32_t from, const int32_t* tokens, size_t count) {
  for (size_t i = 0; i < count; ++i) from = paths_.Add(root, from, tokens[i]);
  return from;
}

void CallChunk::Run(Stats* counters) {
  Stopwatch watch;
  for (const Member& member : members_) ReadReused(member);
  PlanSlots();
  const std::vector<int32_t> missing = MissingDepthFirst(tree_, paths_);
  counters->tree_seconds += watch.Lap();
  Questions questions;
  OutputAnswers answers;
  bool whole = true;
  try {
    whole = Forward(missing, counters);
    watch.Lap();
    questions = MakeQuestions();
    // Asked even where there is no question: it tells whether the forward passes were finite.
    answers = model_.Answer(questions.asked);
  } catch (...) {
    // What the model noted of these passes is not to be told to the next chunk.
    try {
      model_.Answer(OutputQuestions());
    } catch (...) {
    }
    throw;
  }
  CheckNumbers(answers);
  Publish(questions, answers);
  counters->output_seconds += watch.Lap();
  if (!whole) throw EndedEarly();
  for (const Share& share : shares_) share.call->paths_done = share.first_path + share.paths;
  for (const Member& member : members_) ReadScores(member);
  for (int32_t i = 0; i < paths_.size(); ++i)
    counters->tokens_reused += paths_.was_computed(i) ? 1 : 0;
}

// A node is computed where it, or a node below it, has a child whose log-probability is wanted and
// not known. The tokens nothing follows need no forward pass.
void CallChunk::PlanSlots() {
  for (int32_t i = paths_.size(); i-- > 0;) {
    Wanted& wanted = wanted_[i];
    const NodeId node = paths_.node(i);
    wanted.computed = wanted.computed || wanted.normalizer;
    wanted.normalizer = wanted.normalizer && std::isnan(tree_.normalizer(node));
    wanted.word_end = wanted.word_end && std::isnan(tree_.word_end(node));
    wanted.log_prob = wanted.log_prob && std::isnan(tree_.log_prob(node));
    wanted.computed = wanted.computed || wanted.word_end;
    const int32_t parent = paths_.parent(i);
    if (parent == PinnedPaths::kRoot) continue;
    if (wanted.log_prob || wanted.computed) wanted_[parent].computed = true;
    if (wanted.log_prob && std::isnan(tree_.normalizer(paths_.node(parent)))) {
      wanted_[parent].normalizer = true;
    }
  }
  for (int32_t i = 0; i < paths_.size(); ++i) {
    if (!wanted_[i].computed || tree_.slot(paths_.node(i)) != kNoSlot) continue;
    if (!tree_.AcquireSlot(paths_.node(i))) {
      throw CacheBudgetError("kv_cache_bytes is too small for the texts of one chunk of a call (" +
                             std::to_string(paths_.size()) + " tokens); give it more bytes");
    }
  }
}

// Of nodes that are computed: all that are wanted, unless a call ended early.
CallChunk::Questions CallChunk::MakeQuestions() const {
  Questions questions;
  const auto has_slot = [&](int32_t i) { return tree_.slot(paths_.node(i)) != kNoSlot; };
  for (int32_t i = 0; i < paths_.size(); ++i) {
    const Wanted& wanted = wanted_[i];
    if ((wanted.word_end || wanted.normalizer) && has_slot(i)) {
      if (wanted.word_end) questions.asked.word_ends = true;
      questions.normalizer_of.push_back(i);
      questions.asked.normalizer_slots.push_back(tree_.slot(paths_.node(i)));
    }
    if (wanted.log_prob && has_slot(paths_.parent(i))) {
      questions.logit_of.push_back(i);
      questions.asked.logit_slots.push_back(tree_.slot(paths_.node(paths_.parent(i))));
      questions.asked.logit_tokens.push_back(tree_.token(paths_.node(i)));
    }
  }
  return questions;
}

// False where a call ended early; then the slots of what was not computed were given back.
bool CallChunk::Forward(const std::vector<int32_t>& missing, Stats* counters) {
  Stopwatch watch;
  NodeNumbers visible_index;
  auto batch = static_cast<size_t>(max_batch_tokens_);
  for (size_t begin = 0, end; begin < missing.size(); begin = end) {
    end = std::min(missing.size(), begin + batch);
    const BatchPlan plan = PlanBatch(tree_, paths_, missing, begin, end, visible_index);
    counters->tree_seconds += watch.Lap();
    try {
      model_.Forward(plan);
    } catch (const OutOfDeviceMemory&) {
      if (end - begin == 1) throw;
      batch = (end - begin) / 2;
      end = begin;
      continue;
    }
    counters->forward_seconds += watch.Lap();
    counters->tokens_computed += end - begin;
    ++counters->forwards;
    if (GoesOn(end, missing.size())) continue;
    for (size_t i = end; i < missing.size(); ++i) tree_.ReleaseSlot(paths_.node(missing[i]));
    return false;
  }
  return true;
}

// Between two passes: notes how far the calls are, and asks the watch of this thread. False where a
// call ends early.
bool CallChunk::GoesOn(size_t computed, size_t missing) const {
  for (const Share& share : shares_) {
    share.call->paths_done =
        share.first_path + static_cast<int64_t>(share.paths * computed / missing);
  }
  bool goes_on = true;
  for (Call* call = at_work_; call != nullptr; call = call->next) {
    const bool own = call->watch != nullptr && call->watch == CallWatch::Current();
    if (own && !call->Tell()) call->withdrawn = true;
    if (call->withdrawn) goes_on = false;
  }
  return goes_on;
}

void CallChunk::Publish(const Questions& questions, const OutputAnswers& answers) {
  for (int32_t i = 0; i < paths_.size(); ++i) {
    const NodeId node = paths_.node(i);
    if (tree_.slot(node) != kNoSlot && !tree_.computed(node)) tree_.MarkComputed(node);
  }
  for (size_t k = 0; k < questions.normalizer_of.size(); ++k) {
    const NodeId node = paths_.node(questions.normalizer_of[k]);
    tree_.set_normalizer(node, answers.normalizers[k]);
    if (questions.asked.word_ends) tree_.set_word_end(node, answers.word_end_log_probs[k]);
  }
  for (size_t k = 0; k < questions.logit_of.size(); ++k) {
    const NodeId node = paths_.node(questions.logit_of[k]);
    tree_.set_log_prob(node, answers.logits[k] - tree_.normalizer(tree_.parent(node)));
  }
}

void CallChunk::ReadReused(const Member& member) const {
  if (member.call->report == nullptr) return;
  std::vector<bool>& reused = member.call->report->reused[member.path_index];
  reused.resize(member.call->paths->paths[member.path_index].size());
  int32_t node = member.last;
  for (size_t i = reused.size(); i-- > 0; node = paths_.parent(node)) {
    reused[i] = paths_.was_computed(node);
  }
}

void CallChunk::ReadScores(const Member& member) const {
  const Path& path = member.call->paths->paths[member.path_index];
  std::vector<float>& log_probs = member.call->scores->log_probs[member.path_index];
  log_probs.resize(path.size() - path.scored_begin);
  int32_t node = member.last;
  for (size_t i = log_probs.size(); i-- > 0; node = paths_.parent(node)) {
    log_probs[i] = tree_.log_prob(paths_.node(node));
  }
  if (path.ends_word) {
    member.call->scores->word_end[member.path_index] = tree_.word_end(paths_.node(member.last));
  }
  if (member.call->report == nullptr) return;
  for (int32_t i = member.begin; i < member.end; ++i) {
    if (!paths_.was_computed(i) && tree_.computed(paths_.node(i))) {
      ++member.call->report->tokens_computed;
    }
  }
}

}  // namespace lmfusion
