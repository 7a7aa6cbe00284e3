// Owns: what tests of kernels need on both sides of the bus: random matrices with their plain values, buffers of device
// memory that come poisoned, and timing.
// The packing here is written from the words of matrix.h alone, so that it checks the packer of the loader too.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <future>
#include <random>
#include <vector>

#include "cuda/matrix.h"
#include "cuda/model.h"

namespace ringside::cuda::test {

// A test cannot go on without its memory: say where and leave.
#define MUST(call)                                                                               \
  do {                                                                                           \
    const cudaError_t must_code_ = (call);                                                       \
    if (must_code_ != cudaSuccess) {                                                             \
      std::printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(must_code_)); \
      std::exit(2);                                                                              \
    }                                                                                            \
  } while (0)

// Device memory of `count` values, every byte 0xff (a NaN in fp32 and bf16) until somebody writes it.
template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(size_t count) : count_(count) {
    MUST(cudaMalloc(&data_, std::max<size_t>(bytes(), 16)));
    poison();
  }
  explicit DeviceBuffer(const std::vector<T>& values) : DeviceBuffer(values.size()) { upload(values); }
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer() { cudaFree(data_); }

  T* get() const { return data_; }
  size_t count() const { return count_; }
  size_t bytes() const { return count_ * sizeof(T); }
  void poison() { MUST(cudaMemset(data_, 0xff, bytes())); }
  void upload(const std::vector<T>& values) {
    MUST(cudaMemcpy(data_, values.data(), std::min(bytes(), values.size() * sizeof(T)), cudaMemcpyHostToDevice));
  }
  std::vector<T> download() const {
    std::vector<T> values(count_);
    MUST(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  void swap(DeviceBuffer& other) {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
  }
  T* data_ = nullptr;
  size_t count_ = 0;
};

inline bf16 to_bf16(float value) { return __float2bfloat16_rn(value); }
inline float from_bf16(bf16 value) { return __bfloat162float(value); }

// e4m3fn, as its definition says.
inline double fp8_value(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const double size = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return code & 0x80 ? -size : size;
}

// A matrix as plain numbers beside its codes. `values` [rows, columns] is exactly what the codes mean.
struct HostMatrix {
  MatrixFormat format;
  int rows, columns, group_columns;
  std::vector<uint8_t> codes;          // [rows, columns]: Q8 and FP8 bytes, Q4 code + 8
  std::vector<bf16> numbers;           // of kBF16
  std::vector<float> scales, offsets;  // [rows, groups]
  std::vector<double> values;
  int groups() const { return group_columns == 0 ? 0 : columns / group_columns; }
};

// Weights of about 1 / sqrt(columns), so that products are about 1.
inline HostMatrix random_matrix(MatrixFormat format, int rows, int columns, int group_columns, bool offsets,
                                uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> unit(0.0f, 1.0f);
  HostMatrix m{format, rows, columns, format == MatrixFormat::kBF16 ? 0 : group_columns, {}, {}, {}, {}, {}};
  const float size = 1.0f / std::sqrt(static_cast<float>(columns));
  const size_t count = static_cast<size_t>(rows) * columns;
  m.values.resize(count);
  if (format == MatrixFormat::kBF16) {
    std::normal_distribution<float> normal(0.0f, size);
    m.numbers.resize(count);
    for (size_t i = 0; i < count; i++) m.values[i] = from_bf16(m.numbers[i] = to_bf16(normal(random)));
    return m;
  }
  m.codes.resize(count);
  const float code_size = format == MatrixFormat::kQ8 ? 70.0f : format == MatrixFormat::kQ4 ? 4.6f : 150.0f;
  for (int i = 0; i < rows * m.groups(); i++) {
    m.scales.push_back(size / code_size * (0.5f + unit(random)));
    if (offsets) m.offsets.push_back(size * (unit(random) - 0.5f));
  }
  for (size_t i = 0; i < count; i++) {
    uint8_t code = static_cast<uint8_t>(random());
    double value = static_cast<int8_t>(code);
    if (format == MatrixFormat::kQ4) code &= 15, value = code - 8;
    if (format == MatrixFormat::kFP8) {
      if ((code & 0x7f) == 0x7f) code ^= 1;  // a NaN
      value = fp8_value(code);
    }
    m.codes[i] = code;
    const size_t group = i / columns * m.groups() + i % columns / m.group_columns;
    m.values[i] = value * m.scales[group] + (offsets ? m.offsets[group] : 0.0f);
  }
  return m;
}

// The bytes of a matrix in fragment order.
inline std::vector<uint8_t> pack(const HostMatrix& m) {
  DeviceMatrix shape;
  shape.format = m.format, shape.rows = m.rows, shape.columns = m.columns;
  const int block_columns = static_cast<int>(shape.block_columns()), lane_columns = block_columns / 4;
  std::vector<uint8_t> out(static_cast<size_t>(shape.block_bytes()));
  uint8_t* at = out.data();
  for (int tile = 0; tile < m.rows / 16; tile++) {
    for (int block = 0; block < m.columns / block_columns; block++) {
      for (int lane = 0; lane < 32; lane++) {
        for (int half = 0; half < 2; half++, at += 8) {
          const size_t first = static_cast<size_t>(tile * 16 + lane / 4 + half * 8) * m.columns +
                               static_cast<size_t>(block * block_columns + lane % 4 * lane_columns);
          if (m.format == MatrixFormat::kBF16) {
            std::memcpy(at, &m.numbers[first], 8);
          } else if (m.format == MatrixFormat::kQ4) {
            for (int c = 0; c < 16; c++) {
              const int word = c / 8, half_byte = c % 8 / 2 + c % 2 * 4;
              uint8_t& byte = at[word * 4 + half_byte / 2];
              byte = static_cast<uint8_t>(byte | m.codes[first + c] << half_byte % 2 * 4);
            }
          } else {
            std::memcpy(at, &m.codes[first], 8);
          }
        }
      }
    }
  }
  return out;
}

// [rows, groups] to [rows / 16, groups, 16].
inline std::vector<float> pack_scales(const HostMatrix& m, const std::vector<float>& scales) {
  std::vector<float> out(scales.size());
  for (int r = 0; r < m.rows; r++) {
    for (int g = 0; g < m.groups() && !scales.empty(); g++) {
      out[(static_cast<size_t>(r / 16) * m.groups() + g) * 16 + r % 16] =
          scales[static_cast<size_t>(r) * m.groups() + g];
    }
  }
  return out;
}

// Matrices of one shape and format in device memory, with the owner of that memory.
struct DeviceStackData {
  DeviceBuffer<uint8_t> blocks;
  DeviceBuffer<float> scales, offsets;
  DeviceStack stack;
  const DeviceMatrix& matrix() const { return stack.first; }
};

inline DeviceStackData upload(const std::vector<HostMatrix>& matrices) {
  const HostMatrix& first = matrices.front();
  std::vector<uint8_t> blocks;
  std::vector<float> scales, offsets;
  std::vector<std::future<std::vector<uint8_t>>> packed;
  for (const HostMatrix& m : matrices) packed.push_back(std::async(std::launch::async, [&m] { return pack(m); }));
  for (size_t i = 0; i < matrices.size(); i++) {
    const HostMatrix& m = matrices[i];
    const std::vector<uint8_t> b = packed[i].get();
    const std::vector<float> s = pack_scales(m, m.scales), o = pack_scales(m, m.offsets);
    blocks.insert(blocks.end(), b.begin(), b.end());
    scales.insert(scales.end(), s.begin(), s.end());
    offsets.insert(offsets.end(), o.begin(), o.end());
  }
  DeviceStackData d{DeviceBuffer<uint8_t>(blocks), DeviceBuffer<float>(scales), DeviceBuffer<float>(offsets), {}};
  d.stack.count = static_cast<int32_t>(matrices.size());
  d.stack.first = DeviceMatrix{first.format,
                               first.rows,
                               first.columns,
                               first.group_columns,
                               d.blocks.get(),
                               scales.empty() ? nullptr : d.scales.get(),
                               offsets.empty() ? nullptr : d.offsets.get()};
  return d;
}
inline DeviceStackData upload(const HostMatrix& matrix) { return upload(std::vector<HostMatrix>{matrix}); }

// The rows of gate and up as DeviceMlp wants them: eight of gate, eight of up, and so on. Both [width, hidden].
inline HostMatrix interleave(const HostMatrix& gate, const HostMatrix& up) {
  HostMatrix out = gate;
  out.rows = gate.rows * 2;
  const auto rows_of = [&](auto member) {
    auto& to = out.*member;
    const auto &from_gate = gate.*member, &from_up = up.*member;
    const size_t width = from_gate.size() / gate.rows;
    to.clear();
    for (int r = 0; r < gate.rows && width != 0; r += 8) {
      to.insert(to.end(), from_gate.begin() + r * width, from_gate.begin() + (r + 8) * width);
      to.insert(to.end(), from_up.begin() + r * width, from_up.begin() + (r + 8) * width);
    }
  };
  rows_of(&HostMatrix::codes);
  rows_of(&HostMatrix::numbers);
  rows_of(&HostMatrix::scales);
  rows_of(&HostMatrix::offsets);
  rows_of(&HostMatrix::values);
  return out;
}

// Random numbers of a normal distribution, as bf16.
inline std::vector<bf16> random_bf16(size_t count, uint32_t seed, float size = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, size);
  std::vector<bf16> out(count);
  for (bf16& v : out) v = to_bf16(normal(random));
  return out;
}
inline std::vector<float> random_floats(size_t count, uint32_t seed, float size = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, size);
  std::vector<float> out(count);
  for (float& v : out) v = normal(random);
  return out;
}

// ‖got - want‖ / ‖want‖; a NaN anywhere gives a NaN, which passes no comparison.
template <class Got, class Want>
double relative_error(const std::vector<Got>& got, const std::vector<Want>& want) {
  double off = 0.0, size = 0.0;
  for (size_t i = 0; i < want.size(); i++) {
    const double g = static_cast<double>(static_cast<float>(got[i])), w = static_cast<double>(want[i]);
    off += (g - w) * (g - w);
    size += w * w;
  }
  return std::sqrt(off / size);
}

#if defined(__CUDACC__)

// Fills memory that is too big to make on the host: bytes without a pattern, or numbers of about `size`.
static __global__ void random_bytes_kernel(uint32_t* words, size_t count, uint32_t seed) {
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<size_t>(gridDim.x) * blockDim.x) {
    uint32_t x = static_cast<uint32_t>(i) * 2654435761u + seed + static_cast<uint32_t>(i >> 32) * 40503u;
    x = (x ^ x >> 15) * 2246822519u;
    words[i] = x ^ x >> 13;
  }
}
static __global__ void random_floats_kernel(float* out, size_t count, uint32_t seed, float low, float high) {
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<size_t>(gridDim.x) * blockDim.x) {
    uint32_t x = static_cast<uint32_t>(i) * 2654435761u + seed;
    x = (x ^ x >> 15) * 2246822519u;
    out[i] = low + (high - low) * static_cast<float>((x ^ x >> 13) >> 8) / 16777216.0f;
  }
}

// `count` matrices of random codes made on the device; scales make products of unit rows about 1.
inline DeviceStackData random_stack(MatrixFormat format, int rows, int columns, int group_columns, bool offsets,
                                    int count, uint32_t seed) {
  DeviceStackData d;
  DeviceMatrix m;
  m.format = format, m.rows = rows, m.columns = columns, m.group_columns = group_columns;
  d.blocks = DeviceBuffer<uint8_t>(static_cast<size_t>(m.block_bytes()) * count);
  random_bytes_kernel<<<1024, 256>>>(reinterpret_cast<uint32_t*>(d.blocks.get()), d.blocks.count() / 4, seed);
  const float size = 1.0f / std::sqrt(static_cast<float>(columns)) /
                     (format == MatrixFormat::kQ8   ? 74.0f
                      : format == MatrixFormat::kQ4 ? 4.6f
                                                    : 150.0f);
  const size_t scale_count = static_cast<size_t>(m.scale_count()) * count;
  if (scale_count != 0) {
    d.scales = DeviceBuffer<float>(scale_count);
    random_floats_kernel<<<256, 256>>>(d.scales.get(), scale_count, seed + 1, 0.5f * size, 1.5f * size);
    if (offsets) {
      d.offsets = DeviceBuffer<float>(scale_count);
      random_floats_kernel<<<256, 256>>>(d.offsets.get(), scale_count, seed + 2, -size, size);
    }
  }
  MUST(cudaDeviceSynchronize());
  m.blocks = d.blocks.get();
  m.scales = scale_count != 0 ? d.scales.get() : nullptr;
  m.offsets = scale_count != 0 && offsets ? d.offsets.get() : nullptr;
  d.stack = DeviceStack{m, count};
  return d;
}

#endif  // __CUDACC__

// Whether the test was started with --bench: check.h runs every test whose name contains its argument, so a timing is a
// test named "--bench …" that does nothing in a run of all tests.
inline bool bench_asked() {
  std::FILE* file = std::fopen("/proc/self/cmdline", "rb");
  if (file == nullptr) return false;
  char line[4096] = {};
  const size_t length = std::fread(line, 1, sizeof line - 1, file);
  std::fclose(file);
  const std::vector<char> asked = {'-', '-', 'b', 'e', 'n', 'c', 'h'};
  return std::search(line, line + length, asked.begin(), asked.end()) != line + length;
}

// Median milliseconds of `body(i)` on the default stream, i = 0, 1, …, after three runs that do not count.
inline double median_ms(int runs, const std::function<void(int)>& body) {
  cudaEvent_t begin, end;
  MUST(cudaEventCreate(&begin));
  MUST(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = -3; i < runs; i++) {
    MUST(cudaEventRecord(begin));
    body(i + 3);
    MUST(cudaEventRecord(end));
    MUST(cudaEventSynchronize(end));
    float ms = 0.0f;
    MUST(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 0) times.push_back(ms);
  }
  MUST(cudaEventDestroy(begin));
  MUST(cudaEventDestroy(end));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

}  // namespace ringside::cuda::test
