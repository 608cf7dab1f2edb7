#include <dlfcn.h>

#include <memory>
#include <string>

#include "base/library_beside.h"
#include "lmfusion/errors.h"
#include "lmfusion/tokenizer.h"
#include "text/tokenizers/sentencepiece_library.h"

// Note [A library of its own]
// libsentencepiece and torch's libc10 both export variables of absl (FLAGS_minloglevel) of
// different types and sizes. In one process the first loaded wins, and SentencePiece's start-up
// then writes into c10's memory: the next forward pass hangs. So what uses SentencePiece is a
// library of its own, loaded with RTLD_DEEPBIND, under which it sees its own variables. Sanitizers
// refuse RTLD_DEEPBIND; what is built for them (LMFUSION_SANITIZE) does without, and must not have
// torch in the same process.

namespace lmfusion {
namespace {

#ifdef LMFUSION_SANITIZED
constexpr int kDeepBind = 0;
#else
constexpr int kDeepBind = RTLD_DEEPBIND;
#endif

}  // namespace

std::shared_ptr<const Tokenizer> TokenizerFromSentencePiece(std::string_view model) {
  const std::string library = LibraryBeside(LMFUSION_SENTENCEPIECE_LIBRARY);
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL | kDeepBind);
  if (handle == nullptr) {
    const std::string error = dlerror();  // of this thread, NOLINT(concurrency-mt-unsafe)
    throw TokenizerError(
        "a SentencePiece model needs lmfusion's SentencePiece library, which "
        "cannot be loaded (" +
        error +
        "); install libsentencepiece, or build "
        "with -DLMFUSION_SENTENCEPIECE=ON, or give the scorer a function from "
        "text to token ids");
  }
  const auto open = reinterpret_cast<decltype(&lmfusion_open_sentencepiece)>(
      dlsym(handle, "lmfusion_open_sentencepiece"));
  if (open == nullptr) throw TokenizerError(library + " is of another version of lmfusion");
  std::shared_ptr<const Tokenizer> tokenizer;
  open(model, &tokenizer);
  return tokenizer;
}

}  // namespace lmfusion
