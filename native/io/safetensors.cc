#include "io/safetensors.h"

#include <algorithm>
#include <initializer_list>
#include <new>
#include <utility>

#include "io/json.h"

namespace ringside {
namespace {

struct DtypeRow {
  std::string_view name;
  int64_t bytes;
};

// In the order of the enumeration.
constexpr DtypeRow kDtypes[] = {
    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"U16", 2}, {"I16", 2}, {"F16", 2},
    {"BF16", 2}, {"U32", 4}, {"I32", 4}, {"F32", 4},     {"U64", 8},     {"I64", 8}, {"F64", 8},
};

// Product of a shape and an element width, or -1 when it does not fit.
int64_t checked_bytes(const Shape& shape, int64_t element_bytes) {
  int64_t bytes = element_bytes;
  for (size_t i = 0; i < shape.dimensions(); ++i) {
    if (__builtin_mul_overflow(bytes, shape[i], &bytes)) return -1;
  }
  return bytes;
}

// Reads one header. Every function returns false after a mistake, which is then in reader_ or in error_.
class HeaderParser {
 public:
  HeaderParser(std::string_view header, int64_t data_start_bytes, int64_t file_bytes, const std::string& path)
      : reader_(header), data_start_bytes_(data_start_bytes), file_bytes_(file_bytes), path_(path) {}

  Result<std::vector<TensorInfo>> parse() {
    if (!read_members() || !reader_.finish()) return error_.subject.empty() ? reader_.error(path_) : error_;
    if (!check_coverage() || !check_names()) return error_;
    return std::move(tensors_);
  }

 private:
  bool refuse(ErrorKind kind, std::string subject, std::string expected, std::string actual) {
    error_ = Error{kind, std::move(subject), std::move(expected), std::move(actual)};
    return false;
  }

  bool read_members() {
    if (!reader_.begin_object()) return false;
    bool has_metadata = false;
    std::string_view key;
    while (reader_.next_member(key)) {
      if (key == "__metadata__") {
        if (std::exchange(has_metadata, true)) return reader_.fail("__metadata__ twice");
        if (!read_metadata()) return false;
        continue;
      }
      if (!is_tensor_name(key)) return reader_.fail("a tensor name that is not [a-zA-Z0-9_.]{1,128}");
      if (tensors_.size() == kMaxTensors) return reader_.fail("more than 131,072 tensors");
      tensors_.emplace_back().name = key;
      if (!read_tensor(tensors_.back())) return false;
    }
    return !reader_.failed();
  }

  bool read_metadata() {
    if (!reader_.begin_object()) return false;
    std::string_view text;
    while (reader_.next_member(text)) {
      if (!reader_.read_string(text)) return false;
    }
    return !reader_.failed();
  }

  bool read_tensor(TensorInfo& tensor) {
    if (!reader_.begin_object()) return false;
    bool has_dtype = false, has_shape = false, has_offsets = false;
    int64_t begin = 0, end = 0;
    std::string_view key;
    while (reader_.next_member(key)) {
      if (key == "dtype" && !std::exchange(has_dtype, true)) {
        if (!read_dtype(tensor)) return false;
      } else if (key == "shape" && !std::exchange(has_shape, true)) {
        if (!read_shape(tensor.shape)) return false;
      } else if (key == "data_offsets" && !std::exchange(has_offsets, true)) {
        if (!read_offsets(begin, end)) return false;
      } else {
        return reader_.fail("an unknown or repeated field of a tensor");
      }
    }
    if (reader_.failed()) return false;
    if (!has_dtype || !has_shape || !has_offsets) return reader_.fail("a tensor without dtype, shape or data_offsets");
    return place(tensor, begin, end);
  }

  bool read_dtype(TensorInfo& tensor) {
    std::string_view name;
    if (!reader_.read_string(name)) return false;
    const auto* row = std::find_if(std::begin(kDtypes), std::end(kDtypes), [&](auto& r) { return r.name == name; });
    if (row == std::end(kDtypes)) {
      return refuse(ErrorKind::kTensorDtype, tensor.name, "a dtype of the safetensors format",
                    std::string(name.substr(0, 32)));
    }
    tensor.dtype = static_cast<Dtype>(row - std::begin(kDtypes));
    return true;
  }

  bool read_count(int64_t& out) {
    json::Number number;
    if (!reader_.read_number(number)) return false;
    if (!number.is_integer || number.integer < 0)
      return reader_.fail("a size or offset that is not a whole number >= 0");
    out = number.integer;
    return true;
  }

  bool read_shape(Shape& shape) {
    if (!reader_.begin_array()) return false;
    int64_t size = 0;
    while (reader_.next_item()) {
      if (!read_count(size)) return false;
      if (!shape.append(size)) return reader_.fail("a tensor of more than 4 dimensions");
    }
    return !reader_.failed();
  }

  bool read_offsets(int64_t& begin, int64_t& end) {
    const bool two = reader_.begin_array() && reader_.next_item() && read_count(begin) && reader_.next_item() &&
                     read_count(end) && !reader_.next_item() && !reader_.failed();
    return two ? true : reader_.fail("data_offsets that are not two numbers");
  }

  // The one place where a tensor's size is worked out; what passes here lies inside the file.
  bool place(TensorInfo& tensor, int64_t begin, int64_t end) {
    const int64_t data_bytes = file_bytes_ - data_start_bytes_;
    const int64_t length = checked_bytes(tensor.shape, dtype_bytes(tensor.dtype));
    if (begin > end) return reader_.fail("a tensor that ends before it begins");
    if (length != end - begin) {
      return refuse(ErrorKind::kFileMalformed, path_ + ": " + tensor.name,
                    length < 0 ? "a shape whose bytes can be counted"
                               : std::to_string(length) + " bytes for " + std::string(dtype_name(tensor.dtype)) + " " +
                                     tensor.shape.text(),
                    std::to_string(end - begin) + " bytes");
    }
    if (end > data_bytes) {
      return refuse(ErrorKind::kFileTruncated, path_ + ": " + tensor.name, "data up to byte " + std::to_string(end),
                    std::to_string(data_bytes) + " bytes of data");
    }
    tensor.offset_bytes = data_start_bytes_ + begin;
    tensor.length_bytes = length;
    return true;
  }

  bool check_coverage() {
    // An empty tensor shares its offset with the next one and stands before it.
    std::sort(tensors_.begin(), tensors_.end(), [](const TensorInfo& a, const TensorInfo& b) {
      if (a.offset_bytes != b.offset_bytes) return a.offset_bytes < b.offset_bytes;
      return a.length_bytes < b.length_bytes;
    });
    int64_t at = data_start_bytes_;
    for (const TensorInfo& tensor : tensors_) {
      if (tensor.offset_bytes != at) {
        return refuse(ErrorKind::kFileMalformed, path_ + ": " + tensor.name,
                      "data at " + std::to_string(at - data_start_bytes_),
                      std::to_string(tensor.offset_bytes - data_start_bytes_));
      }
      at += tensor.length_bytes;
    }
    if (at != file_bytes_) {
      return refuse(ErrorKind::kFileMalformed, path_, "an end at byte " + std::to_string(at),
                    std::to_string(file_bytes_) + " bytes");
    }
    return true;
  }

  bool check_names() {
    std::vector<const TensorInfo*> sorted;
    sorted.reserve(tensors_.size());
    for (const TensorInfo& tensor : tensors_) sorted.push_back(&tensor);
    std::sort(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->name < b->name; });
    const auto twice =
        std::adjacent_find(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->name == b->name; });
    if (twice == sorted.end()) return true;
    return refuse(ErrorKind::kFileMalformed, path_ + ": " + (*twice)->name, "each tensor once", "the same name twice");
  }

  json::Reader reader_;
  const int64_t data_start_bytes_;
  const int64_t file_bytes_;
  const std::string& path_;
  std::vector<TensorInfo> tensors_;
  Error error_;
};

}  // namespace

std::string_view dtype_name(Dtype dtype) { return kDtypes[static_cast<size_t>(dtype)].name; }
int64_t dtype_bytes(Dtype dtype) { return kDtypes[static_cast<size_t>(dtype)].bytes; }

Shape::Shape(std::initializer_list<int64_t> sizes) {
  for (const int64_t size : sizes) append(size);
}

bool Shape::append(int64_t size) {
  if (dimensions_ == kMaxTensorDimensions) return false;
  sizes_[dimensions_++] = size;
  return true;
}

std::string Shape::text() const {
  std::string out = "[";
  for (size_t i = 0; i < dimensions_; ++i) out.append(i > 0 ? ", " : "").append(std::to_string(sizes_[i]));
  return out + "]";
}

bool is_tensor_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxTensorNameBytes && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
  });
}

Result<std::vector<TensorInfo>> parse_safetensors_header(std::string_view header, int64_t data_start_bytes,
                                                         int64_t file_bytes, const std::string& path) {
  try {
    // The format asks for it: nothing may stand before the object.
    if (header.empty() || header[0] != '{') {
      return Error{ErrorKind::kFileMalformed, path, "a header that begins with {", ""};
    }
    return HeaderParser(header, data_start_bytes, file_bytes, path).parse();
  } catch (const std::bad_alloc&) {
    return Error{ErrorKind::kOutOfMemory, path, "", ""};
  }
}

SafetensorsFile::SafetensorsFile(InputFile file, std::vector<TensorInfo> tensors)
    : file_(std::move(file)), tensors_(std::move(tensors)) {}

Result<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  RS_TRY(InputFile file, InputFile::open(path));
  unsigned char prefix[8];
  RS_CHECK(file.read(0, prefix, sizeof prefix));
  uint64_t header_bytes = 0;
  for (size_t i = 0; i < sizeof prefix; ++i) header_bytes |= uint64_t{prefix[i]} << (8 * i);
  if (header_bytes > static_cast<uint64_t>(kMaxSafetensorsHeaderBytes)) {
    return Error{ErrorKind::kFileMalformed, path,
                 "a header of at most " + std::to_string(kMaxSafetensorsHeaderBytes) + " bytes",
                 std::to_string(header_bytes) + " bytes"};
  }
  const int64_t data_start_bytes = static_cast<int64_t>(header_bytes) + 8;
  // Compared with the file before it sizes anything.
  if (data_start_bytes > file.length_bytes()) {
    return Error{ErrorKind::kFileTruncated, path, "a header up to byte " + std::to_string(data_start_bytes),
                 std::to_string(file.length_bytes()) + " bytes in all"};
  }
  try {
    std::string header(static_cast<size_t>(header_bytes), '\0');
    RS_CHECK(file.read(8, header.data(), static_cast<int64_t>(header.size())));
    RS_TRY(auto tensors, parse_safetensors_header(header, data_start_bytes, file.length_bytes(), path));
    return SafetensorsFile(std::move(file), std::move(tensors));
  } catch (const std::bad_alloc&) {
    return Error{ErrorKind::kOutOfMemory, path, std::to_string(header_bytes) + " bytes", ""};
  }
}

Status SafetensorsFile::read(const TensorInfo& tensor, int64_t offset_bytes, void* out, int64_t count_bytes) const {
  if (offset_bytes < 0 || count_bytes < 0 || offset_bytes > tensor.length_bytes ||
      count_bytes > tensor.length_bytes - offset_bytes) {
    return Error{ErrorKind::kInternal, tensor.name, "a part of its " + std::to_string(tensor.length_bytes) + " bytes",
                 std::to_string(count_bytes) + " bytes at " + std::to_string(offset_bytes)};
  }
  return file_.read(tensor.offset_bytes + offset_bytes, out, count_bytes);
}

std::string layout_safetensors(std::vector<TensorInfo>& tensors) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return dtype_bytes(a.dtype) > dtype_bytes(b.dtype);
  });
  std::string json = "{\"__metadata__\":{\"format\":\"pt\"}";
  int64_t at = 0;
  for (TensorInfo& tensor : tensors) {
    tensor.offset_bytes = at;
    tensor.length_bytes = checked_bytes(tensor.shape, dtype_bytes(tensor.dtype));
    at += tensor.length_bytes;
    json += ",\"" + tensor.name + "\":{\"dtype\":\"" + std::string(dtype_name(tensor.dtype)) + "\",\"shape\":[";
    for (size_t i = 0; i < tensor.shape.dimensions(); ++i) {
      json.append(i > 0 ? "," : "").append(std::to_string(tensor.shape[i]));
    }
    json += "],\"data_offsets\":[" + std::to_string(tensor.offset_bytes) + "," + std::to_string(at) + "]}";
  }
  json += "}";
  // Data that begins at a multiple of 8 lets a reader that maps the file use the tensors in place.
  json.append((8 - json.size() % 8) % 8, ' ');
  std::string start;
  for (int i = 0; i < 8; ++i) start += static_cast<char>((json.size() >> (8 * i)) & 0xFF);
  for (TensorInfo& tensor : tensors) tensor.offset_bytes += static_cast<int64_t>(json.size()) + 8;
  return start + json;
}

}  // namespace ringside
