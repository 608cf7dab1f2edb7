#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/cuda/CUDAGraph.h>  // graph_pool_handle
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "engine/device_runtime.h"

namespace lmfusion {
namespace {

// Note [Recordings of our own]
// A recording that fails must leave nothing behind: neither torch's allocator still giving this
// stream memory of the recording, nor a random generator that takes itself for recorded. When the
// driver ends a broken recording with an error, at::cuda::CUDAGraph returns before it has cleaned
// up either. So recordings are made with the driver's functions here; no model draws random
// numbers.
//
// While one lives, what is allocated on the stream comes from a pool of its own.
class RecordingMemory {
 public:
  RecordingMemory(c10::DeviceIndex device, c10::cuda::MempoolId_t pool, cudaStream_t stream)
      : device_(device), pool_(pool) {
    c10::cuda::CUDACachingAllocator::beginAllocateToPool(
        device_, pool_, [stream](cudaStream_t other) { return other == stream; });
  }
  ~RecordingMemory() {
    try {
      c10::cuda::CUDACachingAllocator::endAllocateToPool(device_, pool_);
    } catch (const std::exception&) {  // of a device that has failed
    }
  }
  RecordingMemory(const RecordingMemory&) = delete;
  RecordingMemory& operator=(const RecordingMemory&) = delete;

 private:
  const c10::DeviceIndex device_;
  const c10::cuda::MempoolId_t pool_;
};

class CudaRuntime final : public DeviceRuntime {
 public:
  explicit CudaRuntime(int index)
      : device_(c10::kCUDA, static_cast<c10::DeviceIndex>(index)),
        stream_(c10::cuda::getStreamFromPool(false, device_.index())),
        pool_(at::cuda::graph_pool_handle()) {}

  // On a device that has failed torch throws: then there is nothing left to give back.
  ~CudaRuntime() override {
    try {
      const c10::cuda::CUDAGuard guard(device_);
      for (const cudaGraphExec_t graph : graphs_) (void)cudaGraphExecDestroy(graph);
      while (pool_uses_ > 0) ReleasePool();
    } catch (const std::exception&) {
    }
  }

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
    // The first product on a thread allocates memory, which a recording must not.
    (void)at::cuda::getCurrentCUDABlasHandle();
    const cudaGraph_t recorded = Recorded(work);
    cudaGraphExec_t graph = nullptr;
    if (recorded != nullptr) {
      if (cudaGraphInstantiate(&graph, recorded, 0) != cudaSuccess) graph = nullptr;
      (void)cudaGraphDestroy(recorded);
    }
    if (graph == nullptr) {
      (void)cudaGetLastError();  // the error is dealt with
      ReleasePool();
      return -1;
    }
    graphs_.push_back(graph);
    return static_cast<int>(graphs_.size()) - 1;
  }

  void Replay(int recording) override {
    const c10::cuda::CUDAStreamGuard guard(stream_);
    C10_CUDA_CHECK(cudaGraphLaunch(graphs_[recording], stream_.stream()));
  }

 private:
  // What `work` queues on the stream; null where that cannot be recorded.
  cudaGraph_t Recorded(const std::function<void()>& work) {
    // All recordings share their memory: they run one after another on one stream, and nothing
    // that one allocates outlives its run.
    const RecordingMemory memory(device_.index(), pool_, stream_.stream());
    ++pool_uses_;
    if (cudaStreamBeginCapture(stream_.stream(), cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
      return nullptr;
    }
    bool done = true;
    try {
      work();
    } catch (const std::exception&) {
      done = false;
    }
    cudaGraph_t recorded = nullptr;
    done = cudaStreamEndCapture(stream_.stream(), &recorded) == cudaSuccess && done;
    if (done || recorded == nullptr) return recorded;
    (void)cudaGraphDestroy(recorded);
    return nullptr;
  }

  void ReleasePool() {
    c10::cuda::CUDACachingAllocator::releasePool(device_.index(), pool_);
    if (--pool_uses_ == 0) pool_ = at::cuda::graph_pool_handle();  // that one is gone
  }

  const c10::Device device_;
  const c10::cuda::CUDAStream stream_;
  c10::cuda::MempoolId_t pool_;
  int pool_uses_ = 0;  // one a recording
  std::vector<cudaGraphExec_t> graphs_;
};

}  // namespace
}  // namespace lmfusion

lmfusion::DeviceRuntime* lmfusion_open_cuda(int index) {
  const auto count = c10::cuda::device_count();
  if (count == 0) throw std::invalid_argument("no CUDA device was found (no GPU, or no driver)");
  if (index >= count) {
    throw std::invalid_argument("there are " + std::to_string(count) + " CUDA devices");
  }
  return new lmfusion::CudaRuntime(index);
}
