// What an archive says of itself, header by header, before any of its parts is trusted.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zip.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "bundle/bundle.h"
#include "lmfusion/errors.h"
#include "toy_model_file.h"

namespace lmfusion {
namespace {

struct Part {
  std::string name, content;
  bool compressed = false;
};

// Offsets in the two headers that an archive has of a part.
struct Field {
  size_t local, central;
};
constexpr Field kMethod{8, 10}, kCompressedSize{18, 20}, kSize{22, 24};

// An archive as a string of bytes, so that its headers can be changed.
class Archive {
 public:
  explicit Archive(const std::vector<Part>& parts)
      : path_(std::filesystem::temp_directory_path() /
              ("archive_" + std::to_string(getpid()) + ".lmf")) {
    std::remove(path_.c_str());
    zip_t* archive = zip_open(path_.c_str(), ZIP_CREATE | ZIP_TRUNCATE, nullptr);
    for (const Part& part : parts) {
      zip_source_t* source =
          zip_source_buffer(archive, part.content.data(), part.content.size(), 0);
      const zip_int64_t index = zip_file_add(archive, part.name.c_str(), source, 0);
      zip_set_file_compression(archive, index, part.compressed ? ZIP_CM_DEFLATE : ZIP_CM_STORE, 0);
    }
    zip_close(archive);
    std::ifstream in(path_, std::ios::binary);
    bytes_ = {std::istreambuf_iterator<char>(in), {}};
  }
  ~Archive() { std::remove(path_.c_str()); }

  // Sets a field of `bytes` bytes in both headers of a part.
  Archive& Set(const std::string& part, Field field, uint32_t value, size_t bytes = 4) {
    std::memcpy(&bytes_[bytes_.find(part) - 30 + field.local], &value, bytes);
    std::memcpy(&bytes_[bytes_.rfind(part) - 46 + field.central], &value, bytes);
    return *this;
  }
  Archive& Rename(const std::string& part, const std::string& to) {
    bytes_.replace(bytes_.find(part), part.size(), to);
    bytes_.replace(bytes_.rfind(part), part.size(), to);
    return *this;
  }
  const std::string& Write() const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes_;
    return path_;
  }
  // What is said of it when it is opened, or of its content; "" where it is right.
  std::string Error() const {
    try {
      const ModelFile file(Write());
      Problems problems;
      file.CheckContent(&problems);
      return problems.empty() ? "" : problems.lines()[0];
    } catch (const ModelFileError& error) {
      return error.what();
    }
  }

 private:
  const std::string path_;
  std::string bytes_;
};

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

const std::string kText(1000, 'x');

TEST(Archive, SizesAreThoseThatAreWritten) {
  const auto two = [](bool compressed) {
    return Archive({{"toy/code/one", kText, compressed}, {"toy/code/two", kText, compressed}});
  };
  EXPECT_EQ(two(false).Error(), "");
  EXPECT_EQ(two(true).Error(), "");
  const auto impossible = [](const std::string& error, const std::string& bytes) {
    return Has(error, "one: it says to have " + bytes + " bytes, which is not possible");
  };
  const std::string shorter = two(false).Set("toy/code/one", kSize, 999).Error();
  EXPECT_TRUE(impossible(shorter, "999")) << shorter;
  const std::string longer = two(false).Set("toy/code/one", kSize, 100'000).Error();
  EXPECT_TRUE(impossible(longer, "100000")) << longer;
  const std::string bomb = two(true).Set("toy/code/one", kSize, 0x20000000).Error();
  EXPECT_TRUE(impossible(bomb, "536870912")) << bomb;
  const std::string both = two(true)
                               .Set("toy/code/one", kSize, 0x00c00000)
                               .Set("toy/code/two", kSize, 0x00c00000)
                               .Error();
  EXPECT_TRUE(
      Has(both, "two: with the parts before it, it is more code than a file of this size may have"))
      << both;
  const std::string overlapping = two(false)
                                      .Set("toy/code/one", kSize, 1900)
                                      .Set("toy/code/one", kCompressedSize, 1900)
                                      .Error();
  EXPECT_TRUE(Has(overlapping, "two: with the parts before it, it is more than the file has bytes"))
      << overlapping;
  const std::string no_code = Archive({{"toy/one", kText, true}}).Error();
  EXPECT_TRUE(Has(no_code, "one: it is compressed, as only code may be")) << no_code;
  // Within the limits, but not what comes out.
  for (const uint32_t size : {400u, 5000u}) {
    const std::string other = two(true).Set("toy/code/one", kSize, size).Error();
    EXPECT_TRUE(Has(other, "one: it is damaged: ")) << other;
  }
}

TEST(Archive, PartsAreReadOnlyAsTheyMayBeWritten) {
  const std::vector<Part> parts = {{"toy/one", kText}, {"toy/two", kText}};
  const std::string twice = Archive(parts).Rename("toy/two", "toy/one").Error();
  EXPECT_TRUE(Has(twice, "is not a model file: File already exists")) << twice;
  EXPECT_TRUE(Has(Archive({{"one", kText}}).Error(), "one lies outside its folder"));
  EXPECT_TRUE(Has(Archive({{"toy/one", kText}, {"other", kText}}).Error(),
                  "other lies outside its folder"));
  // A method of compression that nobody knows.
  const std::string method = Archive({{"toy/one", kText}, {"toy/code/two", kText}})
                                 .Set("toy/code/two", kMethod, 98, 2)
                                 .Error();
  EXPECT_TRUE(Has(method, "two: it is damaged: ")) << method;
}

TEST(ModelFile, IsReadAtAnyPlace) {
  ModelFile opened(Write(AllParts(), Table(AllParts())));
  const ModelFile file(std::move(opened));
  const std::string content = [&] {
    std::ifstream in(file.path(), std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }();
  EXPECT_EQ(file.size(), content.size());
  std::string read(100, '\0');
  EXPECT_EQ(file.ReadAt(7, read.data(), 100), 100u);
  EXPECT_EQ(read, content.substr(7, 100));
  EXPECT_EQ(file.ReadAt(content.size() - 10, read.data(), 100), 10u);
  EXPECT_EQ(read.substr(0, 10), content.substr(content.size() - 10));
  EXPECT_EQ(file.ReadAt(content.size() + 10, read.data(), 100), 0u);
  file.ReadWhole(9, read.data(), 50);
  EXPECT_EQ(read.substr(0, 50), content.substr(9, 50));
  ASSERT_EQ(truncate(file.path().c_str(), 50), 0);  // while it is open
  EXPECT_EQ(file.ReadAt(0, read.data(), 100), 50u);
  EXPECT_NO_THROW(file.ReadWhole(0, read.data(), 50));
  try {
    file.ReadWhole(0, read.data(), 51);
    FAIL() << "no error";
  } catch (const ModelFileError& error) {
    EXPECT_TRUE(Has(error.what(), file.path() + ": the file was shortened while it was loaded"));
  }
}

TEST(ModelFile, WhyItCannotBeOpened) {
  const auto error = [](const std::string& path) {
    try {
      ModelFile file{path};
    } catch (const ModelFileError& wrong) {
      return std::string(wrong.what());
    }
    return std::string();
  };
  EXPECT_EQ(error("/no/such file"), "no such model file: /no/such file");
  const std::string long_name = "/" + std::string(5000, 'x');
  EXPECT_EQ(error(long_name), long_name + ": File name too long");
  EXPECT_EQ(error("/"), "/: it is no file");
  // One descriptor is left, and libzip takes a second one.
  const std::string path = Write(AllParts(), Table(AllParts()));
  const int next = dup(0);
  close(next);
  rlimit limit, given;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &given), 0);
  limit = given;
  limit.rlim_cur = static_cast<rlim_t>(next) + 1;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  const std::string few = error(path);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &given), 0);
  EXPECT_EQ(few, path + ": Too many open files");
  EXPECT_EQ(error(path), "");
}

std::vector<std::string> ProblemsOf(const Parts& parts) {
  return VerifyModelFile(Write(parts, Table(parts)));
}

Parts With(const char* field, const json& value) {
  json description = Description();
  description[field] = value;
  Parts parts = AllParts();
  parts["extra/lmfusion.json"] = description.dump();
  return parts;
}

TEST(Bundle, HoldsTheTokenizerThatItNames) {
  Parts parts = With("tokenizer", "tokenizer.json");
  EXPECT_EQ(ProblemsOf(parts),
            (std::vector<std::string>{"lmfusion.json: tokenizer: the file has no part "
                                      "extra/tokenizer.json"}));
  parts["extra/tokenizer.json"] = "{}";
  parts["extra/truecaser"] = "cases";
  EXPECT_EQ(ProblemsOf(parts), std::vector<std::string>());
  const Bundle bundle = ReadBundle(ModelFile(Write(parts, Table(parts))));
  EXPECT_EQ(bundle.tokenizer, "{}");
  EXPECT_EQ(bundle.truecaser, "cases");
}

TEST(Bundle, OfAnotherFormatIsNotLookedIntoFurther) {
  Parts parts = With("format", 2);
  parts["data/0"] = "another";
  const std::vector<std::string> lines = ProblemsOf(parts);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_TRUE(Has(lines[0], "this version of lmfusion reads format 3")) << lines[0];
}

TEST(Bundle, AnyTorchScriptIsAPlainModel) {
  Parts parts = AllParts();
  parts.erase("extra/lmfusion.json");
  const ModelFile file(Write(parts, nullptr));
  const Bundle bundle = ReadBundle(file);
  EXPECT_TRUE(bundle.description.plain);
  EXPECT_EQ(bundle.description.json, "{}");
  EXPECT_EQ(bundle.description.file, file.path());
  EXPECT_THROW(ReadDescription(file), ModelFileError);
}

TEST(Bundle, TheDescriptionAlone) {
  EXPECT_EQ(ReadDescription(ModelFile(Write(AllParts(), Table(AllParts())))).layers, 2);
  json description = Description();
  description["layers"] = 3;
  description["eos_token_id"] = 50;
  Parts parts = AllParts();
  parts["extra/lmfusion.json"] = description.dump();
  const std::string path = Write(parts, Table(parts));
  try {
    ReadDescription(ModelFile(path));
    ADD_FAILURE();
  } catch (const ModelFileError& error) {
    EXPECT_EQ(error.what(), path +
                                ": lmfusion.json: windows: it has 2 numbers; one a layer expected, "
                                "3 (and 1 more; `python -m lmfusion inspect --verify` lists them)");
  }
  parts = With("layers", 3);  // one problem, and no others to count
  try {
    ReadBundle(ModelFile(Write(parts, Table(parts))));
    ADD_FAILURE();
  } catch (const ModelFileError& error) {
    EXPECT_TRUE(Has(error.what(), "one a layer expected, 3")) << error.what();
    EXPECT_FALSE(Has(error.what(), "more;")) << error.what();
  }
}

TEST(Bundle, AThousandProblemsAreEnough) {
  json table = Table(AllParts());
  for (int i = 0; i < 2000; ++i) table["parts"]["data/x" + std::to_string(i)] = 3;
  EXPECT_EQ(VerifyModelFile(Write(AllParts(), table)).size(), 1000u);
}

}  // namespace
}  // namespace lmfusion
