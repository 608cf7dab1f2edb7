#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/device_runtime.h"

namespace lmfusion {
namespace {

class CudaRuntime final : public DeviceRuntime {
 public:
  explicit CudaRuntime(int index)
      : device_(c10::kCUDA, static_cast<c10::DeviceIndex>(index)),
        stream_(c10::cuda::getStreamFromPool(false, device_.index())) {}

  c10::Device device() const override { return device_; }

  int multiprocessors() const override {
    return at::cuda::getDeviceProperties(device_.index())->multiProcessorCount;
  }

  int64_t free_bytes() const override {
    const c10::cuda::CUDAGuard guard(device_);
    // What torch's allocator keeps for later is free too.
    c10::cuda::CUDACachingAllocator::emptyCache();
    size_t free = 0, total = 0;
    C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    return static_cast<int64_t>(free);
  }

  void OnQueue(const std::function<void()>& work) override {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    work();
  }

  void Wait() override { stream_.synchronize(); }

  int Record(const std::function<void()>& work) override {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    auto graph = std::make_unique<at::cuda::CUDAGraph>();
    // All graphs share their memory: they run one after another on one stream, and nothing that a
    // graph allocates outlives its run.
    const c10::cuda::MempoolId_t pool =
        graphs_.empty() ? c10::cuda::MempoolId_t{0, 0} : graphs_.front()->pool();
    bool begun = false;
    try {
      graph->capture_begin(pool, cudaStreamCaptureModeThreadLocal);
      begun = true;
      work();
      graph->capture_end();
    } catch (const std::exception&) {
      // Ends the capture, whatever state it is in, and takes the error off the device.
      if (begun) EndCapture(graph.get());
      (void)cudaGetLastError();
      return -1;
    }
    graphs_.push_back(std::move(graph));
    return static_cast<int>(graphs_.size()) - 1;
  }

  void Replay(int recording) override {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    graphs_[recording]->replay();
  }

 private:
  static void EndCapture(at::cuda::CUDAGraph* graph) {
    try {
      graph->capture_end();
    } catch (const std::exception&) {
    }
  }

  const c10::Device device_;
  const c10::cuda::CUDAStream stream_;
  std::vector<std::unique_ptr<at::cuda::CUDAGraph>> graphs_;
};

}  // namespace
}  // namespace lmfusion

lmfusion::DeviceRuntime* lmfusion_open_cuda(int index) {
  const int count = c10::cuda::device_count();
  if (count == 0) throw std::invalid_argument("no CUDA device was found (no GPU, or no driver)");
  if (index >= count) {
    throw std::invalid_argument("there are " + std::to_string(count) + " CUDA devices");
  }
  return new lmfusion::CudaRuntime(index);
}
