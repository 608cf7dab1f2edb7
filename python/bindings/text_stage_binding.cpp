#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arguments.h"
#include "bindings.h"
#include "lmfusion/options.h"
#include "lmfusion/truecaser.h"
#include "text/stage/text_stage.h"

namespace py = pybind11;

namespace lmfusion {
namespace {

// A text stage and what it has counted so far. Thread safe but for the counters, which the
// interpreter's lock protects.
class CountedTextStage {
 public:
  using Contexts = std::vector<std::string>;
  using CandidateWords = std::vector<std::vector<std::string>>;

  CountedTextStage(const std::shared_ptr<Tokenizer>& tokenizer,
                   const std::shared_ptr<Truecaser>& truecaser, const std::string& casing,
                   TextStageOptions options)
      : stage_(tokenizer, truecaser != nullptr ? truecaser : CasingByName(casing), options) {}

  TokenPaths Continuations(const Contexts& contexts, const CandidateWords& candidate_words,
                           Join join) {
    if (contexts.size() != candidate_words.size()) {
      throw std::invalid_argument(std::to_string(contexts.size()) + " contexts and " +
                                  std::to_string(candidate_words.size()) +
                                  " lists of candidate words; one list a context expected");
    }
    TextCall call;
    TokenPaths paths =
        Unlocked([&] { return stage_.Continuations(contexts, candidate_words, join, &call); });
    bytes_tokenized += call.bytes_tokenized;
    truncated_contexts += call.truncated_contexts;
    return paths;
  }

  std::pair<py::str, size_t> Cased(const py::object& given_context, const py::object& given,
                                   const std::string& join) const {
    const std::string context = ReadText(given_context, {"context"}),
                      word = ReadText(given, {"word"});
    const CasedText cased = Unlocked([&] { return stage_.Cased(context, word, JoinByName(join)); });
    return {py::str(cased.text), cased.context_bytes};
  }

  uint64_t bytes_tokenized = 0, truncated_contexts = 0;

 private:
  const TextStage stage_;
};

// (tokens, scored_begin, sign, ends_word, alternative) of each path.
using PathTuple = std::tuple<std::vector<int32_t>, int32_t, float, bool, int32_t>;
std::vector<PathTuple> Tuples(const TokenPaths& paths) {
  std::vector<PathTuple> tuples;
  for (const TokenPaths::Path& path : paths.paths) {
    tuples.emplace_back(path.tokens(), path.scored_begin, path.sign, path.ends_word,
                        path.alternative);
  }
  return tuples;
}

}  // namespace

void BindTextStage(py::module_& m) {
  py::class_<CountedTextStage>(
      m, "TextStage", "Strings to token paths, apart from any model: for tests and measurements.")
      .def(py::init([](const std::shared_ptr<Tokenizer>& tokenizer,
                       const std::shared_ptr<Truecaser>& truecaser, const std::string& casing,
                       int32_t start_token, int64_t max_context_length,
                       const std::string& boundary) {
             TextStageOptions options;
             options.start_token = start_token;
             options.max_context_length = max_context_length;
             options.boundary = BoundaryByName(boundary);
             return std::make_unique<CountedTextStage>(tokenizer, truecaser, casing, options);
           }),
           py::arg("tokenizer"), py::kw_only(), py::arg("truecaser") = py::none(),
           py::arg("casing") = "none", py::arg("start_token") = -1,
           py::arg("max_context_length") = 512, py::arg("boundary") = "plain",
           "A truecaser takes the place of `casing`; a start_token of -1 is none.")
      .def(
          "continuations",
          [](CountedTextStage& self, const py::object& contexts, const py::object& words,
             const std::string& join) {
            return Tuples(self.Continuations(ReadTexts(contexts, {"contexts"}),
                                             ReadTextLists(words, "candidate_words"),
                                             JoinByName(join)));
          },
          py::arg("contexts"), py::arg("candidate_words"), py::arg("join") = "auto",
          "(tokens, scored_begin, sign, ends_word, alternative) of each path.")
      .def(
          "run",
          [](CountedTextStage& self, const py::object& contexts, const py::object& words,
             const std::string& join) {
            const auto paths =
                self.Continuations(ReadTexts(contexts, {"contexts"}),
                                   ReadTextLists(words, "candidate_words"), JoinByName(join));
            return paths.paths.size();
          },
          py::arg("contexts"), py::arg("candidate_words"), py::arg("join") = "auto",
          "The same, but gives only the number of paths.")
      .def("cased", &CountedTextStage::Cased, py::arg("context"), py::arg("word"),
           py::arg("join") = "auto",
           "(cased text, number of its UTF-8 bytes before the candidate).")
      .def_readonly("bytes_tokenized", &CountedTextStage::bytes_tokenized)
      .def_readonly("truncated_contexts", &CountedTextStage::truncated_contexts);
}

}  // namespace lmfusion
