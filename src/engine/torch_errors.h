#pragma once

#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "lmfusion/errors.h"
#include "tree/causal_lm.h"

namespace lmfusion {

// The text of an error of torch in one line: without the stack trace of an operator, which is slow
// to make, or of a traced model.
std::string TextOf(const std::exception& error);

// Whether a device, or the host, had too little memory for a tensor.
bool IsOutOfMemory(const std::exception& error);

// Whether a device itself failed, whatever ran on it.
bool IsDeviceFailure(const std::exception& error);

// Runs code that came with a model file, so that nothing of torch's reaches a user untranslated.
// What is wrong with it is a ModelFileError that begins with `file`; too little memory for `what`
// ("a batch") on the device is OutOfDeviceMemory, a device that fails Error. Errors that are the
// library's own already, bad arguments and std::bad_alloc among them, are passed on.
template <typename Work>
auto RunModel(const std::string& file, const std::string& device, const char* what,
              const Work& work) -> decltype(work()) {
  try {
    return work();
  } catch (const Error&) {
    throw;
  } catch (const std::invalid_argument&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    const std::string text = TextOf(error);
    if (IsOutOfMemory(error)) {
      throw OutOfDeviceMemory("device " + device + " has too little memory left for " + what +
                              ": " + text);
    }
    if (IsDeviceFailure(error)) throw Error("device " + device + " failed: " + text);
    throw ModelFileError(file + ": its graph does not run: " + text);
  }
}

}  // namespace lmfusion
