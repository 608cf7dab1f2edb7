#pragma once

#include <pybind11/pybind11.h>

#include "arguments.h"
#include "lmfusion/history.h"

namespace lmfusion {

// context: the earlier utterances, or the text of one. Throws as the readers of arguments.h.
inline History ReadHistory(const pybind11::object& context, const pybind11::object& prompt) {
  History history;
  if (pybind11::isinstance<pybind11::str>(context)) {
    history.utterances.push_back(ReadText(context, {"context"}));
  } else {
    history.utterances = ReadTexts(context, {"context"});
  }
  history.prompt = ReadText(prompt, {"prompt"});
  return history;
}

}  // namespace lmfusion
