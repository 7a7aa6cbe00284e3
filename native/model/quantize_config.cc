#include "model/quantize_config.h"

#include <algorithm>

#include "io/json.h"

namespace ringside {
namespace {

// Where one member of the outermost object stands, from its key's quote to the end of its value.
struct Extent {
  size_t begin = 0;
  size_t end = 0;
};

// Walks over the outermost members of a text that is known to be good JSON.
class MemberScan {
 public:
  explicit MemberScan(std::string_view text) : text_(text), at_(text.find('{') + 1) {}

  // False after the last one. `key` is as it is spelled in the text.
  bool next(std::string_view& key, Extent& extent) {
    at_ = text_.find_first_not_of(" \t\r\n,", at_);
    if (at_ == std::string_view::npos || text_[at_] == '}') return false;
    extent.begin = at_;
    skip_string();
    key = text_.substr(extent.begin + 1, at_ - extent.begin - 2);
    at_ = text_.find(':', at_) + 1;
    skip_value();
    extent.end = text_.find_last_not_of(" \t\r\n", at_ - 1) + 1;
    return true;
  }

 private:
  void skip_string() {
    for (++at_; text_[at_] != '"'; ++at_) at_ += text_[at_] == '\\' ? 1 : 0;
    ++at_;
  }

  // Stops at the comma or the brace behind the value.
  void skip_value() {
    for (int depth = 0; at_ < text_.size();) {
      const char c = text_[at_];
      if (c == '"') {
        skip_string();
        continue;
      }
      if (depth == 0 && (c == ',' || c == '}')) return;
      depth += c == '{' || c == '[' ? 1 : c == '}' || c == ']' ? -1 : 0;
      ++at_;
    }
  }

  std::string_view text_;
  size_t at_;
};

// Both names are in use: MLX writes the second, and often the first beside it.
bool tells_quantization(std::string_view key) { return key == "quantization_config" || key == "quantization"; }

std::string without_quantization(std::string_view text) {
  std::string kept;
  size_t copied = 0;    // of `text`
  size_t last_end = 0;  // of the last member that was kept
  MemberScan scan(text);
  std::string_view key;
  Extent extent;
  while (scan.next(key, extent)) {
    if (!tells_quantization(key)) {
      last_end = extent.end;
      continue;
    }
    // With it goes the comma before it, or, where it is the first, the one behind it.
    if (last_end != 0) {
      if (copied < last_end) kept += text.substr(copied, last_end - copied);
      copied = extent.end;
    } else {
      kept += text.substr(copied, extent.begin - copied);
      copied = std::min(text.find_first_not_of(" \t\r\n,", extent.end), text.size());
    }
  }
  return kept + std::string(text.substr(copied));
}

std::string group_text(const char* name, const std::string& targets, int bits, int group_columns) {
  return std::string("      \"") + name +
         "\": {\n"
         "        \"targets\": [" +
         targets +
         "],\n"
         "        \"weights\": {\n"
         "          \"num_bits\": " +
         std::to_string(bits) +
         ",\n"
         "          \"type\": \"int\",\n"
         "          \"symmetric\": true,\n"
         "          \"strategy\": \"group\",\n"
         "          \"group_size\": " +
         std::to_string(group_columns) +
         ",\n"
         "          \"dynamic\": false\n"
         "        },\n"
         "        \"input_activations\": null,\n"
         "        \"output_activations\": null\n"
         "      }";
}

std::string quantization_config_text(const QuantizeOptions& options) {
  std::string groups;
  if (options.bits == options.head_bits) {
    groups = group_text("group_0", "\"Linear\", \"Embedding\"", options.bits, options.group_columns);
  } else {
    // A pattern that matches a module's name goes before its class, so that lm_head is of the second group alone.
    groups =
        group_text("group_0", "\"Linear\"", options.bits, options.group_columns) + ",\n" +
        group_text("group_1", "\"re:.*lm_head$\", \"re:.*word_embeddings$\"", options.head_bits, options.group_columns);
  }
  return "{\n"
         "    \"quant_method\": \"compressed-tensors\",\n"
         "    \"format\": \"pack-quantized\",\n"
         "    \"quantization_status\": \"compressed\",\n"
         "    \"config_groups\": {\n" +
         groups +
         "\n    },\n"
         "    \"kv_cache_scheme\": null,\n"
         "    \"ignore\": [\"re:.*\\\\.mlp\\\\.gate$\"]\n"
         "  }";
}

}  // namespace

Result<std::string> with_quantization_config(std::string_view text, const QuantizeOptions& options,
                                             const std::string& path) {
  const std::string kept = without_quantization(text);
  const size_t brace = kept.find_last_of('}');
  const size_t last = kept.find_last_not_of(" \t\r\n", brace - 1);
  std::string result = kept.substr(0, last + 1) + ",\n  \"quantization_config\": " + quantization_config_text(options) +
                       "\n" + kept.substr(brace);
  // A key can be spelled with escapes, and then the new member would be its double.
  json::Document document;
  RS_CHECK(document.parse(result, path));
  return result;
}

}  // namespace ringside
