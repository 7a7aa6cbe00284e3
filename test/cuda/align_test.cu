// Owns: the limits of the alignment report for the GPU: what reading and stepping lose on a real, trained model to the
// float64 reference that has the same weights, in every format of weights. The folders of the checkpoint and of the
// goldens come from the environment, as in nano_test.cu.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "cuda/pack.h"
#include "model/backend.h"
#include "model/checkpoint.h"
#include "model/checkpoint_lending.h"
#include "model/float_formats.h"
#include "tools/aligned_path.h"

#define RS_GOLDEN_DIR golden_folder()
inline std::string golden_folder() {
  const char* folder = std::getenv("GOLDEN_DIR");
  return folder == nullptr ? "test/golden" : folder;
}
#include "golden_cases.h"

namespace {

using namespace ringside;

constexpr double kMeanKlLimit = 1e-3;
constexpr double kTop1Limit = 0.99;
// The reference reads about twenty tokens a second: texts are short and several are read at once, but all together long
// enough that one position does not decide the mean. It did on a text of 400 tokens (docs/PERFORMANCE.md, section 6).
constexpr size_t kPieceTokens = 200;
constexpr size_t kPieces = 7;
constexpr size_t kTokens = kPieceTokens * kPieces;

std::string nano_folder() {
  const char* folder = std::getenv("NANO_DIR");
  return folder == nullptr ? "media/nano" : folder;
}

// The e4m3fn code nearest to a value of at most 448, found among all of them.
uint8_t fp8_code(float value) {
  static const std::array<float, 127> magnitudes = [] {
    std::array<float, 127> all{};
    for (size_t code = 0; code < all.size(); ++code) all[code] = fp8_to_float(static_cast<uint8_t>(code));
    return all;
  }();
  const float size = std::fabs(value);
  const auto above = std::min(std::ranges::lower_bound(magnitudes, size), magnitudes.end() - 1);
  const auto below = above == magnitudes.begin() ? above : above - 1;
  const auto nearest = size - *below < *above - size ? below : above;
  return static_cast<uint8_t>((nearest - magnitudes.begin()) | (std::signbit(value) ? 0x80 : 0));
}

// A checkpoint's weights in another format, of which both engines then read the same values. Routers stay as they are
// stored; where the rest has four bits, the embedding and the head keep eight, as `ringside quantize` leaves them.
class Recoded {
 public:
  Recoded(const rs_weight_source& stored, rs_weight_format format) : stored_(stored), format_(format) {}
  Recoded(const Recoded&) = delete;
  Recoded& operator=(const Recoded&) = delete;
  rs_weight_source source() { return {this, read_matrix, release, read_vector, read_rows}; }

 private:
  struct Codes {
    std::vector<uint8_t> data;
    std::vector<float> scales;
  };

  static int32_t read_matrix(void* context, const char* base, int64_t rows, int64_t cols, rs_matrix* out,
                             rs_error* error) {
    return read_rows(context, base, rows, cols, 0, rows, out, error);
  }
  static int32_t read_rows(void* context, const char* base, int64_t rows, int64_t cols, int64_t first_row,
                           int64_t row_count, rs_matrix* out, rs_error* error) {
    const auto& self = *static_cast<const Recoded*>(context);
    rs_matrix stored{};
    if (self.stored_.read_rows(self.stored_.context, base, rows, cols, first_row, row_count, &stored, error) != 0) {
      return -1;
    }
    *out = self.recode(base, stored);
    self.stored_.release(self.stored_.context, &stored);
    return 0;
  }
  static int32_t read_vector(void* context, const char* name, int64_t length, float* out, rs_error* error) {
    const auto& self = *static_cast<const Recoded*>(context);
    return self.stored_.read_vector(self.stored_.context, name, length, out, error);
  }
  static void release(void*, rs_matrix* matrix) {
    delete static_cast<Codes*>(matrix->owner);
    *matrix = {};
  }

  int32_t format_of(const std::string& base, int32_t stored_format) const {
    if (base.ends_with("mlp.gate")) return stored_format;
    const bool is_vocabulary = base == "lm_head" || base.ends_with("word_embeddings");
    return format_ == RS_WEIGHT_Q4 && is_vocabulary ? RS_WEIGHT_Q8 : format_;
  }

  rs_matrix recode(const std::string& base, const rs_matrix& stored) const {
    const int32_t format = format_of(base, stored.format);
    const int64_t group = format == RS_WEIGHT_Q4 ? 32 : 128;
    const int64_t groups = stored.cols / group;
    auto codes = std::make_unique<Codes>();
    std::vector<float> row(static_cast<size_t>(stored.cols));
    for (int64_t r = 0; r < stored.rows; ++r) {
      cuda::row_to_float(stored, r, row.data());
      for (int64_t g = 0; g < groups; ++g) {
        const std::span values(row.data() + g * group, static_cast<size_t>(group));
        add_group(format, values, *codes);
      }
    }
    rs_matrix out{format, stored.rows, stored.cols, 0, codes->data.data(), nullptr, nullptr, nullptr};
    if (!codes->scales.empty()) {
      out.group_columns = group;
      out.scales = codes->scales.data();
    }
    out.owner = codes.release();
    return out;
  }

  static void add_group(int32_t format, std::span<const float> values, Codes& to) {
    if (format == RS_WEIGHT_F32 || format == RS_WEIGHT_BF16) {
      for (const float value : values) {
        const uint16_t half = float_to_bf16(value);
        const void* bytes = format == RS_WEIGHT_F32 ? static_cast<const void*>(&value) : &half;
        const auto* first = static_cast<const uint8_t*>(bytes);
        to.data.insert(to.data.end(), first, first + (format == RS_WEIGHT_F32 ? sizeof value : sizeof half));
      }
      return;
    }
    float largest = 0.0f;
    for (const float value : values) largest = std::max(largest, std::fabs(value));
    const float reach = format == RS_WEIGHT_FP8 ? 448.0f : format == RS_WEIGHT_Q4 ? 7.0f : 127.0f;
    const float scale = largest > 0.0f ? largest / reach : 1.0f;
    to.scales.push_back(scale);
    for (size_t i = 0; i < values.size(); ++i) {
      const float value = values[i] / scale;
      if (format == RS_WEIGHT_FP8) {
        to.data.push_back(fp8_code(std::clamp(value, -reach, reach)));
      } else if (format == RS_WEIGHT_Q8) {
        to.data.push_back(static_cast<uint8_t>(static_cast<int8_t>(std::lround(value))));
      } else {
        const auto code = static_cast<uint8_t>(std::lround(value) + 8);
        if (i % 2 == 0) to.data.push_back(code);
        if (i % 2 == 1) to.data.back() = static_cast<uint8_t>(to.data.back() | code << 4);
      }
    }
  }

  const rs_weight_source& stored_;
  rs_weight_format format_;
};

struct Format {
  const char* name;
  rs_weight_format format;
};
constexpr std::array<Format, 4> kFormats = {
    {{"bf16", RS_WEIGHT_BF16}, {"fp8", RS_WEIGHT_FP8}, {"8-bit", RS_WEIGHT_Q8}, {"4-bit", RS_WEIGHT_Q4}}};

struct Text {
  std::unique_ptr<Checkpoint> checkpoint;
  std::vector<int32_t> ids;  // one more than is read: the last one's successor
  int64_t rows = 0;          // of the vocabulary

  Text() {
    Result<std::unique_ptr<Checkpoint>> opened = Checkpoint::open(nano_folder());
    if (!opened.ok()) {
      check::fail(__FILE__, __LINE__, opened.error().message());
      return;
    }
    checkpoint = std::move(opened).value();
    rows = checkpoint->config().vocab_rows;
    for (const golden::Case& one : golden::read_cases("nano")) ids.insert(ids.end(), one.ids.begin(), one.ids.end());
    CHECK(ids.size() > kTokens);
    ids.resize(kTokens + 1);
  }
};

// Logits of every position of one piece, to `logits`: in one call, or by steps of one token each.
void read_piece(const rs_backend& backend, rs_model* model, const Text& text, size_t piece, bool by_steps,
                float* logits) {
  const int32_t* const ids = text.ids.data() + piece * kPieceTokens;
  rs_error error{};
  rs_session* session = nullptr;
  if (backend.open(model, &session, &error) != 0) return;
  if (!by_steps) backend.extend(session, ids, kPieceTokens, RS_LOGITS_ALL, logits, nullptr, &error);
  for (size_t i = 0; by_steps && i < kPieceTokens; ++i) {
    const rs_step step{session, ids + i, 1, RS_LOGITS_LAST, logits + i * static_cast<size_t>(text.rows)};
    if (backend.step(model, &step, 1, nullptr, &error) != 0) break;
  }
  backend.close(session);
}

// What was not read stays NaN, which passes no limit.
std::vector<float> no_logits(const Text& text) {
  return std::vector<float>(kTokens * static_cast<size_t>(text.rows), NAN);
}

rs_model* load(const rs_backend& backend, const Text& text, const rs_weight_source& source) {
  const PlainConfig plain(text.checkpoint->config());
  rs_load_options options{};
  options.isa = "";
  options.kv_format = RS_KV_BF16;
  rs_error error{};
  rs_model* model = nullptr;
  if (backend.load(plain.get(), &source, &options, &model, &error) == 0) return model;
  check::fail(__FILE__, __LINE__, std::string(error.subject) + ": " + error.expected + ", " + error.actual);
  return nullptr;
}

// The checkpoint in one format, lent to any backend.
struct Lent {
  WeightLender lender;
  rs_weight_source stored;
  Recoded recoded;

  Lent(const Text& text, rs_weight_format format)
      : lender(*text.checkpoint), stored(lender.source()), recoded(stored, format) {}
};

// Work of equal pieces on all threads of the machine.
void in_parallel(size_t count, const std::function<void(size_t)>& work) {
  std::atomic<size_t> next{0};
  std::vector<std::jthread> threads;
  for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); ++i) {
    threads.emplace_back([&] {
      for (size_t at = next++; at < count; at = next++) work(at);
    });
  }
}

// The reference's logits for every format.
std::vector<std::vector<float>> read_truths(const Text& text) {
  const rs_backend& backend = *rs_reference_backend();
  std::vector<rs_model*> models(kFormats.size());
  std::vector<std::vector<float>> truths(kFormats.size(), no_logits(text));
  in_parallel(kFormats.size(), [&](size_t i) {
    Lent lent(text, kFormats[i].format);
    models[i] = load(backend, text, lent.recoded.source());
  });
  in_parallel(kFormats.size() * kPieces, [&](size_t at) {
    const size_t i = at / kPieces;
    const size_t piece = at % kPieces;
    float* const logits = truths[i].data() + piece * kPieceTokens * static_cast<size_t>(text.rows);
    if (models[i] != nullptr) read_piece(backend, models[i], text, piece, false, logits);
  });
  for (rs_model* const model : models) {
    if (model != nullptr) backend.unload(model);
  }
  return truths;
}

void compare(const char* format, const char* way, const Text& text, const std::vector<float>& truth,
             const std::vector<float>& fast) {
  tools::AlignedPath path{.name = way};
  const auto rows = static_cast<size_t>(text.rows);
  size_t worst = 0;
  for (size_t i = 0; i < kTokens; ++i) {
    const double max_kl = path.max_kl;
    tools::add_position(std::span(&truth[i * rows], rows), std::span(&fast[i * rows], rows), text.ids[i + 1], path);
    if (path.max_kl > max_kl) worst = i;
  }
  tools::finish(path);
  std::printf("     %s, %s: mean |dp| %.1e, max %.1e, mean KL %.1e, max %.1e (position %zu), top-1 %.2f %%\n", format,
              way, path.mean_dp, path.max_dp, path.mean_kl, path.max_kl, worst, 100.0 * path.top1);
  CHECK(path.mean_kl <= kMeanKlLimit);
  CHECK(path.top1 >= kTop1Limit);
  CHECK_EQ(path.share_over, 0.0);
}

TEST("alignment: nano in every format of weights is close to the reference, read and stepped") {
  const Text text;
  if (text.checkpoint == nullptr) return;
  const std::vector<std::vector<float>> truths = read_truths(text);
  const rs_backend& backend = *rs_cuda_backend();
  for (size_t i = 0; i < kFormats.size(); ++i) {
    Lent lent(text, kFormats[i].format);
    rs_model* const model = load(backend, text, lent.recoded.source());
    if (model == nullptr) return;
    for (const bool by_steps : {false, true}) {
      std::vector<float> logits = no_logits(text);
      for (size_t piece = 0; piece < kPieces; ++piece) {
        float* const at = logits.data() + piece * kPieceTokens * static_cast<size_t>(text.rows);
        read_piece(backend, model, text, piece, by_steps, at);
      }
      compare(kFormats[i].name, by_steps ? "stepped" : "read", text, truths[i], logits);
    }
    backend.unload(model);
  }
}

}  // namespace
