// Products of the read path against sums in double precision, over formats, groups and sizes that divide nothing; and
// that a row's bits depend on nothing but the row.
#include <cinttypes>
#include <string>

#include "check.h"
#include "cuda/cuda_call.h"
#include "cuda/kernels/product.h"
#include "device_data.h"

namespace ringside::cuda::test {
namespace {

struct Kind {
  MatrixFormat format;
  int group_columns;
  bool offsets;
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = {
      {MatrixFormat::kBF16, 0, false}, {MatrixFormat::kQ8, 32, false},  {MatrixFormat::kQ8, 64, false},
      {MatrixFormat::kQ8, 128, false}, {MatrixFormat::kQ8, 32, true},   {MatrixFormat::kQ8, 64, true},
      {MatrixFormat::kQ8, 128, true},  {MatrixFormat::kQ4, 32, false},  {MatrixFormat::kQ4, 64, false},
      {MatrixFormat::kQ4, 128, false}, {MatrixFormat::kQ4, 32, true},   {MatrixFormat::kQ4, 64, true},
      {MatrixFormat::kQ4, 128, true},  {MatrixFormat::kFP8, 32, false}, {MatrixFormat::kFP8, 64, false},
      {MatrixFormat::kFP8, 128, false}};
  return all;
}

std::string name_of(const Kind& kind) {
  static const char* const names[] = {"bf16", "q8", "q4", "fp8"};
  return std::string(names[static_cast<int>(kind.format)]) + " group " + std::to_string(kind.group_columns) +
         (kind.offsets ? " with offsets" : "");
}

void check_ok(const Status& status, const std::string& what) {
  if (!status.ok()) check::fail(__FILE__, __LINE__, what + ": " + status.error().message());
}

// [rows, w.rows] of rows at `stride`.
std::vector<double> reference(const HostMatrix& w, const std::vector<bf16>& x, int64_t stride, int64_t rows) {
  std::vector<double> out(static_cast<size_t>(rows) * w.rows);
  for (int64_t r = 0; r < rows; r++) {
    for (int n = 0; n < w.rows; n++) {
      double sum = 0.0;
      for (int k = 0; k < w.columns; k++) {
        sum += static_cast<double>(from_bf16(x[r * stride + k])) * w.values[static_cast<size_t>(n) * w.columns + k];
      }
      out[r * w.rows + n] = sum;
    }
  }
  return out;
}

template <class T>
std::vector<float> rows_of(const std::vector<T>& values, int64_t stride, int64_t rows, int64_t width) {
  std::vector<float> out;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < width; c++) out.push_back(static_cast<float>(values[r * stride + c]));
  }
  return out;
}

void near(const std::vector<float>& got, const std::vector<double>& want, double limit, const std::string& what) {
  const double off = relative_error(got, want);
  if (!(off < limit)) check::fail(__FILE__, __LINE__, what + ": relative error " + std::to_string(off));
}

TEST("a product is that of plain numbers, in every format, group and size") {
  uint32_t seed = std::random_device{}();
  std::printf("  seed %" PRIu32 "\n", seed);
  const int shapes[][2] = {{16, 128}, {48, 384}, {208, 256}, {128, 640}};
  for (const Kind& kind : kinds()) {
    for (const auto& shape : shapes) {
      const HostMatrix host = random_matrix(kind.format, shape[0], shape[1], kind.group_columns, kind.offsets, seed++);
      const DeviceStackData w = upload(host);
      for (const int64_t rows : {1, 7, 33, 65, 200}) {
        const int64_t stride = host.columns + 24, out_stride = host.rows + 8;
        const std::vector<bf16> x = random_bf16(rows * stride, seed++);
        const DeviceBuffer<bf16> device_x(x);
        const ReadRows read{device_x.get(), stride, rows};
        const std::vector<double> want = reference(host, x, stride, rows);
        const std::string what = name_of(kind) + " " + std::to_string(rows) + " x " + std::to_string(shape[0]) + " x " +
                                 std::to_string(shape[1]);

        DeviceBuffer<float> sums((rows + 1) * out_stride);
        check_ok(multiply_rows(w.matrix(), read, sums.get(), out_stride, nullptr), what);
        const std::vector<float> got = sums.download();
        near(rows_of(got, out_stride, rows, host.rows), want, 2e-6, what);
        for (int64_t r = 0; r <= rows; r++) {  // nothing beside the rows' own places
          for (int64_t c = r == rows ? 0 : host.rows; c < out_stride; c++) CHECK(std::isnan(got[r * out_stride + c]));
        }
        DeviceBuffer<bf16> halves(rows * out_stride);
        check_ok(multiply_rows(w.matrix(), read, halves.get(), out_stride, nullptr), what);
        near(rows_of(halves.download(), out_stride, rows, host.rows), want, 3e-3, what + " to bf16");
      }
    }
  }
}

TEST("a product is added to what is there") {
  const HostMatrix host = random_matrix(MatrixFormat::kQ8, 144, 256, 128, false, 11);
  const DeviceStackData w = upload(host);
  const int64_t rows = 70;
  const std::vector<bf16> x = random_bf16(rows * 256, 12);
  const std::vector<float> before = random_floats(rows * 144, 13, 3.0f);
  const DeviceBuffer<bf16> device_x(x);
  const DeviceBuffer<float> sum(before);
  check_ok(add_product(w.matrix(), ReadRows{device_x.get(), 256, rows}, sum.get(), 144, nullptr), "add");
  std::vector<double> want = reference(host, x, 256, rows);
  for (size_t i = 0; i < want.size(); i++) want[i] += before[i];
  near(sum.download(), want, 2e-6, "sum");
}

TEST("the inner product of an MLP is silu of gate times up") {
  for (const Kind& kind : {Kind{MatrixFormat::kQ8, 128, false}, Kind{MatrixFormat::kQ4, 64, true}}) {
    const HostMatrix gate = random_matrix(kind.format, 80, 256, kind.group_columns, kind.offsets, 21);
    const HostMatrix up = random_matrix(kind.format, 80, 256, kind.group_columns, kind.offsets, 22);
    const DeviceStackData w = upload(interleave(gate, up));
    for (const int64_t rows : {1, 66}) {
      const std::vector<bf16> x = random_bf16(rows * 256, 23);
      const DeviceBuffer<bf16> device_x(x);
      DeviceBuffer<bf16> out(rows * 80);
      check_ok(multiply_inner(w.matrix(), ReadRows{device_x.get(), 256, rows}, out.get(), 80, nullptr), "inner");
      std::vector<double> want = reference(gate, x, 256, rows);
      const std::vector<double> of_up = reference(up, x, 256, rows);
      for (size_t i = 0; i < want.size(); i++) want[i] = want[i] / (1.0 + std::exp(-want[i])) * of_up[i];
      near(rows_of(out.download(), 80, rows, 80), want, 3e-3, "inner of " + std::to_string(rows));
    }
  }
}

TEST("the bits of a row do not depend on the other rows or on the shape of the tile") {
  for (const Kind& kind : kinds()) {
    const HostMatrix host = random_matrix(kind.format, 272, 512, kind.group_columns, kind.offsets, 31);
    const DeviceStackData w = upload(host);
    const int64_t rows = 300;
    const DeviceBuffer<bf16> x(random_bf16(rows * 512, 32));
    std::vector<std::vector<float>> results;
    for (const int tile_rows : {16, 32, 64, 128}) {
      DeviceBuffer<float> out(rows * 272);
      ProductCall call{};
      call.w = w.stack, call.x = x.get(), call.x_stride = 512, call.rows = rows, call.tile_rows = tile_rows;
      call.epilogue = Epilogue::kStoreF32, call.out = out.get(), call.out_stride = 272;
      check_ok(launch_product(call, nullptr), name_of(kind));
      results.push_back(out.download());
    }
    DeviceBuffer<float> alone(rows * 272);
    for (int64_t first = 0, count = 1; first < rows; first += count, count = std::min(count * 2 + 1, rows - first)) {
      check_ok(multiply_rows(w.matrix(), ReadRows{x.get() + first * 512, 512, std::min(count, rows - first)},
                             alone.get() + first * 272, 272, nullptr),
               name_of(kind));
    }
    results.push_back(alone.download());
    for (const std::vector<float>& result : results) {
      if (std::memcmp(result.data(), results[0].data(), result.size() * 4) != 0) {
        check::fail(__FILE__, __LINE__, name_of(kind) + ": other bits");
      }
    }
  }
}

TEST("rows in the order of k give the same bits") {
  const Result<bool> wanted = products_want_order();
  CHECK(wanted.ok());
  if (!wanted.ok() || !wanted.value()) return;  // another card: its products take rows as they are
  for (const Kind& kind : kinds()) {
    const HostMatrix host = random_matrix(kind.format, 144, 384, kind.group_columns, kind.offsets, 61);
    const DeviceStackData w = upload(host);
    const int64_t rows = 217, stride = 400;
    const DeviceBuffer<bf16> x(random_bf16(rows * stride, 62));
    DeviceBuffer<bf16> ordered(rows * 384);
    check_ok(order_rows(kind.format, ReadRows{x.get(), stride, rows}, 384, ordered.get(), 384, nullptr), "order");
    DeviceBuffer<float> plain(rows * 144), got(rows * 144);
    check_ok(multiply_rows(w.matrix(), ReadRows{x.get(), stride, rows}, plain.get(), 144, nullptr), "plain");
    check_ok(multiply_rows(w.matrix(), ReadRows{ordered.get(), 384, rows, true}, got.get(), 144, nullptr), "ordered");
    if (std::memcmp(plain.download().data(), got.download().data(), plain.bytes()) != 0) {
      check::fail(__FILE__, __LINE__, name_of(kind) + ": other bits");
    }
  }
}

TEST("what a product cannot do is refused with its reason, and a failing call comes back as an error") {
  const DeviceStackData w = upload(random_matrix(MatrixFormat::kQ8, 16, 128, 128, false, 41));
  const DeviceBuffer<bf16> x(random_bf16(256, 42));
  DeviceBuffer<float> out(64);
  DeviceMatrix bad = w.matrix();
  bad.group_columns = 16;
  CHECK_EQ(multiply_rows(bad, ReadRows{x.get(), 128, 1}, out.get(), 16, nullptr).ok(), false);
  bad = w.matrix(), bad.columns = 96;
  CHECK_EQ(multiply_rows(bad, ReadRows{x.get(), 128, 1}, out.get(), 16, nullptr).ok(), false);
  CHECK_EQ(multiply_rows(w.matrix(), ReadRows{x.get(), 129, 1}, out.get(), 16, nullptr).ok(), false);
  CHECK_EQ(multiply_rows(w.matrix(), ReadRows{x.get(), 128, 0}, out.get(), 16, nullptr).ok(), true);
  for (int call = 1;; call++) {
    fail_call(call, cudaErrorLaunchFailure);
    const int64_t made = calls_made();
    const Status status = multiply_rows(w.matrix(), ReadRows{x.get(), 128, 1}, out.get(), 16, nullptr);
    const bool failed = calls_made() - made >= call;
    CHECK_EQ(status.ok(), !failed);
    fail_call(0, cudaSuccess);
    if (!failed) break;
  }
}

void time_product(const char* name, const Kind& kind, int outputs, int columns, int64_t rows, int tile_rows,
                  Epilogue epilogue, bool ordered = false) {
  const int copies = 4;  // no weights of the run before in L2
  const DeviceStackData w = random_stack(kind.format, outputs, columns, kind.group_columns, kind.offsets, copies, 51);
  const DeviceBuffer<bf16> x(random_bf16(rows * columns, 52));
  DeviceBuffer<float> out(rows * outputs);
  ProductCall call{};
  call.x = x.get(), call.x_stride = columns, call.rows = rows, call.epilogue = epilogue, call.out = out.get();
  call.tile_rows =
      tile_rows != 0 ? tile_rows
                     : product_tile_rows(w.matrix(), rows, products_want_order().ok() && products_want_order().value());
  call.out_stride = epilogue == Epilogue::kSiluBF16 ? outputs / 2 : outputs;
  DeviceBuffer<bf16> in_order;
  if (ordered) {
    in_order = DeviceBuffer<bf16>(x.count());
    const ReadRows read{x.get(), columns, rows};
    const double order_ms = median_ms(
        20, [&](int) { check_ok(order_rows(kind.format, read, columns, in_order.get(), columns, nullptr), "order"); });
    std::printf("  ordered in %.4f ms:", order_ms);
    call.x = in_order.get(), call.x_ordered = true;
  }
  const double ms = median_ms(20, [&](int i) {
    call.w = DeviceStack{w.stack.at(i % copies), 1};
    check_ok(launch_product(call, nullptr), name);
  });
  const double operations = 2.0 * static_cast<double>(rows) * outputs * columns;
  std::printf("  %-10s %-20s %5" PRId64 " x %5d x %5d, tile %3d: %7.3f ms, %5.0f TFLOP/s, %4.1f %% of 798\n", name,
              name_of(kind).c_str(), rows, outputs, columns, call.tile_rows, ms, operations / ms / 1e9,
              operations / ms / 1e9 / 7.98);
}

TEST("--bench products of the mini shape") {
  if (!bench_asked()) return;
  const Kind q8{MatrixFormat::kQ8, 128, false}, q4{MatrixFormat::kQ4, 128, false}, q4_64{MatrixFormat::kQ4, 64, true};
  const Result<bool> wanted = products_want_order();
  const bool ordered = wanted.ok() && wanted.value();
  for (const Kind& kind : {q8, q4, q4_64}) {
    if (ordered) {
      time_product("qkv", kind, 6144, 2048, 4096, 0, Epilogue::kStoreBF16, true);
      time_product("dense", kind, 2048, 2048, 4096, 0, Epilogue::kAddF32, true);
    }
    time_product("qkv", kind, 6144, 2048, 4096, 0, Epilogue::kStoreBF16);
    time_product("dense", kind, 2048, 2048, 4096, 0, Epilogue::kAddF32);
  }
  time_product("qkv", q8, 6144, 2048, 4096, 64, Epilogue::kStoreBF16);
  time_product("inner", q8, 10240, 2048, 4096, 0, Epilogue::kSiluBF16);
  time_product("qkv", q8, 6144, 2048, 512, 0, Epilogue::kStoreBF16);
  time_product("qkv", q8, 6144, 2048, 32, 0, Epilogue::kStoreBF16);
  time_product("qkv", {MatrixFormat::kQ8, 64, false}, 6144, 2048, 4096, 0, Epilogue::kStoreBF16);
  time_product("qkv", {MatrixFormat::kFP8, 128, false}, 6144, 2048, 4096, 0, Epilogue::kStoreBF16);
  time_product("router", {MatrixFormat::kBF16, 0, false}, 256, 4096, 4096, 0, Epilogue::kStoreF32);
}

}  // namespace
}  // namespace ringside::cuda::test
