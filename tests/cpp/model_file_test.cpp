// A model file is read and checked without torch: every field has a range, fields agree with each
// other and with the table of tensors, and parts are those that were written.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bundle/bundle.h"
#include "lmfusion/errors.h"
#include "toy_model_file.h"

namespace lmfusion {
namespace {

std::vector<std::string> ProblemsOf(const json& description) {
  Problems problems;
  ParseDescription(description.dump(), &problems);
  return problems.lines();
}

std::vector<std::string> ProblemsOf(const Parts& parts, const json& table) {
  return VerifyModelFile(Write(parts, table));
}

TEST(Description, IsReadFieldByField) {
  Problems problems;
  const ModelDescription d = ParseDescription(Description().dump(), &problems);
  EXPECT_TRUE(problems.empty());
  EXPECT_FALSE(d.plain);
  EXPECT_EQ(d.layers, 2);
  EXPECT_EQ(d.q_heads, 4);
  EXPECT_EQ(d.windows, (std::vector<int64_t>{0, 7}));
  EXPECT_EQ(d.logit_scale, 0.5);
  EXPECT_EQ(d.eos_token_id, 49);
  EXPECT_EQ(d.weight_types.at("mlp"), "q8_0");
  EXPECT_EQ(SlotBytes(d, 2, 4), 2 * (2 * 2 * 2 * 16) + 4 * 64);  // 2 layers of keys and values
}

TEST(Description, EveryFieldHasARange) {
  const std::map<std::string, std::vector<const char*>> wrong = {
      {"kind", {"3", "\"tre\"", "null"}},
      {"layers", {"0", "-1", "4097", "1099511627776", "2.0", "\"2\"", "true", "[2]"}},
      {"q_heads", {"0", "65537", "18446744073709551615"}},
      {"kv_heads", {"0", "-2", "9223372036854775807"}},
      {"head_dim", {"0", "1e3", "65537"}},
      {"hidden_size", {"-28", "0", "1048577"}},
      {"windows", {"[0]", "[0, 7, 7]", "[0, -1]", "[0, 2147483648]", "7", "[0, \"7\"]"}},
      {"attention_softcap", {"-1", "\"0\""}},
      {"logit_softcap", {"-0.5", "null"}},
      {"logit_scale", {"0", "-1", "false"}},
      {"vocabulary_size", {"0", "-1", "16777217", "4294967346"}},
      {"max_positions", {"-1", "2147483648"}},
      {"bos_token_id", {"-2", "50", "1099511627776", "4294967297", "1.0"}},
      {"eos_token_id", {"50", "-4294967296"}},
      {"bos_source", {"\"\"", "1"}},
      {"tokenizer_adds_bos", {"1", "\"false\""}},
      {"tokenizer", {"\"../../etc/passwd\"", "null"}},
      {"weight_types", {"[]", R"({"mlp": "q5_1"})", R"({"mlp": 3})"}},
      {"weight_counts", {"{\"float32\": -1}", "3"}},
      {"tied_embeddings", {"0"}},
      {"weights_sha256", {"\"\"", "\"xyz\"", "0"}},
      {"dtype", {"\"float16\""}},
      {"source", {"0"}},
      {"parity", {"[]", "{}", R"({"max_difference": -1, "tokens": 1, "tolerance": 1})"}},
  };
  for (const auto& [name, values] : wrong) {
    for (const char* value : values) {
      json description = Description();
      description[name] = json::parse(value);
      const std::vector<std::string> lines = ProblemsOf(description);
      ASSERT_FALSE(lines.empty()) << name << " = " << value;
      EXPECT_EQ(lines[0].find("lmfusion.json: " + name), 0u) << lines[0];
    }
    json description = Description();
    description.erase(name);
    ASSERT_FALSE(ProblemsOf(description).empty()) << name;
    EXPECT_EQ(ProblemsOf(description)[0], "lmfusion.json: " + name + ": it is missing");
  }
}

TEST(Description, FieldsAgreeWithEachOther) {
  json description = Description();
  description["q_heads"] = 3;
  EXPECT_EQ(ProblemsOf(description),
            (std::vector<std::string>{"lmfusion.json: q_heads: 3 is no multiple of kv_heads, 2"}));
  description = Description();
  description["tokenizer_adds_bos"] = true;
  description["bos_token_id"] = -1;
  EXPECT_EQ(ProblemsOf(description).size(), 1u);
  description["bos_token_id"] = 1;
  EXPECT_TRUE(ProblemsOf(description).empty());
}

TEST(Description, ValuesInMessagesAreShort) {
  json description = Description();
  description["weights_sha256"] = std::string(64, 'g');
  EXPECT_EQ(ProblemsOf(description),
            (std::vector<std::string>{"lmfusion.json: weights_sha256: \"" + std::string(59, 'g') +
                                      "...; 64 hexadecimal digits expected"}));
}

TEST(Description, AllProblemsAreTold) {
  json description = Description();
  description["layers"] = 0;
  description["eos_token_id"] = 50;
  description.erase("dtype");
  const std::vector<std::string> lines = ProblemsOf(description);
  ASSERT_EQ(lines.size(), 4u);  // windows are not one a layer any more
  EXPECT_EQ(lines[0], "lmfusion.json: layers: 0; an integer from 1 to 4096 expected");
}

TEST(Description, OtherFormatsSayHowToGoOn) {
  for (const int format : {1, 2, 4}) {
    const std::vector<std::string> lines = ProblemsOf(json{{"format", format}});
    ASSERT_EQ(lines.size(), 1u);
    EXPECT_NE(lines[0].find("export the model again"), std::string::npos) << lines[0];
  }
}

TEST(Description, WhatIsNoJsonIsOneProblem) {
  for (const char* text : {"", "{", "[1]", "nul", "\"x\"", "{\"a\":\"\xff\"}", "3"}) {
    Problems problems;
    ParseDescription(text, &problems);
    EXPECT_EQ(problems.lines().size(), 1u) << text;
  }
  Problems problems;  // deep, not long
  ParseDescription(std::string(1 << 20, '['), &problems);
  EXPECT_EQ(problems.lines().size(), 1u);
}

TEST(Description, ProblemsArePrintableWhateverTheFileHolds) {
  Problems problems;
  ParseDescription("{\"format\": \xf0\x80\n\x01", &problems);
  ASSERT_EQ(problems.lines().size(), 1u);
  for (const char c : problems.lines()[0]) EXPECT_TRUE(c >= ' ' && c < 0x7f) << int{c};
}

TEST(Description, PlainFilesSayNothingOfTheirInside) {
  json description = Description();
  description["kind"] = "plain";
  for (const char* name : {"layers", "q_heads", "kv_heads", "head_dim", "hidden_size"}) {
    description[name] = 0;
  }
  description["windows"] = json::array();
  EXPECT_TRUE(ProblemsOf(description).empty());
}

TEST(ModelFile, IsRightAsWritten) {
  EXPECT_EQ(ProblemsOf(AllParts(), Table(AllParts())), std::vector<std::string>());
  const Bundle bundle = ReadBundle(ModelFile(Write(AllParts(), Table(AllParts()))));
  EXPECT_EQ(bundle.table.tensors.at("mlp").shape, (std::vector<int64_t>{10, 68}));
}

TEST(ModelFile, PartsAreThoseOfTheTable) {
  const json table = Table(AllParts());
  Parts parts = AllParts();
  std::swap(parts["data/0"], parts["data/1"]);
  EXPECT_EQ(ProblemsOf(parts, table),
            (std::vector<std::string>{"data/0: it has 680 bytes, 12800 when it was exported",
                                      "data/1: it has 12800 bytes, 680 when it was exported"}));
  parts = AllParts();
  parts["data/1"][3] = 'x';
  EXPECT_EQ(
      ProblemsOf(parts, table),
      (std::vector<std::string>{"data/1: it has another checksum than when it was exported"}));
  parts = AllParts();
  parts.erase("code/module.py");
  EXPECT_EQ(ProblemsOf(parts, table),
            (std::vector<std::string>{"code/module.py: the part is missing"}));
  parts = AllParts();
  parts["code/more.py"] = "pass";
  EXPECT_EQ(ProblemsOf(parts, table),
            (std::vector<std::string>{
                "code/more.py: the part was not there when the file was exported"}));
  EXPECT_EQ(ProblemsOf(AllParts(), nullptr),
            (std::vector<std::string>{"lmfusion.parts.json: the part is missing"}));
}

TEST(ModelFile, TensorsFitPartsAndDescription) {
  const auto problems = [](const char* path, const char* value) {
    json tensors = Tensors();
    tensors[json::json_pointer(path)] = json::parse(value);
    return ProblemsOf(AllParts(), Table(AllParts(), tensors));
  };
  const std::vector<std::pair<const char*, const char*>> wrong = {
      {"/output_weight/shape", "[49, 64]"},  // another vocabulary
      {"/output_weight/shape", "[50, 32]"},
      {"/output_weight/shape", "[3200]"},
      {"/output_weight/shape", "[50, 128]"},  // longer than its part
      {"/output_weight/shape", "[4294967296, 4294967296]"},
      {"/output_weight/shape", "[-1, -3200]"},
      {"/output_weight/type", "\"float\""},
      {"/output_weight/part", "\"data/7\""},
      {"/mlp/shape", "[10, 67]"},  // no whole blocks
      {"/mlp/shape", "[680]"},
      {"/mlp/shape", "[0, 34]"},
      {"/mlp/shape", "[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 10, 68]"},
      {"/mlp/type", "\"float32\""},
      {"/mlp", "3"},
  };
  for (const auto& [path, value] : wrong) EXPECT_FALSE(problems(path, value).empty()) << path;
  EXPECT_EQ(problems("/output_weight/shape", "[49, 64]"),
            (std::vector<std::string>{
                "lmfusion.json: vocabulary_size: 50, but output_weight has 49 rows"}));
  json tensors = Tensors();
  tensors.erase("mlp");
  EXPECT_EQ(ProblemsOf(AllParts(), Table(AllParts(), tensors)),
            (std::vector<std::string>{"lmfusion.json: weight_types.mlp: there is no such weight"}));
  tensors = Tensors();
  tensors.erase("output_weight");
  EXPECT_EQ(ProblemsOf(AllParts(), Table(AllParts(), tensors)),
            (std::vector<std::string>{"lmfusion.parts.json: tensors: there is no output_weight"}));
  EXPECT_EQ(ProblemsOf(AllParts(), json::array()).size(), 1u + AllParts().size() + 2)
      << "the table is no object, so all parts are too many, and two weights are not there";
}

// An output matrix in blocks of 32 numbers, of either type.
TEST(ModelFile, BlocksAreCountedByTheirType) {
  for (const auto& [type, bytes] :
       std::map<std::string, int64_t>{{"q4_0", 18}, {"q4_1", 20}, {"q8_0", 34}}) {
    json description = Description();
    description["weight_types"] = {{"output_weight", type}};
    Parts parts = AllParts();
    parts["data/0"] = std::string(static_cast<size_t>(50 * 2 * bytes), 'w');
    parts["extra/lmfusion.json"] = description.dump();
    json tensors = Tensors();
    tensors["output_weight"] = {{"type", "uint8"}, {"shape", {50, 2 * bytes}}, {"part", "data/0"}};
    EXPECT_EQ(ProblemsOf(parts, Table(parts, tensors)), std::vector<std::string>()) << type;
    tensors["output_weight"]["shape"] = {50, bytes};
    EXPECT_EQ(ProblemsOf(parts, Table(parts, tensors)),
              (std::vector<std::string>{
                  "lmfusion.json: hidden_size: 64, but output_weight has 32 columns"}))
        << type;
  }
}

TEST(ModelFile, APlainModelNeedsNoOutputMatrix) {
  json description = Description();
  description["kind"] = "plain";
  description["weight_types"] = json::object();
  Parts parts = AllParts();
  parts["extra/lmfusion.json"] = description.dump();
  json tensors = Tensors();
  tensors.erase("output_weight");
  EXPECT_EQ(ProblemsOf(parts, Table(parts, tensors)), std::vector<std::string>());
}

TEST(ModelFile, DamageIsFoundByteByByte) {
  const std::string path = Write(AllParts(), Table(AllParts()));
  std::ifstream in(path, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(in), {}};
  const auto rewrite = [&path](const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  };
  for (size_t i = 0; i < content.size(); i += 37) {
    std::string changed = content;
    changed[i] = static_cast<char>(changed[i] ^ (1 << i % 8));
    rewrite(changed);
    VerifyModelFile(path);  // a flipped bit may be one that means nothing, but nothing else happens
  }
  for (size_t size = 0; size < content.size(); size += 101) {
    rewrite(content.substr(0, size));
    EXPECT_FALSE(VerifyModelFile(path).empty()) << size;
  }
}

TEST(ModelFile, OtherFilesAreRefused) {
  EXPECT_THROW(ModelFile{testing::TempDir() + "no such file"}, ModelFileError);
  EXPECT_THROW(ModelFile{testing::TempDir()}, ModelFileError);
  EXPECT_THROW(ModelFile{Write(AllParts(), nullptr, "")}, ModelFileError);
  const std::string path = Write(AllParts(), Table(AllParts()));
  std::ofstream(path) << "PK but no archive";
  EXPECT_THROW(ModelFile{path}, ModelFileError);
}

TEST(ModelFile, LimitsWhatIsRead) {
  const ModelFile file(Write(AllParts(), Table(AllParts())));
  EXPECT_EQ(file.Read("data/1", 680).size(), 680u);
  EXPECT_THROW(file.Read("data/1", 679), ModelFileError);
  EXPECT_EQ(file.Read("no such part", 10), "");
}

}  // namespace
}  // namespace lmfusion
