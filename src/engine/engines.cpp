#include "engine/engines.h"

#include <stdexcept>
#include <utility>
#include <vector>

#include "engine/callers_state.h"
#include "engine/cpu_lm.h"
#include "engine/device_lm.h"
#include "engine/loaded_module.h"
#include "engine/plain_torchscript_lm.h"

namespace lmfusion {
namespace {

bool IsCpu(const std::string& device) { return device == "cpu"; }
bool IsAny(const std::string&) { return true; }  // OpenDevice says which there are

void CheckCpu(const ScorerOptions& options) {
  if (ComputeByName(options.compute) == Compute::kFloat16) {
    throw std::invalid_argument(
        "compute = \"float16\"; \"float32\", \"bfloat16\", \"int8\" or "
        "\"int4\" expected on the CPU");
  }
  if (options.kv_dtype == "auto" || options.kv_dtype == "float32") return;
  throw std::invalid_argument("kv_dtype = \"" + options.kv_dtype +
                              "\"; on the CPU keys and values are kept in \"float32\"");
}

DeviceLMOptions DeviceOptions(const ScorerOptions& options) {
  return {options.device, ComputeByName(options.compute), options.kv_dtype};
}

void CheckDevice(const ScorerOptions& options) { CheckDeviceOptions(DeviceOptions(options)); }

// What is wrong with a module is found here, not at the first call.
std::unique_ptr<CausalLM> Probed(std::unique_ptr<TreeEngine> engine) {
  engine->Probe();
  return engine;
}

std::unique_ptr<CausalLM> LoadOnCpu(const ModelFile& file, const Bundle& bundle,
                                    const ScorerOptions& options) {
  torch::jit::Module module = LoadModule(file, bundle.table, WeightMemory::kDeferred);
  return RunModel(file.path(), "cpu", "the weights", [&] {
    StoredWeights weights(module, bundle.description.weight_types, file.path());
    return Probed(CpuLM(std::move(module), std::move(weights), bundle.description,
                        ComputeByName(options.compute)));
  });
}

std::unique_ptr<CausalLM> LoadOnDevice(const ModelFile& file, const Bundle& bundle,
                                       const ScorerOptions& options) {
  const torch::jit::Module module = LoadModule(file, bundle.table, WeightMemory::kRead);
  return RunModel(file.path(), "cpu", "the weights", [&] {
    StoredWeights weights(module, bundle.description.weight_types, file.path());
    return Probed(DeviceLM(module, std::move(weights), bundle.description, DeviceOptions(options)));
  });
}

// The first that runs a device is taken.
std::vector<Engine>& Engines() {
  static std::vector<Engine> engines = {
      {IsCpu, CheckCpu, LoadOnCpu},
      {IsAny, CheckDevice, LoadOnDevice},
  };
  return engines;
}

const Engine& EngineFor(const std::string& device) {
  for (const Engine& engine : Engines()) {
    if (engine.runs(device)) return engine;
  }
  throw std::invalid_argument("device = \"" + device + "\"; there is no engine for it");
}

void CheckPlain(const std::string& path, const ScorerOptions& options) {
  if (options.device != "cpu") {
    throw std::invalid_argument("device = \"" + options.device + "\": " + path +
                                " is a plain model, which runs on the CPU only; export it with "
                                "tree attention, or use \"cpu\"");
  }
  if (options.compute != "float32") {
    throw std::invalid_argument("compute = \"" + options.compute + "\": " + path +
                                " is a plain model, which computes in \"float32\"");
  }
}

}  // namespace

void AddEngine(Engine engine) { Engines().insert(Engines().begin(), std::move(engine)); }

LoadedModel LoadModel(const std::string& path, const ScorerOptions& options) {
  const CallersStateAside callers;
  const Engine& engine = EngineFor(options.device);
  engine.check(options);
  const ModelFile file(path);
  LoadedModel loaded;
  loaded.bundle = ReadBundle(file);
  if (loaded.bundle.description.plain) {
    CheckPlain(path, options);
    loaded.plain = PlainTorchScriptLM(LoadModule(file, loaded.bundle.table, WeightMemory::kRead),
                                      loaded.bundle.description);
    loaded.bundle.description = loaded.plain->description();  // which knows its vocabulary
  } else {
    loaded.tree = engine.load(file, loaded.bundle, options);
  }
  return loaded;
}

}  // namespace lmfusion
