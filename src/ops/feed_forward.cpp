// lmfusion::feed_forward: two packed products with an activation between, as one operator. A loaded
// graph on the CPU gets it (engine/joined_operators.h); it has no other form.
#include "kernels/linear/feed_forward.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <optional>

#include "ops/float_rows.h"
#include "ops/gate.h"
#include "ops/norm_weights.h"
#include "ops/packed_linear.h"
#include "ops/pooled_floats.h"

namespace lmfusion {
namespace {

using Matrix = c10::intrusive_ptr<PackedMatrix>;

at::Tensor FeedForwardOp(const at::Tensor& x, const std::optional<at::Tensor>& norm_weight,
                         const std::optional<at::Tensor>& norm_bias, std::optional<double> epsilon,
                         bool centered, const Matrix& first, c10::string_view activation,
                         bool gated, const Matrix& last, const std::optional<at::Tensor>& residual,
                         double scale) {
  const int64_t in = first->in_features();
  CheckActivations("feed_forward", x, in);
  const std::optional<Activation> named = ActivationNamed(activation);
  TORCH_CHECK_VALUE(named && (gated || *named != Activation::kClampedSilu),
                    "feed_forward: no activation \"", activation, "\"");
  TORCH_CHECK(FitFeedForward(first->weight(), last->weight(), gated), "feed_forward: matrices [",
              first->out_features(), ", ", in, "] and [", last->out_features(), ", ",
              last->in_features(), "] do not go together");
  const std::optional<NormWeights> norm =
      epsilon ? std::make_optional<NormWeights>("feed_forward", norm_weight, norm_bias, *epsilon,
                                                centered, in)
              : std::nullopt;
  const at::Tensor rows = x.contiguous();
  at::Tensor y = EmptyRows(x, last->out_features());
  const bool adds = residual && IsAddend(*residual, y);
  FeedForward({first->weight(), last->weight(), *named, gated, norm ? &norm->of_rows : nullptr},
              rows.const_data_ptr<float>(), rows.numel() / in, y.data_ptr<float>(),
              adds ? residual->const_data_ptr<float>() : nullptr, static_cast<float>(scale));
  return residual && !adds ? *residual + y * scale : y;
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  // last . activation(first . x), where `gated` last . (activation(gates . x) * ups . x) with gates
  // and ups the two halves of `first`; x is normalised before where there is an `epsilon` (see
  // normalize). Where there is a residual: residual + scale * that.
  m.def(
      "feed_forward(Tensor x, Tensor? norm_weight, Tensor? norm_bias, float? epsilon, "
      "bool centered, __torch__.torch.classes.lmfusion.PackedMatrix first, str activation, "
      "bool gated, __torch__.torch.classes.lmfusion.PackedMatrix last, Tensor? residual, "
      "float scale) -> Tensor",
      &FeedForwardOp);
}

}  // namespace
}  // namespace lmfusion
