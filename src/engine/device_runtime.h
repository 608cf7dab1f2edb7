#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace lmfusion {

// What a model needs of the device it runs on beside tensors. Not thread safe.
class DeviceRuntime {
 public:
  virtual ~DeviceRuntime() = default;

  virtual c10::Device device() const = 0;
  virtual int multiprocessors() const = 0;
  virtual int64_t free_bytes() const = 0;

  // Calls work; what it queues on the device goes to this runtime's queue.
  virtual void OnQueue(const std::function<void()>& work) = 0;
  // Returns when all that was queued is done.
  virtual void Wait() = 0;

  // Records what `work` queues, which must be the same kernels on the same memory every time,
  // without running it. Returns a number for Replay, or -1 where it cannot be recorded; then
  // nothing has happened.
  virtual int Record(const std::function<void()>& work) = 0;
  virtual void Replay(int recording) = 0;
};

// name: "cuda", "cuda:1", or "emulated": the same steps on the host, thread block by thread block,
// for tests. Throws std::invalid_argument where there is no such device, or no library for it.
std::unique_ptr<DeviceRuntime> OpenDevice(const std::string& name);

}  // namespace lmfusion

// Implemented by the library lmfusion_cuda. Throws std::invalid_argument.
extern "C" lmfusion::DeviceRuntime* lmfusion_open_cuda(int index);
