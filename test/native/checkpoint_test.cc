// Opening a checkpoint folder: what must be there, what may be there, and what every sort of damage is called.
#include "model/checkpoint.h"

#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "allocation_counter.h"
#include "check.h"
#include "model/float_formats.h"
#include "stored_model.h"
#include "temp_folder.h"

using namespace ringside;

namespace {

const std::string kGolden = RS_GOLDEN_DIR "/tiny-tail";

template <class T>
std::string outcome(const Result<T>& result) {
  return result.ok() ? "accepted" : error_kind_name(result.error().kind);
}

std::string opened(const std::string& folder) { return outcome(Checkpoint::open(folder)); }

// Writes the model into a fresh folder and opens it. The subject must name `name`.
std::string opened(const StoredModel& model, const std::string& name = "") {
  TempFolder folder;
  model.write(folder.path());
  const auto checkpoint = Checkpoint::open(folder.path());
  if (!checkpoint.ok() && checkpoint.error().subject.find(name) == std::string::npos) {
    return "an error without the name: " + checkpoint.error().message();
  }
  return outcome(checkpoint);
}

std::string zeros(size_t bytes) { return std::string(bytes, '\0'); }

// Two shards and their index; `edit` may change its text.
void write_shards(const StoredModel& model, const TempFolder& folder,
                  const std::function<std::string(std::string)>& edit = nullptr) {
  const size_t half = model.tensors.size() / 2;
  std::string index = "{\"metadata\":{\"total_size\":1},\"weight_map\":{";
  for (size_t i = 0; i < model.tensors.size(); ++i) {
    index.append(i > 0 ? "," : "").append("\"").append(model.tensors[i].info.name).append("\":");
    index += i < half ? "\"a.safetensors\"" : "\"b.safetensors\"";
  }
  index += "}}";
  put_file(folder / "config.json", model.config);
  StoredModel::write_file(folder / "a.safetensors",
                          {model.tensors.begin(), model.tensors.begin() + static_cast<long>(half)});
  StoredModel::write_file(folder / "b.safetensors",
                          {model.tensors.begin() + static_cast<long>(half), model.tensors.end()});
  put_file(folder / "model.safetensors.index.json", edit ? edit(index) : index);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  return at == std::string::npos ? "nothing to replace" : text.replace(at, from.size(), to);
}

// One matrix of the golden model as packed tensors of group 32, its weights all `byte` - 128.
void pack(StoredModel& model, const std::string& base, char byte = '\x80') {
  const Shape shape = model.at(base + ".weight").info.shape;
  model.remove(base + ".weight");
  const size_t rows = static_cast<size_t>(shape[0]);
  const size_t cols = static_cast<size_t>(shape[1]);
  std::string scales;
  for (size_t i = 0; i < rows * cols / 32; ++i) scales += std::string("\x80\x3F", 2);  // 1.0 in bf16
  std::string sizes(16, '\0');
  const int64_t stored[2] = {shape[0], shape[1]};
  std::memcpy(sizes.data(), stored, sizeof stored);
  model.add(base + ".weight_packed", Dtype::kI32, {shape[0], shape[1] / 4}, std::string(rows * cols, byte));
  model.add(base + ".weight_scale", Dtype::kBF16, {shape[0], shape[1] / 32}, scales);
  model.add(base + ".weight_shape", Dtype::kI64, {2}, sizes);
}

const std::string kQuantization =
    R"("quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized",
       "config_groups": {"group_0": {"targets": ["TARGET"], "input_activations": null,
         "weights": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "group", "group_size": 32}}},
       "ignore": ["lm_head", "re:.*mlp.gate$"]}, )";

// The golden model with one packed matrix, which alone is targeted.
StoredModel packed_model(const std::string& base = "model.layers.0.attention.dense") {
  StoredModel model = StoredModel::read(kGolden);
  pack(model, base);
  model.edit_config("\"architectures\"", replaced(kQuantization, "TARGET", base) + "\"architectures\"");
  return model;
}

}  // namespace

TEST("checkpoint: the golden model opens and its weights come out as stored") {
  const auto checkpoint = Checkpoint::open(kGolden);
  CHECK(checkpoint.ok());
  if (!checkpoint.ok()) return;
  CHECK_EQ(checkpoint.value()->layout_name(), "bf16");
  CHECK_EQ(checkpoint.value()->weight_bytes(), 1078272);
  CHECK_EQ(checkpoint.value()->config().layers, 7);
  const auto matrix = checkpoint.value()->read_matrix("model.layers.0.attention.dense", 64, 64);
  CHECK(matrix.ok() && matrix->format == WeightFormat::kBF16);
  StoredModel stored = StoredModel::read(kGolden);
  const std::string& bytes = stored.at("model.layers.0.attention.dense.weight").bytes;
  CHECK(bytes == std::string(matrix->data.begin(), matrix->data.end()));
  float row[64];
  matrix->row_to_float(5, row);
  uint16_t bits = 0;
  std::memcpy(&bits, bytes.data() + (5 * 64 + 7) * 2, 2);
  CHECK_EQ(row[7], bf16_to_float(bits));
  const auto bias = checkpoint.value()->read_vector("model.layers.1.mlp.gate.expert_bias", 8);
  CHECK(bias.ok());
  CHECK(std::memcmp(bias->data(), stored.at("model.layers.1.mlp.gate.expert_bias").bytes.data(), 32) == 0);
  CHECK_EQ(outcome(checkpoint.value()->read_matrix("model.layers.0.attention.dense", 64, 65)), "tensor-shape");
  CHECK_EQ(outcome(checkpoint.value()->read_matrix("model.layers.0.attention.none", 64, 64)), "tensor-missing");
  CHECK_EQ(outcome(checkpoint.value()->read_vector("model.norm.weight", 63)), "tensor-shape");
  CHECK_EQ(outcome(checkpoint.value()->read_vector("none", 64)), "tensor-missing");
}

TEST("checkpoint: folders that hold no model") {
  TempFolder folder;
  CHECK_EQ(opened(folder / "none"), "file-missing");
  CHECK_EQ(opened(folder.path()), "file-missing");
  put_file(folder / "file", "x");
  CHECK_EQ(opened(folder / "file"), "file-missing");
  put_file(folder / "config.json", StoredModel::read(kGolden).config);
  CHECK_EQ(opened(folder.path()), "file-missing");
  std::filesystem::create_directory(folder / "model.safetensors");
  CHECK_EQ(opened(folder.path()), "file-unreadable");
  put_file(folder / "config.json", std::string(5 << 20, ' '));
  CHECK_EQ(opened(folder.path()), "file-malformed");
}

TEST("checkpoint: cut at every byte of the header and at 1,000 points of the body") {
  TempFolder folder;
  put_file(folder / "config.json", file_content(kGolden + "/config.json"));
  const std::string weights = file_content(kGolden + "/model.safetensors");
  put_file(folder / "model.safetensors", weights);
  CHECK_EQ(opened(folder.path()), "accepted");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, weights.data(), 8);
  const size_t body = header_bytes + 8;
  const unsigned seed = std::random_device()();
  std::printf("  seed %u\n", seed);
  std::mt19937 random(seed);
  std::vector<size_t> cuts;
  for (int i = 0; i < 1000; ++i) cuts.push_back(body + random() % (weights.size() - body));
  for (size_t cut = 0; cut < body; ++cut) cuts.push_back(cut);
  std::sort(cuts.rbegin(), cuts.rend());
  for (const size_t cut : cuts) {
    CHECK_EQ(::truncate((folder / "model.safetensors").c_str(), static_cast<off_t>(cut)), 0);
    CHECK_EQ(opened(folder.path()), "file-truncated");
  }
  put_file(folder / "model.safetensors", weights + "x");
  CHECK_EQ(opened(folder.path()), "file-malformed");
}

TEST("checkpoint: whichever allocation fails, the answer is out-of-memory and no file stays open") {
  const auto open_files = [] { return entries_in("/proc/self/fd"); };
  const size_t before = open_files();
  long nth = 1;
  for (bool finished = false; !finished && nth < 100'000; nth += nth < 200 ? 1 : 7) {
    allocation::fail_in = nth;
    std::string got;
    {
      const auto checkpoint = Checkpoint::open(kGolden);
      finished = allocation::fail_in > 0;
      allocation::fail_in = 0;
      got = outcome(checkpoint);
    }
    CHECK_EQ(got, finished ? "accepted" : "out-of-memory");
    CHECK_EQ(open_files(), before);
  }
  std::printf("  %ld allocations\n", nth);
  CHECK(nth > 500 && nth < 100'000);
  const auto checkpoint = Checkpoint::open(kGolden);
  const std::string norm = "model.norm.weight";
  const std::string base = "model.layers.0.attention.dense";
  allocation::fail_in = 1;
  CHECK_EQ(outcome(checkpoint.value()->read_vector(norm, 64)), "out-of-memory");
  allocation::fail_in = 2;
  CHECK_EQ(outcome(checkpoint.value()->read_matrix(base, 64, 64)), "out-of-memory");
  allocation::fail_in = 0;
}

TEST("checkpoint: a flipped bit of the header is refused or leaves a whole model") {
  TempFolder folder;
  put_file(folder / "config.json", file_content(kGolden + "/config.json"));
  const std::string weights = file_content(kGolden + "/model.safetensors");
  const unsigned seed = std::random_device()();
  std::printf("  seed %u\n", seed);
  std::mt19937 random(seed);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, weights.data(), 8);
  int refused = 0;
  for (int i = 0; i < 500; ++i) {
    std::string spoiled = weights;
    const size_t at = random() % (header_bytes + 8);
    spoiled[at] = static_cast<char>(spoiled[at] ^ (1 << (random() % 8)));
    put_file(folder / "model.safetensors", spoiled);
    const auto checkpoint = Checkpoint::open(folder.path());
    if (!checkpoint.ok()) {
      ++refused;
      continue;
    }
    // What is accepted must still be readable as the configuration says.
    CHECK(checkpoint.value()->read_matrix("lm_head", 512, 64).ok());
  }
  CHECK(refused > 400);
}

TEST("checkpoint: every tensor is missed by its name") {
  const StoredModel model = StoredModel::read(kGolden);
  CHECK_EQ(model.tensors.size(), 230u);
  for (size_t i = 0; i < model.tensors.size(); ++i) {
    StoredModel without = model;
    without.tensors.erase(without.tensors.begin() + static_cast<long>(i));
    CHECK_EQ(opened(without, model.tensors[i].info.name), "tensor-missing");
  }
}

TEST("checkpoint: every tensor's shape and dtype are checked") {
  const StoredModel model = StoredModel::read(kGolden);
  for (size_t i = 0; i < model.tensors.size(); i += 7) {
    const TensorInfo& info = model.tensors[i].info;
    StoredModel wrong = model;
    wrong.tensors[i].info.shape = {info.length_bytes / dtype_bytes(info.dtype), 1, 1};
    CHECK_EQ(opened(wrong, info.name), "tensor-shape");
    wrong = model;
    wrong.tensors[i].info.dtype = dtype_bytes(info.dtype) == 2 ? Dtype::kI16 : Dtype::kI32;
    CHECK_EQ(opened(wrong, info.name), "tensor-dtype");
    if (info.shape.dimensions() == 2 && info.shape[0] != info.shape[1]) {
      wrong = model;
      wrong.tensors[i].info.shape = {info.shape[1], info.shape[0]};
      CHECK_EQ(opened(wrong, info.name), "tensor-shape");
    }
  }
  // A softmax layer's qkv under a linear layer's name.
  StoredModel swapped = model;
  std::swap(swapped.at("model.layers.1.attention.query_key_value.weight").info.name,
            swapped.at("model.layers.2.attention.query_key_value.weight").info.name);
  CHECK_EQ(opened(swapped, "model.layers.1.attention.query_key_value.weight"), "tensor-shape");
}

TEST("checkpoint: unknown tensors, and those that are passed over") {
  const auto with = [](const std::string& name) {
    StoredModel model = StoredModel::read(kGolden);
    model.add(name, Dtype::kF32, {1}, zeros(4));
    return opened(model, name);
  };
  for (const char* name : {"extra", "model.layers.6.extra", "model.layers.0.attention.dense.bias", "lm_head.bias",
                           "model.layers.6.attention.g_proj.weight", "model.layers.x.weight", "model.layers.7",
                           "model.layers.99999999999.weight", "layers.7.weight"}) {
    CHECK_EQ(with(name), "tensor-unknown");
  }
  for (const char* name : {"model.layers.7.eh_proj.weight", "model.layers.12.weight", "model.mtp.0.weight",
                           "model.layers.0.attention.slope", "model.rotary.inv_freq", "v_head.weight"}) {
    CHECK_EQ(with(name), "accepted");
  }
}

TEST("checkpoint: fp16 and fp32 weights") {
  StoredModel model = StoredModel::read(kGolden);
  const std::string name = "model.layers.0.attention.dense.weight";
  std::string wide(64 * 64 * 4, '\0');
  const float value = -1.0000001f;
  std::memcpy(wide.data() + 4, &value, 4);
  model.at(name).info.dtype = Dtype::kF32;
  model.at(name).bytes = wide;
  StoredTensor& half = model.at("lm_head.weight");
  half.info.dtype = Dtype::kF16;
  const uint16_t halves[] = {0x3C00, 0xC000, 0x0001, 0x8001, 0x7BFF, 0x03FF, 0x0000, 0x8000};
  std::memcpy(half.bytes.data(), halves, sizeof halves);
  model.at("model.norm.weight").info.dtype = Dtype::kF16;
  TempFolder folder;
  model.write(folder.path());
  const auto checkpoint = Checkpoint::open(folder.path());
  CHECK(checkpoint.ok());
  if (!checkpoint.ok()) return;
  CHECK_EQ(checkpoint.value()->layout_name(), "f16+bf16+f32");
  const auto dense = checkpoint.value()->read_matrix("model.layers.0.attention.dense", 64, 64);
  CHECK(dense->format == WeightFormat::kF32);
  float row[64];
  dense->row_to_float(0, row);
  CHECK_EQ(row[1], value);
  const auto head = checkpoint.value()->read_matrix("lm_head", 512, 64);
  CHECK(head->format == WeightFormat::kF32);
  head->row_to_float(0, row);
  const float expected[] = {1.0f, -2.0f, 0x1p-24f, -0x1p-24f, 65504.0f, 1023 * 0x1p-24f, 0.0f, -0.0f};
  for (int i = 0; i < 8; ++i) CHECK_EQ(row[i], expected[i]);
  CHECK(std::isinf(f16_to_float(0x7C00)) && std::isnan(f16_to_float(0x7E00)));
}

TEST("checkpoint: a vector that is no number is refused when it is read") {
  StoredModel model = StoredModel::read(kGolden);
  model.at("model.norm.weight").bytes.replace(2, 2, "\xC0\x7F");
  model.at("model.layers.1.mlp.gate.expert_bias").bytes.replace(0, 4, std::string("\x00\x00\x80\x7F", 4));
  TempFolder folder;
  model.write(folder.path());
  const auto checkpoint = Checkpoint::open(folder.path());
  CHECK_EQ(outcome(checkpoint.value()->read_vector("model.norm.weight", 64)), "file-malformed");
  CHECK_EQ(outcome(checkpoint.value()->read_vector("model.layers.1.mlp.gate.expert_bias", 8)), "file-malformed");
}

TEST("checkpoint: shards are read through their index") {
  const StoredModel model = StoredModel::read(kGolden);
  TempFolder folder;
  write_shards(model, folder);
  const auto checkpoint = Checkpoint::open(folder.path());
  CHECK(checkpoint.ok());
  if (!checkpoint.ok()) return;
  CHECK_EQ(checkpoint.value()->weight_bytes(), 1078272);
  CHECK(checkpoint.value()->read_matrix("lm_head", 512, 64).ok());
}

TEST("checkpoint: an index that lies") {
  const StoredModel model = StoredModel::read(kGolden);
  const std::string first = "\"" + model.tensors[0].info.name + "\":\"a.safetensors\"";
  struct Case {
    std::string from, to, outcome;
  };
  const std::vector<Case> cases = {
      {first, replaced(first, "a.safe", "b.safe"), "file-malformed"},
      {first, replaced(first, "a.safe", "c.safe"), "file-missing"},
      {first + ",", "", "tensor-unknown"},
      {first, first + ",\"model.more\":\"b.safetensors\"", "tensor-missing"},
      {first, first + "," + first, "file-malformed"},
      {first, first + ",\"bad name\":\"a.safetensors\"", "file-malformed"},
      {"\"a.safetensors\"", "\"../a.safetensors\"", "file-malformed"},
      {"\"a.safetensors\"", "\"/etc/a.safetensors\"", "file-malformed"},
      {"\"a.safetensors\"", "\"sub/a.safetensors\"", "file-malformed"},
      {"\"a.safetensors\"", "\".safetensors\"", "file-malformed"},
      {"\"a.safetensors\"", "\"..safetensors\"", "file-malformed"},
      {"\"a.safetensors\"", "\"config.json\"", "file-malformed"},
      {"\"a.safetensors\"", "\"\"", "file-malformed"},
      {"\"a.safetensors\"", "\"a\\u0000.safetensors\"", "file-malformed"},
      {"\"a.safetensors\"", "1", "file-malformed"},
      {"\"a.safetensors\"", "null", "file-malformed"},
      {"\"weight_map\"", "\"weight\"", "file-malformed"},
      {"\"weight_map\":{", "\"weight_map\":[{", "file-malformed"},
      {"\"metadata\":", "\"weight_map\":{\"x\":\"x.safetensors\"},\"metadata\":", "file-malformed"},
  };
  for (const Case& c : cases) {
    TempFolder folder;
    write_shards(model, folder, [&](std::string index) { return replaced(std::move(index), c.from, c.to); });
    const std::string got = opened(folder.path());
    if (got != c.outcome) check::fail(__FILE__, __LINE__, c.to + ": " + got + ", not " + c.outcome);
  }
  TempFolder many;
  write_shards(model, many, [](const std::string&) {
    std::string index = "{\"weight_map\":{";
    for (int i = 0; i < 901; ++i) {
      const std::string number = std::to_string(i);
      index.append(i > 0 ? ",\"t" : "\"t").append(number).append("\":\"s").append(number).append(".safetensors\"");
    }
    return index + "}}";
  });
  CHECK_EQ(opened(many.path()), "file-malformed");
  TempFolder crowded;
  put_file(crowded / "config.json", model.config);
  std::string index = "{\"weight_map\":{";
  for (const std::string shard : {"a", "b"}) {
    std::vector<TensorInfo> tensors(70'000);
    for (size_t i = 0; i < tensors.size(); ++i) {
      tensors[i].name = shard + std::to_string(i);
      tensors[i].dtype = Dtype::kU8;
      tensors[i].shape = {0};
    }
    put_file(crowded / (shard + ".safetensors"), layout_safetensors(tensors));
    if (shard == "b") index += ",";
    index.append("\"").append(shard).append("0\":\"").append(shard).append(".safetensors\"");
  }
  put_file(crowded / "model.safetensors.index.json", index + "}}");
  CHECK_EQ(opened(crowded.path()), "file-malformed");
  TempFolder truncated;
  write_shards(model, truncated);
  CHECK_EQ(::truncate((truncated / "b.safetensors").c_str(), 30'000), 0);
  CHECK_EQ(opened(truncated.path()), "file-truncated");
}

TEST("checkpoint: links may not lead out of the folder") {
  const StoredModel model = StoredModel::read(kGolden);
  for (const char* name : {"config.json", "model.safetensors", "generation_config.json"}) {
    TempFolder folder;
    TempFolder outside;
    model.write(folder.path());
    put_file(folder / "generation_config.json", "{}");
    std::filesystem::rename(folder / name, outside / "moved");
    std::filesystem::create_symlink(outside / "moved", folder / name);
    CHECK_EQ(opened(folder.path()), "file-unreadable");
    // Inside the folder, and for the folder itself, a link is the user's own business.
    std::filesystem::remove(folder / name);
    std::filesystem::rename(outside / "moved", folder / "moved");
    std::filesystem::create_symlink("moved", folder / name);
    CHECK_EQ(opened(folder.path()), "accepted");
    std::filesystem::create_symlink(folder.path(), outside / "model");
    CHECK_EQ(opened(outside / "model"), "accepted");
  }
  TempFolder folder;
  TempFolder outside;
  write_shards(model, folder);
  std::filesystem::rename(folder / "b.safetensors", outside / "b.safetensors");
  std::filesystem::create_symlink(outside / "b.safetensors", folder / "b.safetensors");
  CHECK_EQ(opened(folder.path()), "file-unreadable");
}

TEST("checkpoint: generation_config.json adds its stop tokens") {
  TempFolder folder;
  StoredModel::read(kGolden).write(folder.path());
  put_file(folder / "generation_config.json", "{\"eos_token_id\": [2, 0]}");
  const auto checkpoint = Checkpoint::open(folder.path());
  CHECK(checkpoint.ok() && checkpoint.value()->config().stop_tokens == std::vector<int32_t>({0, 2}));
  put_file(folder / "generation_config.json", "{\"eos_token_id\": [2, 512]}");
  CHECK_EQ(opened(folder.path()), "config-invalid");
  put_file(folder / "generation_config.json", "{");
  CHECK_EQ(opened(folder.path()), "file-malformed");
}

TEST("packed: bytes become quanta, lowest byte first") {
  StoredModel model = packed_model();
  StoredTensor& values = model.at("model.layers.0.attention.dense.weight_packed");
  // The words 0x00FF7F80 and 0x81828384 as a little-endian machine stores them.
  values.bytes.replace(0, 8, std::string("\x80\x7F\xFF\x00\x84\x83\x82\x81", 8));
  StoredTensor& scales = model.at("model.layers.0.attention.dense.weight_scale");
  scales.bytes.replace(0, 4, std::string("\x00\x3F\x00\x40", 4));  // 0.5 and 2.0
  values.bytes[32] = '\x83';
  TempFolder folder;
  model.write(folder.path());
  const auto checkpoint = Checkpoint::open(folder.path());
  CHECK(checkpoint.ok());
  if (!checkpoint.ok()) return;
  CHECK_EQ(checkpoint.value()->layout_name(), "q8 (compressed-tensors, group 32)");
  const auto matrix = checkpoint.value()->read_matrix("model.layers.0.attention.dense", 64, 64);
  CHECK(matrix->format == WeightFormat::kQ8 && matrix->group_columns == 32 && matrix->scales.size() == 128);
  const int8_t expected[] = {0, -1, 127, -128, 4, 3, 2, 1, 0};
  CHECK(std::memcmp(matrix->data.data(), expected, sizeof expected) == 0);
  float row[64];
  matrix->row_to_float(0, row);
  CHECK_EQ(row[2], 63.5f);
  CHECK_EQ(row[3], -64.0f);
  CHECK_EQ(row[32], 6.0f);
  CHECK(checkpoint.value()->read_matrix("lm_head", 512, 64)->format == WeightFormat::kBF16);
}

TEST("packed: one scale a row") {
  StoredModel model = packed_model();
  CHECK(model.edit_config("\"strategy\": \"group\", \"group_size\": 32", "\"strategy\": \"channel\""));
  StoredTensor& scales = model.at("model.layers.0.attention.dense.weight_scale");
  scales.info.shape = {64, 1};
  scales.info.dtype = Dtype::kF32;
  TempFolder folder;
  model.write(folder.path());
  const auto checkpoint = Checkpoint::open(folder.path());
  CHECK(checkpoint.ok());
  if (!checkpoint.ok()) return;
  CHECK_EQ(checkpoint.value()->layout_name(), "q8 (compressed-tensors, channel)");
  CHECK_EQ(checkpoint.value()->read_matrix("model.layers.0.attention.dense", 64, 64)->group_columns, 64);
}

TEST("packed: parts that are missing, misshapen, of another type or untrue") {
  const std::string base = "model.layers.0.attention.dense.weight";
  for (const char* part : {"_packed", "_scale", "_shape"}) {
    StoredModel model = packed_model();
    model.remove(base + part);
    CHECK_EQ(opened(model, base + part), "tensor-missing");
    model = packed_model();
    model.at(base + part).info.dtype = part[1] == 'p' ? Dtype::kU32 : part[2] == 'c' ? Dtype::kI16 : Dtype::kU64;
    CHECK_EQ(opened(model, base + part), "tensor-dtype");
    model = packed_model();
    const TensorInfo& info = model.at(base + part).info;
    model.at(base + part).info.shape = {info.length_bytes / dtype_bytes(info.dtype), 1};
    CHECK_EQ(opened(model, base + part), "tensor-shape");
  }
  StoredModel model = packed_model();
  model.at(base + "_shape").bytes[0] = 65;
  CHECK_EQ(opened(model, base + "_shape"), "tensor-shape");
  model = packed_model();
  model.at(base + "_scale").bytes.replace(0, 2, "\xC0\x7F");
  TempFolder folder;
  model.write(folder.path());
  const auto checkpoint = Checkpoint::open(folder.path());
  CHECK_EQ(outcome(checkpoint.value()->read_matrix("model.layers.0.attention.dense", 64, 64)), "file-malformed");
  model = packed_model();
  model.add("model.layers.0.attention.dense.weight_g_idx", Dtype::kI32, {64}, zeros(256));
  CHECK_EQ(opened(model, "g_idx"), "tensor-unknown");
  model = packed_model();
  model.add(base, Dtype::kBF16, {64, 64}, zeros(8192));
  CHECK_EQ(opened(model, base), "tensor-missing");
}

TEST("packed: what is stored must agree with targets and ignore") {
  StoredModel model = StoredModel::read(kGolden);
  pack(model, "model.layers.0.attention.dense");
  CHECK_EQ(opened(model, "dense.weight"), "tensor-missing");  // no quantization_config
  model = packed_model();
  CHECK(model.edit_config("\"lm_head\"", "\"model.layers.0.attention.dense\""));
  CHECK_EQ(opened(model, "model.layers.0.attention.dense"), "quantization-unsupported");
  model = packed_model();
  CHECK(model.edit_config("\"lm_head\"", "\"re:.*layers\\\\.0\\\\.attention.*\""));
  CHECK_EQ(opened(model, "model.layers.0.attention.dense"), "quantization-unsupported");
  model = packed_model();
  CHECK(model.edit_config("\"targets\": [\"model.layers.0.attention.dense\"]", "\"targets\": [\"Linear\"]"));
  CHECK_EQ(opened(model, "model.layers.0.attention.query_key_value.weight_packed"), "tensor-missing");
  CHECK(model.edit_config("\"lm_head\"", "\"re:.*(proj|query_key_value|head|dense\\\\d)$\", \"re:.*layers.[1-6].*\""));
  CHECK_EQ(opened(model), "accepted");
  CHECK_EQ(opened(packed_model("model.layers.1.mlp.gate"), "model.layers.1.mlp.gate"), "quantization-unsupported");
}

TEST("packed: quantisation this version does not read is refused by the field's name") {
  struct Case {
    std::string from, to, field;
  };
  std::string many_patterns = "\"re:a\"";
  for (int i = 0; i < 32; ++i) many_patterns += ",\"re:a\"";
  const std::vector<Case> cases = {
      {"\"num_bits\": 8", "\"num_bits\": 3", "config_groups.group_0.weights.num_bits"},
      {"\"num_bits\": 8", "\"num_bits\": \"8\"", "weights.num_bits"},
      {"\"num_bits\": 8, ", "", "weights.num_bits"},
      {"\"type\": \"int\"", "\"type\": \"float\"", "weights.type"},
      {"\"symmetric\": true", "\"symmetric\": 1", "weights.symmetric"},
      {"\"symmetric\": true, ", "", "weights.symmetric"},
      {"\"strategy\": \"group\"", "\"strategy\": \"tensor\"", "weights.strategy"},
      {"\"group_size\": 32", "\"group_size\": 128", "model.layers.0.attention.dense"},  // of 64 columns
      {"\"group_size\": 32", "\"group_size\": 16", "weights.group_size"},
      {"\"group_size\": 32", "\"group_size\": 0", "weights.group_size"},
      {"\"group_size\": 32", "\"group_size\": -32", "weights.group_size"},
      {"\"group_size\": 32", "\"group_size\": 32.0", "weights.group_size"},
      {"\"group_size\": 32", "\"group_size\": 32, \"actorder\": \"random\"", "weights.actorder"},
      {"\"group_size\": 32", "\"group_size\": 32, \"dynamic\": true", "weights.dynamic"},
      {"\"input_activations\": null", "\"input_activations\": {\"num_bits\": 8}", "input_activations"},
      {"\"input_activations\": null", "\"output_activations\": {\"num_bits\": 8}", "output_activations"},
      {"\"input_activations\": null", "\"format\": \"int-quantized\"", "group_0.format"},
      {"\"compressed-tensors\"", "\"awq\"", "quant_method"},
      {"\"compressed-tensors\"", "\"fbgemm_fp8\"", "quant_method"},
      {"\"compressed-tensors\"", "8", "quant_method"},
      {"\"pack-quantized\"", "\"float-quantized\"", "format"},
      {"\"ignore\": [", "\"kv_cache_scheme\": {}, \"ignore\": [", "kv_cache_scheme"},
      {"\"ignore\": [", "\"sparsity_config\": {\"format\": \"dense\"}, \"ignore\": [", "sparsity_config"},
      {"\"config_groups\": {", "\"config_groups\": {\"other\": {}, ", "config_groups"},
      {"\"config_groups\"", "\"groups\"", "config_groups"},
      {"\"targets\": [\"model.layers.0.attention.dense\"]", "\"targets\": []", "targets"},
      {"\"targets\": [\"model.layers.0.attention.dense\"]", "\"targets\": \"Linear\"", "targets"},
      {"\"re:.*mlp.gate$\"", "\"re:(a{1,1000}){1,1000}\"", "ignore"},
      {"\"re:.*mlp.gate$\"", "\"re:(\"", "ignore"},
      {"\"re:.*mlp.gate$\"", many_patterns, "ignore"},
      {"\"re:.*mlp.gate$\"", "1", "ignore"},
      {"\"ignore\": [", "\"ignore\": 1, \"x\": [", "ignore"},
      {"\"re:.*mlp.gate$\"", "\"re:" + std::string(129, 'a') + "\"", "ignore"},
  };
  for (const Case& c : cases) {
    StoredModel model = packed_model();
    if (!model.edit_config(c.from, c.to)) check::fail(__FILE__, __LINE__, c.from + " is not there");
    const std::string got = opened(model, c.field);
    if (got != "quantization-unsupported") check::fail(__FILE__, __LINE__, c.to + ": " + got);
  }
  StoredModel model = packed_model();
  const size_t start = model.config.find("{\"quant_method\"");
  const size_t end = model.config.find("}, \"architectures\"");
  model.config.replace(start, end + 1 - start, "4");
  CHECK_EQ(opened(model, "quantization_config"), "quantization-unsupported");
}
