/*
 * Hillock: run, fine-tune and spike ONNX models on any Vulkan device.
 *
 * The contract, said once:
 *
 * Ownership  Every *_create, *_open and *_load hands over an object that its *_destroy (or _close) ends; destroy takes
 *            the address of the pointer, accepts NULL in it, and sets it to NULL. A child keeps nothing alive: destroy
 *            sessions and trainers before their device and model, devices and models before their context. Pointers
 *            from getters are lent and live as long as the object.
 * Errors     Every call that can fail returns hk_status; on failure its outputs are untouched and
 *            hk_context_error() holds one sentence: what, where (node, tensor, file, byte), why, and what to do.
 *            Nothing aborts, prints or exits.
 * Threads    Different contexts may be used at once. The objects of one context belong to one thread at a time.
 * Shapes     Row-major, dimensions outermost first, int64_t, at most HK_MAX_RANK of them. Images are NCHW.
 *            A dimension of -1 is unknown until a session sees an input.
 * Units      Sizes are in elements unless the name ends in _bytes; times are nanoseconds.
 * Options    A struct that begins with its own size (`.size = sizeof options`); zero in any other field means its
 *            default. NULL instead of the struct means all defaults.
 */
#ifndef HILLOCK_H
#define HILLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define HK_API
#else
#define HK_API __attribute__((visibility("default")))
#endif

#if defined(__GNUC__)
#define HK_MUST_USE __attribute__((warn_unused_result))
#define HK_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define HK_MUST_USE
#define HK_PRINTF(f, a)
#endif

#define HK_VERSION_MAJOR 0
#define HK_VERSION_MINOR 1
#define HK_VERSION_PATCH 0

/* "0.1.0"; the library's, which may differ from the header's HK_VERSION_*. */
HK_API const char *hk_version(void);
/* One line: version, compiler, build type, glslang that made the shaders, formats of data. */
HK_API const char *hk_build_info(void);

/* ---------------------------------------------------------------- status */

/* name, exit code of the command, sentence */
#define HK_STATUS_MAP(X)                                                                                               \
    X(OK, 0, "success")                                                                                                \
    X(MISMATCH, 1, "the computation ran but its result differs from the reference")                                    \
    X(USAGE, 64, "the call's arguments are wrong")                                                                     \
    X(INVALID, 65, "the model or data file is malformed")                                                              \
    X(UNSUPPORTED, 65, "the model needs something that is not supported")                                              \
    X(NO_INPUT, 66, "an input file cannot be opened")                                                                  \
    X(NO_DEVICE, 69, "no usable Vulkan device")                                                                        \
    X(INTERNAL, 70, "an internal check failed; please report it")                                                      \
    X(OUT_OF_MEMORY, 71, "out of host or device memory")                                                               \
    X(CANNOT_CREATE, 73, "an output file cannot be created")                                                           \
    X(IO, 74, "reading or writing a file failed")                                                                      \
    X(DEVICE_LOST, 75, "the device was lost or did not answer in time")                                                \
    X(CONFIG, 78, "an environment variable or configuration value is wrong")

typedef enum hk_status {
#define HK_X(name, exit_code, text) HK_STATUS_##name,
    HK_STATUS_MAP(HK_X)
#undef HK_X
} hk_status;
#define HK_OK HK_STATUS_OK

/* "out of host or device memory", for any status. */
HK_API const char *hk_status_text(hk_status st);
/* The exit code by which the hillock command reports it (sysexits.h). */
HK_API int hk_status_exit_code(hk_status st);

/* ---------------------------------------------------------------- tensor */

#define HK_MAX_RANK 8

/* Numbers are ONNX's TensorProto.DataType. Text is the numpy name. */
typedef enum hk_dtype {
    HK_DTYPE_NONE = 0,
    HK_FLOAT32 = 1,
    HK_UINT8 = 2,
    HK_INT8 = 3,
    HK_UINT16 = 4,
    HK_INT16 = 5,
    HK_INT32 = 6,
    HK_INT64 = 7,
    HK_BOOL = 9,
    HK_FLOAT16 = 10,
    HK_FLOAT64 = 11,
    HK_UINT32 = 12,
    HK_UINT64 = 13,
    HK_BFLOAT16 = 16,
    HK_FLOAT8E4M3FN = 17,
    HK_FLOAT8E4M3FNUZ = 18,
    HK_FLOAT8E5M2 = 19,
    HK_FLOAT8E5M2FNUZ = 20,
    HK_UINT4 = 21, /* 2- and 4-bit elements have a byte each in memory: integers their value, floats their bits */
    HK_INT4 = 22,
    HK_FLOAT4E2M1 = 23,
    HK_FLOAT8E8M0 = 24,
    HK_UINT2 = 25,
    HK_INT2 = 26,
    /* No element types: a tensor of rank 1 whose elements are hk_tensor. Sequences hold tensors of one type, optionals
     * nothing or one tensor or sequence. Dense; hk_tensor_release ends the elements too. */
    HK_SEQUENCE = 100,
    HK_OPTIONAL = 101,
} hk_dtype;

/* "float32"; "?" for a number that is none of the above. */
HK_API const char *hk_dtype_name(hk_dtype t);
/* Bytes of one element on the host (bool: 1); 0 for none. */
HK_API size_t hk_dtype_bytes(hk_dtype t);

/* A dense or strided array on the host. strides are in elements; all zero means row-major contiguous.
 * release, when set, frees data (called by hk_tensor_release). */
typedef struct hk_tensor {
    void *data;
    hk_dtype dtype;
    int32_t rank;
    int64_t shape[HK_MAX_RANK];
    int64_t strides[HK_MAX_RANK];
    void (*release)(struct hk_tensor *t);
    void *user;
} hk_tensor;

/* Elements; -1 if it overflows or a dimension is negative. Rank 0 has one. */
HK_API int64_t hk_tensor_count(const hk_tensor *t);
/* Frees what the tensor owns and zeroes it. */
HK_API void hk_tensor_release(hk_tensor *t);

/* ---------------------------------------------------------------- context */

typedef struct hk_context hk_context;

typedef enum hk_log_level { HK_LOG_DEFAULT, HK_LOG_ERROR, HK_LOG_WARN, HK_LOG_INFO, HK_LOG_DEBUG } hk_log_level;

typedef struct hk_allocator {
    void *(*realloc)(void *user, void *pointer, size_t bytes); /* bytes 0 frees and returns NULL */
    void *user;
} hk_allocator;

typedef struct hk_context_params {
    size_t size;
    void (*log)(void *user, hk_log_level level, const char *line); /* default: silent */
    void *log_user;
    hk_log_level log_level; /* default: HK_LOG_WARN */
    hk_allocator allocator; /* default: the C library's */
} hk_context_params;

HK_API HK_MUST_USE hk_status hk_context_create(const hk_context_params *params, hk_context **out);
HK_API void hk_context_destroy(hk_context **ctx);
/* The sentence of the last failure in this context, "" when there was none. */
HK_API const char *hk_context_error(const hk_context *ctx);

/* Reads .npy (versions 1-3, C or Fortran order, no objects) or an ONNX TensorProto .pb, told apart by content; a
 * SequenceProto or OptionalProto if out->dtype says HK_SEQUENCE or HK_OPTIONAL. The tensor owns its data. */
HK_API HK_MUST_USE hk_status hk_tensor_load(hk_context *ctx, const char *path, hk_tensor *out);
/* Writes .npy (version 1) or, if path ends in .pb, a TensorProto; atomically: temporary file, fsync, rename. */
HK_API HK_MUST_USE hk_status hk_tensor_save(hk_context *ctx, const hk_tensor *t, const char *path);
/* A file of these bytes that exists whole or not at all: a temporary file beside it, fsync, rename, fsync of the
 * folder. HK_STATUS_CANNOT_CREATE, HK_STATUS_IO: what was there before is there still. */
HK_API HK_MUST_USE hk_status hk_file_save(hk_context *ctx, const char *path, const void *data, size_t bytes);
/* A dense copy with elements of another type, which *out owns: a float of any size of any other (rounded to nearest
 * even), an integer or bool of those. HK_STATUS_INVALID names the first element that the type cannot hold. */
HK_API HK_MUST_USE hk_status hk_tensor_convert(hk_context *ctx, const hk_tensor *t, hk_dtype dtype, hk_tensor *out);

/* ---------------------------------------------------------------- device */

typedef struct hk_device hk_device;

/* name, label: what a device can do beyond the baseline. Each can be switched off with
 * HILLOCK_CAPS=-name,-name; HILLOCK_CAPS=min switches all off and reports the specification's minimal limits. */
#define HK_CAP_MAP(X)                                                                                                  \
    X(FP16, "fp16")                   /* 16-bit float arithmetic in shaders */                                         \
    X(STORAGE16, "storage16")         /* 16-bit values in buffers */                                                   \
    X(BF16, "bf16")                   /* bfloat16 matrices */                                                          \
    X(INT64, "int64")                 /* 64-bit integers in shaders */                                                 \
    X(INT8_DOT, "int8dot")            /* integer dot product */                                                        \
    X(INT8_MATRIX, "int8matrix")      /* cooperative matrices of int8, int32 sums */                                   \
    X(SUBGROUP, "subgroup")           /* subgroup arithmetic, shuffle and ballot in compute */                         \
    X(SUBGROUP_SIZE, "subgroup-size") /* subgroup size can be required */                                              \
    X(COOPMAT, "coopmat")             /* VK_KHR_cooperative_matrix, fp16 operands and fp32 sums */                     \
    X(COOPMAT2, "coopmat2")           /* VK_NV_cooperative_matrix2, workgroup scope */                                 \
    X(TIMESTAMPS, "timestamps")       /* timestamps on the compute queue */

typedef enum hk_cap {
#define HK_X(name, text) HK_CAP_##name,
    HK_CAP_MAP(HK_X)
#undef HK_X
        HK_CAP_COUNT
} hk_cap;

typedef enum hk_device_type {
    HK_DEVICE_OTHER,
    HK_DEVICE_INTEGRATED,
    HK_DEVICE_DISCRETE,
    HK_DEVICE_VIRTUAL,
    HK_DEVICE_SOFTWARE
} hk_device_type;

typedef struct hk_device_info {
    char name[256];
    char driver[256]; /* driver name and its own version text */
    char uuid[33];    /* lower-case hex */
    hk_device_type type;
    bool usable; /* false: why says what lacks */
    char why[160];
    uint32_t caps; /* bit (1 << HK_CAP_x) */
    uint32_t subgroup_size;
    uint32_t max_invocations; /* per workgroup */
    uint32_t max_shared_bytes;
    uint32_t max_grid; /* workgroups per dimension, the least of the three */
    uint64_t memory_bytes;
    uint64_t max_allocation_bytes;
} hk_device_info;

typedef struct hk_device_params {
    size_t size;
    const char *select;    /* index, part of the name, or UUID; default: HILLOCK_DEVICE, else the first discrete,
                              integrated, virtual, software device in that order */
    const char *cache_dir; /* pipeline cache; default: HILLOCK_CACHE_DIR, else the XDG cache folder; "" for none */
    const char *caps;      /* as HILLOCK_CAPS, which it overrides */
    const char
        *debug; /* as HILLOCK_DEBUG, which it overrides: a list of check-plan, shuffle, poison, isolate, gpu-tuning
                   (software devices run the kernels that GPUs run), no-PASS (HK_PASS_MAP),
                   validate (the Khronos layer; any message fails the call during which it came) */
    uint64_t max_memory_bytes; /* device memory this device may use; default: what the driver reports as budget */
} hk_device_params;

/* Lists devices: writes at most capacity entries and always the true number in *count. A machine without a Vulkan
 * loader or driver has 0 and HK_OK. */
HK_API HK_MUST_USE hk_status hk_device_list(hk_context *ctx, hk_device_info *infos, size_t capacity, size_t *count);
HK_API HK_MUST_USE hk_status hk_device_open(hk_context *ctx, const hk_device_params *params, hk_device **out);
HK_API const hk_device_info *hk_device_get_info(const hk_device *dev);
HK_API void hk_device_close(hk_device **dev);

typedef struct hk_device_stats {
    uint64_t pipelines_created;  /* since the device was opened */
    uint64_t pipelines_compiled; /* of those, not found in the disk cache */
    uint64_t submits;
    uint64_t memory_bytes;      /* allocated now */
    uint64_t peak_memory_bytes; /* the most at once */
    /* Host time since the device was opened, in nanoseconds; none of it is part of another. */
    uint64_t plans_ns;     /* sessions and plans made: shapes, passes, plan, memory, recording */
    uint64_t pipelines_ns; /* pipelines made: compiled, or found in the disk cache */
    uint64_t weights_ns;   /* weights sent to the device, and what is computed once from them */
} hk_device_stats;
HK_API void hk_device_get_stats(const hk_device *dev, hk_device_stats *out);

/* What bounds a kernel from below: its bytes at the copy rate, its operations at the arithmetic rate. */
typedef struct hk_device_rates {
    double copy_bytes_per_second; /* read plus written, between buffers larger than caches */
    double flops_per_second;      /* fp32 fused multiply-adds in registers, two operations each */
} hk_device_rates;
/* Measures them, in less than a second; allocates up to 512 MiB for that time. */
HK_API HK_MUST_USE hk_status hk_device_measure(hk_device *dev, hk_device_rates *out);

/* One case of the self-test: an operator with given shapes and attributes, its kernels against its host evaluator. */
typedef struct hk_selftest_case {
    const char *op;
    const char *text;      /* the case, in the grammar of runtime/cases.h */
    const char *precision; /* "strict"; products, convolutions and attention also run in "high" and "fast" */
    const char *failure;   /* NULL: passed; else a sentence */
    bool skipped;          /* needs what this device lacks; failure says what */
    double error;          /* ||device - host|| / ||host||, the worst of its outputs */
} hk_selftest_case;

/* A kernel, and the families of its specializations that cases ran. */
typedef struct hk_selftest_kernel {
    const char *name;
    const char *const *variants; /* as hk_plan_row.kernel names them */
    size_t variant_count;
    size_t dispatches;
    const char *why; /* NULL: it ran; else why it did not */
} hk_selftest_kernel;

typedef struct hk_selftest_params {
    size_t size;
    const char *const *ops; /* only these operators; a '*' at the end stands for any rest. Default: all */
    size_t op_count;
    void (*report)(void *user, const hk_selftest_case *c);
    void (*kernel)(void *user, const hk_selftest_kernel *k); /* every kernel of the build, when all cases have run */
    void *user;
} hk_selftest_params;

typedef struct hk_selftest_result {
    size_t ops, passed, failed, skipped;
    size_t kernels, kernels_run, variants_run; /* of this build; of those, dispatched; their variants */
} hk_selftest_result;

/* Runs every case of every operator on the device, in each precision that has kernels of its own for it there: in high
 * within 3e-5 of the host's results, in fast, with 16-bit operands and results, within 2e-3. HK_STATUS_MISMATCH if one
 * fails, HK_STATUS_USAGE if nothing has the name of one of ops. */
HK_API HK_MUST_USE hk_status hk_selftest(hk_device *dev, const hk_selftest_params *params, hk_selftest_result *result);
/* The cases, without running them: their failure is NULL and their error 0. Counts operators, and cases as skipped. */
HK_API HK_MUST_USE hk_status hk_selftest_list(hk_context *ctx, const hk_selftest_params *params,
                                              hk_selftest_result *result);

/* ---------------------------------------------------------------- model */

typedef struct hk_model hk_model;

typedef struct hk_value_info {
    const char *name;
    hk_dtype dtype;
    int32_t rank; /* -1: unknown */
    int64_t shape[HK_MAX_RANK];
    const char *dim_names[HK_MAX_RANK]; /* "batch" where a dimension has a name, else NULL */
    hk_dtype item;                      /* of a sequence's or optional's elements, if they are known */
} hk_value_info;

typedef struct hk_problem {
    const char *node; /* its name, or "#12" when it has none */
    const char *op;
    const char *reason;
} hk_problem;

typedef struct hk_model_info {
    const char *producer; /* "pytorch 2.11.0" */
    const char *graph_name;
    int64_t ir_version;
    int64_t opset; /* of the default domain */
    size_t nodes;
    size_t parameters;       /* float initializers that are weights, by operand role */
    int64_t parameter_count; /* elements in them */
    size_t metadata_count;
    const char *const *metadata; /* key, value, key, value, ... */
} hk_model_info;

typedef struct hk_node_info {
    const char *name, *op;
    const hk_value_info *inputs, *outputs; /* name NULL: absent */
    size_t input_count, output_count;
} hk_node_info;

/* What one run will take, from the plan of the given shapes. */
typedef struct hk_estimate {
    bool known; /* false: all else is 0, because dimensions are open or an input's contents decide about shapes */
    bool whole; /* false: only up to the first step of the host, whose result decides about the rest */
    uint64_t weight_bytes, activation_bytes, input_output_bytes;
    uint64_t live_bytes; /* the most activation bytes alive at once */
    uint64_t moved_bytes;
    double flops;
    size_t dispatches;
} hk_estimate;

typedef struct hk_model_params {
    size_t size;
    bool no_external_data;     /* refuse tensors stored in other files */
    uint64_t max_file_bytes;   /* default: 2 GiB - 1 */
    uint64_t max_folded_bytes; /* default: 64 MiB */
} hk_model_params;

/* Loads an ONNX file. The file stays mapped as long as the model lives. A model with unsupported operators loads:
 * hk_model_problems lists them all, and sessions refuse it. */
HK_API HK_MUST_USE hk_status hk_model_load(hk_context *ctx, const char *path, const hk_model_params *params,
                                           hk_model **out);
/* The same from memory, which is copied; external data is refused. */
HK_API HK_MUST_USE hk_status hk_model_load_memory(hk_context *ctx, const void *data, size_t bytes,
                                                  const hk_model_params *params, hk_model **out);
/* A loaded model's file as it was; a built model as ONNX. */
HK_API HK_MUST_USE hk_status hk_model_save(hk_model *m, const char *path);
HK_API void hk_model_destroy(hk_model **m);
HK_API void hk_model_get_info(const hk_model *m, hk_model_info *out);
HK_API const hk_value_info *hk_model_inputs(const hk_model *m, size_t *count);
HK_API const hk_value_info *hk_model_outputs(const hk_model *m, size_t *count);
/* Trainable tensors: float initializers in a weight, bias, scale or slope role. */
HK_API const hk_value_info *hk_model_parameters(const hk_model *m, size_t *count);
/* "weight", "bias", "norm" (of normalizations), "embedding" or "other", of parameter i: what a rule's "role:" names. */
HK_API const char *hk_model_parameter_role(const hk_model *m, size_t i);
/* Other initializers of floats (position embeddings, layer scales, constants): trained if a rule names them. */
HK_API const hk_value_info *hk_model_other_floats(const hk_model *m, size_t *count);
/* Matrices in a weight's role whose contents are equal, as they are or transposed: most likely one parameter in PyTorch
 * (weight tying, as of GPT-2's embedding and head), which the exporter has made two of. Training drives them apart,
 * unless hk_model_edit_params.tie_matrices makes them one again. */
typedef struct hk_lost_tie {
    const char *kept, *copy; /* an embedding is kept */
    bool transposed;
} hk_lost_tie;
HK_API HK_MUST_USE hk_status hk_model_lost_ties(hk_model *m, const hk_lost_tie **ties, size_t *count);
/* The main graph in the order it runs. Bodies and functions are not in it, constants are no nodes. */
HK_API HK_MUST_USE hk_status hk_model_nodes(hk_model *m, const hk_node_info **nodes, size_t *count);
/* inputs: shapes in the model's order, NULL: those of the file. As for a device of minimal limits. */
HK_API HK_MUST_USE hk_status hk_model_estimate(hk_model *m, const hk_value_info *inputs, hk_estimate *out);
/* Everything that keeps the model from running; *count 0: it runs. */
HK_API const hk_problem *hk_model_problems(const hk_model *m, size_t *count);
/* Infers shapes, folds constants and, where the file gives the shape of every input, plans as for a device of the
 * specification's minimal limits; adds what would fail to hk_model_problems. Needs no device. Fails only for want of
 * memory. Loading does not do it: the first run will find the same. */
HK_API HK_MUST_USE hk_status hk_model_check(hk_model *m);
/* Operators with their number of nodes, sorted by name. */
typedef struct hk_op_count {
    const char *op;
    size_t nodes;
} hk_op_count;
HK_API const hk_op_count *hk_model_ops(const hk_model *m, size_t *count);

/* ---------------------------------------------------------------- session */

typedef struct hk_session hk_session;

typedef enum hk_precision {
    HK_PRECISION_DEFAULT, /* strict */
    HK_PRECISION_STRICT,  /* fp32 operands, fp32 fused multiply-add */
    HK_PRECISION_HIGH,    /* fp32 storage; matrix products and convolutions on matrix units, each operand as two 16-bit
                           * halves (21 bits, and 2^-40 of the largest in its tile), fp32 sums. Finite operands only: an
                           * infinity makes its sums NaN. Without matrix units as strict */
    HK_PRECISION_FAST,    /* 16-bit storage and operands, fp32 sums, on matrix units where the device has them */
} hk_precision;

typedef enum hk_profile {
    HK_PROFILE_OFF,
    HK_PROFILE_RUNS,       /* two timestamps around each device recording: hk_plan_info.device_ns */
    HK_PROFILE_DISPATCHES, /* a barrier and a timestamp around every dispatch, so runs are slower: hk_plan_row.ns too */
} hk_profile;

/* name, text: what a session does to its graph before it plans, in this order. Each can be switched off, here or with
 * HILLOCK_DEBUG=no-text; results then agree within rounding. */
#define HK_PASS_MAP(X)                                                                                                 \
    X(BATCHNORM, "batchnorm")   /* constant BatchNormalization into the weights before it */                           \
    X(PATCHES, "patches")       /* fast: convolutions of few channels by windows side by side into products */         \
    X(VIEWS, "views")           /* nodes that change nothing, chains of reshapes and of transposes */                  \
    X(COMMON, "common")         /* subexpressions computed twice */                                                    \
    X(PADS, "pads")             /* Pad into the padding of the convolution or pooling behind it */                     \
    X(FORMULAS, "formulas")     /* GELU and normalizations written out */                                              \
    X(ATTENTION, "attention")   /* products around a softmax into one node that stores no scores */                    \
    X(EPILOGUES, "epilogues")   /* bias, activation and residual sum into Conv and matrix products */                  \
    X(EXCITATION, "excitation") /* the two small products of squeeze-and-excitation into one node */                   \
    X(JOINS, "joins")           /* fast: products that make an attention's operands of one value into one */           \
    X(NORMS, "norms")           /* fast: products and the LayerNormalization of their rows into one node */            \
    X(CHAINS, "chains")         /* elementwise operators that follow one another into one pass over memory */          \
    X(TRANSPOSES, "transposes") /* transposes of matrices into the products behind them */

typedef enum hk_pass {
#define HK_X(name, text) HK_PASS_##name,
    HK_PASS_MAP(HK_X)
#undef HK_X
        HK_PASS_COUNT
} hk_pass;

typedef struct hk_session_params {
    size_t size;
    hk_precision precision;
    hk_profile profile;
    uint64_t seed;           /* of Dropout and random operators */
    uint32_t max_plans;      /* plans kept, one per set of input shapes; default: 8 */
    bool no_fusion;          /* all passes off */
    uint32_t passes_off;     /* bit (1 << HK_PASS_x): without that pass */
    uint64_t max_iterations; /* of a Loop, which fails above; default: 1,000,000 */
    bool fresh;              /* every run begins with the declared initial states: nothing to reset */
    const char *tuned;       /* a table of measurements to choose kernels by (tune.h): a file, or "device" for the
                                device's own in the cache folder. Results then agree within rounding; default: none */
    bool deterministic;      /* kernels depend on shapes and the device's limits alone: no table, the log says so */
} hk_session_params;

/* The model must outlive the session and is not changed by it. */
HK_API HK_MUST_USE hk_status hk_session_create(hk_device *dev, const hk_model *m, const hk_session_params *params,
                                               hk_session **out);
/* Frees device memory after the last submitted run has ended. */
HK_API void hk_session_destroy(hk_session **s);
/* Copies an input's elements in; shape and dtype must fit the model's. May be called while a run is under way. An
 * optional input that was never written is empty. */
HK_API HK_MUST_USE hk_status hk_session_write(hk_session *s, const char *input, const hk_tensor *t);
/* submit + wait. */
HK_API HK_MUST_USE hk_status hk_session_run(hk_session *s);
/* Starts a run with the inputs written last; at most 2 are in flight, a third waits for the first. */
HK_API HK_MUST_USE hk_status hk_session_submit(hk_session *s, uint64_t *ticket);
HK_API HK_MUST_USE hk_status hk_session_wait(hk_session *s, uint64_t ticket);
/* An output of the last waited run. If out->data is NULL it is allocated (release it), else it must be contiguous and
 * large enough as out->dtype and out->shape say; shape and dtype are then checked. Sequences and optionals are always
 * allocated. */
HK_API HK_MUST_USE hk_status hk_session_read(hk_session *s, const char *output, hk_tensor *out);
/* Every state back to its declared initial value. States are the membrane potentials of spiking layers (hk_layer),
 * which persist from run to run until then; a run whose samples or shapes differ from theirs is refused before it. */
HK_API HK_MUST_USE hk_status hk_session_reset(hk_session *s);

typedef struct hk_plan_row {
    const char *node;   /* node name; fused nodes joined by '+' */
    const char *op;     /* operator type */
    const char *where;  /* "device", "host", "view" (no work at all), or "control" (the host decides, bodies have rows
                           of their own: those of their last run) */
    const char *kernel; /* kernel variant, "" on the host */
    hk_dtype dtype;     /* of its first output */
    hk_dtype lacking;   /* on the host because no kernel takes this element type; else HK_DTYPE_NONE */
    uint32_t group;     /* barrier group: equal numbers run side by side */
    uint64_t ns;        /* device time in the last run, 0 without HK_PROFILE_DISPATCHES; of host steps the host's */
    uint64_t bytes;     /* operand bytes read + written */
    double flops;
    bool tuned; /* a table of measurements chose the kernel */
} hk_plan_row;

typedef struct hk_plan_info {
    const hk_plan_row *rows;
    size_t row_count;
    size_t dispatches;
    size_t groups;             /* barrier groups */
    size_t segments;           /* device recordings and host steps of one run */
    uint64_t activation_bytes; /* arena size */
    uint64_t live_bytes;       /* largest sum of simultaneously live bytes: the arena's lower bound */
    uint64_t weight_bytes;
    uint64_t device_ns; /* of the last run's recordings, transfers of inputs and outputs excluded; 0 without profile */
} hk_plan_info;

/* The plan of the last run (of the last submitted shapes). */
HK_API HK_MUST_USE hk_status hk_session_get_plan(hk_session *s, hk_plan_info *out);

/* ---------------------------------------------------------------- layers: every node against the host evaluator */

typedef struct hk_operand_stats {
    hk_value_info value;
    double least, most, mean, deviation; /* of the finite elements */
    int64_t nans, infinities;
} hk_operand_stats;

/* One float result of a node as the device computed it, against the host evaluator given the device's operands: an
 * error is the node's own, none is handed on. */
typedef struct hk_node_check {
    const char *node, *op;
    hk_value_info value;
    bool wrong;           /* norm > bound */
    double norm, largest; /* ||device - host|| / ||host||; the largest absolute difference */
    int64_t worst;        /* row-major index of the element that differs most, -1: none does */
    double device, host;  /* that element */
    const hk_operand_stats *operands;
    size_t operand_count;
} hk_node_check;

typedef struct hk_layers_params {
    size_t size;
    double bound; /* default: 5e-6; of 16-bit values at least one unit in the last place */
    hk_precision precision;
    void (*report)(void *user, const hk_node_check *layer); /* in the order of the graph; lent for the call */
    void *user;
} hk_layers_params;

typedef struct hk_layers_result {
    size_t compared, wrong;
} hk_layers_result;

/* Runs the model with every float value as an output, so without passes, and compares node by node. inputs are in the
 * model's order. HK_STATUS_MISMATCH if one is wrong; result is then set too. */
HK_API HK_MUST_USE hk_status hk_verify_layers(hk_device *dev, const hk_model *m, const hk_tensor *inputs,
                                              size_t input_count, const hk_layers_params *params,
                                              hk_layers_result *result);

#ifdef __cplusplus
}
#endif

#include "build.h"
#include "snn.h"
#include "train.h"
#include "tune.h"
#endif
