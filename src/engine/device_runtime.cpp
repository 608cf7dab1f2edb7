#include "engine/device_runtime.h"

#include <dlfcn.h>

#include <stdexcept>
#include <vector>

#include "base/library_beside.h"

namespace lmfusion {
namespace {

constexpr int64_t kEmulatedBytes = int64_t{1} << 28;

class Emulated final : public DeviceRuntime {
 public:
  c10::Device device() const override { return c10::kCPU; }
  int multiprocessors() const override { return 8; }
  int64_t free_bytes() const override { return kEmulatedBytes; }
  void OnQueue(const std::function<void()>& work) override { work(); }
  void Wait() override {}
  int Record(const std::function<void()>& work) override {
    recordings_.push_back(work);
    return static_cast<int>(recordings_.size()) - 1;
  }
  void Replay(int recording) override { recordings_[recording](); }

 private:
  std::vector<std::function<void()>> recordings_;
};

[[noreturn]] void Throw(const std::string& name, const std::string& reason) {
  throw std::invalid_argument("device = \"" + name + "\" is not available: " + reason +
                              "; use \"cpu\"");
}

std::unique_ptr<DeviceRuntime> OpenCuda(const std::string& name, int index) {
  const std::string library = LibraryBeside(LMFUSION_CUDA_LIBRARY);
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (handle == nullptr) {
    const std::string error = dlerror();  // NOLINT(concurrency-mt-unsafe): glibc's is of the thread
    Throw(name, "lmfusion's CUDA library cannot be loaded (" + error +
                    "); it is built where nvcc and a CUDA build of torch are found");
  }
  const auto open =
      reinterpret_cast<decltype(&lmfusion_open_cuda)>(dlsym(handle, "lmfusion_open_cuda"));
  if (open == nullptr) Throw(name, library + " is of another version");
  try {
    return std::unique_ptr<DeviceRuntime>(open(index));
  } catch (const std::exception& error) {
    Throw(name, error.what());
  }
}

}  // namespace

std::unique_ptr<DeviceRuntime> OpenDevice(const std::string& name) {
  if (name == "emulated") return std::make_unique<Emulated>();
  if (name == "cuda") return OpenCuda(name, 0);
  const std::string prefix = "cuda:";
  if (name.compare(0, prefix.size(), prefix) == 0 && name.size() > prefix.size() &&
      name.size() < prefix.size() + 4 &&
      name.find_first_not_of("0123456789", prefix.size()) == std::string::npos) {
    return OpenCuda(name, std::stoi(name.substr(prefix.size())));
  }
  throw std::invalid_argument("device = \"" + name +
                              "\"; \"cpu\", \"cuda\" or \"cuda:N\" expected");
}

}  // namespace lmfusion
