#include "cache/path_piece.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/stopwatch.h"
#include "lmfusion/errors.h"
#include "tree/batch_plan.h"

namespace lmfusion {

void PathPiece::Visit(NodeId node) {
  const size_t begin = visited_.size();
  for (; !tree_.is_root(node) && tree_.mark(node) < 0; node = tree_.parent(node)) {
    tree_.set_mark(node, 0);
    visited_.push_back(node);
  }
  std::reverse(visited_.begin() + begin, visited_.end());
  for (size_t i = begin; i < visited_.size(); ++i) {
    const NodeId visited = visited_[i], parent = tree_.parent(visited);
    tree_.Pin(visited);
    tree_.set_mark(visited, static_cast<int32_t>(i));
    Entry entry;
    entry.parent = tree_.is_root(parent) ? -1 : tree_.mark(parent);
    entry.was_computed = tree_.computed(visited);
    entries_.push_back(entry);
  }
}

void PathPiece::WantScores(NodeId last, int32_t count) {
  for (; count > 0; --count, last = tree_.parent(last)) entries_[tree_.mark(last)].scored = true;
}

void PathPiece::WantWordEnd(NodeId last) { entries_[tree_.mark(last)].word_end = true; }

void PathPiece::WantComputed(NodeId node) {
  if (!tree_.is_root(node)) entries_[tree_.mark(node)].needed = true;
}

void PathPiece::WantNext(NodeId node) {
  if (!tree_.is_root(node)) entries_[tree_.mark(node)].next = true;
}

void PathPiece::Compute(Counts* counts) {
  Stopwatch watch;
  std::vector<NodeId> missing;
  try {
    PlanSlots();
    for (const Entry& entry : entries_) counts->reused += entry.was_computed ? 1 : 0;
    missing = MissingDepthFirst(tree_, visited_);
    counts->tree_seconds += watch.Lap();
    Forward(missing, counts);
    watch.Lap();
    Output();
    counts->output_seconds += watch.Lap();
  } catch (...) {
    ReleaseUnpublished();
    throw;
  }
}

// A node is needed where it, or a node below it, has a child whose log-probability is wanted and
// not known. The tokens nothing follows need no forward pass.
void PathPiece::PlanSlots() {
  for (size_t i = visited_.size(); i-- > 0;) {
    Entry& entry = entries_[i];
    entry.word_end = entry.word_end && std::isnan(tree_.word_end(visited_[i]));
    entry.scored = entry.scored && std::isnan(tree_.log_prob(visited_[i]));
    entry.needed = entry.needed || entry.word_end || entry.next;
    entry.next = entry.next && std::isnan(tree_.normalizer(visited_[i]));
    if (entry.parent >= 0 && (entry.scored || entry.needed)) entries_[entry.parent].needed = true;
  }
  for (size_t i = 0; i < visited_.size(); ++i) {
    if (!entries_[i].needed || tree_.slot(visited_[i]) != kNoSlot) continue;
    if (!tree_.AcquireSlot(visited_[i])) {
      throw CacheBudgetError("kv_cache_bytes is too small for the texts of one piece of work (" +
                             std::to_string(visited_.size()) + " tokens); give it more bytes");
    }
  }
}

void PathPiece::Forward(const std::vector<NodeId>& missing, Counts* counts) {
  Stopwatch watch;
  size_t batch = static_cast<size_t>(max_batch_tokens_);
  for (size_t begin = 0, end; begin < missing.size(); begin = end) {
    end = std::min(missing.size(), begin + batch);
    const BatchPlan plan = PlanBatch(tree_, missing, begin, end);
    counts->tree_seconds += watch.Lap();
    try {
      model_.Forward(plan);
    } catch (const OutOfDeviceMemory&) {
      if (end - begin == 1) throw;
      batch = (end - begin) / 2;
      end = begin;
      continue;
    }
    counts->forward_seconds += watch.Lap();
    counts->computed += end - begin;
    ++counts->forwards;
  }
}

void PathPiece::Output() {
  OutputQuestions questions;
  std::vector<size_t> normalized, logits;  // entries, in the order of the questions
  std::vector<bool> asked(visited_.size(), false);
  const auto ask_normalizer = [&](int32_t i) {
    if (asked[i]) return;
    asked[i] = true;
    normalized.push_back(i);
    questions.normalizer_slots.push_back(tree_.slot(visited_[i]));
  };
  for (size_t i = 0; i < visited_.size(); ++i) {
    const Entry& entry = entries_[i];
    if (entry.word_end) {
      questions.word_ends = true;
      ask_normalizer(static_cast<int32_t>(i));
    }
    if (entry.next) ask_normalizer(static_cast<int32_t>(i));
    if (!entry.scored) continue;
    const NodeId parent = visited_[entry.parent];
    if (std::isnan(tree_.normalizer(parent))) ask_normalizer(entry.parent);
    logits.push_back(i);
    questions.logit_slots.push_back(tree_.slot(parent));
    questions.logit_tokens.push_back(tree_.token(visited_[i]));
  }
  // Asked even where there is no question: it tells whether the forward passes were finite.
  const OutputAnswers answers = model_.Answer(questions);
  for (size_t i = 0; i < visited_.size(); ++i) {
    if (tree_.slot(visited_[i]) != kNoSlot && !tree_.computed(visited_[i])) {
      tree_.MarkComputed(visited_[i]);
    }
  }
  for (size_t k = 0; k < normalized.size(); ++k) {
    tree_.set_normalizer(visited_[normalized[k]], answers.normalizers[k]);
    if (questions.word_ends) {
      tree_.set_word_end(visited_[normalized[k]], answers.word_end_log_probs[k]);
    }
  }
  for (size_t k = 0; k < logits.size(); ++k) {
    const NodeId node = visited_[logits[k]];
    tree_.set_log_prob(node, answers.logits[k] - tree_.normalizer(tree_.parent(node)));
  }
}

void PathPiece::ReleaseUnpublished() {
  for (const NodeId node : visited_) {
    if (tree_.slot(node) != kNoSlot && !tree_.computed(node)) tree_.ReleaseSlot(node);
  }
}

void PathPiece::Close() {
  for (size_t i = visited_.size(); i-- > 0;) {
    tree_.Unpin(visited_[i]);
    tree_.RemoveIfEmpty(visited_[i]);
  }
  visited_.clear();
  entries_.clear();
}

}  // namespace lmfusion
