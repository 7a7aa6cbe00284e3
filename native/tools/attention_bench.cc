// Owns: passes over pages and states that are laid out as a session's are, shared out by a pool.
#include "tools/attention_bench.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <limits>

#include "cpu/kernels/attention_kernels.h"
#include "cpu/memory.h"

namespace ringside::tools {
namespace {

constexpr int64_t kHeadDim = 128;
constexpr int64_t kQueriesPerKv = 4;
constexpr int64_t kDecodeParts = 4 * 32768 / RS_PAGE_TOKENS;  // blocks of one layer's 4 kv heads at 32K keys
constexpr int64_t kPrefillQueries = 256;
constexpr int64_t kPrefillBlocks = 16;
constexpr int64_t kStates = 256;  // heads of all linear layers
constexpr int64_t kChunks = 8;    // of a slab of 512 rows
constexpr int kTries = 5;         // the best counts: others may use the machine meanwhile

template <class Pass>
double best_seconds(const Pass& pass) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kTries; ++i) {
    const auto start = std::chrono::steady_clock::now();
    pass();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

std::vector<float> waves(int64_t count, float reach) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = reach * std::sin(0.37f * static_cast<float>(i % 9973));
  return values;
}

// What one thread needs to read blocks, and the queries it reads them for.
struct Reader {
  cpu::MappedMemory scratch;
  std::vector<uint8_t> queries;
  std::vector<float> maximum, sum, mixed;
  std::vector<int32_t> limits;
};

class AttentionBench {
 public:
  AttentionBench(const cpu::AttentionKernels& kernels, cpu::ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  Result<std::vector<AttentionRow>> run() {
    for (const rs_kv_format format : {RS_KV_BF16, RS_KV_Q8, RS_KV_F32}) RS_CHECK(key_blocks({format, kHeadDim}));
    RS_CHECK(chunks());
    return std::move(rows_);
  }

 private:
  static const char* name_of(rs_kv_format format) {
    return format == RS_KV_BF16 ? "bf16" : format == RS_KV_Q8 ? "q8" : "f32";
  }

  Result<std::vector<Reader>> readers(const cpu::KvLayout& layout) {
    std::vector<Reader> readers(static_cast<size_t>(pool_.threads()));
    const std::vector<float> q = waves(kPrefillQueries * kHeadDim, 0.2f);
    for (Reader& reader : readers) {
      RS_TRY(reader.scratch, cpu::MappedMemory::allocate(cpu::attention_scratch_bytes(layout), "scratch"));
      reader.queries.resize(static_cast<size_t>(kPrefillQueries * layout.query_bytes()));
      kernels_.gather_queries(layout, q.data(), 0, kPrefillQueries, reader.queries.data());
      reader.limits.assign(kPrefillQueries, RS_PAGE_TOKENS);
      reader.maximum.resize(kPrefillQueries);
      reader.sum.resize(kPrefillQueries);
      reader.mixed.resize(static_cast<size_t>(kPrefillQueries * layout.channels()));
    }
    return readers;
  }

  static void forget(Reader& reader, int64_t queries, int64_t channels) {
    std::fill_n(reader.maximum.begin(), queries, -std::numeric_limits<float>::infinity());
    std::fill_n(reader.sum.begin(), queries, 0.0f);
    std::fill_n(reader.mixed.begin(), queries * channels, 0.0f);
  }

  Status key_blocks(const cpu::KvLayout& layout) {
    const int64_t block_bytes = 2 * layout.part_bytes();
    RS_TRY(const cpu::MappedMemory pages, cpu::MappedMemory::allocate(kDecodeParts * block_bytes, "pages"));
    const std::vector<float> x = waves(2 * RS_PAGE_TOKENS * kHeadDim, 1.0f);
    pool_.run(kDecodeParts, [&](int64_t block, int) {
      uint8_t* keys = pages.data() + block * block_bytes;
      kernels_.append_keys({layout, x.data(), x.data() + RS_PAGE_TOKENS * kHeadDim, kHeadDim, RS_PAGE_TOKENS, 0, keys,
                            keys + layout.part_bytes()});
    });
    RS_TRY(std::vector<Reader> readers, this->readers(layout));
    const auto read = [&](int64_t block, int64_t queries, Reader& reader) {
      const uint8_t* keys = pages.data() + block * block_bytes;
      kernels_.key_block({layout, reader.queries.data(), queries, reader.limits.data(), keys,
                          keys + layout.part_bytes(), reader.maximum.data(), reader.sum.data(), reader.mixed.data(),
                          reader.scratch.data()});
    };
    const double decode_seconds = best_seconds([&] {
      pool_.run(kDecodeParts, [&](int64_t block, int worker) {
        Reader& reader = readers[static_cast<size_t>(worker)];
        forget(reader, kQueriesPerKv, layout.channels());
        read(block, kQueriesPerKv, reader);
      });
    });
    const int64_t jobs = 4 * pool_.threads();
    const double prefill_seconds = best_seconds([&] {
      pool_.run(jobs, [&](int64_t job, int worker) {
        Reader& reader = readers[static_cast<size_t>(worker)];
        forget(reader, kPrefillQueries, layout.channels());
        for (int64_t i = 0; i < kPrefillBlocks; ++i) {
          read((job * kPrefillBlocks + i) % kDecodeParts, kPrefillQueries, reader);
        }
      });
    });
    const double block_operations = 4.0 * RS_PAGE_TOKENS * kHeadDim;  // of one query
    rows_.push_back({std::string("attend ") + name_of(layout.format), 1,
                     static_cast<double>(kDecodeParts * block_bytes), block_operations * kQueriesPerKv * kDecodeParts,
                     decode_seconds});
    rows_.push_back({std::string("attend ") + name_of(layout.format), kPrefillQueries / kQueriesPerKv, 0.0,
                     block_operations * kPrefillQueries * static_cast<double>(kPrefillBlocks * jobs), prefill_seconds});
    return Unit{};
  }

  // One row of the middle of a chunk reads the states of all heads; and heads pass whole chunks, state and all.
  Status chunks() {
    constexpr int64_t d = kHeadDim;
    constexpr int64_t kMiddle = RS_CHUNK_TOKENS / 2;
    RS_TRY(const cpu::MappedMemory states, cpu::MappedMemory::allocate(kStates * d * d * 4, "states"));
    RS_TRY(std::vector<Reader> readers, this->readers({RS_KV_F32, d}));
    auto* s = reinterpret_cast<float*>(states.data());
    for (int64_t i = 0; i < kStates * d * d; ++i) s[i] = static_cast<float>(i % 101) * 0.01f - 0.5f;
    const std::vector<float> k_columns = waves(d * RS_CHUNK_TOKENS, 0.1f);
    const std::vector<float> v = waves(RS_CHUNK_TOKENS * d, 1.0f);
    const std::vector<float> q = waves(RS_CHUNK_TOKENS * d, 0.1f);
    std::array<float, RS_CHUNK_TOKENS + 1> decay;
    for (size_t n = 0; n < decay.size(); ++n) decay[n] = std::exp(-0.05f * static_cast<float>(n));
    std::vector<float> out(static_cast<size_t>(pool_.threads() * RS_CHUNK_TOKENS * d));
    const auto read = [&](int64_t head, int64_t first, int64_t rows, int worker) {
      kernels_.chunk_read({q.data(), d, k_columns.data(), v.data(), s + head * d * d, decay.data(), first, rows, d,
                           out.data() + worker * RS_CHUNK_TOKENS * d, d,
                           readers[static_cast<size_t>(worker)].scratch.data()});
    };
    const double row_seconds =
        best_seconds([&] { pool_.run(kStates, [&](int64_t head, int worker) { read(head, kMiddle, 1, worker); }); });
    rows_.push_back({"linear read", 1, 4.0 * kStates * d * d, 2.0 * kStates * d * (d + 2 * kMiddle), row_seconds});
    const double chunk_seconds = best_seconds([&] {
      pool_.run(kStates, [&](int64_t head, int worker) {
        for (int64_t chunk = 0; chunk < kChunks; ++chunk) {
          read(head, 0, RS_CHUNK_TOKENS, worker);
          kernels_.chunk_commit({k_columns.data(), v.data(), s + head * d * d, decay.data(), d, s + head * d * d,
                                 readers[static_cast<size_t>(worker)].scratch.data()});
        }
      });
    });
    // The products of the whole chunk with half of its square, as causal attention needs them.
    const double chunk_operations = 2.0 * RS_CHUNK_TOKENS * d * (2.0 * d + RS_CHUNK_TOKENS);
    rows_.push_back({"linear chunk", RS_CHUNK_TOKENS, 0.0, chunk_operations * kStates * kChunks, chunk_seconds});
    return Unit{};
  }

  const cpu::AttentionKernels& kernels_;
  cpu::ThreadPool& pool_;
  std::vector<AttentionRow> rows_;
};

}  // namespace

Result<std::vector<AttentionRow>> measure_attention(const cpu::Kernels& kernels, cpu::ThreadPool& pool) {
  return AttentionBench(*kernels.attention(), pool).run();
}

}  // namespace ringside::tools
