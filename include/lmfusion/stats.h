#pragma once

#include <cstdint>
#include <string>

namespace lmfusion {

// What a scorer has done since it was made or its counters were reset.
struct Stats {
  uint64_t calls = 0;
  uint64_t candidates = 0;            // candidates and whole texts
  uint64_t tokens_requested = 0;      // tokens of all texts, start tokens included, nothing shared
  uint64_t tokens_computed = 0;       // tokens that went through the model
  uint64_t tokens_reused = 0;         // distinct tokens of a call that the cache already held
  uint64_t forwards = 0;              // forward passes
  uint64_t tokens_padded = 0;         // rows of forward passes that were padding, on a device
  uint64_t forwards_replayed = 0;     // forward passes that were replayed (CUDA graphs)
  uint64_t evictions = 0;             // slots taken back to make room
  uint64_t truncated_contexts = 0;    // contexts cut to max_context_length
  uint64_t text_bytes_tokenized = 0;  // bytes of text that went through the tokenizer

  // Not reset:
  int64_t cache_bytes = 0;        // bytes held
  int64_t cache_bytes_limit = 0;  // kv_cache_bytes
  int64_t cached_tokens = 0;      // slots in use
  int64_t weight_bytes = 0;       // of the model's weights as they are held; 0 for a plain model
  int64_t packed_linears = 0;     // linear layers whose weights are packed for this machine
  int64_t plain_linears = 0;      // linear layers that run as they were exported
  // Norms, activations, residuals and attentions of the model's graph that were several operators
  // and are one.
  int64_t fused_operators = 0;
  bool cached = true;  // false: a plain model, scored without a cache

  // Seconds of wall time, by stage, summed over threads.
  double text_seconds = 0;     // casing and tokenizing
  double tree_seconds = 0;     // token tree and plans
  double forward_seconds = 0;  // the model up to its hidden states
  double output_seconds = 0;   // log-normalisers and token logits
  double total_seconds = 0;    // whole calls

  // Seconds within which half, 95 % and 99 % of the last 4,096 calls were done.
  double latency_p50 = 0, latency_p95 = 0, latency_p99 = 0;

  std::string ToString() const;
};

}  // namespace lmfusion
