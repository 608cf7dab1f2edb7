#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "base/checksum.h"
#include "edits.h"
#include "lmfusion/errors.h"
#include "scored_paths.h"

namespace lmfusion {
namespace {

std::string Read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Snapshot {
  const std::string path = std::filesystem::temp_directory_path() /
                           ("lmfusion_snapshot_fuzzer" + std::to_string(getpid()));
  std::string content;
  Snapshot() {
    const auto scorer = HashScorer(40);
    const std::vector<Tokens> texts{{1, 2, 3, 7}, {1, 2, 3, 8, 9}, {1, 6}};
    scorer->Score(Paths(texts, LastTokens(texts, 1)), "");
    scorer->Save(path, nullptr, "");
    content = Read(path);
  }
};

}  // namespace
}  // namespace lmfusion

// Any bytes are a cache snapshot, or an Error that leaves a scorer as right as it was. Inputs are
// edits of a small snapshot, or of its beginning; the checksum is then made to fit. What slots and
// log-probabilities hold is not looked at: who can write the checksum can write those.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lmfusion;
  static const Snapshot snapshot;
  if (size < 2) return 0;
  std::string content = Edited(snapshot.content, data + 2, size - 2);
  if (data[0] % 4 == 0) content.resize(content.size() * data[1] / 256);
  if (content.size() > 4) {
    const uint32_t sum = Checksum(content.data(), content.size() - 4);
    content.replace(content.size() - 4, 4, reinterpret_cast<const char*>(&sum), 4);
  }
  std::ofstream(snapshot.path, std::ios::binary | std::ios::trunc) << content;
  const auto scorer = HashScorer(40);
  try {
    scorer->Load(snapshot.path, "loaded");
  } catch (const Error&) {
  }
  // Nothing is pinned or lost: a text as long as the cache fits, in another namespace.
  const Tokens longest(40, 3);
  const PathScores scores = scorer->Score(Paths({longest}, {39}), "");
  const double wanted = HashModel::LogProb(longest, 39);
  if (std::abs(scores.log_probs[0][0] - wanted) > kTolerance) std::abort();
  if (StatsOf(*scorer).cached_tokens > 40) std::abort();
  return 0;
}
