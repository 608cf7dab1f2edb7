#include "engine/slot_rows.h"

#include <ATen/ATen.h>

#include <cstring>

#include "ops/torch_threads.h"

namespace lmfusion {
namespace {

at::Tensor Indices(const std::vector<int32_t>& slots, const at::Tensor& like) {
  return at::from_blob(const_cast<int32_t*>(slots.data()), {static_cast<int64_t>(slots.size())},
                       at::kInt)
      .to(like.device(), at::kLong);
}

}  // namespace

void ReadSlotRows(const at::Tensor& kv, const at::Tensor& hidden, const std::vector<int32_t>& slots,
                  char* bytes) {
  if (slots.empty()) return;
  const OnlyOurThreads threads(true);  // copies of some kilobytes each
  const at::Tensor indices = Indices(slots, kv);
  const auto count = static_cast<int64_t>(slots.size());
  const at::Tensor keys_values =
      kv.view(at::kByte).index_select(2, indices).permute({2, 0, 1, 3, 4}).reshape({count, -1});
  const at::Tensor states = hidden.view(at::kByte).index_select(0, indices);
  const at::Tensor rows = at::cat({keys_values, states}, 1).to(at::kCPU).contiguous();
  std::memcpy(bytes, rows.const_data_ptr(), rows.nbytes());
}

void WriteSlotRows(const at::Tensor& kv, const at::Tensor& hidden,
                   const std::vector<int32_t>& slots, const char* bytes) {
  if (slots.empty()) return;
  const OnlyOurThreads threads(true);  // copies of some kilobytes each
  const at::Tensor indices = Indices(slots, kv);
  const auto count = static_cast<int64_t>(slots.size());
  at::Tensor kv_bytes = kv.view(at::kByte), hidden_bytes = hidden.view(at::kByte);
  const int64_t row_hidden = hidden_bytes.size(1);
  const int64_t row_kv = kv_bytes.numel() / kv_bytes.size(2);
  const at::Tensor rows =
      at::from_blob(const_cast<char*>(bytes), {count, row_kv + row_hidden}, at::kByte)
          .to(kv.device());
  kv_bytes.index_copy_(
      2, indices,
      rows.narrow(1, 0, row_kv)
          .reshape({count, kv_bytes.size(0), kv_bytes.size(1), kv_bytes.size(3), kv_bytes.size(4)})
          .permute({1, 2, 0, 3, 4}));
  hidden_bytes.index_copy_(0, indices, rows.narrow(1, row_kv, row_hidden));
}

}  // namespace lmfusion
