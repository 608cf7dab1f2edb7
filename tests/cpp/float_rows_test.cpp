// Rows of hidden states on their way to their slots.
#include "ops/float_rows.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <limits>
#include <vector>

namespace lmfusion {
namespace {

at::Tensor Numbers(std::initializer_list<int> numbers) {
  return at::tensor(std::vector<int>(numbers), at::kInt);
}

TEST(StoreRows, WritesTheRowsAndNoOthers) {
  const at::Tensor wide = at::randn({3, 40}), rows = wide.slice(1, 4, 37);  // rows with a step
  at::Tensor kept = at::full({6, 33}, 7.0f), expected = kept.clone();
  EXPECT_TRUE(StoreRows(rows, Numbers({5, 0, 3}), kept));
  expected.index_copy_(0, at::tensor({5L, 0L, 3L}), rows);
  EXPECT_TRUE(kept.equal(expected));
  EXPECT_TRUE(StoreRows(rows.slice(0, 0, 0), Numbers({}), kept));
  EXPECT_TRUE(kept.equal(expected));
}

TEST(StoreRows, SaysWhereANumberIsNotFinite) {
  for (const float wrong :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN()}) {
    for (const int64_t at : {0, 32}) {
      at::Tensor rows = at::randn({2, 33}), kept = at::zeros({2, 33});
      EXPECT_TRUE(StoreRows(rows, Numbers({0, 1}), kept));
      rows[1][at] = wrong;
      EXPECT_FALSE(StoreRows(rows, Numbers({0, 1}), kept));
    }
  }
}

TEST(StoreRows, RefusesWhatDoesNotFit) {
  const at::Tensor rows = at::randn({2, 8}), kept = at::zeros({4, 8});
  EXPECT_THROW(StoreRows(rows, Numbers({0, 4}), kept), c10::IndexError);
  EXPECT_THROW(StoreRows(rows, Numbers({-1, 0}), kept), c10::IndexError);
  EXPECT_THROW(StoreRows(rows, Numbers({0}), kept), c10::Error);
  EXPECT_THROW(StoreRows(rows, Numbers({0, 1}), at::zeros({4, 9})), c10::Error);
}

}  // namespace
}  // namespace lmfusion
