#include <stdexcept>
#include <string>

#include "base/one_of.h"
#include "kernels/linear/compute.h"
#include "kernels/linear/panel_format.h"
#include "kernels/linear/weight_matrix.h"

namespace lmfusion {
namespace {

constexpr NamedValue<Compute> kComputes[] = {{"float32", Compute::kFloat32},
                                             {"bfloat16", Compute::kBFloat16},
                                             {"float16", Compute::kFloat16},
                                             {"int8", Compute::kInt8},
                                             {"int4", Compute::kInt4}};
constexpr NamedValue<WeightType> kTypes[] = {{"float", WeightType::kFloat},
                                             {"q4_0", WeightType::kQ4_0},
                                             {"q4_1", WeightType::kQ4_1},
                                             {"q8_0", WeightType::kQ8_0}};
constexpr NamedValue<PanelFormat> kFormats[] = {{"float32", PanelFormat::kFloat32},
                                                {"bfloat16", PanelFormat::kBFloat16},
                                                {"q4", PanelFormat::kQ4},
                                                {"q8", PanelFormat::kQ8},
                                                {"int8", PanelFormat::kInt8}};

}  // namespace

Compute ComputeByName(const std::string& name) { return OneOf("compute", name, kComputes); }
const char* Name(Compute compute) { return NameOf(compute, kComputes); }

WeightType WeightTypeByName(const std::string& name) { return OneOf("weight type", name, kTypes); }
const char* Name(WeightType type) { return NameOf(type, kTypes); }

const char* Name(PanelFormat format) { return NameOf(format, kFormats); }

int64_t BlockBytes(WeightType type) {
  switch (type) {
    case WeightType::kFloat: return 0;
    case WeightType::kQ4_0: return 18;
    case WeightType::kQ4_1: return 20;
    case WeightType::kQ8_0: return 34;
  }
  return 0;
}

}  // namespace lmfusion
