// Files that appear whole or not at all.
#include "base/atomic_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include "base/printable.h"

namespace lmfusion {
namespace {

namespace fs = std::filesystem;

std::string Content(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class AtomicFileTest : public testing::Test {
 protected:
  AtomicFileTest() : folder_(fs::temp_directory_path() / ("atomic" + std::to_string(getpid()))) {
    fs::create_directories(folder_);
    fs::current_path(folder_);
  }
  ~AtomicFileTest() override {
    fs::current_path(fs::temp_directory_path());
    fs::remove_all(folder_);
  }
  // Files that are there, but `except`.
  int Others(const std::string& except) const {
    int count = 0;
    for (const auto& each : fs::directory_iterator(folder_)) {
      count += each.path().filename() == except ? 0 : 1;
    }
    return count;
  }

  const fs::path folder_;
};

// First of this program, so that the name beside is known: another's file of that name stays.
TEST_F(AtomicFileTest, TakesNoNameThatIsTaken) {
  const std::string taken = "name.part" + std::to_string(getpid()) + ".0";
  std::ofstream(taken) << "another's";
  AtomicFile file("name");
  file.Write("ours", 4);
  file.Commit();
  EXPECT_EQ(Content("name"), "ours");
  EXPECT_EQ(Content(taken), "another's");
}

TEST_F(AtomicFileTest, OfAPathInThisFolderOrAnother) {
  for (const std::string& path : {std::string("here"), (folder_ / "there").string()}) {
    std::ofstream(path) << "old";
    {
      AtomicFile file(path);
      file.Write("new, longer", 11);
      EXPECT_EQ(Content(path), "old");
    }
    EXPECT_EQ(Content(path), "old") << "not committed";
    EXPECT_EQ(Others(fs::path(path).filename()), path == "here" ? 0 : 1);
    AtomicFile file(path);
    file.Write("new, ", 5);
    file.Write("longer", 6);
    file.Commit();
    EXPECT_EQ(Content(path), "new, longer");
  }
}

TEST_F(AtomicFileTest, AFolderThatIsNotThereIsNamed) {
  try {
    AtomicFile file("no/such/file");
    ADD_FAILURE();
  } catch (const std::system_error& error) {
    EXPECT_EQ(std::string(error.what()).find("no/such/file: "), 0u) << error.what();
    EXPECT_EQ(error.code().value(), ENOENT);
  }
}

TEST(Printable, WritesOtherBytesAsDigits) {
  EXPECT_EQ(Printable(std::string("a\n\0~\x7f\xc3", 6)), "a\\x0a\\x00~\\x7f\\xc3");
}

}  // namespace
}  // namespace lmfusion
