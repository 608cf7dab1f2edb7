#include "cache/cache_snapshot.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <system_error>
#include <unordered_map>

#include "base/atomic_file.h"
#include "base/checksum.h"
#include "base/printable.h"
#include "lmfusion/errors.h"
#include "tree/pinned_paths.h"

namespace lmfusion {
namespace {

constexpr char kMagic[8] = {'l', 'm', 'f', 'c', 'a', 'c', 'h', 'e'};
constexpr uint32_t kFormat = 2;
constexpr size_t kSlotsAtOnce = 256;
// Of what a file says, in an error: of a value, and in all.
constexpr size_t kShownOfValue = 40, kShownBytes = 1000;
constexpr size_t kBytesAtOnce = size_t{1} << 20;

struct Header {
  char magic[8];
  uint32_t format, identity_bytes;
  int64_t nodes, slots, slot_bytes;
  uint64_t word_beginnings;
};
static_assert(sizeof(Header) == 48, "the file's layout");

struct StoredNode {
  int32_t parent, token;
  float log_prob, normalizer, word_end;
  int32_t has_slot;
};
static_assert(sizeof(StoredNode) == 24, "the file's layout");

// Writes, and keeps the checksum of what it wrote.
class Writer {
 public:
  explicit Writer(const std::string& file) : out_(file) {}

  void Write(const void* bytes, size_t size) {
    out_.Write(bytes, size);
    sum_ = Checksum(bytes, size, sum_);
  }

  void Finish() {
    out_.Write(&sum_, sizeof sum_);
    out_.Commit();
  }

 private:
  AtomicFile out_;
  uint32_t sum_ = 0;
};

// A snapshot that is open, whole and of this format.
class Reader {
 public:
  explicit Reader(const std::string& file) : file_(file) {
    std::error_code error;
    const std::filesystem::file_status status = std::filesystem::status(file, error);
    if (!std::filesystem::exists(status)) {
      throw CacheFileError("no such cache snapshot: " + file);
    }
    if (!std::filesystem::is_regular_file(status)) {
      throw CacheFileError(file + " is " +
                           (std::filesystem::is_directory(status) ? "a folder" : "not a file") +
                           "; a cache snapshot is one file (save_cache writes it)");
    }
    in_.open(file, std::ios::binary);
    if (!in_) {
      throw CacheFileError(file + " cannot be opened: " + std::generic_category().message(errno));
    }
    in_.seekg(0, std::ios::end);
    size_ = static_cast<int64_t>(in_.tellg());
    in_.seekg(0);
    if (size_ < static_cast<int64_t>(sizeof header_)) Damaged("it is too short");
    Read(&header_, sizeof header_);
    if (std::memcmp(header_.magic, kMagic, sizeof kMagic) != 0) {
      throw CacheFileError(file + " is not a cache snapshot (save_cache writes one)");
    }
    if (header_.format != kFormat) {
      throw CacheFileError(file + " has format " + std::to_string(header_.format) +
                           ", this version of lmfusion reads format " + std::to_string(kFormat) +
                           "; save it again");
    }
    CheckSize();
    CheckSum();
    identity_.resize(header_.identity_bytes);
    Read(identity_.data(), identity_.size());
  }

  const Header& header() const { return header_; }
  const std::string& identity() const { return identity_; }

  void Read(void* bytes, size_t size) {
    in_.read(static_cast<char*>(bytes), static_cast<std::streamsize>(size));
    if (!in_) Damaged("it cannot be read to its end");
  }

  [[noreturn]] void Damaged(const std::string& what) const {
    throw CacheFileError(file_ + " is a damaged cache snapshot: " + what + "; save it again");
  }

 private:
  void CheckSize() const {
    // In floating point, so that no damaged number overflows.
    const double expected = static_cast<double>(sizeof(Header) + sizeof(uint32_t)) +
                            header_.identity_bytes +
                            static_cast<double>(header_.nodes) * sizeof(StoredNode) +
                            static_cast<double>(header_.slots) * header_.slot_bytes;
    if (header_.nodes < 0 || header_.slots < 0 || header_.slot_bytes < 0 ||
        expected != static_cast<double>(size_)) {
      Damaged("it has " + std::to_string(size_) + " bytes, and its header tells of another number");
    }
  }

  void CheckSum() {
    in_.seekg(0);
    uint32_t sum = 0, stored = 0;
    std::string bytes(std::min<size_t>(size_, kBytesAtOnce), '\0');
    for (int64_t left = size_ - static_cast<int64_t>(sizeof stored); left > 0;) {
      const size_t count = std::min<size_t>(left, kBytesAtOnce);
      Read(bytes.data(), count);
      sum = Checksum(bytes.data(), count, sum);
      left -= static_cast<int64_t>(count);
    }
    Read(&stored, sizeof stored);
    if (sum != stored) Damaged("its checksum is wrong");
    in_.seekg(sizeof(Header));
  }

  const std::string file_;
  std::ifstream in_;
  int64_t size_ = 0;
  Header header_;
  std::string identity_;
};

using Fields = std::map<std::string, std::string>;

// Of lines "name: value".
Fields FieldsOf(const std::string& identity) {
  Fields fields;
  std::istringstream lines(identity);
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) fields[line.substr(0, colon)] = line.substr(colon + 2);
  }
  return fields;
}

void CheckOwner(const std::string& file, const std::string& theirs, const std::string& ours) {
  if (theirs == ours) return;
  const Fields their_fields = FieldsOf(theirs), our_fields = FieldsOf(ours);
  Fields all = our_fields;
  all.insert(their_fields.begin(), their_fields.end());
  const auto value = [](const Fields& fields, const std::string& name) {
    const auto found = fields.find(name);
    return found == fields.end() ? std::string("unknown") : found->second;
  };
  const auto shown = [](const std::string& text) {
    return text.size() <= kShownOfValue ? text : text.substr(0, kShownOfValue) + "...";
  };
  std::string differences;
  for (const auto& [name, any] : all) {
    const std::string their = value(their_fields, name), our = value(our_fields, name);
    if (their == our) continue;
    if (!differences.empty()) differences += "; ";
    differences.append(name).append(" is ").append(shown(their)).append(", here ");
    differences.append(shown(our));
  }
  throw CacheFileError(file + " is the cache snapshot of another model or compute type (" +
                       Printable(differences.substr(0, kShownBytes)) +
                       "); save one with this scorer");
}

std::vector<StoredNode> ReadNodes(Reader* reader, int64_t vocabulary_size) {
  std::vector<StoredNode> nodes(reader->header().nodes);
  reader->Read(nodes.data(), nodes.size() * sizeof(StoredNode));
  int64_t slots = 0;
  for (size_t i = 0; i < nodes.size(); ++i) {
    const StoredNode& node = nodes[i];
    const bool right = node.parent >= -1 && node.parent < static_cast<int64_t>(i) &&
                       node.token >= 0 && node.token < vocabulary_size &&
                       (node.has_slot == 0 || node.parent < 0 || nodes[node.parent].has_slot != 0);
    if (!right) reader->Damaged("its tree is not one of this model");
    slots += node.has_slot != 0 ? 1 : 0;
  }
  if (slots != reader->header().slots) reader->Damaged("it has more or fewer slots than it says");
  return nodes;
}

// The file's nodes in the tree: there, and pinned, until this goes.
class HeldNodes {
 public:
  HeldNodes(TokenTree& tree, NodeId root, NodeNumbers& numbers,
            const std::vector<StoredNode>& nodes, bool word_ends)
      : tree_(tree), paths_(tree, numbers) {
    index_.reserve(nodes.size());
    for (const StoredNode& stored : nodes) {
      const int32_t parent = stored.parent < 0 ? PinnedPaths::kRoot : index_[stored.parent];
      index_.push_back(paths_.Add(root, parent, stored.token));
      const NodeId node = paths_.node(index_.back());
      if (std::isnan(tree_.log_prob(node))) tree_.set_log_prob(node, stored.log_prob);
      if (std::isnan(tree_.normalizer(node))) tree_.set_normalizer(node, stored.normalizer);
      if (word_ends && std::isnan(tree_.word_end(node))) tree_.set_word_end(node, stored.word_end);
    }
  }

  NodeId operator[](size_t i) const { return paths_.node(index_[i]); }

  // Slots of nodes that have none in the file.
  int64_t MoreSlots(const std::vector<StoredNode>& nodes) const {
    int64_t more = 0;
    for (size_t i = 0; i < nodes.size(); ++i) {
      if (nodes[i].has_slot == 0 && tree_.computed((*this)[i])) ++more;
    }
    return more;
  }

 private:
  TokenTree& tree_;
  PinnedPaths paths_;
  std::vector<int32_t> index_;  // of the file's nodes, among the paths
};

// The next slots of the file, into those of `nodes` that have none. Returns how many were filled.
int64_t FillSlots(Reader* reader, const std::vector<NodeId>& nodes, TokenTree& tree,
                  CausalLM& model) {
  const auto slot_bytes = static_cast<size_t>(model.slot_bytes());
  std::vector<char> bytes(nodes.size() * slot_bytes);
  reader->Read(bytes.data(), bytes.size());
  std::vector<SlotId> slots;
  std::vector<NodeId> filled;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (tree.computed(nodes[i])) continue;
    if (!tree.AcquireSlot(nodes[i])) {
      throw CacheBudgetError("kv_cache_bytes is too small for a cache snapshot");
    }
    std::memmove(&bytes[slots.size() * slot_bytes], &bytes[i * slot_bytes], slot_bytes);
    slots.push_back(tree.slot(nodes[i]));
    filled.push_back(nodes[i]);
  }
  model.WriteSlots(slots, bytes.data());
  for (const NodeId node : filled) tree.MarkComputed(node);
  return static_cast<int64_t>(slots.size());
}

void WriteAll(const std::string& file, const Header& header, const std::string& identity,
              const std::vector<StoredNode>& nodes, const std::vector<SlotId>& slots,
              CausalLM& model) {
  Writer writer(file);
  writer.Write(&header, sizeof header);
  writer.Write(identity.data(), identity.size());
  writer.Write(nodes.data(), nodes.size() * sizeof(StoredNode));
  std::vector<char> bytes;
  for (size_t begin = 0; begin < slots.size(); begin += kSlotsAtOnce) {
    const size_t end = std::min(slots.size(), begin + kSlotsAtOnce);
    bytes.resize((end - begin) * header.slot_bytes);
    model.ReadSlots({slots.begin() + begin, slots.begin() + end}, bytes.data());
    writer.Write(bytes.data(), bytes.size());
  }
  writer.Finish();
}

}  // namespace

SnapshotOwner OwnerOf(const CausalLM& model, uint64_t word_beginnings) {
  auto fields = nlohmann::json::parse(model.description().json, nullptr, false);
  if (!fields.is_object()) fields = nlohmann::json::object();
  // What does not decide a number that the cache holds.
  for (const char* name : {"parity", "source", "license", "torch", "transformers"}) {
    fields.erase(name);
  }
  fields["slots"] = model.SlotFormat();
  fields["slot_bytes"] = model.slot_bytes();
  SnapshotOwner owner;
  for (const auto& [name, value] : fields.items())
    owner.identity += name + ": " + value.dump() + "\n";
  owner.word_beginnings = word_beginnings;
  return owner;
}

std::vector<NodeId> NodesBelow(const TokenTree& tree, NodeId root) {
  std::vector<NodeId> nodes, open{root};
  while (!open.empty()) {
    const NodeId parent = open.back();
    open.pop_back();
    for (NodeId node = tree.first_child(parent); node != kNoNode; node = tree.next_sibling(node)) {
      nodes.push_back(node);
      if (tree.has_children(node)) open.push_back(node);
    }
  }
  return nodes;
}

std::vector<NodeId> NodesOf(const TokenPaths& paths, const TokenTree& tree, NodeId root) {
  std::vector<NodeId> nodes;
  NodeNumbers seen;
  seen.Fit(tree.node_end());
  for (const TokenPaths::Path& path : paths.paths) {
    NodeId node = root;
    for (const int32_t token : path.tokens()) {
      node = tree.Find(node, token);
      if (node == kNoNode) break;
      if (seen[node] >= 0) continue;
      seen.Set(node, 0);
      nodes.push_back(node);
    }
  }
  return nodes;
}

int64_t WriteSnapshot(const std::string& file, const SnapshotOwner& owner, const TokenTree& tree,
                      const std::vector<NodeId>& nodes, CausalLM& model) {
  std::unordered_map<NodeId, int32_t> index;
  std::vector<StoredNode> stored;
  std::vector<SlotId> slots;
  for (const NodeId node : nodes) {
    const NodeId parent = tree.parent(node);
    const bool has_slot = tree.computed(node);
    stored.push_back({tree.is_root(parent) ? -1 : index.at(parent), tree.token(node),
                      tree.log_prob(node), tree.normalizer(node), tree.word_end(node),
                      has_slot ? 1 : 0});
    if (has_slot) slots.push_back(tree.slot(node));
    index.emplace(node, static_cast<int32_t>(index.size()));
  }
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.format = kFormat;
  header.nodes = static_cast<int64_t>(stored.size());
  header.slots = static_cast<int64_t>(slots.size());
  header.slot_bytes = model.slot_bytes();
  header.word_beginnings = owner.word_beginnings;
  header.identity_bytes = static_cast<uint32_t>(owner.identity.size());

  try {
    WriteAll(file, header, owner.identity, stored, slots, model);
  } catch (const std::system_error& error) {
    throw CacheFileError(file + " cannot be written: " + error.code().message());
  }
  return header.slots;
}

int64_t ReadSnapshot(const std::string& file, const SnapshotOwner& owner, TokenTree& tree,
                     NodeId root, NodeNumbers& numbers, CausalLM& model, int64_t bytes) {
  Reader reader(file);
  CheckOwner(file, reader.identity(), owner.identity);
  const std::vector<StoredNode> nodes = ReadNodes(&reader, model.description().vocabulary_size);
  const Header& header = reader.header();
  if (header.slot_bytes != model.slot_bytes()) reader.Damaged("its slots are of another size");
  const int64_t needed = header.nodes * TokenTree::node_bytes() + header.slots * header.slot_bytes;
  if (needed > bytes) {
    throw CacheBudgetError(file + " holds " + std::to_string(header.slots) + " tokens in " +
                           std::to_string(needed) + " bytes, more than the " +
                           std::to_string(bytes) +
                           " of kv_cache_bytes that are there for it; give "
                           "it more bytes, or save fewer contexts");
  }
  const bool word_ends =
      owner.word_beginnings != 0 && owner.word_beginnings == header.word_beginnings;
  std::optional<HeldNodes> held;
  held.emplace(tree, root, numbers, nodes, word_ends);
  if (needed + held->MoreSlots(nodes) * header.slot_bytes > bytes) {
    held.reset();
    tree.Clear();
    held.emplace(tree, root, numbers, nodes, word_ends);
  }
  int64_t filled = 0;
  std::vector<NodeId> batch;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].has_slot != 0) batch.push_back((*held)[i]);
    if (batch.size() == kSlotsAtOnce || (i + 1 == nodes.size() && !batch.empty())) {
      filled += FillSlots(&reader, batch, tree, model);
      batch.clear();
    }
  }
  return filled;
}

}  // namespace lmfusion
