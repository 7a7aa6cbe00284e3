#include "model/checkpoint_files.h"

#include <algorithm>
#include <utility>

#include "io/file.h"
#include "io/json.h"

namespace ringside {
namespace {

constexpr int64_t kMaxIndexBytes = int64_t{32} << 20;
// Every shard keeps a file open, and a process may often have 1,024.
constexpr size_t kMaxShards = 900;
constexpr size_t kMaxFileNameBytes = 128;
constexpr const char* kSingleName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";

// The index: which shard holds which tensor.
struct ShardIndex {
  std::vector<std::string> shards;                      // each once
  std::vector<std::pair<std::string, size_t>> tensors;  // name and place in `shards`, sorted by name
};

// A plain name in the folder itself: no separator, no leading point, nothing a shell or a log could read otherwise.
bool is_shard_name(std::string_view name) {
  return name.size() <= kMaxFileNameBytes && name.ends_with(".safetensors") && name[0] != '.' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
                  c == '-';
         });
}

bool read_weight_map(json::Reader& reader, ShardIndex& index) {
  if (!reader.begin_object()) return false;
  std::map<std::string, size_t, std::less<>> shards;
  std::string_view text;
  while (reader.next_member(text)) {
    if (!is_tensor_name(text)) return reader.fail("a tensor name that is not [a-zA-Z0-9_.]{1,128}");
    if (index.tensors.size() == kMaxTensors) return reader.fail("more than 131,072 tensors");
    std::string tensor(text);
    if (!reader.read_string(text)) return false;
    if (!is_shard_name(text)) return reader.fail("a shard that is not a plain .safetensors file name");
    auto shard = shards.find(text);
    if (shard == shards.end()) {
      if (shards.size() == kMaxShards) return reader.fail("more than 900 shards");
      shard = shards.emplace(text, shards.size()).first;
    }
    index.tensors.emplace_back(std::move(tensor), shard->second);
  }
  if (reader.failed()) return false;
  index.shards.resize(shards.size());
  for (const auto& [name, place] : shards) index.shards[place] = name;
  std::sort(index.tensors.begin(), index.tensors.end());
  const auto twice = std::adjacent_find(index.tensors.begin(), index.tensors.end(),
                                        [](const auto& a, const auto& b) { return a.first == b.first; });
  return twice == index.tensors.end() ? true : reader.fail("a tensor listed twice");
}

Result<ShardIndex> read_index(const std::string& path) {
  RS_TRY(const std::string text, read_text(path, kMaxIndexBytes));
  json::Reader reader(text);
  ShardIndex index;
  bool has_map = false;
  std::string_view key;
  bool going = reader.begin_object();
  while (going && reader.next_member(key)) {
    if (key == "weight_map") {
      if (std::exchange(has_map, true)) return Error{ErrorKind::kFileMalformed, path, "one weight_map", "two"};
      going = read_weight_map(reader, index);
    } else {
      going = reader.skip();
    }
  }
  if (!reader.finish()) return reader.error(path);
  if (index.tensors.empty()) return Error{ErrorKind::kFileMalformed, path, "a weight_map with tensors", "none"};
  return index;
}

// Every stored tensor must be listed, and listed where it is.
Status check_stored(const ShardIndex& index, const std::vector<SafetensorsFile>& files, const std::string& path) {
  for (size_t shard = 0; shard < files.size(); ++shard) {
    for (const TensorInfo& tensor : files[shard].tensors()) {
      const auto entry = std::lower_bound(index.tensors.begin(), index.tensors.end(), tensor.name,
                                          [](const auto& a, const std::string& name) { return a.first < name; });
      if (entry == index.tensors.end() || entry->first != tensor.name) {
        return Error{ErrorKind::kTensorUnknown, tensor.name, "a tensor listed in " + path,
                     "it in " + index.shards[shard]};
      }
      if (entry->second != shard) {
        return Error{ErrorKind::kFileMalformed, path + ": " + tensor.name, index.shards[shard],
                     index.shards[entry->second]};
      }
    }
  }
  return Unit{};
}

}  // namespace

Status CheckpointFiles::add(const std::string& folder, const std::string& name) {
  RS_TRY(const std::string path, path_inside(folder, name));
  RS_TRY(SafetensorsFile file, SafetensorsFile::open(path));
  tensor_count_ += file.tensors().size();
  if (tensor_count_ > kMaxTensors) {
    return Error{ErrorKind::kFileMalformed, path, "at most " + std::to_string(kMaxTensors) + " tensors in all shards",
                 std::to_string(tensor_count_)};
  }
  files_.push_back(std::move(file));
  return Unit{};
}

void CheckpointFiles::list_tensors() {
  for (const SafetensorsFile& file : files_) {
    for (const TensorInfo& info : file.tensors()) {
      tensors_.emplace(info.name, Tensor{&file, &info});
      total_bytes_ += info.length_bytes;
    }
  }
}

Result<CheckpointFiles> CheckpointFiles::open(const std::string& folder) {
  CheckpointFiles checkpoint;
  // The single file goes first, as in the library that writes these folders.
  if (path_exists(folder + "/" + kSingleName) || !path_exists(folder + "/" + kIndexName)) {
    RS_CHECK(checkpoint.add(folder, kSingleName));
    checkpoint.list_tensors();
    return checkpoint;
  }
  RS_TRY(const std::string index_path, path_inside(folder, kIndexName));
  RS_TRY(const ShardIndex index, read_index(index_path));
  for (const std::string& shard : index.shards) RS_CHECK(checkpoint.add(folder, shard));
  RS_CHECK(check_stored(index, checkpoint.files_, index_path));
  checkpoint.list_tensors();
  for (const auto& [name, shard] : index.tensors) {
    if (checkpoint.find(name) == nullptr) {
      return Error{ErrorKind::kTensorMissing, name, "it in " + index.shards[shard] + ", as " + index_path + " says",
                   ""};
    }
  }
  return checkpoint;
}

const CheckpointFiles::Tensor* CheckpointFiles::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

}  // namespace ringside
