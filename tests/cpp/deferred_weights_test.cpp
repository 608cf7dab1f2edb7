// Large weights are read from their file while they are packed. What another program does to the
// file meanwhile is an error at most: a file that it shortens must not end the process.
#include "engine/deferred_weights.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/frontend/resolver.h>
#include <torch/csrc/jit/frontend/sugared_value.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>

#include "engine/loaded_module.h"
#include "engine/packed_graph.h"
#include "engine/stored_weights.h"
#include "lmfusion/errors.h"

namespace lmfusion {
namespace {

struct Resolver final : torch::jit::Resolver {
  std::shared_ptr<torch::jit::SugaredValue> resolveValue(const std::string& name,
                                                         torch::jit::GraphFunction&,
                                                         const torch::jit::SourceRange&) override {
    return std::make_shared<torch::jit::BuiltinModule>(name == "torch" ? "aten" : name);
  }
};

// Weights of 2 MiB each in every place where one may be: a table, a product, the output, a matrix
// that is not packed in either type, and what is no matrix.
constexpr int64_t kRows = 8192, kWidth = 64;

torch::jit::Module Written() {
  at::manual_seed(3);
  torch::jit::Module module("toy");
  for (const char* name : {"table", "wide", "output_weight", "added"}) {
    module.register_parameter(name, at::randn({kRows, kWidth}), false);
  }
  module.register_parameter("narrow", at::randn({2 * kRows, kWidth}).to(at::kBFloat16), false);
  module.register_parameter("stack", at::randn({2, kRows / 2, kWidth}), false);
  module.define(R"(
def forward(self, ids):
    x = torch.embedding(self.table, ids)
    y = torch.linear(x, self.wide)
    rows = self.added + self.narrow[0:8192] + self.stack.reshape([8192, 64])
    return torch.matmul(y, rows)
)",
                std::make_shared<Resolver>());
  return module;
}

class DeferredWeightsTest : public testing::Test {
 protected:
  DeferredWeightsTest()
      : path_(std::filesystem::temp_directory_path() /
              ("deferred_" + std::to_string(getpid()) + ".lmf")),
        written_(Written()) {
    written_.save(path_);
  }
  ~DeferredWeightsTest() override { unlink(path_.c_str()); }

  // To a part of its length, as another program does with a file that is open here.
  void Shorten(double part) const {
    const auto bytes = static_cast<double>(std::filesystem::file_size(path_));
    ASSERT_EQ(truncate(path_.c_str(), static_cast<off_t>(bytes * part)), 0);
  }

  void ExpectPacked(torch::jit::Module& module) const {
    StoredWeights weights(module, {}, path_);
    const PackedGraph packed = PackWeightsOf(module, weights, Compute::kFloat32);
    Shorten(0);  // nothing reads it any more
    EXPECT_EQ(packed.linears, 1);
    EXPECT_TRUE(at::equal(packed.output->Dequantized(), written_.attr("output_weight").toTensor()));
    const at::Tensor ids = at::tensor({0, 17, 8191}, at::kLong);
    torch::jit::Module plain = written_;
    const at::Tensor expected = plain.forward({ids}).toTensor();
    const at::Tensor difference = (module.forward({ids}).toTensor() - expected).abs().max();
    EXPECT_LT(difference.item<float>(), 1e-4 * expected.abs().max().item<float>());
  }

  template <typename Call>
  void ExpectShortened(const Call& call) const {
    try {
      call();
      FAIL() << "no error";
    } catch (const ModelFileError& error) {
      const std::string text = error.what();
      EXPECT_EQ(text.rfind(path_ + ": the file was shortened while it was loaded; ", 0), 0u)
          << text;
    }
  }

  const std::string path_;
  torch::jit::Module written_;
};

TEST_F(DeferredWeightsTest, AreTheWeightsOfTheFile) {
  const ModelFile file(path_);
  torch::jit::Module module = LoadModule(file, {}, WeightMemory::kDeferred);
  ExpectPacked(module);
}

TEST_F(DeferredWeightsTest, AFileThatIsShortenedBeforePackingIsAnErrorAndTheNextIsRead) {
  for (const double part : {0.0, 0.1, 0.3, 0.7}) {
    {
      const ModelFile file(path_);
      torch::jit::Module module = LoadModule(file, {}, WeightMemory::kDeferred);
      Shorten(part);
      StoredWeights weights(module, {}, path_);
      ExpectShortened([&] { PackWeightsOf(module, weights, Compute::kInt8); });
    }
    written_.save(path_);
  }
  const ModelFile file(path_);
  torch::jit::Module module = LoadModule(file, {}, WeightMemory::kDeferred);
  ExpectPacked(module);
}

TEST_F(DeferredWeightsTest, AWeightIsReadOnceAndStays) {
  const ModelFile file(path_);
  torch::jit::Module module = LoadModule(file, {}, WeightMemory::kDeferred);
  const auto tensor = [&](const char* name) { return module.attr(name).toTensor(); };
  EXPECT_FALSE(ReaderOf(tensor("stack")));  // no matrix
  EXPECT_TRUE(ReaderOf(tensor("table")));
  ReadDeferred(tensor("table"));
  EXPECT_FALSE(ReaderOf(tensor("table")));
  Shorten(0);
  for (const char* name : {"table", "stack"}) {
    ReadDeferred(tensor(name));
    EXPECT_TRUE(at::equal(tensor(name), written_.attr(name).toTensor())) << name;
  }
  ExpectShortened([&] { ReadDeferred(tensor("added")); });
  ExpectShortened([&] { ReadDeferred(tensor("added")); });  // it does not count as read
}

TEST_F(DeferredWeightsTest, AFileThatIsShortenedBeforeTorchReadsItIsAnError) {
  const ModelFile file(path_);
  Shorten(0.5);
  EXPECT_THROW(LoadModule(file, {}, WeightMemory::kDeferred), ModelFileError);
  EXPECT_THROW(LoadModule(file, {}, WeightMemory::kRead), ModelFileError);
}

}  // namespace
}  // namespace lmfusion
