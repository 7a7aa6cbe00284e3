// The step path against the forward pass of step_reference.h: all phases together, rows of several sessions, and a
// row's bits alone and among others. With --bench, the time of a token of the mini shape and of its phases.
#include <cstring>
#include <map>
#include <string>

#include "check.h"
#include "cuda/kernels/step.h"
#include "step_reference.h"

namespace ringside::cuda::test {
namespace {

using PathPointer = std::unique_ptr<StepPath, StepPathDeleter>;

rs_config small_config() {
  rs_config c{};
  c.vocab_rows = 160, c.hidden = 256, c.layers = 4, c.group = 3, c.heads = 2, c.kv_heads = 1, c.head_dim = 128;
  c.rotary_dim = 64, c.dense_width = 384, c.expert_width = 128, c.shared_width = 128, c.experts = 64;
  c.experts_per_token = 4, c.expert_groups = 8, c.groups_per_token = 4, c.dense_layers = 1, c.norm_groups = 2;
  c.context_tokens = 8192, c.rms_eps = 1e-6f, c.routed_scale = 2.5f, c.expert_bias = 1;
  return c;
}

// Two layers of the mini shape, with few experts so that the host can hold them in double.
rs_config wide_config() {
  rs_config c = small_config();
  c.vocab_rows = 512, c.hidden = 2048, c.layers = 2, c.group = 2, c.heads = 16, c.kv_heads = 4;
  c.expert_width = 512, c.shared_width = 512, c.experts = 16, c.experts_per_token = 8, c.dense_layers = 0;
  c.dense_width = 5120, c.norm_groups = 4;
  return c;
}

struct Part {
  int64_t position;
  int rows;
};

int token_of(int64_t position, int vocab) { return static_cast<int>((position * 37 + 11) % vocab); }

// What a step leaves behind, in device memory.
struct Outcome {
  std::vector<std::vector<float>> logits;  // of each row
  std::vector<std::unique_ptr<DeviceSession>> sessions;
};

PathPointer make_path(const StepModel& model) {
  Result<StepPath*> path = make_step_path(model.device(), nullptr);
  if (!path.ok()) std::printf("%s\n", path.error().message().c_str()), std::exit(2);
  return PathPointer(path.value());
}

std::vector<HostSession> host_sessions(const StepModel& model, const std::vector<Part>& parts) {
  std::vector<HostSession> out;
  for (const Part& part : parts) {
    out.push_back(model.session(part.position, (part.position + part.rows - 1) / 256 + 1,
                                static_cast<uint32_t>(7 + part.position)));
  }
  return out;
}

Outcome run(StepPath& path, const StepModel& model, const std::vector<HostSession>& sessions,
            const std::vector<int>& rows) {
  const int vocab = model.config().vocab_rows;
  Outcome out;
  std::vector<StepPart> parts;
  std::vector<int32_t> tokens;
  for (size_t p = 0; p < sessions.size(); p++) {
    out.sessions.push_back(std::make_unique<DeviceSession>(sessions[p]));
    DeviceSession& session = *out.sessions.back();
    const bool ends = sessions[p].position % 64 + rows[p] == 64;
    parts.push_back(
        {session.view, static_cast<int32_t>(tokens.size()), rows[p], ends ? session.next_s.get() : nullptr});
    for (int r = 0; r < rows[p]; r++) tokens.push_back(token_of(sessions[p].position + r, vocab));
  }
  const std::vector<uint8_t> wanted(tokens.size(), 1);
  DeviceBuffer<float> logits(tokens.size() * vocab);
  const Status status = run_step(path, parts.data(), static_cast<int64_t>(parts.size()), tokens.data(), wanted.data(),
                                 logits.get(), nullptr);
  if (!status.ok()) std::printf("%s\n", status.error().message().c_str());
  CHECK(status.ok());
  MUST(cudaDeviceSynchronize());
  const std::vector<float> all = logits.download();
  for (size_t r = 0; r < tokens.size(); r++) out.logits.emplace_back(&all[r * vocab], &all[r * vocab] + vocab);
  return out;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Experts whose scores differ by less may be chosen otherwise after roundings of bf16.
constexpr double kClearMargin = 3e-3;
size_t all_rows = 0, all_clear_rows = 0;

// Worst relative error of a row's logits and of what is left in the sessions.
void check_step(StepPath& path, const StepModel& model, const std::vector<Part>& parts, const char* name) {
  std::vector<HostSession> sessions = host_sessions(model, parts);
  std::vector<int> rows;
  for (const Part& part : parts) rows.push_back(part.rows);
  const Outcome got = run(path, model, sessions, rows);
  double worst = 0.0, worst_memory = 0.0;
  size_t row = 0, clear_rows = 0;
  const auto worse = [](double& worst_yet, double error) {
    if (!(error <= worst_yet)) worst_yet = error;  // a NaN stays
  };
  for (size_t p = 0; p < parts.size(); p++) {
    HostSession& session = sessions[p];
    bool is_clear = true;  // a row after another choice of experts reads other keys
    for (int r = 0; r < parts[p].rows; r++, row++) {
      const std::vector<double> want = model.step(session, token_of(session.position, model.config().vocab_rows));
      is_clear = is_clear && model.margin() > kClearMargin;
      for (float logit : got.logits[row]) CHECK(std::isfinite(logit));
      if (!is_clear) continue;
      worse(worst, relative_error(got.logits[row], want));
      clear_rows++;
    }
    if (!is_clear) continue;
    const DeviceSession& device = *got.sessions[p];
    if (session.position % 64 == 0) worse(worst_memory, relative_error(device.next_s.download(), session.s));
    // Rows that are not there are NaN on both sides.
    std::vector<float> got_rows, want_rows;
    const auto collect = [&](const std::vector<float>& got_all, const std::vector<float>& want_all) {
      for (size_t i = 0; i < want_all.size(); i++) {
        if (std::isnan(want_all[i])) continue;
        got_rows.push_back(got_all[i]), want_rows.push_back(want_all[i]);
      }
    };
    collect(device.open_k.download(), session.open_k);
    collect(device.open_v.download(), session.open_v);
    collect(model.page_numbers(device.pages.back().download()), model.page_numbers(session.pages.back()));
    worse(worst_memory, relative_error(got_rows, want_rows));
  }
  std::printf("  %s, %zu rows (%zu clear) of %zu sessions: logits %.2e, memory %.2e\n", name, row, clear_rows,
              parts.size(), worst, worst_memory);
  all_rows += row, all_clear_rows += clear_rows;
  CHECK(worst < 1e-2);
  CHECK(worst_memory < 1e-2);
}

const std::vector<std::vector<Part>>& layouts() {
  static const std::vector<std::vector<Part>> list = {
      {{300, 1}},
      {{0, 1}},
      {{63, 1}},
      {{1, 1}, {5000, 1}},
      {{0, 1}, {64, 2}, {300, 4}, {63, 1}},
      {{56, 8}},
      {{250, 6}},
      {{300, 9}},
      {{254, 2}, {5000, 12}},
      {{0, 5}, {1, 3}, {63, 1}, {64, 4}, {300, 10}, {5000, 8}, {127, 1}},
      {{0, 32}}};
  return list;
}

TEST("steps of a small model, every format, against double") {
  const std::vector<std::pair<const char*, StepFormat>> formats = {
      {"bf16", {MatrixFormat::kBF16, 0, false, true}},     {"q8/32", {MatrixFormat::kQ8, 32, false, false}},
      {"q8/64+", {MatrixFormat::kQ8, 64, true, true}},     {"q8/128", {MatrixFormat::kQ8, 128, false, false}},
      {"q4/32", {MatrixFormat::kQ4, 32, false, false}},    {"q4/32+", {MatrixFormat::kQ4, 32, true, false}},
      {"q4/64+", {MatrixFormat::kQ4, 64, true, false}},    {"q4/128", {MatrixFormat::kQ4, 128, false, true}},
      {"fp8/128", {MatrixFormat::kFP8, 128, false, false}}};
  uint32_t seed = 1;
  for (const auto& [name, format] : formats) {
    const StepModel model(small_config(), format, seed += 100000);
    const PathPointer path = make_path(model);
    for (const std::vector<Part>& parts : layouts()) check_step(*path, model, parts, name);
  }
}

TEST("steps of a small model with keys and values of 8 bits") {
  rs_config c = small_config();
  c.experts = 16;  // of fewer experts more rows are clear
  const StepModel model(c, {MatrixFormat::kQ8, 64, false, false, RS_KV_Q8}, 3);
  const PathPointer path = make_path(model);
  for (const std::vector<Part>& parts : layouts()) check_step(*path, model, parts, "8-bit keys");
}

TEST("steps of other small models: silu of linear layers, no shared expert, no bias, one head group") {
  rs_config c = small_config();
  c.linear_silu = 1, c.shared_width = 0, c.expert_bias = 0, c.experts = 16, c.heads = 4, c.kv_heads = 4,
  c.norm_groups = 4;
  c.rotary_dim = 128, c.dense_layers = 0;
  const StepModel model(c, {MatrixFormat::kQ8, 64, false, false}, 5);
  const PathPointer path = make_path(model);
  for (const std::vector<Part>& parts : layouts()) check_step(*path, model, parts, "other");
}

TEST("steps of two layers of the mini shape") {
  for (const StepFormat format :
       {StepFormat{MatrixFormat::kQ8, 64, false, false}, StepFormat{MatrixFormat::kQ4, 32, false, true}}) {
    const StepModel model(wide_config(), format, 77);
    const PathPointer path = make_path(model);
    const char* name = format.format == MatrixFormat::kQ8 ? "mini q8/64" : "mini q4/32";
    check_step(*path, model, {{5000, 1}}, name);
    check_step(*path, model, {{60, 4}, {300, 4}}, name);
    check_step(*path, model, {{60, 4}, {300, 12}, {700, 1}}, name);
    check_step(*path, model, {{60, 4}, {300, 12}, {700, 1}, {1000, 15}}, name);
  }
}

TEST("a row's bits are the same alone and among others") {
  for (const int round : {0, 1, 2}) {
    const bool wide = round == 1;
    const rs_kv_format kv = round == 2 ? RS_KV_Q8 : RS_KV_BF16;
    const StepModel model(wide ? wide_config() : small_config(), {MatrixFormat::kQ8, 64, false, false, kv}, 9);
    const PathPointer path = make_path(model);
    const std::vector<Part> parts = {{56, 8}, {300, 3}, {250, 6}, {1, 1}, {700, 4}};
    const std::vector<HostSession> sessions = host_sessions(model, parts);
    const Outcome together = run(*path, model, sessions, {8, 3, 6, 1, 4});
    size_t row = 0;
    for (size_t p = 0; p < parts.size(); p++) {
      HostSession session = sessions[p];
      const Outcome part = run(*path, model, {session}, {parts[p].rows});
      for (int r = 0; r < parts[p].rows; r++, row++) {
        CHECK(same_bits(part.logits[r], together.logits[row]));
        const Outcome alone = run(*path, model, {session}, {1});
        CHECK(same_bits(alone.logits[0], together.logits[row]));
        const DeviceSession& left = *alone.sessions[0];
        session.open_k = left.open_k.download(), session.open_v = left.open_v.download();
        for (size_t i = 0; i < session.pages.size(); i++) session.pages[i] = left.pages[i].download();
        if (++session.position % 64 != 0) continue;
        CHECK(same_bits(left.next_s.download(), together.sessions[p]->next_s.download()));
      }
      CHECK(same_bits(session.open_k, together.sessions[p]->open_k.download()));
      CHECK(same_bits(session.pages.back(), together.sessions[p]->pages.back().download()));
    }
  }
}

TEST("enough rows of the steps before were clear in their choice of experts") {
  CHECK(all_rows == 0 || all_clear_rows * 4 > all_rows);
}

TEST("steps that no launch can take are refused") {
  const StepModel model(small_config(), {MatrixFormat::kQ8, 64, false, false}, 9);
  const PathPointer path = make_path(model);
  const std::vector<int32_t> tokens(64, 1);
  const std::vector<uint8_t> wanted(64, 0);
  const auto refused = [&](std::vector<StepPart> parts) {
    const Status status = run_step(*path, parts.data(), static_cast<int64_t>(parts.size()), tokens.data(),
                                   wanted.data(), nullptr, nullptr);
    return !status.ok() && status.error().kind == ErrorKind::kArgumentInvalid;
  };
  const SessionView at_60 = {nullptr, nullptr, nullptr, nullptr, 60}, at_0 = {nullptr, nullptr, nullptr, nullptr, 0};
  CHECK(refused({}));
  CHECK(refused({{at_60, 0, 5, nullptr}}));
  CHECK(refused({{at_0, 0, 0, nullptr}}));
  CHECK(refused({{at_0, 1, 1, nullptr}}));
  CHECK(refused({{at_0, 0, 20, nullptr}, {at_0, 20, 20, nullptr}}));
}

// Bench: the mini shape with random weights made on the device.

__global__ void random_bf16_kernel(bf16* out, size_t count, uint32_t seed, float size) {
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<size_t>(gridDim.x) * blockDim.x) {
    uint32_t x = static_cast<uint32_t>(i) * 2654435761u + seed;
    x = (x ^ x >> 15) * 2246822519u;
    out[i] = __float2bfloat16(size * (static_cast<float>((x ^ x >> 13) >> 8) / 8388608.0f - 1.0f));
  }
}

class MiniModel {
 public:
  MiniModel(MatrixFormat format, int group_columns, rs_kv_format kv) : format_(format), group_(group_columns) {
    model.kv_format = kv;
    rs_config& c = model.config;
    c = small_config();
    c.vocab_rows = 157184, c.hidden = 2048, c.layers = 20, c.group = 5, c.heads = 16, c.kv_heads = 4;
    c.dense_width = 5120, c.expert_width = c.shared_width = 512, c.experts = 256, c.experts_per_token = 8;
    c.norm_groups = 4, c.context_tokens = 131072 + 256;
    model.width = 2048, model.kv_width = 512, model.has_shared = 1;
    ones_ = DeviceBuffer<float>(std::vector<float>(5120, 1.0f));
    small_ = DeviceBuffer<float>(std::vector<float>(256, 0.01f));
    model.inv_freq = small_.get(), model.final_norm = ones_.get();
    model.embedding = stack(157184, 2048, 1).first, model.lm_head = stack(157184, 2048, 1).first;
    for (int i = 0; i < c.layers; i++) add_layer(i);
    MUST(cudaDeviceSynchronize());
  }

  // Bytes of weights that one token reads.
  double token_bytes() const {
    double bytes = bytes_of(model.lm_head);
    for (const DeviceLayer& l : model.layers) {
      bytes += bytes_of(l.qkv) + bytes_of(l.dense) + (l.is_softmax ? 0.0 : bytes_of(l.output_gate));
      const double mlp = bytes_of(l.mlp.gate_up.first) + bytes_of(l.mlp.down.first);
      bytes += l.is_dense ? mlp : 9 * mlp + bytes_of(l.router);
    }
    return bytes;
  }

  DeviceModel model{};

 private:
  static double bytes_of(const DeviceMatrix& m) {
    return static_cast<double>(m.block_bytes() + m.scale_count() * 4 * (m.offsets != nullptr ? 2 : 1));
  }
  DeviceStack stack(int rows, int columns, int count) {
    stacks_.push_back(random_stack(format_, rows, columns, group_, false, count, seed_ += 10));
    return stacks_.back().stack;
  }
  void add_layer(int index) {
    DeviceLayer l{};
    l.is_softmax = index % 5 == 4, l.is_dense = index == 0;
    l.kind_index = l.is_softmax ? model.softmax_layers++ : model.linear_layers++;
    l.input_norm = l.post_attention_norm = l.query_norm = l.key_norm = l.output_norm = ones_.get();
    l.slopes = l.expert_bias = small_.get();
    l.qkv = stack(l.is_softmax ? 3072 : 6144, 2048, 1).first;
    l.dense = stack(2048, 2048, 1).first;
    if (!l.is_softmax) l.output_gate = stack(2048, 2048, 1).first;
    const int width = l.is_dense ? 5120 : 512, count = l.is_dense ? 1 : 257;
    l.mlp = {stack(2 * width, 2048, count), stack(2048, width, count), width};
    if (!l.is_dense) {
      routers_.emplace_back(256 * 4096);
      random_bf16_kernel<<<256, 256>>>(routers_.back().get(), routers_.back().count(), seed_, 0.04f);
      l.router = {
          MatrixFormat::kBF16, 256, 4096, 0, reinterpret_cast<uint8_t*>(routers_.back().get()), nullptr, nullptr};
    }
    model.layers.push_back(l);
  }

  MatrixFormat format_;
  int group_;
  uint32_t seed_ = 1;
  DeviceBuffer<float> ones_, small_;
  std::vector<DeviceStackData> stacks_;
  std::vector<DeviceBuffer<bf16>> routers_;
};

struct BenchSession {
  BenchSession(int64_t position, uint32_t seed, rs_kv_format kv)
      : s(16 * 16 * 16384), next_s(s.count()), open_k(16 * 16 * 8192), open_v(open_k.count()) {
    random_floats_kernel<<<256, 256>>>(s.get(), s.count(), seed, -1.0f, 1.0f);
    random_floats_kernel<<<256, 256>>>(open_k.get(), open_k.count(), seed + 1, -1.0f, 1.0f);
    random_floats_kernel<<<256, 256>>>(open_v.get(), open_v.count(), seed + 2, -1.0f, 1.0f);
    const size_t page = static_cast<size_t>(4 * 4 * 2 * page_part_bytes(kv));
    const size_t count = static_cast<size_t>(position / 256 + 1);
    pages = DeviceBuffer<uint8_t>(page * count);
    // As codes and scales such bits are numbers of about 100: for a timing they do.
    random_bf16_kernel<<<1024, 256>>>(reinterpret_cast<bf16*>(pages.get()), pages.count() / 2, seed + 3, 1.0f);
    std::vector<uint8_t*> pointers;
    for (size_t i = 0; i < count; i++) pointers.push_back(pages.get() + i * page);
    table = DeviceBuffer<uint8_t*>(pointers);
    view = {s.get(), open_k.get(), open_v.get(), table.get(), position};
  }
  DeviceBuffer<float> s, next_s, open_k, open_v;
  DeviceBuffer<uint8_t> pages;
  DeviceBuffer<uint8_t*> table;
  SessionView view;
};

// Names of the phases in the order of their stamps, for steps of up to eight rows.
std::vector<std::string> phase_names(const DeviceModel& model) {
  std::vector<std::string> names = {"begin"};
  for (const DeviceLayer& l : model.layers) {
    names.push_back(l.is_softmax ? "qkv, softmax" : "qkv, linear");
    if (l.is_softmax) names.insert(names.end(), {"pages", "merge"});
    if (!l.is_softmax) names.push_back("state");
    names.push_back("dense");
    if (l.is_dense) {
      names.insert(names.end(), {"inner, dense layer", "down, dense layer"});
    } else {
      names.insert(names.end(), {"router, shared", "inner", "down"});
    }
  }
  names.push_back("head");
  return names;
}

void print_phases(StepPath& path, const DeviceModel& model, const std::vector<StepPart>& parts,
                  const std::vector<int32_t>& tokens, float* logits) {
  const std::vector<std::string> names = phase_names(model);
  DeviceBuffer<uint64_t> stamps(names.size() * 2 + 2);
  const std::vector<uint8_t> wanted(tokens.size(), 1);
  CHECK(run_step_with_stamps(path, parts.data(), static_cast<int64_t>(parts.size()), tokens.data(), wanted.data(),
                             logits, stamps.get(), nullptr)
            .ok());
  MUST(cudaDeviceSynchronize());
  const std::vector<uint64_t> at = stamps.download();
  std::map<std::string, std::pair<double, double>> sums;
  std::map<std::string, int> counts;
  for (size_t i = 1; i < names.size(); i++) {
    sums[names[i]].first += static_cast<double>(at[2 * i] - at[2 * i - 1]);
    if (i + 1 < names.size()) sums[names[i]].second += static_cast<double>(at[2 * i + 1] - at[2 * i]);
    counts[names[i]]++;
  }
  for (const auto& [name, sum] : sums) {
    std::printf("    %-20s x%-3d work %7.0f clocks, wait %6.0f\n", name.c_str(), counts[name], sum.first / counts[name],
                sum.second / counts[name]);
  }
  std::printf("    whole %.0f clocks\n", static_cast<double>(at[2 * names.size() - 2] - at[0]));
}

void bench(const char* name, const MiniModel& mini, int rows, int64_t depth, bool draft, bool phases) {
  Result<StepPath*> made = make_step_path(mini.model, nullptr);
  CHECK(made.ok());
  const PathPointer path(made.value());
  std::vector<std::unique_ptr<BenchSession>> sessions;
  std::vector<StepPart> parts;
  std::vector<int32_t> tokens;
  for (int i = 0; i < (draft ? 1 : rows); i++) {
    sessions.push_back(std::make_unique<BenchSession>(depth + 30, static_cast<uint32_t>(i), mini.model.kv_format));
    parts.push_back({sessions.back()->view, i, draft ? rows : 1, nullptr});
  }
  for (int i = 0; i < rows; i++) tokens.push_back(i * 1001 + 5);
  const std::vector<uint8_t> wanted(tokens.size(), 1);
  DeviceBuffer<float> logits(static_cast<size_t>(rows) * 157184);
  const double ms = median_ms(30, [&](int run) {
    for (int32_t& token : tokens) token = (token + 977 * run) % 157184;
    CHECK(run_step(*path, parts.data(), static_cast<int64_t>(parts.size()), tokens.data(), wanted.data(), logits.get(),
                   nullptr)
              .ok());
  });
  const double kv_token = 4.0 * 4 * 2 * static_cast<double>(page_part_bytes(mini.model.kv_format)) / 256;
  const double kv = kv_token * static_cast<double>(depth + 30) * (draft ? 1 : rows);
  const double bytes = mini.token_bytes() + kv + 2.5e7 * static_cast<double>(sessions.size());
  std::printf("  %s, %d row%s%s, depth %lld: %.1f us, %.0f tok/s", name, rows, rows == 1 ? "" : "s",
              draft ? " of a draft" : "", static_cast<long long>(depth), ms * 1e3, rows / ms * 1e3);
  // Several rows choose more experts than one: their bytes are not counted here.
  if (rows == 1)
    std::printf(", %.2f GB, %.0f GB/s, %.0f %% of 3.0 TB/s", bytes / 1e9, bytes / ms / 1e6, bytes / ms / 3e7);
  std::printf("\n");
  if (phases) print_phases(*path, mini.model, parts, tokens, logits.get());
}

TEST("--bench steps of the mini shape") {
  if (!bench_asked()) return;
  for (const bool eight : {true, false}) {
    const MiniModel mini(eight ? MatrixFormat::kQ8 : MatrixFormat::kQ4, 64, RS_KV_BF16);
    const char* name = eight ? "8-bit" : "4-bit";
    bench(name, mini, 1, 0, false, true);
    bench(name, mini, 1, 4096, false, false);
    bench(name, mini, 1, 131072, false, eight);
    bench(name, mini, 4, 4096, true, false);
    bench(name, mini, 8, 4096, true, false);
    bench(name, mini, 8, 4096, false, false);
    bench(name, mini, 32, 1024, false, false);
  }
}

TEST("--bench keys and values at depth") {
  if (!bench_asked()) return;
  for (const rs_kv_format kv : {RS_KV_BF16, RS_KV_Q8}) {
    const MiniModel mini(MatrixFormat::kQ8, 64, kv);
    const char* name = kv == RS_KV_Q8 ? "8-bit, keys of 8 bits" : "8-bit, keys of bf16";
    for (const int64_t depth : {0, 4096, 32768, 131072}) bench(name, mini, 1, depth, false, depth != 4096);
    bench(name, mini, 8, 32768, true, false);
    bench(name, mini, 8, 32768, false, false);
  }
}

}  // namespace
}  // namespace ringside::cuda::test
