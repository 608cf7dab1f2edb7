#pragma once

#include <torch/csrc/jit/api/module.h>

#include <memory>
#include <string>

#include "engine/device_runtime.h"
#include "engine/stored_weights.h"
#include "engine/tree_engine.h"

namespace lmfusion {

struct DeviceLMOptions {
  std::string device = "cuda";  // see OpenDevice
  Compute compute = Compute::kFloat32;
  std::string kv_dtype = "auto";  // "float32", "bfloat16", "float16", "float8"; auto: as compute
};

// Throws std::invalid_argument: an option, no such device, or no library for it.
void CheckDeviceOptions(const DeviceLMOptions& options);

// The same model on a device: plans are made on the host, everything else runs on the device in
// order, and nothing waits for it but Answer, for its results.
// module: a tree bundle loaded to the CPU; weights: of this module. Both are used up. Throws
// std::invalid_argument (options, no such device), OutOfDeviceMemory (the weights do not fit).
std::unique_ptr<TreeEngine> DeviceLM(const torch::jit::Module& module, StoredWeights weights,
                                     ModelDescription description, const DeviceLMOptions& options);
// The same on a runtime that is open.
std::unique_ptr<TreeEngine> DeviceLM(const torch::jit::Module& module, StoredWeights weights,
                                     ModelDescription description, const DeviceLMOptions& options,
                                     std::unique_ptr<DeviceRuntime> runtime);

}  // namespace lmfusion
