// Owns: what each layout refuses, and by which name: every sort of damage to the golden models, every field of a
// configuration that this version does not read.
#include <cmath>
#include <string>
#include <vector>

#include "allocation_counter.h"
#include "check.h"
#include "model/checkpoint.h"
#include "model/float_formats.h"
#include "stored_model.h"
#include "temp_folder.h"

using namespace ringside;

namespace {

constexpr const char* kFolders[] = {"bf16",          "fp8",       "pack-quantized", "gptq",    "gptq-v2",
                                    "gptq-desc-act", "gptq-8bit", "mlx-4bit",       "mlx-8bit"};

StoredModel golden(const std::string& folder) { return StoredModel::read(RS_GOLDEN_DIR "/layouts/" + folder); }

// "accepted", or the kind of the error, which must name `name`.
std::string outcome(const Status& status, const std::string& name) {
  if (status.ok()) return "accepted";
  if (status.error().subject.find(name) == std::string::npos) {
    return "an error without the name: " + status.error().message();
  }
  return error_kind_name(status.error().kind);
}

std::string opened(const StoredModel& model, const std::string& name = "") {
  TempFolder folder;
  model.write(folder.path());
  const auto checkpoint = Checkpoint::open(folder.path());
  return outcome(checkpoint.ok() ? Status(Unit{}) : Status(checkpoint.error()), name);
}

// Opens the model, which must succeed, and reads one matrix of it.
std::string read(const StoredModel& model, const std::string& base, int64_t rows, int64_t cols,
                 const std::string& name) {
  TempFolder folder;
  model.write(folder.path());
  const auto checkpoint = Checkpoint::open(folder.path());
  if (!checkpoint.ok()) return "not opened: " + checkpoint.error().message();
  Matrix matrix;
  return outcome(checkpoint.value()->read_rows(base, rows, cols, 0, rows, matrix), name);
}

void expect(const std::string& got, const std::string& wanted, const std::string& about) {
  if (got != wanted) check::fail(__FILE__, __LINE__, about + ": " + got + " is not " + wanted);
}

struct Edit {
  std::string from, to, field;
};

// Each edit of config.json must be refused by the field's name.
void expect_unsupported(const std::string& folder, const std::vector<Edit>& edits) {
  for (const Edit& edit : edits) {
    StoredModel model = golden(folder);
    if (!model.edit_config(edit.from, edit.to)) check::fail(__FILE__, __LINE__, edit.from + " is not there");
    expect(opened(model, edit.field), "quantization-unsupported", folder + " with " + edit.to);
  }
}

Dtype another(Dtype dtype) {
  switch (dtype_bytes(dtype)) {
    case 1:
      return Dtype::kI8;
    case 2:
      return Dtype::kI16;
    case 8:
      return Dtype::kU64;
    default:
      return dtype == Dtype::kI32 ? Dtype::kU32 : Dtype::kI32;
  }
}

}  // namespace

TEST("layout errors: every tensor of every layout is missed by its module's name") {
  for (const char* folder : kFolders) {
    const StoredModel model = golden(folder);
    CHECK(model.tensors.size() > 30);
    for (size_t i = 0; i < model.tensors.size(); ++i) {
      const std::string& name = model.tensors[i].info.name;
      // Columns in order need no list of groups.
      const bool is_optional = name.ends_with(".g_idx") && std::string(folder) != "gptq-desc-act";
      StoredModel without = model;
      without.tensors.erase(without.tensors.begin() + static_cast<long>(i));
      std::string wanted = is_optional ? "accepted" : "tensor-missing";
      // Without its scales, a matrix of MLX counts as one that was left as it is.
      if (name.ends_with(".scales") && std::string(folder).starts_with("mlx")) {
        const bool is_named = without.config.find("\"" + name.substr(0, name.size() - 7) + "\"") != std::string::npos;
        wanted = is_named ? "tensor-missing" : "tensor-dtype";
      }
      const std::string module = name.substr(0, name.rfind('.'));
      expect(opened(without, module), wanted, std::string(folder) + " without " + name);
    }
  }
}

TEST("layout errors: every tensor's dtype and shape are checked in every layout") {
  for (const char* folder : kFolders) {
    const StoredModel model = golden(folder);
    for (size_t i = 0; i < model.tensors.size(); ++i) {
      const TensorInfo& info = model.tensors[i].info;
      StoredModel wrong = model;
      wrong.tensors[i].info.dtype = another(info.dtype);
      expect(opened(wrong, info.name), "tensor-dtype", std::string(folder) + ": " + info.name);
      wrong = model;
      wrong.tensors[i].info.shape = {1, info.length_bytes / dtype_bytes(info.dtype), 1, 1};
      expect(opened(wrong, info.name), "tensor-shape", std::string(folder) + ": " + info.name);
    }
  }
}

TEST("layout errors: tensors beside those of the layout") {
  for (const char* folder : kFolders) {
    for (const char* name : {"model.layers.0.attention.dense.bias", "model.layers.0.attention.dense.input_scale",
                             "model.layers.1.mlp.experts.8.up_proj.weight", "lm_head.weight_zero_point"}) {
      StoredModel model = golden(folder);
      model.add(name, Dtype::kF32, {1}, std::string(4, '\0'));
      expect(opened(model, name), "tensor-unknown", std::string(folder) + " with " + name);
    }
  }
}

TEST("layout errors: whichever allocation fails, the answer is out-of-memory") {
  for (const char* folder : kFolders) {
    const std::string path = std::string(RS_GOLDEN_DIR "/layouts/") + folder;
    bool finished = false;
    for (long nth = 1; !finished && nth < 100'000; nth += nth < 100 ? 1 : 23) {
      allocation::fail_in = nth;
      std::string got = "accepted";
      {
        const auto checkpoint = Checkpoint::open(path);
        finished = allocation::fail_in > 0;
        allocation::fail_in = 0;
        if (!checkpoint.ok()) got = error_kind_name(checkpoint.error().kind);
      }
      CHECK_EQ(got, std::string(finished ? "accepted" : "out-of-memory"));
    }
    const auto checkpoint = Checkpoint::open(path);
    Matrix matrix;
    const std::string base = "model.layers.0.attention.query_key_value";
    int failures = 0;
    for (long nth = 1; nth < 30; ++nth) {
      Matrix fresh;
      allocation::fail_in = nth;
      const Status status = checkpoint.value()->read_rows(base, 384, 64, 0, 384, fresh);
      const bool failed = allocation::fail_in <= 0;
      allocation::fail_in = 0;
      CHECK_EQ(status.ok(), !failed);
      if (failed) CHECK(status.error().kind == ErrorKind::kOutOfMemory);
      failures += failed ? 1 : 0;
    }
    CHECK(failures >= 2);
  }
}

TEST("fp8: fields that this version does not read") {
  expect_unsupported("fp8", {
                                {"\"e4m3\"", "\"e5m2\"", "quantization_config.fmt"},
                                {"\"dynamic\"", "\"static\"", "quantization_config.activation_scheme"},
                                {"128,\n   128", "64,\n   64", "quantization_config.weight_block_size"},
                                {"128,\n   128", "128", "quantization_config.weight_block_size"},
                                {"128,\n   128", "128,\n   128, 128", "quantization_config.weight_block_size"},
                                {"weight_block_size", "weight_blocks", "quantization_config.weight_block_size"},
                                {"\"fp8\"", "\"fbgemm_fp8\"", "quantization_config.quant_method"},
                            });
}

TEST("fp8: a code or scale that is no number") {
  const std::string base = "model.layers.0.attention.dense";
  for (const char* code : {"\x7F", "\xFF"}) {
    StoredModel model = golden("fp8");
    model.at(base + ".weight").bytes.replace(8191, 1, code, 1);
    expect(read(model, base, 64, 128, base + ".weight"), "file-malformed", "NaN");
  }
  StoredModel model = golden("fp8");
  model.at(base + ".weight_scale_inv").bytes.replace(0, 4, std::string("\x00\x00\x80\x7F", 4));
  expect(read(model, base, 64, 128, base + ".weight_scale_inv"), "file-malformed", "an infinite scale");
}

TEST("fp8: codes are e4m3fn") {
  CHECK_EQ(fp8_to_float(0x00), 0.0f);
  CHECK_EQ(fp8_to_float(0x01), 0x1p-9f);
  CHECK_EQ(fp8_to_float(0x07), 7 * 0x1p-9f);
  CHECK_EQ(fp8_to_float(0x08), 0x1p-6f);
  CHECK_EQ(fp8_to_float(0x38), 1.0f);
  CHECK_EQ(fp8_to_float(0xB9), -1.125f);
  CHECK_EQ(fp8_to_float(0x7E), 448.0f);
  CHECK_EQ(fp8_to_float(0xFE), -448.0f);
  CHECK(std::isnan(fp8_to_float(0x7F)) && std::isnan(fp8_to_float(0xFF)));
}

TEST("pack-quantized: groups of columns that the file may not name") {
  const std::string base = "model.layers.0.attention.query_key_value";
  StoredModel model = golden("pack-quantized");
  model.at(base + ".weight_g_idx").bytes.replace(0, 4, std::string("\x02\x00\x00\x00", 4));
  expect(read(model, base, 384, 64, base + ".weight_g_idx"), "file-malformed", "a group that is not there");
  model.at(base + ".weight_g_idx").bytes.replace(0, 4, std::string("\xFE\xFF\xFF\xFF", 4));
  expect(read(model, base, 384, 64, base + ".weight_g_idx"), "file-malformed", "a negative group");
  // -1 means that the order was never set.
  model.at(base + ".weight_g_idx").bytes.assign(256, '\xFF');
  expect(read(model, base, 384, 64, ""), "accepted", "no order");
}

TEST("pack-quantized: columns that are no whole words") {
  StoredModel model = golden("pack-quantized");
  CHECK(model.edit_config("\"re:.*layers\\\\.0\\\\.mlp\\\\.down_proj$\"", "\"re:.*layers\\\\.0\\\\.mlp\\\\.none$\""));
  // 192 columns are whole groups of 32, but the packed width is that of 8 bits.
  expect(opened(model, "model.layers.0.mlp.down_proj.weight_packed"), "tensor-shape", "another scheme");
}

TEST("gptq: fields that this version does not read") {
  expect_unsupported("gptq", {
                                 {"\"bits\": 4", "\"bits\": 3", "quantization_config.bits"},
                                 {"\"bits\": 4", "\"bits\": \"4\"", "quantization_config.bits"},
                                 {"\"bits\": 4,", "", "quantization_config.bits"},
                                 {"\"group_size\": 32", "\"group_size\": 16", "quantization_config.group_size"},
                                 {"\"group_size\": 32", "\"group_size\": 0", "quantization_config.group_size"},
                                 {"\"bits\": 4", "\"bits\": 4, \"checkpoint_format\": \"marlin\"", "checkpoint_format"},
                                 {"\"bits\": 4", "\"bits\": 4, \"format\": \"gptq_p\"", "quantization_config.format"},
                                 {"\"bits\": 4", "\"bits\": 4, \"pack_dtype\": \"int16\"", "pack_dtype"},
                                 {"\"bits\": 4", "\"bits\": 4, \"rotation\": \"hadamard\"", "rotation"},
                                 {"\"bits\": 4", "\"bits\": 4, \"adapter\": {\"name\": \"lora\"}", "adapter"},
                                 {"\"bits\": 4", "\"bits\": 4, \"is_marlin_format\": true", "is_marlin_format"},
                                 {"\"desc_act\": false", "\"desc_act\": 1", "desc_act"},
                                 {"\"bits\": 4", "\"bits\": 4, \"dynamic\": []", "dynamic"},
                                 {"\"bits\": 4", "\"bits\": 4, \"dynamic\": {\"-:(\": {}}", "dynamic.-:("},
                                 {"\"bits\": 4", "\"bits\": 4, \"dynamic\": {\"a\": {\"bits\": 2}}", "dynamic.a.bits"},
                                 {"\"bits\": 4", "\"bits\": 4, \"dynamic\": {\"-:.*dense$\": {}}", "attention.dense"},
                             });
}

TEST("gptq: groups that are not there, scales that are no numbers") {
  const std::string base = "model.layers.0.attention.dense";
  StoredModel model = golden("gptq-desc-act");
  model.at(base + ".g_idx").bytes.replace(0, 4, std::string("\x04\x00\x00\x00", 4));
  expect(read(model, base, 64, 128, base + ".g_idx"), "file-malformed", "group 4 of 0 to 3");
  model = golden("gptq");
  model.at(base + ".scales").bytes.replace(0, 2, std::string("\x00\x7C", 2));
  expect(read(model, base, 64, 128, base + ".scales"), "file-malformed", "an infinite scale");
}

TEST("mlx: fields that this version does not read") {
  const std::string router = "quantization.model.layers.1.mlp.gate.gate_proj";
  expect_unsupported(
      "mlx-4bit",
      {
          {"\"bits\": 4", "\"bits\": 3", "quantization.bits"},
          {"\"bits\": 4,", "", "quantization.bits"},
          {"\"group_size\": 64", "\"group_size\": 256", "quantization.group_size"},
          {"\"affine\"", "\"mxfp4\"", "quantization.mode"},
          {"\"group_size\": 64,\n   \"bits\": 8", "\"group_size\": 64,\n   \"bits\": 6", router + ".bits"},
          {"\"group_size\": 64,\n   \"bits\": 8", "\"group_size\": 16,\n   \"bits\": 8", router + ".group_size"},
          {"\"group_size\": 64,\n   \"bits\": 8", "\"mode\": \"nvfp4\"", router + ".mode"},
          {"\"mode\": \"affine\"", "\"mode\": \"affine\", \"lm_head\": false", "lm_head"},
          {"\"quantization\": {", "\"quantization\": 4, \"more\": {", "quantization"},
      });
}

TEST("mlx: the copy of the configuration does as well") {
  StoredModel model = golden("mlx-4bit");
  CHECK(model.edit_config("\"quantization\": {", "\"something_else\": {"));
  expect(opened(model), "accepted", "quantization_config alone");
}

TEST("mlx: a stack holds as many matrices as there are experts") {
  StoredModel model = golden("mlx-8bit");
  for (const char* part : {"weight", "scales", "biases"}) {
    const std::string name = std::string("model.layers.1.mlp.switch_mlp.up_proj.") + part;
    StoredTensor& tensor = model.at(name);
    tensor.bytes += tensor.bytes.substr(0, tensor.bytes.size() / 8);
    tensor.info.shape = {9, tensor.info.shape[1], tensor.info.shape[2]};
    tensor.info.length_bytes = static_cast<int64_t>(tensor.bytes.size());
    expect(opened(model, "switch_mlp.up_proj"), "tensor-shape", name);
  }
}

TEST("mlx: an unquantised conversion") {
  StoredModel model = golden("bf16");
  const std::string layer = "model.layers.1.mlp.";
  for (const char* part : {"gate_proj", "up_proj", "down_proj"}) {
    std::string stack;
    Shape shape;
    for (int expert = 0; expert < 8; ++expert) {
      const std::string name = layer + "experts." + std::to_string(expert) + "." + part + ".weight";
      stack += model.at(name).bytes;
      shape = {8, model.at(name).info.shape[0], model.at(name).info.shape[1]};
      model.remove(name);
    }
    model.add(layer + "switch_mlp." + part + ".weight", Dtype::kBF16, shape, stack);
  }
  model.at(layer + "gate.weight").info.name = layer + "gate.gate_proj.weight";
  TempFolder folder;
  model.write(folder.path());
  const auto stacked = Checkpoint::open(folder.path());
  const auto plain = Checkpoint::open(RS_GOLDEN_DIR "/layouts/bf16");
  CHECK(stacked.ok() && plain.ok());
  if (!stacked.ok() || !plain.ok()) return;
  CHECK_EQ(stacked.value()->layout_name(), "bf16");
  const auto same = [&](const std::string& base, int64_t rows, int64_t cols) {
    const auto a = stacked.value()->read_matrix(base, rows, cols);
    const auto b = plain.value()->read_matrix(base, rows, cols);
    return a.ok() && b.ok() && a->format == WeightFormat::kBF16 && a->data == b->data;
  };
  CHECK(same(layer + "gate", 8, 64));
  CHECK(same(layer + "experts.0.gate_proj", 32, 64));
  CHECK(same(layer + "experts.7.down_proj", 64, 32));
  CHECK(same(layer + "shared_experts.up_proj", 32, 64));
}
