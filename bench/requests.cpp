#include "requests.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace lmfusion {
namespace {

using nlohmann::json;
using Strings = std::vector<std::string>;

[[noreturn]] void Fail(const std::string& what) { throw std::invalid_argument(what); }

Strings ReadStrings(const json& value, const std::string& name) {
  if (!value.is_array()) Fail(name + " must be a list of strings");
  Strings strings;
  for (const json& item : value) {
    if (!item.is_string()) {
      Fail(name + "[" + std::to_string(strings.size()) + "] is of type " + item.type_name() +
           ", not a string");
    }
    strings.push_back(item.get<std::string>());
  }
  return strings;
}

std::vector<Strings> ReadCandidates(const json& value) {
  if (!value.is_array()) Fail("\"candidate_words\" must be a list of lists of strings");
  std::vector<Strings> candidates;
  for (const json& item : value) {
    const std::string at = "[" + std::to_string(candidates.size()) + "]";
    candidates.push_back(ReadStrings(item, "\"candidate_words\"" + at));
  }
  return candidates;
}

void ReadContinuations(const json& line, Request* request) {
  request->kind = Request::Kind::kContinuations;
  if (!line.contains("candidate_words")) Fail("\"contexts\" without \"candidate_words\"");
  if (line.contains("texts")) Fail("both \"contexts\" and \"texts\"; a request has one of them");
  request->contexts = ReadStrings(line["contexts"], "\"contexts\"");
  request->candidate_words = ReadCandidates(line["candidate_words"]);
  if (request->contexts.size() != request->candidate_words.size()) {
    Fail(std::to_string(request->contexts.size()) + " contexts, but " +
         std::to_string(request->candidate_words.size()) +
         " lists of candidate words; there must be one list per context");
  }
}

void ReadTexts(const json& line, Request* request) {
  request->kind = Request::Kind::kTexts;
  request->texts = ReadStrings(line["texts"], "\"texts\"");
  if (line.contains("eos")) {
    if (!line["eos"].is_boolean()) Fail("\"eos\" must be true or false");
    request->eos = line["eos"].get<bool>();
  }
  if (line.contains("endings")) {
    if (request->eos) Fail("\"eos\" with \"endings\"; an empty ending is the end-of-text token");
    request->kind = Request::Kind::kEndings;
    request->endings = ReadStrings(line["endings"], "\"endings\"");
  }
}

Request ReadRequest(const std::string& text) {
  const json line = json::parse(text);
  if (!line.is_object()) Fail("a request must be an object, as {\"texts\": [...]}");
  Request request;
  if (line.contains("utt")) {
    if (!line["utt"].is_number_integer()) Fail("\"utt\" must be a whole number");
    request.utterance = line["utt"].get<int64_t>();
  }
  if (line.contains("contexts")) {
    ReadContinuations(line, &request);
  } else if (line.contains("texts")) {
    ReadTexts(line, &request);
  } else {
    Fail("neither \"contexts\" (with \"candidate_words\") nor \"texts\"");
  }
  return request;
}

}  // namespace

size_t Request::Candidates() const {
  if (kind == Kind::kTexts) return texts.size();
  if (kind == Kind::kEndings) return texts.size() * endings.size();
  size_t count = 0;
  for (const auto& words : candidate_words) count += words.size();
  return count;
}

std::vector<Request> ReadRequests(const std::string& path, size_t limit) {
  std::ifstream file(path);
  if (!file) Fail(path + ": cannot be opened for reading");
  std::vector<Request> requests;
  std::string text;
  for (size_t number = 1; std::getline(file, text); ++number) {
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    try {
      requests.push_back(ReadRequest(text));
    } catch (const json::exception& error) {
      Fail(path + ":" + std::to_string(number) + ": not a JSON object: " + error.what());
    } catch (const std::invalid_argument& error) {
      Fail(path + ":" + std::to_string(number) + ": " + error.what());
    }
    if (requests.size() == limit) break;
  }
  if (requests.empty()) Fail(path + ": holds no requests; each line must be one JSON object");
  return requests;
}

}  // namespace lmfusion
