#include "engine/torch_errors.h"

#include <c10/util/Exception.h>

#include <initializer_list>

namespace lmfusion {
namespace {

bool Has(const std::exception& error, std::initializer_list<const char*> words) {
  const std::string text = TextOf(error);
  for (const char* each : words) {
    if (text.find(each) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

std::string TextOf(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  std::string text = torch_error != nullptr ? torch_error->what_without_backtrace() : error.what();
  const size_t at = text.find("RuntimeError: ");
  if (at != std::string::npos) text = text.substr(at);
  return text.substr(0, text.find('\n'));
}

// TorchScript's interpreter turns errors of operators into std::runtime_error, with their text.
bool IsOutOfMemory(const std::exception& error) {
  return dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr ||
         Has(error, {"out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory",
                     "not enough memory", "Storage size calculation overflowed",
                     "integer multiplication overflow"});
}

bool IsDeviceFailure(const std::exception& error) {
  return Has(error, {"CUDA error", "CUDA driver error", "CUBLAS_STATUS_"});
}

}  // namespace lmfusion
