#pragma once

#include <stdexcept>
#include <string>

namespace lmfusion {

// What went wrong, one type per kind of mistake. Arguments of a call that cannot be right are
// std::invalid_argument (Python: ValueError); the types below are for everything else. Every
// message says what was wrong, where, and what to do. After any of them the scorer works on.
class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A model file that cannot be read, or that this version of the library does not understand.
class ModelFileError : public Error {
  using Error::Error;
};

// A tokenizer definition with a part that is not implemented here.
class TokenizerError : public Error {
  using Error::Error;
};

// Text that is not valid UTF-8. (Python: also a ValueError.)
class TextError : public std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// kv_cache_bytes is too small: for a single text, or for all that is to be held at once (prime,
// load_cache).
class CacheBudgetError : public Error {
  using Error::Error;
};

// A cache snapshot that cannot be written or read, is damaged, or belongs to another model.
class CacheFileError : public Error {
  using Error::Error;
};

// The model returned a value that is not finite; nothing of that forward pass was kept.
class NumericalError : public Error {
  using Error::Error;
};

}  // namespace lmfusion
