// The file room: what a strict JSON parser, a safetensors header parser and the file calls must refuse, and how.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "allocation_counter.h"
#include "check.h"
#include "failing_calls.h"
#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "temp_folder.h"

using namespace ringside;

namespace {

std::string kind_of(const Error& error) { return error_kind_name(error.kind); }

template <class T>
std::string outcome(const Result<T>& result) {
  return result.ok() ? "accepted" : kind_of(result.error());
}

std::string parse_outcome(const std::string& text) {
  json::Document document;
  return outcome(document.parse(text, "x"));
}

std::string repeated(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

// A safetensors file with this header and `data_bytes` zeros.
std::string container(const std::string& header, size_t data_bytes) {
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>((header.size() >> (8 * i)) & 0xFF);
  return file + header + std::string(data_bytes, '\0');
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

}  // namespace

TEST("JSON: what is refused") {
  const std::vector<std::string> bad = {
      "",
      " ",
      "{",
      "}",
      "[",
      "]",
      "[1",
      "[1,",
      "[1,]",
      "[,1]",
      "[1 2]",
      "{\"a\"}",
      "{\"a\":}",
      "{\"a\":1,}",
      "{a:1}",
      "{'a':1}",
      "{1:2}",
      "{\"a\":1 \"b\":2}",
      "[1]]",
      "{}{}",
      "1 2",
      "nul",
      "nulll",
      "True",
      "NaN",
      "Infinity",
      "-Infinity",
      "+1",
      "01",
      "-01",
      "1.",
      ".5",
      "-",
      "1e",
      "1e+",
      "0x10",
      "1_000",
      "1e999",
      "-1e999",
      "//x\n1",
      "\"",
      "\"a",
      "\"\\",
      "\"\\x\"",
      "\"\\u12\"",
      "\"\\u+123\"",
      "\"\\ud800\"",
      "\"\\ud800x\"",
      "\"\\ud800\\u0041\"",
      "\"\\udc00\"",
      "\"a\nb\"",
      std::string("\"a\0b\"", 5),
      "\"\x01\"",
      "\"\x80\"",
      "\"\xC0\xAF\"",
      "\"\xED\xA0\x80\"",
      "\"\xF4\x90\x80\x80\"",
      "\"\xE2\x82\"",
      "\"\\n\xFF\"",
      "{\"a\":1,\"a\":2}",
      "{\"a\":1,\"\\u0061\":2}",
      "{\"x\":{\"a\":1,\"b\":2,\"a\":3}}",
      "\xEF\xBB\xBF{}",
      std::string("1\0", 2),
  };
  for (const std::string& text : bad) {
    if (parse_outcome(text) != "file-malformed") check::fail(__FILE__, __LINE__, "accepted or misnamed: " + text);
  }
}

TEST("JSON: depth is bounded, in lists, objects and both") {
  CHECK_EQ(parse_outcome(repeated("[", 32) + repeated("]", 32)), "accepted");
  CHECK_EQ(parse_outcome(repeated("[", 33) + repeated("]", 33)), "file-malformed");
  CHECK_EQ(parse_outcome(repeated("{\"a\":", 32) + "1" + repeated("}", 32)), "accepted");
  CHECK_EQ(parse_outcome(repeated("{\"a\":", 33) + "1" + repeated("}", 33)), "file-malformed");
  CHECK_EQ(parse_outcome(repeated("[", 1'000'000)), "file-malformed");
  json::Reader reader("[[1]]");
  CHECK(reader.skip() && reader.finish());
}

TEST("JSON: values come out exactly") {
  const std::string text =
      R"( {"i": 9223372036854775807, "m": -9223372036854775808, "big": 9223372036854775808, "real": 2.5e-1,
          "list": [1, "two", null, [], {}], "text": "a\"\\\/\b\f\n\r\t\u00e9\u20ac\ud83d\ude00é€😀", "": true} )";
  json::Document document;
  CHECK(document.parse(text, "x").ok());
  const json::Value root = document.root();
  CHECK_EQ(root.size(), 7u);
  CHECK(root.find("i").as_integer() == std::numeric_limits<int64_t>::max());
  CHECK(root.find("m").as_integer() == std::numeric_limits<int64_t>::min());
  CHECK(!root.find("big").as_integer().has_value());
  CHECK(root.find("big").as_number() == 9223372036854775808.0);
  CHECK(root.find("real").as_number() == 0.25);
  CHECK(!root.find("real").as_integer().has_value());
  CHECK(root.find("").as_bool() == true);
  CHECK(root.find("nothing").is_missing());
  CHECK(root.find("nothing").find("deeper").is_missing());
  CHECK_EQ(root.find("text").as_string(), "a\"\\/\b\f\n\r\té€😀é€😀");
  std::vector<json::Kind> kinds;
  for (const json::Value item : root.find("list")) kinds.push_back(item.kind());
  CHECK(kinds == std::vector<json::Kind>({json::Kind::kInteger, json::Kind::kString, json::Kind::kNull,
                                          json::Kind::kArray, json::Kind::kObject}));
  std::string keys;
  for (auto member = root.begin(); member != root.end(); ++member) keys += std::string(member.key()) + ",";
  CHECK_EQ(keys, "i,m,big,real,list,text,,");
}

TEST("JSON: a reader passes over any value and checks it on the way") {
  const auto skipped = [](const std::string& text) {
    json::Reader reader(text);
    return reader.skip() && reader.finish();
  };
  CHECK(skipped(R"({"a": [true, false, null, -1.5e-3, "\u00E9", {}], "b": {"a": []}})"));
  for (const char* text : {"[true, nul]", "[tru]", "[\"\\q\"]", "{\"a\": -}", "[1,]", "", "[[1, 2]", "x"})
    CHECK(!skipped(text));
  json::Reader reader("{\"a\": 1, \"a\": 2}");
  std::string_view key;
  json::Number number;
  CHECK(reader.begin_object() && reader.next_member(key) && !reader.read_null());
  // The first mistake stays, and nothing goes on after it.
  CHECK(reader.failed() && !reader.read_number(number) && !reader.next_member(key) && !reader.finish());
  CHECK(reader.error("x").actual.find("at byte 6") != std::string::npos);
}

TEST("JSON: what is quoted is read back") {
  const std::string text = "a\"\\\n\x01é/";
  const std::string quoted = json::quote(text);
  json::Document document;
  CHECK(document.parse(quoted, "x").ok());
  CHECK_EQ(document.root().as_string(), text);
}

TEST("errors: every kind has its own name, and a message names what there is") {
  std::vector<std::string> names;
  for (int32_t kind = 0; kind <= static_cast<int32_t>(ErrorKind::kInternal); ++kind) {
    const std::string name = error_kind_name(static_cast<ErrorKind>(kind));
    CHECK(name.size() > 5 && std::find(names.begin(), names.end(), name) == names.end());
    names.push_back(name);
  }
  CHECK_EQ((Error{ErrorKind::kTensorShape, "a.weight", "[1]", "[2]"}.message()),
           "tensor-shape: a.weight: expected [1], found [2]");
  CHECK_EQ((Error{ErrorKind::kFileMissing, "m", "", "no such file"}.message()), "file-missing: m: no such file");
  CHECK_EQ((Error{ErrorKind::kCancelled, "", "", ""}.message()), "cancelled");
}

TEST("JSON: a 20 MB text of a tokenizer's form takes well under a second") {
  std::string text = "{\"vocab\":{";
  for (int i = 0; i < 160'000; ++i) {
    text.append(i > 0 ? ",\"token" : "\"token").append(std::to_string(i)).append("\":").append(std::to_string(i));
  }
  text += "},\"merges\":[";
  for (int i = 0; text.size() < 20'000'000; ++i) {
    text.append(i > 0 ? ",[\"left" : "[\"left").append(std::to_string(i)).append("\",\"Ġright\"]");
  }
  text += "]}";
  json::Document document;
  const auto start = std::chrono::steady_clock::now();
  CHECK(document.parse(text, "x").ok());
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("  %.0f MB in %.0f ms\n", static_cast<double>(text.size()) / 1e6, seconds.count() * 1e3);
  CHECK_EQ(document.root().find("vocab").size(), 160'000u);
  CHECK(seconds.count() < 10.0);  // generous: sanitizer builds on a busy machine run this too
}

TEST("safetensors: a good header is read as it is") {
  TempFolder folder;
  const std::string header = "{\"__metadata__\":{\"format\":\"pt\"}," + tensor("b", "F32", "[2,3]", "[4,28]") + "," +
                             tensor("a.B_9", "I32", "[]", "[0,4]") + "}  ";
  put_file(folder / "m", container(header, 28));
  const auto file = SafetensorsFile::open(folder / "m");
  CHECK(file.ok());
  if (!file.ok()) return;
  const auto tensors = file->tensors();
  CHECK_EQ(tensors.size(), 2u);
  CHECK_EQ(tensors[0].name, "a.B_9");
  CHECK_EQ(tensors[1].shape.text(), "[2, 3]");
  CHECK_EQ(tensors[1].offset_bytes, static_cast<int64_t>(header.size()) + 12);
  CHECK_EQ(tensors[1].length_bytes, 24);
  float values[6];
  CHECK(file->read(tensors[1], 0, values, 24).ok());
  CHECK_EQ(outcome(file->read(tensors[1], 8, values, 24)), "internal");
  CHECK_EQ(outcome(file->read(tensors[1], -1, values, 4)), "internal");
}

TEST("safetensors: attacks on the header") {
  const std::string good = tensor("a", "F32", "[1]", "[0,4]");
  const std::string name128(128, 'n');
  struct Case {
    std::string header;
    size_t data_bytes;
    std::string outcome;
  };
  const std::vector<Case> cases = {
      {"{" + good + "}", 4, "accepted"},
      {"{}", 0, "accepted"},
      {"{" + tensor(name128, "U8", "[4]", "[0,4]") + "}", 4, "accepted"},
      {"{" + tensor("a", "U8", "[0]", "[0,0]") + "}", 0, "accepted"},
      {"", 0, "file-malformed"},
      {" {" + good + "}", 4, "file-malformed"},
      {"[" + good + "]", 4, "file-malformed"},
      {"{" + good + "}x", 4, "file-malformed"},
      // Counts and products that overflow, as in the GGUF dimension attacks.
      {"{" + tensor("a", "F32", "[4611686018427387904,4]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + tensor("a", "F64", "[2147483648,2147483648,2]", "[0,0]") + "}", 0, "file-malformed"},
      {"{" + tensor("a", "F32", "[9223372036854775807]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + tensor("a", "F32", "[18446744073709551615]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + tensor("a", "F32", "[-1]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + tensor("a", "F32", "[1.0]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + tensor("a", "F32", "[1e0]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + tensor("a", "F32", "[\"1\"]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + tensor("a", "F32", "[1,1,1,1,1]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + tensor("a", "F32", "1", "[0,4]") + "}", 4, "file-malformed"},
      // Element type against byte count, as in the vocabulary type confusion.
      {"{" + tensor("a", "F64", "[1]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + tensor("a", "I8", "[1]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + tensor("a", "F4", "[1]", "[0,4]") + "}", 4, "tensor-dtype"},
      {"{" + tensor("a", "bf16", "[2]", "[0,4]") + "}", 4, "tensor-dtype"},
      {"{" + tensor("a", "", "[1]", "[0,4]") + "}", 4, "tensor-dtype"},
      // Offsets: past the end (the heap read of Bleeding Llama), reversed, negative, with holes, overlapping, left
      // over.
      {"{" + tensor("a", "F32", "[1]", "[0,4]") + "}", 3, "file-truncated"},
      {"{" + tensor("a", "U8", "[1000000]", "[0,1000000]") + "}", 4, "file-truncated"},
      {"{" + tensor("a", "F32", "[1]", "[9223372036854775800,9223372036854775804]") + "}", 4, "file-truncated"},
      {"{" + tensor("a", "F32", "[1]", "[4,0]") + "}", 4, "file-malformed"},
      {"{" + tensor("a", "F32", "[1]", "[-4,0]") + "}", 4, "file-malformed"},
      {"{" + tensor("a", "F32", "[1]", "[0]") + "}", 4, "file-malformed"},
      {"{" + tensor("a", "F32", "[1]", "[]") + "}", 4, "file-malformed"},
      {"{" + tensor("a", "F32", "[1]", "[0,4,4]") + "}", 4, "file-malformed"},
      {"{" + tensor("a", "F32", "[1]", "[0,4.0]") + "}", 4, "file-malformed"},
      {"{" + tensor("a", "F32", "[1]", "[1,5]") + "}", 5, "file-malformed"},
      {"{" + good + "}", 5, "file-malformed"},
      {"{" + good + "," + tensor("b", "F32", "[1]", "[2,6]") + "}", 6, "file-malformed"},
      {"{" + good + "," + tensor("b", "F32", "[1]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + good + "," + tensor("b", "F32", "[1]", "[5,9]") + "}", 9, "file-malformed"},
      // Names.
      {"{" + tensor("", "F32", "[1]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + tensor(name128 + "n", "F32", "[1]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + tensor("a/b", "F32", "[1]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + tensor("a b", "F32", "[1]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + tensor("\\u0000", "F32", "[1]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + tensor("é", "F32", "[1]", "[0,4]") + "}", 4, "file-malformed"},
      {"{" + good + "," + tensor("a", "F32", "[1]", "[4,8]") + "}", 8, "file-malformed"},
      {"{" + good + "," + tensor("\\u0061", "F32", "[1]", "[4,8]") + "}", 8, "file-malformed"},
      // Fields.
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 0, "file-malformed"},
      {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "file-malformed"},
      {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "file-malformed"},
      {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "file-malformed"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, "file-malformed"},
      {"{\"a\":null}", 0, "file-malformed"},
      {"{\"__metadata__\":{\"a\":1}}", 0, "file-malformed"},
      {"{\"__metadata__\":[]}", 0, "file-malformed"},
      {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "file-malformed"},
      {"{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, "file-malformed"},
  };
  TempFolder folder;
  for (const Case& c : cases) {
    put_file(folder / "m", container(c.header, c.data_bytes));
    const std::string got = outcome(SafetensorsFile::open(folder / "m"));
    if (got != c.outcome) check::fail(__FILE__, __LINE__, c.header + ": " + got + ", not " + c.outcome);
  }
}

TEST("safetensors: the header's own length is compared with the file") {
  TempFolder folder;
  const std::string good = container("{" + tensor("a", "F32", "[1]", "[0,4]") + "}", 4);
  const auto with_length = [&](uint64_t length) {
    std::string file = good;
    for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>((length >> (8 * i)) & 0xFF);
    put_file(folder / "m", file);
    size_t peak = 0;
    std::string got;
    peak = allocation::peak_of([&] { got = outcome(SafetensorsFile::open(folder / "m")); });
    CHECK(peak < 100'000);
    return got;
  };
  CHECK_EQ(with_length(good.size() - 12), "accepted");
  CHECK_EQ(with_length(good.size()), "file-truncated");
  CHECK_EQ(with_length(32 << 20), "file-truncated");
  CHECK_EQ(with_length((32 << 20) + 1), "file-malformed");
  CHECK_EQ(with_length(uint64_t{1} << 63), "file-malformed");
  CHECK_EQ(with_length(std::numeric_limits<uint64_t>::max()), "file-malformed");
  CHECK_EQ(with_length(std::numeric_limits<uint64_t>::max() - 7), "file-malformed");
  CHECK_EQ(with_length(0), "file-malformed");
  for (size_t length = 0; length < 8; ++length) {
    put_file(folder / "m", good.substr(0, length));
    CHECK_EQ(outcome(SafetensorsFile::open(folder / "m")), "file-truncated");
  }
}

TEST("safetensors: refusing a large bad header takes little memory") {
  std::string full = "{";
  for (int i = 0; i < 131'072; ++i) {
    const std::string name = "model.layers.1.mlp.experts." + std::to_string(i) + ".up_proj.weight";
    const std::string at = std::to_string(i);
    full.append(i > 0 ? "," : "").append(tensor(name, "U8", "[1]", "[" + at + "," + std::to_string(i + 1) + "]"));
  }
  const std::string one_more = full + "," + tensor("one.more", "U8", "[1]", "[131072,131073]") + "}";
  full += "}";
  // A header of empty lists would be costly to a parser that keeps every value.
  const std::string lists = "{\"a\":[" + repeated("[],", 2'000'000) + "[]]}";
  const std::string deep = "{\"__metadata__\":" + repeated("[", 8'000'000);
  TempFolder folder;
  const auto refuse = [&](const std::string& header, size_t data_bytes, const char* expected) {
    put_file(folder / "m", container(header, data_bytes));
    std::string got;
    const size_t peak = allocation::peak_of([&] { got = outcome(SafetensorsFile::open(folder / "m")); });
    CHECK_EQ(got, expected);
    std::printf("  header of %zu bytes: %zu bytes at the peak\n", header.size(), peak);
    CHECK(peak <= 2 * header.size() + (16u << 20));
  };
  refuse(full, 131'072, "accepted");
  refuse(full, 131'071, "file-truncated");
  refuse(full, 131'073, "file-malformed");
  refuse(one_more, 131'073, "file-malformed");
  refuse(lists, 0, "file-malformed");
  refuse(deep, 0, "file-malformed");
}

TEST("safetensors: what is laid out is read back, aligned") {
  std::vector<TensorInfo> tensors(3);
  tensors[0].name = "half";
  tensors[0].dtype = Dtype::kBF16;
  tensors[0].shape = {3};
  tensors[1].name = "byte";
  tensors[1].dtype = Dtype::kU8;
  tensors[1].shape = {5, 1};
  tensors[2].name = "wide";
  tensors[2].dtype = Dtype::kI64;
  tensors[2].shape = {2};
  const std::string start = layout_safetensors(tensors);
  TempFolder folder;
  put_file(folder / "m", start + std::string(16 + 6 + 5, '\1'));
  const auto file = SafetensorsFile::open(folder / "m");
  CHECK(file.ok());
  if (!file.ok()) return;
  CHECK_EQ(file->tensors().size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    CHECK_EQ(file->tensors()[i].name, tensors[i].name);
    CHECK_EQ(file->tensors()[i].offset_bytes, tensors[i].offset_bytes);
    CHECK_EQ(tensors[i].offset_bytes % dtype_bytes(tensors[i].dtype), 0);
  }
}

TEST("files: what cannot be read is named") {
  TempFolder folder;
  CHECK_EQ(outcome(InputFile::open(folder / "none")), "file-missing");
  CHECK_EQ(outcome(InputFile::open(folder.path())), "file-unreadable");
  CHECK_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  CHECK_EQ(outcome(InputFile::open(folder / "pipe")), "file-unreadable");
  CHECK_EQ(outcome(InputFile::open("/dev/zero")), "file-unreadable");
  put_file(folder / "text", "0123456789");
  CHECK_EQ(outcome(InputFile::open(folder / "text/below")), "file-missing");
  CHECK_EQ(outcome(read_text(folder / "text", 10)), "accepted");
  CHECK_EQ(outcome(read_text(folder / "text", 9)), "file-malformed");
}

TEST("files: reading stays inside the file, also when it shrinks") {
  TempFolder folder;
  put_file(folder / "text", "0123456789");
  const auto file = InputFile::open(folder / "text");
  char bytes[16] = {};
  CHECK(file->read(2, bytes, 3).ok());
  CHECK_EQ(std::string(bytes, 3), "234");
  CHECK(file->read(10, bytes, 0).ok());
  CHECK_EQ(outcome(file->read(8, bytes, 3)), "file-truncated");
  CHECK_EQ(outcome(file->read(-1, bytes, 1)), "file-truncated");
  CHECK_EQ(outcome(file->read(std::numeric_limits<int64_t>::max(), bytes, 1)), "file-truncated");
  CHECK_EQ(outcome(file->read(1, bytes, std::numeric_limits<int64_t>::max())), "file-truncated");
  CHECK_EQ(::truncate((folder / "text").c_str(), 4), 0);
  CHECK_EQ(outcome(file->read(2, bytes, 5)), "file-truncated");
}

TEST("files: a link may not lead out of the folder") {
  TempFolder folder;
  TempFolder outside;
  put_file(folder / "real", "x");
  put_file(outside / "secret", "x");
  const auto link = [&](const std::string& to, const char* name) {
    return ::symlink(to.c_str(), (folder / name).c_str());
  };
  CHECK_EQ(link("real", "within"), 0);
  CHECK_EQ(link(outside / "secret", "out"), 0);
  CHECK_EQ(link("nowhere", "dangling"), 0);
  CHECK_EQ(link("loop", "loop"), 0);
  CHECK_EQ(outcome(path_inside(folder.path(), "real")), "accepted");
  CHECK_EQ(outcome(path_inside(folder.path(), "within")), "accepted");
  CHECK_EQ(outcome(path_inside(folder.path(), "out")), "file-unreadable");
  CHECK_EQ(outcome(path_inside(folder.path(), "dangling")), "file-missing");
  CHECK_EQ(outcome(path_inside(folder.path(), "loop")), "file-unreadable");
  CHECK_EQ(
      outcome(path_inside(folder.path(), "../" + outside.path().substr(outside.path().rfind('/') + 1) + "/secret")),
      "file-unreadable");
  CHECK_EQ(outcome(path_inside(folder / "none", "real")), "file-missing");
  CHECK(path_exists(folder / "dangling"));
}

TEST("files: every failing call leaves the old content and nothing beside it") {
  TempFolder folder;
  put_file(folder / "kept", "old");
  for (const int code : {ENOSPC, EIO}) {
    int nth = 1;
    for (bool finished = false; !finished && nth < 100; ++nth) {
      std::string got;
      bool failed = false;
      {
        FailingCalls calls(nth, code);
        got = outcome(write_file(folder / "kept", "new"));
        failed = calls.has_failed();
      }
      finished = !failed && got == "accepted";
      const std::string content = file_content(folder / "kept");
      CHECK(content == "old" || content == "new");
      CHECK_EQ(entries_in(folder.path()), 1u);
      if (failed && got == "accepted") {
        // Only closing the flushed folder may fail without a word.
        CHECK_EQ(content, "new");
      } else if (!finished) {
        CHECK_EQ(got, "file-write-failed");
      }
      put_file(folder / "kept", "old");
    }
    CHECK(nth > 6 && nth < 100);
  }
}

TEST("files: a folder appears whole or not at all") {
  TempFolder folder;
  {
    auto output = OutputFolder::create(folder / "new/");
    CHECK(output.ok());
    CHECK(write_file(output->path() + "/a", "1").ok());
    CHECK(!path_exists(folder / "new"));
  }
  CHECK_EQ(entries_in(folder.path()), 0u);
  auto output = OutputFolder::create(folder / "new");
  CHECK(write_file(output->path() + "/a", "1").ok());
  CHECK(output->commit().ok());
  CHECK_EQ(file_content(folder / "new/a"), "1");
  CHECK_EQ(outcome(OutputFolder::create(folder / "new")), "argument-invalid");
  CHECK_EQ(outcome(OutputFolder::create(folder / "new/a")), "argument-invalid");
  CHECK_EQ(outcome(OutputFolder::create("")), "argument-invalid");
  CHECK_EQ(outcome(OutputFolder::create(folder / "none/new")), "file-write-failed");
  CHECK_EQ(entries_in(folder.path()), 1u);
}
