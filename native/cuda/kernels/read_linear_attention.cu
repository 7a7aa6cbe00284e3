// Owns: linear attention of the read path, chunk by chunk (specification 3.5).
//
// Two launches a layer. The first works on all chunks at once: norm, rotation and the decayed products of queries and
// keys inside a chunk; it leaves the operands of everything else in the order in which a lane multiplies them. The
// second walks the chunks in order, a block for some value channels of one head, with S in registers: S is never
// written but at the end, and no product is done twice.
//
// Every exponent is <= 0, so nothing overflows whatever the slope. S is fp32; as an operand it is the sum of two bf16.
// What enters the products of a row is made from its fp32 k and v by the same instructions, whether they were computed
// for this slab or lay in the open chunk: so a slab may end anywhere.
#include "cuda/cuda_call.h"
#include "cuda/kernels/attention_tile.cuh"
#include "cuda/kernels/read_attention.h"

namespace ringside::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kTileBytes = kChunkTokens * kRowBytes;  // 64 rows of a head

// A fragment is 512 bytes: a [16, 16] operand, 16 bytes a lane. A chunk of a head in scratch:
//   queries [row / 16][channel / 16]; keys, transposed and decayed to the chunk's end, [channel / 16][row / 16]; the
//   scores under the diagonal, fragment (m, n <= m) at m (m + 1) / 2 + n; values, transposed, [channel / 16][row / 16].
constexpr int kFragmentBytes = 512;
constexpr int kRowFragments = kChunkTokens / 16;
constexpr int kChannelFragments = kHeadDim / 16;
constexpr int kScoreFragments = kRowFragments * (kRowFragments + 1) / 2;
constexpr int kQueriesAt = 0;
constexpr int kKeysAt = kQueriesAt + kTileBytes;
constexpr int kScoresAt = kKeysAt + kTileBytes;
constexpr int kValuesAt = kScoresAt + kScoreFragments * kFragmentBytes;
constexpr int kChunkBytes = kValuesAt + kTileBytes;

struct LinearCall {
  const bf16* qkv;
  int64_t qkv_stride;
  int64_t position, rows;
  int heads, half;  // half of the rotary dimension
  bool silu;
  float eps;
  const float *query_norm, *key_norm, *inv_freq, *slopes;
  // Of this layer.
  const float *s, *open_k, *open_v;
  float *next_s, *next_open_k, *next_open_v;
  uint8_t* chunks;  // [chunk, head, kChunkBytes]
  float* mixed;

  __device__ int64_t chunk_start(int64_t chunk) const { return (position / kChunkTokens + chunk) * kChunkTokens; }
  __device__ const uint8_t* chunk_of(int64_t chunk, int head) const {
    return chunks + (chunk * heads + head) * kChunkBytes;
  }
};

__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

// The rows of one head in one chunk: those before `first` lie open in the session, those from `end` on do not exist.
struct ChunkRows {
  int64_t start;  // position of row 0
  int first, end;
};

__device__ __forceinline__ ChunkRows chunk_rows(const LinearCall& call, int64_t chunk) {
  const int64_t start = call.chunk_start(chunk);
  return {start, static_cast<int>(max(call.position - start, int64_t{0})),
          static_cast<int>(min(call.position + call.rows - start, kChunkTokens))};
}

constexpr int kRowsAtOnce = kThreads / kHeadLanes;
constexpr int kRowRounds = kChunkTokens / kRowsAtOnce;

// q, k and v of a block's rows, asked for before anything else is done.
struct RawRows {
  uint4 values[kRowRounds][3];
};

__device__ __forceinline__ void load_raw(const LinearCall& call, const ChunkRows& rows, int head, RawRows& raw) {
  const int lane = threadIdx.x % kHeadLanes;
  const int64_t width = static_cast<int64_t>(call.heads) * kHeadDim;
#pragma unroll
  for (int round = 0; round < kRowRounds; ++round) {
    const int row = round * kRowsAtOnce + static_cast<int>(threadIdx.x) / kHeadLanes;
    const bool mine = row >= rows.first && row < rows.end;
    const bf16* from = call.qkv + (rows.start + row - call.position) * call.qkv_stride + head * kHeadDim + 8 * lane;
#pragma unroll
    for (int part = 0; part < 3; ++part)
      raw.values[round][part] = mine ? *reinterpret_cast<const uint4*>(from + part * width) : make_uint4(0, 0, 0, 0);
  }
}

// Leaves one row of q, k, k decayed to the chunk's end, and v in the tiles, and k and v in the session if they stay
// open.
__device__ __forceinline__ void prepare_row(const LinearCall& call, const ChunkRows& rows, int head, int row,
                                            const uint4 (&raw)[3], const float2* angles, uint8_t* tiles) {
  const int lane = threadIdx.x % kHeadLanes;
  const int64_t open_at = (static_cast<int64_t>(head) * kChunkTokens + row) * kHeadDim + 8 * lane;
  float q[8], k[8], v[8];
  unpack_channels(raw[0], q);
  unpack_channels(raw[1], k);
  unpack_channels(raw[2], v);
  if (call.silu) {
#pragma unroll
    for (int i = 0; i < 8; ++i) q[i] = silu(q[i]), k[i] = silu(k[i]), v[i] = silu(v[i]);
  }
  norm_head(q, call.query_norm, call.eps, lane);
  norm_head(k, call.key_norm, call.eps, lane);
  rotate_head(q, angles + row * call.half, call.half, lane);
  rotate_head(k, angles + row * call.half, call.half, lane);
#pragma unroll
  for (int i = 0; i < 8; ++i) q[i] *= 0.08838834764831845f;  // 128^-0.5
  if (row < rows.first) {
    load_floats(call.open_k + open_at, k);
    load_floats(call.open_v + open_at, v);
  }
  if (rows.end < kChunkTokens && row < rows.end) {
    store_floats(call.next_open_k + open_at, k);
    store_floats(call.next_open_v + open_at, v);
  }
  float decayed[8];
  const float decay = expf(-call.slopes[head] * static_cast<float>(kChunkTokens - 1 - row));
#pragma unroll
  for (int i = 0; i < 8; ++i) decayed[i] = k[i] * decay;
  const uint32_t at = tile_offset(row, lane);
  *reinterpret_cast<uint4*>(tiles + at) = pack_channels(q);
  *reinterpret_cast<uint4*>(tiles + kTileBytes + at) = pack_channels(k);
  *reinterpret_cast<uint4*>(tiles + 2 * kTileBytes + at) = pack_channels(decayed);
  *reinterpret_cast<uint4*>(tiles + 3 * kTileBytes + at) = pack_channels(v);
}

__device__ __forceinline__ void store_fragment(uint8_t* to, int fragment, const uint32_t (&r)[4]) {
  reinterpret_cast<uint4*>(to + fragment * kFragmentBytes)[threadIdx.x % 32] = make_uint4(r[0], r[1], r[2], r[3]);
}

// Fragment (m, n) of a tile as it lies: rows 16m.., channels 16n.. .
__device__ __forceinline__ void load_straight(uint32_t (&r)[4], uint32_t tile, int m, int n) {
  const int lane = threadIdx.x % 32;
  load_matrices(r, tile + tile_offset(m * 16 + (lane & 15), n * 2 + (lane >> 4)));
}
// Of the transposed tile: channels 16m.., rows 16n.. .
__device__ __forceinline__ void load_turned(uint32_t (&r)[4], uint32_t tile, int m, int n) {
  const int lane = threadIdx.x % 32;
  load_matrices_transposed(r, tile + tile_offset(n * 16 + (lane & 7) + ((lane >> 4) << 3), m * 2 + ((lane >> 3) & 1)));
}

// A [16, 16] operand held as the A of mma is, read the other way round, the two [16, 8] B operands of its transpose:
// registers 0 and 2 for the first eight columns, 1 and 3 for the others. So a tile's keys and values need one form.
__device__ __forceinline__ void multiply_add_pair(float (&d)[2][4], const uint32_t (&a)[4], const uint32_t (&b)[4]) {
  multiply_add(d[0], a, b[0], b[2]);
  multiply_add(d[1], a, b[1], b[3]);
}

// exp(-s (i - j)) q_i k_j for the rows 16m.. and the keys 16n.., n <= m; zero above the diagonal.
__device__ __forceinline__ void store_scores(uint8_t* to, uint32_t tiles, int m, int n, float slope) {
  float d[2][4] = {};
#pragma unroll
  for (int step = 0; step < kChannelFragments; ++step) {
    uint32_t q[4], k[4];
    load_straight(q, tiles, m, step);
    load_straight(k, tiles + kTileBytes, n, step);
    multiply_add_pair(d, q, k);
  }
  const int lane = threadIdx.x % 32;
  float masked[2][4];
#pragma unroll
  for (int c = 0; c < 8; ++c) {
    const int i = m * 16 + lane / 4 + (c & 2) * 4, j = n * 16 + (c >> 2) * 8 + (lane % 4) * 2 + (c & 1);
    masked[c >> 2][c & 3] = j > i ? 0.0f : d[c >> 2][c & 3] * expf(-slope * static_cast<float>(i - j));
  }
  const uint32_t r[4] = {pack_bf16(masked[0][0], masked[0][1]), pack_bf16(masked[0][2], masked[0][3]),
                         pack_bf16(masked[1][0], masked[1][1]), pack_bf16(masked[1][2], masked[1][3])};
  store_fragment(to + kScoresAt, m * (m + 1) / 2 + n, r);
}

__global__ void __launch_bounds__(kThreads, 2) prepare_chunks(const LinearCall call) {
  extern __shared__ __align__(128) uint8_t shared[];
  float2* angles = reinterpret_cast<float2*>(shared + 4 * kTileBytes);
  const ChunkRows rows = chunk_rows(call, blockIdx.y);
  int head = blockIdx.x;
  RawRows raw;
  load_raw(call, rows, head, raw);
  fill_angles(angles, call.inv_freq, call.half, rows.start, kChunkTokens);
  const uint32_t tiles = shared_address(shared);
  const int warp = threadIdx.x / 32;
  while (true) {
    __syncthreads();
#pragma unroll
    for (int round = 0; round < kRowRounds; ++round)
      prepare_row(call, rows, head, round * kRowsAtOnce + threadIdx.x / kHeadLanes, raw.values[round], angles, shared);
    __syncthreads();
    // The next head's rows are on their way while this one's leave.
    const int next = head + gridDim.x;
    if (next < call.heads) load_raw(call, rows, next, raw);
    uint8_t* to = const_cast<uint8_t*>(call.chunk_of(blockIdx.y, head));
#pragma unroll
    for (int i = warp; i < kRowFragments * kChannelFragments; i += kWarps) {
      uint32_t r[4];
      load_straight(r, tiles, i / kChannelFragments, i % kChannelFragments);
      store_fragment(to + kQueriesAt, i, r);
      load_turned(r, tiles + 2 * kTileBytes, i / kRowFragments, i % kRowFragments);
      store_fragment(to + kKeysAt, i, r);
      load_turned(r, tiles + 3 * kTileBytes, i / kRowFragments, i % kRowFragments);
      store_fragment(to + kValuesAt, i, r);
    }
    for (int i = warp; i < kScoreFragments; i += kWarps) {
      const int m = i >= 6 ? 3 : i >= 3 ? 2 : i >= 1 ? 1 : 0;
      store_scores(to, tiles, m, i - m * (m + 1) / 2, call.slopes[head]);
    }
    if (next >= call.heads) return;
    head = next;
  }
}

// The walk. A block holds kParts * 16 value channels of S, transposed: warp w has the key channels 16w .. 16w + 15. A
// transposed product of keys and values comes out of mma in the very registers in which queries want it as their B.
template <int kParts, int kDepth>
struct Walk {
  static constexpr int kStages = kDepth;  // chunks in shared memory: this one and those on their way
  static constexpr int kValueBytes = kParts * kRowFragments * kFragmentBytes;
  static constexpr int kStageBytes = kValuesAt + kValueBytes;
  // The two bf16 of S, [half of the value channels][key channel / 16][lane]: of hi and then of lo, two registers.
  static constexpr int kStateBytes = kParts * 2 * kChannelFragments * kFragmentBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes + 2 * kStateBytes;

  float s[kParts][2][4];

  // Register c of tile t: value channel lane / 4 + (c >= 2 ? 8 : 0), key channel 8t + 2 (lane % 4) + c % 2. f(s,
  // index).
  template <class F>
  __device__ __forceinline__ void each(F&& f) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < kParts * 8; ++i) {
      const int part = i / 8, tile = i / 4 % 2, c = i % 4;
      const int key = warp * 16 + tile * 8 + (lane % 4) * 2 + c % 2, value = part * 16 + lane / 4 + (c >= 2 ? 8 : 0);
      f(s[part][tile][c], key * static_cast<int>(kHeadDim) + value);
    }
  }

  __device__ __forceinline__ static void load_stage(const LinearCall& call, int64_t chunk, int head, int slice,
                                                    uint32_t stage) {
    const uint8_t* from = call.chunk_of(chunk, head);
    for (int i = threadIdx.x; i < kValuesAt / 16; i += kThreads) copy_async(stage + i * 16, from + i * 16);
    const uint8_t* values = from + kValuesAt + slice * kValueBytes;
    for (int i = threadIdx.x; i < kValueBytes / 16; i += kThreads)
      copy_async(stage + kValuesAt + i * 16, values + i * 16);
  }

  __device__ __forceinline__ void publish(uint8_t* state) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int half = 0; half < kParts * 2; ++half) {
      uint32_t hi[2], lo[2];
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        const float a = s[half / 2][tile][half % 2 * 2], b = s[half / 2][tile][half % 2 * 2 + 1];
        hi[tile] = pack_bf16(a, b);
        lo[tile] = pack_bf16(a - low_half(hi[tile]), b - high_half(hi[tile]));
      }
      reinterpret_cast<uint4*>(state + (half * kChannelFragments + warp) * kFragmentBytes)[lane] =
          make_uint4(hi[0], hi[1], lo[0], lo[1]);
    }
  }

  __device__ __forceinline__ static void load_fragment(uint32_t (&r)[4], const uint8_t* at) {
    const uint4 v = reinterpret_cast<const uint4*>(at)[threadIdx.x % 32];
    r[0] = v.x, r[1] = v.y, r[2] = v.z, r[3] = v.w;
  }

  // What the chunk's rows read: warp w has the rows 16 (w % 4).. and, of the slice, half w / 4 of the value channels.
  __device__ __forceinline__ static void read_out(const LinearCall& call, const ChunkRows& rows, int head,
                                                  int first_value, const uint8_t* stage, const uint8_t* state) {
    const int lane = threadIdx.x % 32, m = threadIdx.x / 32 % 4, side = threadIdx.x / 128;
    float high[kParts][4] = {}, low[kParts][4] = {}, inner[kParts][4] = {};
#pragma unroll
    for (int step = 0; step < kChannelFragments; ++step) {
      uint32_t q[4];
      load_fragment(q, stage + kQueriesAt + (m * kChannelFragments + step) * kFragmentBytes);
#pragma unroll
      for (int n = 0; n < kParts; ++n) {
        uint32_t part[4];
        load_fragment(part, state + ((side * kParts + n) * kChannelFragments + step) * kFragmentBytes);
        multiply_add(high[n], q, part[0], part[1]);
        multiply_add(low[n], q, part[2], part[3]);
      }
    }
    for (int step = 0; step <= m; ++step) {
      uint32_t scores[4];
      load_fragment(scores, stage + kScoresAt + (m * (m + 1) / 2 + step) * kFragmentBytes);
#pragma unroll
      for (int n = 0; n < kParts; ++n) {
        const int half = side * kParts + n;
        uint32_t v[4];
        load_fragment(v, stage + kValuesAt + (half / 2 * kRowFragments + step) * kFragmentBytes);
        multiply_add(inner[n], scores, half % 2 == 0 ? v[0] : v[1], half % 2 == 0 ? v[2] : v[3]);
      }
    }
    const int64_t width = static_cast<int64_t>(call.heads) * kHeadDim;
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      const int row = m * 16 + lane / 4 + upper * 8;
      if (row < rows.first || row >= rows.end) continue;
      const float decay = expf(-call.slopes[head] * static_cast<float>(row + 1));
      float* out = call.mixed + (rows.start + row - call.position) * width + head * kHeadDim + first_value;
#pragma unroll
      for (int n = 0; n < kParts; ++n) {
        const float a = fmaf(decay, high[n][2 * upper] + low[n][2 * upper], inner[n][2 * upper]);
        const float b = fmaf(decay, high[n][2 * upper + 1] + low[n][2 * upper + 1], inner[n][2 * upper + 1]);
        *reinterpret_cast<float2*>(out + (side * kParts + n) * 8 + (lane % 4) * 2) = make_float2(a, b);
      }
    }
  }

  // S = exp(-64 s) S + Σ_j exp(-s (63 - j)) k_jᵀ v_j
  __device__ __forceinline__ void advance(float decay, const uint8_t* stage) {
    const int warp = threadIdx.x / 32;
    float sum[kParts][2][4] = {};
#pragma unroll
    for (int step = 0; step < kRowFragments; ++step) {
      uint32_t k[4];
      load_fragment(k, stage + kKeysAt + (warp * kRowFragments + step) * kFragmentBytes);
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        uint32_t v[4];
        load_fragment(v, stage + kValuesAt + (part * kRowFragments + step) * kFragmentBytes);
        multiply_add_pair(sum[part], v, k);
      }
    }
#pragma unroll
    for (int i = 0; i < kParts * 8; ++i) {
      float& value = s[i / 8][i / 4 % 2][i % 4];
      value = fmaf(decay, value, sum[i / 8][i / 4 % 2][i % 4]);
    }
  }
};

template <int kParts, int kDepth>
__global__ void __launch_bounds__(kThreads, 1) walk_chunks(const LinearCall call, int chunk_count) {
  using W = Walk<kParts, kDepth>;
  extern __shared__ __align__(128) uint8_t shared[];
  uint8_t* states = shared + W::kStages * W::kStageBytes;
  const uint32_t stages = shared_address(shared);
  const int slice = blockIdx.x, head = blockIdx.y;
  const int64_t s_at = static_cast<int64_t>(head) * kHeadDim * kHeadDim + slice * kParts * 16;
  for (int i = 0; i < W::kStages - 1; ++i) {
    if (i < chunk_count) W::load_stage(call, i, head, slice, stages + i * W::kStageBytes);
    commit_copies();
  }
  W walk;
  walk.each([&](float& value, int at) { value = call.s[s_at + at]; });
  const float decay = expf(-call.slopes[head] * static_cast<float>(kChunkTokens));
  for (int chunk = 0; chunk < chunk_count; ++chunk) {
    // S of this chunk's start and S of the next's lie apart, so one barrier a chunk is enough: behind it everybody has
    // done with the chunk before.
    uint8_t* state = states + chunk % 2 * W::kStateBytes;
    walk.publish(state);
    wait_copies<W::kStages - 2>();
    __syncthreads();
    const int ahead = chunk + W::kStages - 1;
    if (ahead < chunk_count) W::load_stage(call, ahead, head, slice, stages + ahead % W::kStages * W::kStageBytes);
    commit_copies();
    const uint8_t* stage = shared + chunk % W::kStages * W::kStageBytes;
    const ChunkRows rows = chunk_rows(call, chunk);
    W::read_out(call, rows, head, slice * kParts * 16, stage, state);
    if (rows.end == kChunkTokens) walk.advance(decay, stage);
  }
  walk.each([&](float& value, int at) { call.next_s[s_at + at] = value; });
}

int64_t chunk_count_most(int64_t rows) { return (rows + kChunkTokens - 2) / kChunkTokens + 1; }

template <int kParts, int kDepth>
Status launch_walk(const LinearCall& call, int chunk_count, cudaStream_t stream) {
  constexpr int kSharedBytes = Walk<kParts, kDepth>::kSharedBytes;
  RS_CUDA(cudaFuncSetAttribute(walk_chunks<kParts, kDepth>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  const dim3 grid(kHeadDim / 16 / kParts, call.heads);
  walk_chunks<kParts, kDepth><<<grid, kThreads, kSharedBytes, stream>>>(call, chunk_count);
  RS_LAUNCHED();
  return Unit{};
}

Status walk(const LinearCall& call, int chunk_count, cudaStream_t stream) {
  int device = 0, shared_most = 0;
  RS_CUDA(cudaGetDevice(&device));
  RS_CUDA(cudaDeviceGetAttribute(&shared_most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  // Narrow slices while there are too few heads to give every processor a block.
  if (call.heads > 16 && shared_most >= Walk<2, 4>::kSharedBytes) return launch_walk<2, 4>(call, chunk_count, stream);
  if (shared_most >= Walk<1, 4>::kSharedBytes) return launch_walk<1, 4>(call, chunk_count, stream);
  return launch_walk<1, 2>(call, chunk_count, stream);
}

}  // namespace

int64_t linear_scratch_bytes(const DeviceModel& model, int64_t rows) {
  return chunk_count_most(rows) * model.config.heads * kChunkBytes;
}

Status read_linear_attention(const ReadAttention& call, const SessionView& next, float* mixed, cudaStream_t stream) {
  const DeviceModel& model = *call.model;
  const DeviceLayer& layer = *call.layer;
  const int64_t heads = model.config.heads;
  const int64_t s_at = layer.kind_index * heads * kHeadDim * kHeadDim;
  const int64_t open_at = layer.kind_index * heads * kChunkTokens * kHeadDim;
  const int64_t first = call.session.position / kChunkTokens;
  const int64_t chunks = (call.session.position + call.rows - 1) / kChunkTokens - first + 1;
  const LinearCall linear{
      .qkv = call.qkv,
      .qkv_stride = call.qkv_stride,
      .position = call.session.position,
      .rows = call.rows,
      .heads = static_cast<int>(heads),
      .half = model.config.rotary_dim / 2,
      .silu = model.config.linear_silu != 0,
      .eps = model.config.rms_eps,
      .query_norm = layer.query_norm,
      .key_norm = layer.key_norm,
      .inv_freq = model.inv_freq,
      .slopes = layer.slopes,
      .s = call.session.s + s_at,
      .open_k = call.session.open_k + open_at,
      .open_v = call.session.open_v + open_at,
      .next_s = next.s + s_at,
      .next_open_k = next.open_k + open_at,
      .next_open_v = next.open_v + open_at,
      .chunks = static_cast<uint8_t*>(call.scratch),
      .mixed = mixed,
  };
  const int shared_bytes = 4 * kTileBytes + static_cast<int>(kChunkTokens * linear.half * sizeof(float2));
  RS_CUDA(cudaFuncSetAttribute(prepare_chunks, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  // In long slabs a block takes several heads, which share the angles of their rows.
  const int64_t heads_at_once = chunks < 32 ? heads : (heads + 3) / 4;
  prepare_chunks<<<dim3(static_cast<uint32_t>(heads_at_once), static_cast<uint32_t>(chunks)), kThreads, shared_bytes,
                   stream>>>(linear);
  RS_LAUNCHED();
  return walk(linear, static_cast<int>(chunks), stream);
}

}  // namespace ringside::cuda
