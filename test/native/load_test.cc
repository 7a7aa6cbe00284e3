// Loading: the same weights for any number of threads, slices or whole matrices; failures of any thread told once and
// nothing kept; progress and cancel; memory that begins where a huge page begins and is not held twice.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/kernels/pack.h"
#include "cpu/kernels/pack_words.h"
#include "cpu/memory.h"
#include "engine.h"
#include "model/backend_errors.h"
#include "model/checkpoint.h"
#include "model/checkpoint_lending.h"
#include "stored_model.h"
#include "temp_folder.h"

using namespace ringside;

namespace {

const std::string kGolden = RS_GOLDEN_DIR "/tiny-tail";

// tiny-tail with a vocabulary so large that the embedding and the head are cut into several slices.
std::string write_wide_model(const std::string& folder, int64_t rows) {
  StoredModel model = StoredModel::read(kGolden);
  CHECK(model.edit_config("\"vocab_size\": 512", "\"vocab_size\": " + std::to_string(rows)));
  for (const char* name : {"model.word_embeddings.weight", "lm_head.weight"}) {
    StoredTensor& tensor = model.at(name);
    const std::string few = tensor.bytes;
    tensor.bytes.resize(static_cast<size_t>(rows * 128));
    for (int64_t row = 0; row < rows; ++row) {
      std::memcpy(tensor.bytes.data() + row * 128, few.data() + row * 331 % 512 * 128, 128);
    }
    tensor.info.shape = {rows, 64};
    tensor.info.length_bytes = rows * 128;
  }
  model.write(folder);
  return folder;
}

std::string write_four_bits(const std::string& from, const std::string& to) {
  QuantizeOptions options;
  options.bits = 4;
  options.group_columns = 32;
  CHECK(quantize_checkpoint(from, to, options).ok());
  return to;
}

std::vector<float> logits_of(const rs_config& config, const rs_weight_source& source, int threads) {
  const rs_backend& table = *rs_cpu_backend();
  const rs_load_options options{threads, "", RS_KV_BF16, nullptr, nullptr, 0, -1};
  rs_model* model = nullptr;
  rs_session* session = nullptr;
  rs_error error{};
  if (table.load(&config, &source, &options, &model, &error) != 0) return {};
  const int32_t tokens[] = {1, 7, config.vocab_rows - 1};
  std::vector<float> logits(3 * static_cast<size_t>(config.vocab_rows));
  const bool ran = table.open(model, &session, &error) == 0 &&
                   table.extend(session, tokens, 3, RS_LOGITS_ALL, logits.data(), nullptr, &error) == 0;
  if (session != nullptr) table.close(session);
  table.unload(model);
  return ran ? logits : std::vector<float>();
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return !a.empty() && a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Passes a source on, counts what is lent and given back, and fails at the calls it is told to.
class CountingSource {
 public:
  explicit CountingSource(const rs_weight_source& inner) : inner_(inner) {
    table = {this, nullptr, release, read_vector, read_rows};
  }
  rs_weight_source table{};
  std::atomic<int> calls{0}, lent{0}, returned{0};
  std::atomic<int> fails_from{-1};

 private:
  static int32_t read_rows(void* context, const char* base, int64_t rows, int64_t cols, int64_t first, int64_t count,
                           rs_matrix* out, rs_error* error) {
    auto& self = *static_cast<CountingSource*>(context);
    const int call = self.calls++;
    const int from = self.fails_from;
    if (from >= 0 && call >= from) return fail(error, Error{ErrorKind::kFileTruncated, base, "more", "less"});
    const int32_t code = self.inner_.read_rows(self.inner_.context, base, rows, cols, first, count, out, error);
    if (code == 0) ++self.lent;
    return code;
  }
  static void release(void* context, rs_matrix* matrix) {
    auto& self = *static_cast<CountingSource*>(context);
    ++self.returned;
    self.inner_.release(self.inner_.context, matrix);
  }
  static int32_t read_vector(void* context, const char* name, int64_t length, float* out, rs_error* error) {
    auto& self = *static_cast<CountingSource*>(context);
    return self.inner_.read_vector(self.inner_.context, name, length, out, error);
  }

  rs_weight_source inner_;
};

// The sanitizer keeps freed memory, so that no peak says anything.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kIsSanitized = true;
#else
constexpr bool kIsSanitized = false;
#endif

int64_t status_bytes(const std::string& field) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(field, 0) == 0) return std::stoll(line.substr(field.size())) * 1024;
  }
  return -1;
}

// A matrix of codes whose value is known at every place.
struct CodedMatrix {
  std::vector<uint8_t> data;
  std::vector<float> scales, offsets;
  rs_matrix view{};

  CodedMatrix(rs_weight_format format, int64_t rows, int64_t columns, int64_t group, bool has_offsets) {
    const int64_t groups = columns / group;
    data.resize(static_cast<size_t>(rows * columns / (format == RS_WEIGHT_Q4 ? 2 : 1)));
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
    for (int64_t i = 0; i < rows * groups; ++i) scales.push_back(static_cast<float>(i + 1));
    for (int64_t i = 0; has_offsets && i < rows * groups; ++i) offsets.push_back(-static_cast<float>(i));
    view = {format, rows, columns, group, data.data(), scales.data(), has_offsets ? offsets.data() : nullptr, nullptr};
  }
  int code(int64_t row, int64_t column) const {
    const int64_t at = row * view.cols + column;
    if (view.format == RS_WEIGHT_Q8) return static_cast<int8_t>(data[static_cast<size_t>(at)]);
    return (data[static_cast<size_t>(at / 2)] >> (at % 2 * 4) & 15) - 8;
  }
};

// The code that a tile holds for one output and column of a group, from the layout's description.
int code_in_block(const cpu::PackedMatrix& shape, const uint8_t* block, int64_t output, int64_t column) {
  if (shape.format == cpu::PackedFormat::kQ8) {
    return static_cast<int8_t>(block[(column / 4 * 64 + output) * 4 + column % 4]);
  }
  const uint8_t byte = block[(column / 8 * 64 + output) * 4 + column % 4];
  return (column % 8 < 4 ? byte & 15 : byte >> 4) - 8;
}

}  // namespace

TEST("load: any number of threads, slices or whole matrices, 16 or 4 bits: the same bits") {
  TempFolder folder;
  const std::string wide = write_wide_model(folder.path(), 40'001);
  for (const std::string& model : {wide, write_four_bits(wide, folder / "q4")}) {
    const auto checkpoint = Checkpoint::open(model);
    CHECK(checkpoint.ok());
    if (!checkpoint.ok()) continue;
    const PlainConfig config(checkpoint.value()->config());
    WeightLender lender(*checkpoint.value());
    rs_weight_source whole = lender.source();
    whole.read_rows = nullptr;
    const std::vector<float> expected = logits_of(*config.get(), whole, 1);
    CHECK(!expected.empty());
    for (const int threads : {1, 2, 5}) {
      CHECK(same_bits(logits_of(*config.get(), lender.source(), threads), expected));
    }
    CHECK(lender.failure() == nullptr);
  }
}

TEST("load: whichever read fails, the error is one of its thread's, and all that was lent is given back") {
  const auto checkpoint = Checkpoint::open(kGolden);
  const PlainConfig config(checkpoint.value()->config());
  WeightLender lender(*checkpoint.value());
  const rs_backend& table = *rs_cpu_backend();
  int failures = 0;
  for (int from = 0;; from += 7) {
    CountingSource source(lender.source());
    source.fails_from = from;
    const rs_load_options options{3, "", RS_KV_BF16, nullptr, nullptr, 0, -1};
    rs_model* model = nullptr;
    rs_error error{};
    const int32_t code = table.load(config.get(), &source.table, &options, &model, &error);
    CHECK_EQ(source.lent.load(), source.returned.load());
    if (code == 0) {
      table.unload(model);
      break;
    }
    ++failures;
    CHECK_EQ(error.kind, static_cast<int32_t>(ErrorKind::kFileTruncated));
    CHECK(std::strlen(error.subject) > 0 && std::string(error.expected) == "more");
    // The other threads stop at their next slice.
    CHECK(source.calls <= from + 1 + 3);
  }
  CHECK(failures > 20);
}

TEST("load: progress rises to 1 on the caller's thread, and a cancel at any point leaves nothing lent") {
  const auto checkpoint = Checkpoint::open(kGolden);
  const PlainConfig config(checkpoint.value()->config());
  WeightLender lender(*checkpoint.value());
  const rs_backend& table = *rs_cpu_backend();
  struct Watch {
    std::thread::id caller = std::this_thread::get_id();
    float last = 0.0f;
    int calls = 0;
    int stop_at = -1;
  };
  const auto progress = [](void* context, float fraction) -> int32_t {
    auto& watch = *static_cast<Watch*>(context);
    CHECK(std::this_thread::get_id() == watch.caller);
    CHECK(fraction >= watch.last && fraction <= 1.0f);
    watch.last = fraction;
    return watch.calls++ == watch.stop_at ? 1 : 0;
  };
  for (const int stop_at : {-1, 0, 5, 20}) {
    CountingSource source(lender.source());
    Watch watch;
    watch.stop_at = stop_at;
    const rs_load_options options{2, "", RS_KV_BF16, &watch, progress, 0, -1};
    rs_model* model = nullptr;
    rs_error error{};
    const int32_t code = table.load(config.get(), &source.table, &options, &model, &error);
    CHECK_EQ(source.lent.load(), source.returned.load());
    if (code == 0) {
      CHECK_EQ(watch.last, 1.0f);
      table.unload(model);
    } else {
      CHECK_EQ(error.kind, static_cast<int32_t>(ErrorKind::kCancelled));
      CHECK_EQ(watch.calls, stop_at + 1);
    }
    CHECK(stop_at > 0 || (code == 0) == (stop_at < 0));
  }
}

TEST("load: lent memory is used again, by every thread its own") {
  const auto checkpoint = Checkpoint::open(kGolden);
  WeightLender lender(*checkpoint.value());
  const rs_weight_source source = lender.source();
  std::set<const void*> seen;
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (int64_t i = 0; i < 200; ++i) {
        rs_matrix matrix{};
        rs_error error{};
        const int64_t first = (i * 37 + t * 11) % 480;
        if (source.read_rows(source.context, "lm_head", 512, 64, first, 32, &matrix, &error) != 0) return;
        const auto row = checkpoint.value()->read_matrix("lm_head", 512, 64);
        const bool same = row.ok() && std::memcmp(matrix.data, row->data.data() + first * 128, 32 * 128) == 0;
        const std::lock_guard lock(mutex);
        CHECK(same && matrix.rows == 32 && matrix.cols == 64);
        seen.insert(matrix.data);
        source.release(source.context, &matrix);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(!seen.empty() && seen.size() <= 3);
}

TEST("load: tiles hold the codes, scales and offsets where their description says") {
  for (const rs_weight_format format : {RS_WEIGHT_Q4, RS_WEIGHT_Q8}) {
    for (const int64_t group : {32, 64, 128}) {
      for (const int64_t rows : {64, 77, 128}) {
        const CodedMatrix matrix(format, rows, 256, group, rows == 128);
        const auto shape = cpu::packed_shape("m", matrix.view);
        CHECK(shape.ok());
        if (!shape.ok()) continue;
        const cpu::PackedMatrix& packed = shape.value();
        std::vector<uint8_t> tiles(static_cast<size_t>(cpu::packed_bytes(packed)));
        for (int64_t t = 0; t < packed.tile_count(); ++t) {
          cpu::pack_tile(matrix.view, t * 64, packed, tiles.data() + t * packed.tile_bytes());
        }
        int wrong = 0;
        for (int64_t row = 0; row < packed.tile_count() * 64; ++row) {
          for (int64_t column = 0; column < 256; ++column) {
            const uint8_t* block =
                tiles.data() + row / 64 * packed.tile_bytes() + column / group * packed.block_bytes();
            const int expected = row < rows ? matrix.code(row, column) : 0;
            wrong += code_in_block(packed, block, row % 64, column % group) == expected ? 0 : 1;
            float numbers[128];
            std::memcpy(numbers, block + packed.code_bytes(), packed.has_offsets ? 512 : 256);
            const size_t at = static_cast<size_t>(row * (256 / group) + column / group);
            wrong += numbers[row % 64] == (row < rows ? matrix.scales[at] : 0.0f) ? 0 : 1;
            if (packed.has_offsets) wrong += numbers[64 + row % 64] == matrix.offsets[at] ? 0 : 1;
          }
        }
        CHECK_EQ(wrong, 0);
      }
    }
  }
}

#if defined(__x86_64__)
TEST("load: both versions of packing give the same bytes") {
  if (!__builtin_cpu_supports("avx2")) return;
  std::vector<uint8_t> from(64 * 144), a(64 * 144), b(64 * 144);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<uint8_t>(i * 2654435761u >> 11);
  for (const bool is_q4 : {false, true}) {
    for (const int64_t words : {4, 8, 12, 32}) {
      cpu::pack_words(from.data() + 3, 140, words, is_q4, a.data());
      cpu::pack_words_avx2(from.data() + 3, 140, words, is_q4, b.data());
      CHECK(std::memcmp(a.data(), b.data(), static_cast<size_t>(words) * 256) == 0);
    }
  }
}
#endif

TEST("load: large memory begins where a huge page begins, all of it zero; an impossible size is an error") {
  for (const int64_t bytes :
       {int64_t{1}, int64_t{4097}, (int64_t{2} << 20) - 1, int64_t{2} << 20, (int64_t{7} << 20) + 5}) {
    auto memory = cpu::MappedMemory::allocate(bytes, "test");
    CHECK(memory.ok());
    if (!memory.ok()) continue;
    CHECK_EQ(memory->bytes(), bytes);
    if (bytes >= int64_t{2} << 20) CHECK_EQ(reinterpret_cast<uintptr_t>(memory->data()) % (uintptr_t{2} << 20), 0u);
    CHECK(std::all_of(memory->data(), memory->data() + bytes, [](uint8_t byte) { return byte == 0; }));
    std::memset(memory->data(), 1, static_cast<size_t>(bytes));
  }
  for (const int64_t bytes : {int64_t{1} << 62, INT64_MAX}) {
    const auto refused = cpu::MappedMemory::allocate(bytes, "test");
    CHECK(!refused.ok() && refused.error().kind == ErrorKind::kOutOfMemory);
  }
}

TEST("load: the peak is the weights and a few slices") {
  TempFolder folder;
  const std::string model = write_four_bits(write_wide_model(folder.path(), 500'000), folder / "q4");
  // A process of its own, because the peak is counted for a whole process.
  const pid_t child = ::fork();
  if (child == 0) {
    std::ofstream("/proc/self/clear_refs") << "5";
    const int64_t before = status_bytes("VmHWM:");
    LoadOptions options;
    options.folder = model;
    options.backend = "cpu";
    options.threads = 2;
    const auto loaded = Model::load(options);
    const int64_t grown = status_bytes("VmHWM:") - before;
    const int64_t weights = loaded.ok() ? loaded.value()->info().weight_resident_bytes : 0;
    std::printf("  weights %.1f MB, peak grew by %.1f MB\n", static_cast<double>(weights) / 1e6,
                static_cast<double>(grown) / 1e6);
    std::fflush(stdout);
    ::_exit(loaded.ok() && weights > 60'000'000 && (kIsSanitized || grown < weights + 24'000'000) ? 0 : 1);
  }
  int outcome = -1;
  CHECK_EQ(::waitpid(child, &outcome, 0), child);
  CHECK_EQ(outcome, 0);
}
