#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arguments.h"
#include "bindings.h"
#include "lmfusion/options.h"
#include "lmfusion/tokenizer.h"

namespace py = pybind11;

namespace lmfusion {
namespace {

// The UTF-8 of a Python string; bytes as they are.
std::string Utf8OrBytes(const py::object& text) {
  if (py::isinstance<py::bytes>(text)) return text.cast<std::string>();
  if (!py::isinstance<py::str>(text)) ThrowTypeError({"text"}, text, "a str, or its UTF-8,");
  return ReadText(text, {"text"});
}

std::shared_ptr<Tokenizer> Mutable(const std::shared_ptr<const Tokenizer>& tokenizer) {
  return std::const_pointer_cast<Tokenizer>(tokenizer);  // all its methods are const
}

}  // namespace

void BindTokenizer(py::module_& m) {
  py::class_<Tokenizer, std::shared_ptr<Tokenizer>>(
      m, "Tokenizer", "Text to token ids, as the model was trained on. Thread safe.")
      .def_static(
          "from_json",
          [](const py::object& json, const std::string& special_tokens) {
            const std::string text = Utf8OrBytes(json);
            const SpecialTokens special = SpecialTokensByName(special_tokens);
            return Unlocked([&] { return Mutable(TokenizerFromJson(text, special)); });
          },
          py::arg("json"), py::kw_only(), py::arg("special_tokens") = "text",
          "Reads the text of a tokenizer.json. Raises TokenizerError.")
      .def_static(
          "from_sentencepiece",
          [](const py::bytes& model) {
            const std::string bytes = model;
            return Unlocked([&] { return Mutable(TokenizerFromSentencePiece(bytes)); });
          },
          py::arg("model"), "Reads the bytes of a tokenizer.model. Raises TokenizerError.")
      .def(
          "encode",
          [](const Tokenizer& self, const py::object& text) {
            const std::string utf8 = Utf8OrBytes(text);
            return Unlocked([&] { return self.Encode(utf8); });
          },
          py::arg("text"), "Token ids of a text (str, or UTF-8), without start or end token.")
      .def(
          "decode",
          [](const Tokenizer& self, const py::object& ids) {
            const std::string text = self.Decode(ReadIntegers(ids, {"ids"}));
            return py::reinterpret_steal<py::str>(
                PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
          },
          py::arg("ids"),
          "The text of token ids, control tokens as the vocabulary writes them; U+FFFD where a\n"
          "token is a part of a character. Raises ValueError for a tokenizer that is a function.")
      .def(
          "last_cut",
          [](const Tokenizer& self, const py::object& text, size_t at) {
            const std::string utf8 = Utf8OrBytes(text);
            return Unlocked([&] { return self.LastCut(utf8, at); });
          },
          py::arg("text"), py::arg("at"),
          "The last place c, 0 < c <= at, where encode(text) is encode(text[:c]) followed by\n"
          "encode_after_cut(text[c:]); 0: none found. Both are bytes of the text's UTF-8.")
      .def(
          "encode_after_cut",
          [](const Tokenizer& self, const py::object& rest) {
            const std::string utf8 = Utf8OrBytes(rest);
            return Unlocked([&] { return self.EncodeAfterCut(utf8); });
          },
          py::arg("rest"), "Token ids of what follows a cut.")
      .def("begins_word", &Tokenizer::BeginsWord, py::arg("id"),
           "Whether a token's text starts with white space.")
      .def("piece", &Tokenizer::Piece, py::arg("id"), "A token as its vocabulary writes it.")
      .def("piece_id", &Tokenizer::PieceId, py::arg("piece"), "The id of a piece; -1: none.")
      .def("__repr__",
           [](const Tokenizer& self) {
             return "Tokenizer(vocabulary_size=" + std::to_string(self.VocabularySize()) + ")";
           })
      .def_property_readonly("vocabulary_size", &Tokenizer::VocabularySize,
                             "Number of ids, added tokens counted.");
}

}  // namespace lmfusion
