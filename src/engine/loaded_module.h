#pragma once

#include <torch/csrc/jit/api/module.h>

#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "bundle/bundle.h"
#include "lmfusion/errors.h"
#include "tree/causal_lm.h"

namespace lmfusion {

// The text of an error of torch in one line: without the stack trace of an operator, which is slow
// to make, or of a traced model.
std::string TextOf(const std::exception& error);

// Whether a device, or the host, has too little memory.
bool IsOutOfMemory(const std::exception& error);

// Runs a model's own code. Whatever is wrong with it is a ModelFileError that says which part of
// the file did not run (`part`, a file's name first); too little memory is OutOfDeviceMemory;
// errors that have a type of the library's already are passed on.
template <typename Work>
auto RunModel(const std::string& part, const Work& work) -> decltype(work()) {
  try {
    return work();
  } catch (const Error&) {
    throw;
  } catch (const std::invalid_argument&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    if (IsOutOfMemory(error)) throw OutOfDeviceMemory("too little memory: " + TextOf(error));
    throw ModelFileError(part + ": " + TextOf(error));
  }
}

// The module of a model file that was checked (ReadBundle), on the CPU. Throws ModelFileError: it
// cannot be loaded, or its tensors are not those of the table.
torch::jit::Module LoadModule(const ModelFile& file, const PartTable& table);

}  // namespace lmfusion
