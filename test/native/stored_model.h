// A checkpoint folder taken apart into tensors, so that a test can spoil one of them and write it again.
#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "temp_folder.h"

struct StoredTensor {
  ringside::TensorInfo info;
  std::string bytes;
};

struct StoredModel {
  std::string config;
  std::vector<StoredTensor> tensors;

  static StoredModel read(const std::string& folder) {
    StoredModel model;
    model.config = file_content(folder + "/config.json");
    const auto file = ringside::SafetensorsFile::open(folder + "/model.safetensors");
    if (!file.ok()) return model;
    for (const ringside::TensorInfo& info : file->tensors()) {
      std::string bytes(static_cast<size_t>(info.length_bytes), '\0');
      if (file->read(info, 0, bytes.data(), info.length_bytes).ok()) model.tensors.push_back({info, bytes});
    }
    return model;
  }

  StoredTensor& at(const std::string& name) {
    return *std::find_if(tensors.begin(), tensors.end(), [&](const StoredTensor& t) { return t.info.name == name; });
  }
  void remove(const std::string& name) {
    std::erase_if(tensors, [&](const StoredTensor& t) { return t.info.name == name; });
  }
  void add(const std::string& name, ringside::Dtype dtype, ringside::Shape shape, std::string bytes) {
    StoredTensor tensor;
    tensor.info.name = name;
    tensor.info.dtype = dtype;
    tensor.info.shape = shape;
    tensor.info.length_bytes = static_cast<int64_t>(bytes.size());
    tensor.bytes = std::move(bytes);
    tensors.push_back(std::move(tensor));
  }
  // Text replacement in config.json; the old text must be there.
  bool edit_config(const std::string& from, const std::string& to) {
    const size_t at = config.find(from);
    if (at == std::string::npos) return false;
    config.replace(at, from.size(), to);
    return true;
  }

  void write(const std::string& folder) const {
    put_file(folder + "/config.json", config);
    write_file(folder + "/model.safetensors", tensors);
  }

  static void write_file(const std::string& path, const std::vector<StoredTensor>& tensors) {
    std::vector<ringside::TensorInfo> infos;
    for (const StoredTensor& tensor : tensors) infos.push_back(tensor.info);
    std::string content = ringside::layout_safetensors(infos);
    for (const ringside::TensorInfo& info : infos) {
      const auto tensor =
          std::find_if(tensors.begin(), tensors.end(), [&](const StoredTensor& t) { return t.info.name == info.name; });
      content += tensor->bytes;
    }
    put_file(path, content);
  }
};
