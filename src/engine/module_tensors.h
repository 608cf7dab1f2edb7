#pragma once

#include <ATen/ATen.h>

#include <set>
#include <string>

#include "engine/graph_nodes.h"

namespace lmfusion {

using ModuleObject = c10::intrusive_ptr<c10::ivalue::Object>;

// Calls visit(path, attribute) for every tensor of an object and the objects in it.
template <class Visit>
void ForEachTensor(const ModuleObject& object, const std::string& prefix,
                   std::set<const void*>* seen, const Visit& visit) {
  if (!seen->insert(object.get()).second) return;
  for (size_t i = 0; i < object->type()->numAttributes(); ++i) {
    const std::string& name = object->type()->getAttributeName(i);
    const c10::IValue value = object->getSlot(i);
    if (value.isTensor() && value.toTensor().defined()) {
      visit(prefix + name, Attribute{object, name});
    }
    if (value.isObject()) ForEachTensor(value.toObject(), prefix + name + ".", seen, visit);
  }
}

}  // namespace lmfusion
