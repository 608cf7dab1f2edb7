#include "engine/attention_calls.h"

#include <ATen/ATen.h>
#include <ATen/core/function_schema.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "bundle/problems.h"

namespace lmfusion {
namespace {

thread_local AttentionCalls* watching = nullptr;

// The arguments are the last of the inputs: the interpreter hands over its whole stack.
const c10::IValue& Argument(const at::RecordFunction& call, const c10::FunctionSchema& schema,
                            const char* name) {
  const size_t others = call.inputs().size() - schema.arguments().size();
  return call.inputs().at(others + schema.argumentIndexWithName(name).value());
}

// Columns [begin, end) of queries are those of whole heads, as wide as a head in the pool.
int64_t RotatedQueryHeads(const at::RecordFunction& call, const c10::FunctionSchema& schema) {
  const std::vector<int64_t> columns = Argument(call, schema, "columns").toIntVector();
  const at::Tensor& queries = Argument(call, schema, "q").toTensor();
  const int64_t head_dim = Argument(call, schema, "kv").toTensor().size(4);
  return (std::min(columns.at(1), queries.size(-1)) - columns.at(0)) / head_dim;
}

}  // namespace

AttentionCalls::AttentionCalls() {
  const auto note = [](const at::RecordFunction& call) -> std::unique_ptr<at::ObserverContext> {
    const std::string name = call.name();
    const bool rotary = name == "lmfusion::rotary_attention";
    if (!rotary && name != "lmfusion::tree_attention") return nullptr;
    const c10::FunctionSchema schema = call.operator_schema().value();
    const int64_t heads =
        rotary ? RotatedQueryHeads(call, schema) : Argument(call, schema, "q").toTensor().size(1);
    watching->calls_.push_back(
        {Argument(call, schema, "layer").toInt(), Argument(call, schema, "window").toInt(), heads});
    return nullptr;
  };
  callback_ = at::addThreadLocalCallback(
      at::RecordFunctionCallback(note).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
  watching = this;
}

AttentionCalls::~AttentionCalls() {
  at::removeCallback(callback_);
  watching = nullptr;
}

void AttentionCalls::Check(const ModelDescription& description) const {
  Problems problems;
  std::set<int64_t> layers;
  for (const Call& call : calls_) {
    if (!layers.insert(call.layer).second) continue;
    const int64_t window = description.windows.at(call.layer);  // the operator checks its layer
    if (call.window != window) {
      problems.Add(kDescriptionName, "windows",
                   std::to_string(window) + " for layer " + std::to_string(call.layer) +
                       ", whose attention has a window of " + std::to_string(call.window));
    }
    if (call.query_heads != description.q_heads) {
      problems.Add(kDescriptionName, "q_heads",
                   std::to_string(description.q_heads) + "; layer " + std::to_string(call.layer) +
                       " has " + std::to_string(call.query_heads));
    }
  }
  if (static_cast<int64_t>(layers.size()) != description.layers) {
    problems.Add(kDescriptionName, "layers",
                 std::to_string(description.layers) + "; the graph attends in " +
                     std::to_string(layers.size()));
  }
  problems.ThrowIfAny(description.file);
}

}  // namespace lmfusion
