// The line between the model's graph owner and a device: a versioned table of C functions, so that a backend can be its
// own shared library. No C++ type and no exception crosses it. Every function that can fail returns 0 for success or
// fills `error` and returns -1.
//
// What is bit-identical (house section 3a): for one backend on one build and instruction set, the logits of a position
// depend on the tokens before it alone, not on how they were split into calls, on the number of threads, or on save and
// restore. Where extend and step have code of their own (read_position() tells) they may differ from one another; then
// this holds for a session that was only read, and for steps behind such a session.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RS_BACKEND_VERSION 4
#define RS_CHUNK_TOKENS 64 /* chunk n is the positions [64n, 64n+64) */
#define RS_MAX_THREADS 512
#define RS_PAGE_TOKENS 256 /* positions of one reference-counted KV page */

typedef struct rs_error {
  int32_t kind; /* ringside::ErrorKind */
  char subject[160];
  char expected[160];
  char actual[160];
} rs_error;

/* Plain copy of ringside::Config, see config.h for meanings. */
typedef struct rs_config {
  int32_t vocab_rows, hidden, layers, group, heads, kv_heads, head_dim, rotary_dim, dense_width, expert_width,
      shared_width, experts, experts_per_token, expert_groups, groups_per_token, dense_layers, norm_groups,
      context_tokens;
  float rms_eps, routed_scale;
  int32_t linear_silu, expert_bias, slope_form;
  const float* slopes;   /* [layers, heads] */
  const float* inv_freq; /* [rotary_dim / 2] */
} rs_config;

/* The same values as ringside::WeightFormat, for backends, which see this header alone. */
typedef enum rs_weight_format {
  RS_WEIGHT_F32 = 0,  /* float */
  RS_WEIGHT_BF16 = 1, /* uint16_t */
  RS_WEIGHT_Q8 = 2,   /* int8_t codes */
  RS_WEIGHT_Q4 = 3,   /* codes -8..7, stored as code + 8 in four bits, the even column in the low half; cols is even */
  RS_WEIGHT_FP8 = 4   /* e4m3fn codes (finite values and NaN only) */
} rs_weight_format;

/* How keys and values of the softmax layers are kept. */
typedef enum rs_kv_format { RS_KV_BF16 = 0, RS_KV_F32 = 1, RS_KV_Q8 = 2 } rs_kv_format;

/* One matrix [rows, cols], row-major, lent until release(). In the coded formats a group of `group_columns` columns of
   one row has a scale, and the value of a code is code * scale + offset; the last group of a row may be shorter. */
typedef struct rs_matrix {
  int32_t format; /* rs_weight_format */
  int64_t rows, cols, group_columns;
  const void* data;
  const float* scales;  /* [rows, groups] with groups = ceil(cols / group_columns); NULL for F32 and BF16 */
  const float* offsets; /* the same shape, or NULL: all zero */
  void* owner;
} rs_matrix;

/* Weights are pulled one tensor at a time, so that loading never needs twice the memory. Every function may be called
   from several threads at once. */
typedef struct rs_weight_source {
  void* context;
  int32_t (*read_matrix)(void* context, const char* base, int64_t rows, int64_t cols, rs_matrix* out, rs_error* error);
  void (*release)(void* context, rs_matrix* matrix);
  int32_t (*read_vector)(void* context, const char* name, int64_t length, float* out, rs_error* error);
  /* The rows [first_row, first_row + row_count) of the matrix [rows, cols]: out->rows is row_count. NULL: this source
     lends whole matrices only. */
  int32_t (*read_rows)(void* context, const char* base, int64_t rows, int64_t cols, int64_t first_row,
                       int64_t row_count, rs_matrix* out, rs_error* error);
} rs_weight_source;

typedef struct rs_load_options {
  int32_t threads;   /* 0: physical cores */
  const char* isa;   /* NULL or "": best of this machine; else a name the backend knows, see cpu/isa.h */
  int32_t kv_format; /* rs_kv_format */
  void* progress_context;
  int32_t (*progress)(void* context, float fraction); /* non-zero: cancel */
  /* Of backends with a device of their own; the others ignore both. The most of its memory that the model may use, its
     sessions included, 0: what is free; and which device, counted from 0 as the driver does, -1: the one with most free
     memory. */
  int64_t device_memory_bytes;
  int32_t device_index;
} rs_load_options;

typedef struct rs_memory_plan {
  int64_t weight_bytes, state_bytes, kv_bytes_per_token, scratch_bytes;
} rs_memory_plan;

typedef struct rs_model rs_model;
typedef struct rs_session rs_session;
typedef struct rs_snapshot rs_snapshot;

typedef enum rs_logits { RS_LOGITS_NONE = 0, RS_LOGITS_LAST = 1, RS_LOGITS_ALL = 2 } rs_logits;

typedef struct rs_poll { /* asked at least every 50 ms while a call runs; non-zero: stop */
  void* context;
  int32_t (*cancelled)(void* context);
  void (*advanced)(void* context, int64_t position); /* may be NULL; after each slab */
} rs_poll;

/* What one session does in a step: appends `count` tokens. `logits` is [1 or count, vocab_rows] for LAST or ALL. */
typedef struct rs_step {
  rs_session* session;
  const int32_t* tokens;
  int64_t count;
  rs_logits want;
  float* logits;
} rs_step;

#define RS_STEP_ROWS 64 /* most tokens of one step, all sessions together */

typedef struct rs_backend {
  int32_t version;  /* RS_BACKEND_VERSION */
  const char* name; /* "cpu", "reference" */

  int32_t (*plan_memory)(const rs_config* config, int32_t format, int64_t group_columns, int32_t kv_format,
                         rs_memory_plan* out, rs_error* error);
  int32_t (*load)(const rs_config* config, const rs_weight_source* source, const rs_load_options* options,
                  rs_model** out, rs_error* error);
  void (*unload)(rs_model* model);              /* after all its sessions and snapshots are closed */
  const char* (*device)(const rs_model* model); /* "Intel Xeon …, avx512, 2 threads" */
  const char* (*isa)(const rs_model* model);
  int32_t (*threads)(const rs_model* model);
  int64_t (*weight_bytes)(const rs_model* model); /* resident */

  int32_t (*open)(rs_model* model, rs_session** out, rs_error* error);
  void (*close)(rs_session* session);
  int64_t (*position)(const rs_session* session); /* tokens held: the next one takes this position */
  int64_t (*session_bytes)(const rs_session* session);

  /* Appends `count` tokens. logits: [1 or count, vocab_rows] fp32 for RS_LOGITS_LAST / ALL. A cancelled or failed call
     leaves the session at a position it had passed before (position() says which), its state exactly that of the tokens
     kept. */
  int32_t (*extend)(rs_session* session, const int32_t* tokens, int64_t count, rs_logits want, float* logits,
                    const rs_poll* poll, rs_error* error);
  /* Several sessions of one model in one pass over the weights; a session appears at most once. The results are those
     of one extend for each. A failed or cancelled step moves no session. */
  int32_t (*step)(rs_model* model, const rs_step* steps, int64_t count, const rs_poll* poll, rs_error* error);
  /* Cuts the last rows of the open chunk: 0 <= position() - keep and keep >= position() / 64 * 64; or goes back to what
     was read before any step: the same with read_position() in the place of position(). */
  int32_t (*accept)(rs_session* session, int64_t keep_position, rs_error* error);

  /* A snapshot at the last chunk boundary of read_position(): linear states copied, KV pages shared. The copy may go on
     after the return; what follows on the session or the snapshot sees it done. */
  int32_t (*save)(rs_session* session, rs_snapshot** out, rs_error* error);
  int32_t (*restore)(rs_model* model, const rs_snapshot* snapshot, rs_session** out, rs_error* error);
  int64_t (*snapshot_position)(const rs_snapshot* snapshot);
  int64_t (*snapshot_bytes)(const rs_snapshot* snapshot);
  void (*drop)(rs_snapshot* snapshot);

  /* Frobenius norm of S as after the last token, [linear layers, heads]; for tests and `logits`. */
  int32_t (*state_norms)(const rs_session* session, float* out, rs_error* error);

  /* The first position that a step wrote, or that was read behind one: only the state before it may be saved and
     reused. position() where steps and extend give the same bits. */
  int64_t (*read_position)(const rs_session* session);

  /* A step that also chooses: where chosen[i] is not NULL it gets, [steps[i].count], the id below `ids` with the
     largest finite logit after each token of that step, the lowest of equal ones; -1: there is none. It is what
     sample() of sampler.h returns at temperature 0 without a penalty. NULL: logits are as near to the caller as ids. */
  int32_t (*step_likeliest)(rs_model* model, const rs_step* steps, int32_t* const* chosen, int64_t count, int32_t ids,
                            const rs_poll* poll, rs_error* error);
  /* [vocab_rows] after token `row` of the model's last call, which was step_likeliest, counted over its steps; of a
     step that was asked for ids or logits. NULL where step_likeliest is. */
  int32_t (*likeliest_logits)(rs_model* model, int64_t row, float* logits, rs_error* error);

  /* A snapshot as bytes, for a file: S, and each page of 256 positions, the last one perhaps not full. They serve a
     model of the same checkpoint, key-value format, build, instruction set and kind of device, and no other. All NULL:
     this backend has none. The exports may run beside any other call of the model. */
  int64_t (*state_part_bytes)(const rs_model* model);
  int64_t (*page_part_bytes)(const rs_model* model);
  int32_t (*export_state)(const rs_snapshot* snapshot, void* out, rs_error* error);
  int32_t (*export_page)(const rs_snapshot* snapshot, int64_t page, void* out, rs_error* error);
  /* pages: one for each begun 256 positions before `position`, a multiple of 64. */
  int32_t (*import_snapshot)(rs_model* model, int64_t position, const void* state, const void* const* pages,
                             rs_snapshot** out, rs_error* error);
} rs_backend;

const rs_backend* rs_cpu_backend(void);
const rs_backend* rs_reference_backend(void);
const rs_backend* rs_cuda_backend(void); /* in a library of its own, see backend_library.h */

#ifdef __cplusplus
}
#endif
