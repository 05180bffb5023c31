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
    const char *text;    /* the case, in the grammar of runtime/cases.h */
    const char *failure; /* NULL: passed; else a sentence */
    bool skipped;        /* needs what this device lacks; failure says what */
    double error;        /* ||device - host|| / ||host||, the worst of its outputs */
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

/* Runs every case of every operator on the device. HK_STATUS_MISMATCH if one fails, HK_STATUS_USAGE if nothing has the
 * name of one of ops. */
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
/* "weight", "bias", "scale", "slope" or "table" (rows are looked up), of parameter i. */
HK_API const char *hk_model_parameter_role(const hk_model *m, size_t i);
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

/* ---------------------------------------------------------------- building: a model layer by layer */

/* A tensor of a model under construction: an input or what a layer makes. Lent by the model. */
typedef struct hk_value hk_value;

/* kind, default name, torch.nn's class. Shapes are (N,C,...) as there; exceptions are said below. */
#define HK_LAYER_MAP(X)                                                                                                \
    X(LINEAR, "linear", "Linear")                                                                                      \
    X(CONV1D, "conv1d", "Conv1d")                                                                                      \
    X(CONV2D, "conv2d", "Conv2d")                                                                                      \
    X(CONV3D, "conv3d", "Conv3d")                                                                                      \
    X(CONV_TRANSPOSE1D, "conv_transpose1d", "ConvTranspose1d")                                                         \
    X(CONV_TRANSPOSE2D, "conv_transpose2d", "ConvTranspose2d")                                                         \
    X(CONV_TRANSPOSE3D, "conv_transpose3d", "ConvTranspose3d")                                                         \
    X(MAX_POOL1D, "max_pool1d", "MaxPool1d")                                                                           \
    X(MAX_POOL2D, "max_pool2d", "MaxPool2d")                                                                           \
    X(MAX_POOL3D, "max_pool3d", "MaxPool3d")                                                                           \
    X(AVG_POOL1D, "avg_pool1d", "AvgPool1d")                                                                           \
    X(AVG_POOL2D, "avg_pool2d", "AvgPool2d")                                                                           \
    X(AVG_POOL3D, "avg_pool3d", "AvgPool3d")                                                                           \
    X(ADAPTIVE_AVG_POOL1D, "adaptive_avg_pool1d", "AdaptiveAvgPool1d")                                                 \
    X(ADAPTIVE_AVG_POOL2D, "adaptive_avg_pool2d", "AdaptiveAvgPool2d")                                                 \
    X(ADAPTIVE_AVG_POOL3D, "adaptive_avg_pool3d", "AdaptiveAvgPool3d")                                                 \
    X(ADAPTIVE_MAX_POOL1D, "adaptive_max_pool1d", "AdaptiveMaxPool1d")                                                 \
    X(ADAPTIVE_MAX_POOL2D, "adaptive_max_pool2d", "AdaptiveMaxPool2d")                                                 \
    X(ADAPTIVE_MAX_POOL3D, "adaptive_max_pool3d", "AdaptiveMaxPool3d")                                                 \
    X(BATCH_NORM, "batch_norm", "BatchNorm") /* 1d, 2d and 3d */                                                       \
    X(LAYER_NORM, "layer_norm", "LayerNorm") /* over the last `axes` dimensions */                                     \
    X(GROUP_NORM, "group_norm", "GroupNorm")                                                                           \
    X(INSTANCE_NORM, "instance_norm", "InstanceNorm") /* with weight and bias */                                       \
    X(DROPOUT, "dropout", "Dropout")                                                                                   \
    X(EMBEDDING, "embedding", "Embedding") /* of int64 or int32; `in` rows of `out` numbers */                         \
    X(LSTM, "lstm", "LSTM")                /* (N,T,C) to (N,T,directions*out): batch_first=True */                     \
    X(GRU, "gru", "GRU")                                                                                               \
    X(RNN, "rnn", "RNN")                            /* tanh */                                                         \
    X(ATTENTION, "attention", "MultiheadAttention") /* (N,T,C), queries x; keys and values: `with`, default x */       \
    X(RELU, "relu", "ReLU")                                                                                            \
    X(LEAKY_RELU, "leaky_relu", "LeakyReLU") /* alpha 0.01 */                                                          \
    X(ELU, "elu", "ELU")                     /* alpha 1 */                                                             \
    X(GELU, "gelu", "GELU")                                                                                            \
    X(SILU, "silu", "SiLU")                                                                                            \
    X(MISH, "mish", "Mish")                                                                                            \
    X(HARDSWISH, "hardswish", "Hardswish")                                                                             \
    X(HARDSIGMOID, "hardsigmoid", "Hardsigmoid")                                                                       \
    X(SOFTPLUS, "softplus", "Softplus")                                                                                \
    X(TANH, "tanh", "Tanh")                                                                                            \
    X(SIGMOID, "sigmoid", "Sigmoid")                                                                                   \
    X(SOFTMAX, "softmax", "Softmax")            /* over `axis` */                                                      \
    X(LOG_SOFTMAX, "log_softmax", "LogSoftmax") /* over `axis` */                                                      \
    X(FLATTEN, "flatten", "Flatten")            /* (N,...) to (N,C) */                                                 \
    X(ADD, "add", "torch.add")                  /* x and `with`, broadcast: a residual sum */                          \
    X(MUL, "mul", "torch.mul")                  /* x and `with`, broadcast: a gate */                                  \
    X(CONCAT, "concat", "torch.cat")            /* x and `with`, along `axis` */

typedef enum hk_layer_kind {
#define HK_X(name, text, torch) HK_LAYER_##name,
    HK_LAYER_MAP(HK_X)
#undef HK_X
        HK_LAYER_COUNT
} hk_layer_kind;

/* Zero is torch.nn's default. Of the lists of three, one per spatial dimension, a 0 behind the first repeats it: {2}
 * is {2, 2, 2}; where 0 is a number of its own (padding, output_padding), -1 says it. */
typedef struct hk_layer {
    hk_layer_kind kind;
    const char *name;   /* what its parameters begin with, "conv1" of conv1.weight; default: kind and a number */
    int64_t in;         /* features or channels that x must have; default: those it has. Of EMBEDDING: rows */
    int64_t out;        /* features or channels made; of recurrent layers: of one direction */
    int64_t kernel[3];  /* of convolutions and pools */
    int64_t stride[3];  /* default: 1, of pools the kernel */
    int64_t padding[3]; /* on both sides; default: none */
    int64_t dilation[3];
    int64_t output_padding[3]; /* of transposed convolutions */
    int64_t groups;            /* of convolutions (default: 1) and GROUP_NORM */
    int64_t size[3];           /* of what adaptive pools make */
    bool ceil;                 /* pools: the last window may reach over the edge */
    bool exclude_padding;      /* average pools: what lies in the padding does not count */
    bool no_bias;              /* of linear layers, convolutions, attention and recurrent layers */
    bool no_affine;            /* norms without weight and bias, which are then ones and zeros that are not trained */
    float eps;                 /* of norms; default: 1e-5 */
    float momentum;            /* of the new statistics in BATCH_NORM's running ones; default: 0.1 */
    float p;                   /* of DROPOUT, default: 0.5, negative: 0; between recurrent layers and of attention's
                                  weights, default: 0 */
    float alpha;               /* of LEAKY_RELU and ELU */
    bool tanh;                 /* GELU's approximation */
    int64_t layers;            /* recurrent layers on one another; default: 1 */
    bool bidirectional;
    bool last;      /* of recurrent layers: only the last hidden state (N,directions*out), of the last layer */
    int64_t heads;  /* of ATTENTION, which must divide its features; default: 1 */
    bool causal;    /* ATTENTION: a query sees no later keys; needs known T */
    int32_t axes;   /* of LAYER_NORM; default: 1 */
    int32_t axis;   /* of SOFTMAX and LOG_SOFTMAX (default: the last) and CONCAT (default: 1); negative: from the end */
    hk_value *with; /* the second operand of ADD, MUL, CONCAT; ATTENTION's memory */
} hk_layer;

typedef struct hk_build_params {
    size_t size;
    uint64_t seed;    /* of the initial weights, which depend on it and the parameter's name alone */
    const char *name; /* of the graph; default: "model" */
} hk_build_params;

/* An empty model, to which inputs and layers are added until a session or trainer is made of it. Weights begin as
 * torch.nn's do: uniform in 1/sqrt(fan_in), recurrent ones in 1/sqrt(out), embeddings normal, attention's projection
 * by Xavier's rule. It is saved and exported as ONNX (opset 21). */
HK_API HK_MUST_USE hk_status hk_model_create(hk_context *ctx, const hk_build_params *params, hk_model **out);
/* shape: -1 for what stays open; a first such dimension is called "batch". */
HK_API HK_MUST_USE hk_status hk_model_input(hk_model *m, const char *name, hk_dtype dtype, int32_t rank,
                                            const int64_t *shape, hk_value **out);
/* One layer on x. HK_STATUS_USAGE: x has the wrong shape or type, an option is missing or out of range, or the name is
 * taken. */
HK_API HK_MUST_USE hk_status hk_add(hk_model *m, hk_value *x, const hk_layer *layer, hk_value **y);
/* One after the other: each on what the one before made. After a failure those before the refused layer stay. */
HK_API HK_MUST_USE hk_status hk_add_sequence(hk_model *m, hk_value *x, const hk_layer *layers, size_t count,
                                             hk_value **y);
/* Makes y an output of that name (NULL: "output"). Only then hk_model_inputs, _outputs and _parameters tell of what has
 * been added. */
HK_API HK_MUST_USE hk_status hk_model_output(hk_model *m, hk_value *y, const char *name);
/* Name, type and shape of what a layer made, for instance to print them. */
HK_API void hk_value_get_info(const hk_value *v, hk_value_info *out);

/* ---------------------------------------------------------------- edits */

typedef struct hk_model_edit_params {
    size_t size;
    const char *output; /* whose last layer new_head and dropout mean; default: the first */
    uint64_t seed;      /* of new weights */
    /* Classes: the last Gemm, MatMul or 1x1 Conv before output gets so many, with torch.nn's default weights and the
     * old names. Default: it stays. */
    int64_t new_head;
    /* Small tensors that exporters merged because they were equal stay one parameter. Default: each layer gets its own.
     */
    bool tie;
    /* A number of samples that the file fixes, in inputs, Reshape and Expand, becomes open; refused with advice where
     * the graph does not show how. */
    bool open_batch;
    /* Trains adapters x A B alpha/rank beside the weights of Gemm and MatMul, A as torch.nn.Linear's weights and B 0,
     * and the new head; all else is frozen. Export adds them to the weights. alpha's default: the rank. */
    uint32_t lora_rank;
    float lora_alpha;
    float dropout; /* of what the last layer takes, in training; the file has none */
    /* Puts BatchNormalization behind convolutions, where exporters have folded it; export folds it again, or with
     * keep_bn does not. Results stay what they are: statistics come from a batch of calibration, scale and shift undo
     * them; without one they are 0 and 1, and training begins with another function. */
    bool rebuild_bn, keep_bn;
    hk_device *device;            /* for calibration */
    const hk_tensor *calibration; /* the model's inputs, in its order */
    size_t calibration_count;
} hk_model_edit_params;

/* A model to be trained in another form than its file has: what hk_model_save and hk_trainer_export write then is the
 * file with weights in place if no edit changed its structure, else the whole graph, with names, metadata and opset as
 * they were and functions inlined. m must outlive *out and is not changed. HK_STATUS_UNSUPPORTED names the node that is
 * in the way. */
HK_API HK_MUST_USE hk_status hk_model_edit(const hk_model *m, const hk_model_edit_params *params, hk_model **out);

/* ---------------------------------------------------------------- session */

typedef struct hk_session hk_session;

typedef enum hk_precision {
    HK_PRECISION_DEFAULT, /* strict */
    HK_PRECISION_STRICT,  /* fp32 operands, fp32 fused multiply-add */
    HK_PRECISION_HIGH,    /* better than tf32; computed as strict */
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
    X(BATCHNORM, "batchnorm") /* constant BatchNormalization into the weights before it */                             \
    X(VIEWS, "views")         /* nodes that change nothing, chains of reshapes and of transposes */                    \
    X(COMMON, "common")       /* subexpressions computed twice */                                                      \
    X(PADS, "pads")           /* Pad into the padding of the convolution or pooling behind it */                       \
    X(FORMULAS, "formulas")   /* GELU and normalizations written out */                                                \
    X(ATTENTION, "attention") /* products around a softmax into one node that stores no scores */                      \
    X(EPILOGUES, "epilogues") /* bias, activation and residual sum into Conv and matrix products */                    \
    X(CHAINS, "chains")       /* elementwise operators that follow one another into one pass over memory */

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
/* Every state back to its declared initial value. */
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

/* ---------------------------------------------------------------- data */

/* Samples and their targets, read from
 *   - IDX files (MNIST's), gzipped too, or a folder with a pair of them;
 *   - .npy (first dimension: samples), .npz with one array per model input and one named labels, y or targets;
 *   - CSV with a line of column names or without;
 *   - CIFAR-10's and CIFAR-100's binary files, or a folder of them;
 *   - a folder with a folder of PNG, JPEG, PPM or PGM images per class.
 * Which formats this build reads is in hk_build_info(): gzip and .npz need zlib, PNG libpng, JPEG libjpeg-turbo. */
typedef struct hk_dataset hk_dataset;

typedef struct hk_dataset_params {
    size_t size;
    const char *labels;       /* file of the targets; default: in the data, or beside it with "labels" for "images" */
    const char *label_column; /* of CSV, its name or number from 0; default: the last */
    int32_t rank;             /* shape of a sample of one input, to which numbers are reshaped and images scaled and */
    int64_t shape[HK_MAX_RANK]; /* cropped, (C,H,W); an image gains or loses colour as C says. Default: as found */
    uint32_t resize;            /* shorter side of an image before the middle is cropped; default: the shape itself */
    bool targets;               /* targets are numbers (float32), not labels of classes */
    float scale;                /* multiplies samples; default: 1/255 for bytes, else 1 */
    const float *mean, *std;    /* of each channel, after scale: (x - mean) / std; copied */
    size_t channels;            /* entries in mean and std: 1 or C */
    uint64_t max_bad;           /* samples that cannot be read and are left out; default: the first is an error */
} hk_dataset_params;

typedef struct hk_dataset_info {
    const char *format;         /* "IDX", "CIFAR-10" */
    size_t count;               /* samples */
    size_t inputs;              /* arrays per sample */
    const hk_value_info *input; /* by input: name ("" if the format has none), type, shape of one sample */
    hk_value_info target;       /* int64 labels of rank 0, or numbers */
    int64_t classes;            /* of labels: the largest and one, or the folders; else 0 */
    const char *const *class_names;
    uint64_t bad; /* samples left out so far */
} hk_dataset_info;

/* HK_STATUS_INVALID names the file and line or sample: labels that are no numbers or negative, ragged lines, NaN,
 * counts that differ, images of no known format, an empty class. */
HK_API HK_MUST_USE hk_status hk_dataset_open(hk_context *ctx, const char *path, const hk_dataset_params *params,
                                             hk_dataset **out);
HK_API void hk_dataset_close(hk_dataset **d);
HK_API void hk_dataset_get_info(const hk_dataset *d, hk_dataset_info *out);

/* Batches, prepared by threads while the device computes. Their order and augmentation follow from the seed alone. */
typedef struct hk_loader hk_loader;

typedef struct hk_loader_params {
    size_t size;
    size_t batch; /* default: 32 */
    uint64_t seed;
    bool shuffle;     /* anew in each epoch */
    bool drop_last;   /* leave out what does not fill a batch */
    double holdout;   /* share of the samples, drawn by the seed, that is held out; default: none */
    bool held_out;    /* those are loaded, else the others */
    bool flip;        /* mirror every second image */
    uint32_t shift;   /* move images by up to so many pixels, zeros beyond the edge */
    uint32_t threads; /* default: 2 */
} hk_loader_params;

typedef struct hk_batch {
    const hk_tensor *inputs; /* lent until the next call */
    size_t input_count;
    const hk_tensor *target;
    size_t count;          /* samples; 0: the epoch is over */
    uint64_t epoch, index; /* of the batch in its epoch */
    const size_t *samples; /* their numbers in the dataset */
} hk_batch;

/* The dataset must outlive its loaders. HK_STATUS_INVALID: the part to be loaded is empty. */
HK_API HK_MUST_USE hk_status hk_loader_create(hk_dataset *d, const hk_loader_params *params, hk_loader **out);
HK_API void hk_loader_destroy(hk_loader **l);
HK_API size_t hk_loader_samples(const hk_loader *l); /* in an epoch */
HK_API size_t hk_loader_batches(const hk_loader *l);
HK_API HK_MUST_USE hk_status hk_loader_next(hk_loader *l, hk_batch *out);
/* Goes to a batch of an epoch: what follows is what would have followed there. */
HK_API HK_MUST_USE hk_status hk_loader_seek(hk_loader *l, uint64_t epoch, uint64_t batch);

/* ---------------------------------------------------------------- trainer */

typedef struct hk_trainer hk_trainer;

/* Definitions are torch.nn's. Class scores are (N,C) or (N,C,...), labels int64 or int32 (N) or (N,...); scores of a
 * language model, (N,S,C), are taken as such where only that fits the labels (N,S). Other targets are float32 of the
 * output's shape. A Softmax, LogSoftmax or Sigmoid that makes the output is left out where the loss takes logits. */
typedef enum hk_loss {
    HK_LOSS_DEFAULT,       /* cross entropy */
    HK_LOSS_CROSS_ENTROPY, /* of logits with labels, or with probabilities of classes */
    HK_LOSS_NLL,           /* of log-probabilities with labels */
    HK_LOSS_MSE,
    HK_LOSS_L1,
    HK_LOSS_SMOOTH_L1,  /* beta */
    HK_LOSS_HUBER,      /* beta is its delta */
    HK_LOSS_BCE_LOGITS, /* of logits with targets in [0, 1] */
    HK_LOSS_KL,         /* of log-probabilities with probabilities */
} hk_loss;

typedef enum hk_reduce {
    HK_REDUCE_DEFAULT, /* mean */
    HK_REDUCE_MEAN,    /* over elements; of class losses over samples, by their classes' weights */
    HK_REDUCE_SUM,
    HK_REDUCE_BATCHMEAN, /* the sum divided by N (of losses of numbers) */
    HK_REDUCE_NONE,
} hk_reduce;

typedef enum hk_optimizer {
    HK_OPTIMIZER_DEFAULT, /* AdamW */
    HK_OPTIMIZER_ADAMW,   /* torch.optim.AdamW: decoupled weight decay */
    HK_OPTIMIZER_ADAM,    /* torch.optim.Adam: weight decay in the gradient */
    HK_OPTIMIZER_SGD,     /* torch.optim.SGD */
} hk_optimizer;

/* How some of the parameters are trained. */
typedef struct hk_parameter_rule {
    const char *pattern; /* of ONNX names, with * ? [abc], which must match one; or "role:" and weight, bias, norm,
                            embedding or other */
    bool freeze;
    bool train;         /* float initializers that are in no role too: position embeddings, class tokens, layer scales,
                           which an ONNX file does not tell from masks and other constants */
    float lr_scale;     /* multiplies the learning rate; default: 1 */
    float weight_decay; /* default: the trainer's; negative: none */
} hk_parameter_rule;

typedef enum hk_schedule_kind {
    HK_SCHEDULE_CONSTANT,
    HK_SCHEDULE_STEP,      /* times gamma every `every` updates */
    HK_SCHEDULE_COSINE,    /* from 1 to `least` in a half cosine over `total` updates */
    HK_SCHEDULE_LINEAR,    /* from 1 to `least` in a line */
    HK_SCHEDULE_ONE_CYCLE, /* torch.optim.lr_scheduler.OneCycleLR: 1/25 to 1 over 30 % of total, then to 1/250,000 */
} hk_schedule_kind;

/* The learning rate's factor by the number of the update, from 0. The first warmup updates rise in a line:
 * (update + 1) / (warmup + 1). */
typedef struct hk_schedule {
    hk_schedule_kind kind;
    uint64_t warmup, total; /* updates; total includes the warm-up */
    uint64_t every;         /* of HK_SCHEDULE_STEP */
    float gamma;            /* default: 0.1 */
    float least;            /* what is left at the end */
} hk_schedule;
HK_API double hk_schedule_factor(const hk_schedule *s, uint64_t update);

/* torch.optim.lr_scheduler.ReduceLROnPlateau, threshold 1e-4 relative: a state of the caller, who multiplies the
 * learning rate with what hk_plateau_step returns. */
typedef struct hk_plateau {
    float gamma;       /* default: 0.1 */
    uint32_t patience; /* epochs without improvement that are borne; default: 10 */
    bool larger;       /* the metric is better when larger */
    bool begun;
    double best, factor;
    uint32_t bad;
} hk_plateau;
HK_API double hk_plateau_step(hk_plateau *p, double metric);

typedef struct hk_trainer_params {
    size_t size;
    hk_loss loss;
    hk_reduce reduction;            /* of the loss */
    const char *output;             /* what the loss takes; default: the first output */
    const hk_tensor *class_weights; /* float32 [C], copied; default: none */
    const int64_t *ignore_index;    /* label that does not count; default: -100 */
    float label_smoothing;
    float beta; /* of smooth L1 and Huber; default: 1 */
    hk_optimizer optimizer;
    float lr;                       /* default: 1e-3 */
    float beta1, beta2;             /* default: 0.9, 0.999 */
    float eps;                      /* default: 1e-8 */
    float weight_decay;             /* default: 0.01 with AdamW, else none; negative: none */
    float momentum, dampening;      /* of SGD */
    bool nesterov;                  /* of SGD */
    float clip_norm;                /* of all gradients together; default: none */
    float ema_decay;                /* keeps an exponential moving average of the weights; default: none */
    float loss_scale;               /* first scale of the loss; grows and falls on the device; default: none */
    uint32_t growth_interval;       /* good updates before the scale doubles; default: 2000 */
    hk_schedule schedule;           /* multiplies lr */
    const hk_parameter_rule *rules; /* a later one overrides an earlier one */
    size_t rule_count;
    uint32_t accumulate;   /* micro-batches per update, losses averaged; default: 1 */
    bool accumulate_total; /* micro-batches are summed and divided by the total of valid labels */
    uint64_t seed;         /* of Dropout */
    bool freeze_bn;        /* BatchNormalization uses its running statistics instead of the batch's */
    bool
        allow_unreached; /* a parameter that no gradient reaches has the gradient 0 instead of failing the first step */
    hk_precision precision;
    hk_profile profile;
} hk_trainer_params;

/* Forward + loss + backward + update are one recording. Parameters start as the model's. HK_STATUS_USAGE: an option is
 * out of range, or a rule matches nothing. */
HK_API HK_MUST_USE hk_status hk_trainer_create(hk_device *dev, const hk_model *m, const hk_trainer_params *params,
                                               hk_trainer **out);
HK_API void hk_trainer_destroy(hk_trainer **t);
/* One micro-batch; the accumulate-th one updates the weights. inputs are in the model's order; labels int64 or int32
 * (N). loss, when not NULL, receives this micro-batch's mean loss and makes the call wait. */
HK_API HK_MUST_USE hk_status hk_trainer_step(hk_trainer *t, const hk_tensor *inputs, size_t input_count,
                                             const hk_tensor *labels, float *loss);
/* The same without waiting, 2 in flight; wait gives the loss of that ticket if it is the latest or the one before. */
HK_API HK_MUST_USE hk_status hk_trainer_submit(hk_trainer *t, const hk_tensor *inputs, size_t input_count,
                                               const hk_tensor *labels, uint64_t *ticket);
HK_API HK_MUST_USE hk_status hk_trainer_wait(hk_trainer *t, uint64_t ticket, float *loss);
/* The base rate, which the schedule multiplies. */
HK_API HK_MUST_USE hk_status hk_trainer_set_lr(hk_trainer *t, float lr);

typedef struct hk_trainer_stats {
    uint64_t micro;   /* micro-batches so far */
    uint64_t updates; /* applied */
    uint64_t skipped; /* left out because a gradient was not finite */
    float lr;         /* of the next update */
    float loss_scale; /* 1 without */
    size_t parameters;
    int64_t parameter_count; /* elements */
    uint64_t state_bytes;    /* parameters, gradients, moments and statistics on the device */
} hk_trainer_stats;
/* Waits for the last step. */
HK_API HK_MUST_USE hk_status hk_trainer_get_stats(hk_trainer *t, hk_trainer_stats *out);

/* ---- the step in pieces: forward, loss, backward, update, in that order, as often as wanted. They do what
 * hk_trainer_step does, bit for bit, when the gradients are zeroed after each update; Dropout draws anew in each
 * forward pass, running statistics are updated in each, and an update divides the summed gradients by accumulate. Do
 * not change between pieces and whole steps within an accumulation. */

typedef enum hk_mode {
    HK_MODE_TRAIN,    /* batch statistics, which update the running ones; Dropout drops */
    HK_MODE_EVALUATE, /* running statistics; Dropout does nothing */
} hk_mode;

/* Of the forward passes to come; a trainer begins with HK_MODE_TRAIN. */
HK_API void hk_trainer_set_mode(hk_trainer *t, hk_mode mode);
/* Runs the model; hk_trainer_read_output reads its outputs, hk_trainer_loss and _backward go on from them. */
HK_API HK_MUST_USE hk_status hk_trainer_forward(hk_trainer *t, const hk_tensor *inputs, size_t input_count);
/* The trainer's loss of the last forward pass. reduction: the trainer's, or another for this one; with
 * HK_REDUCE_NONE the loss is one number per sample or element. loss, when not NULL, receives it (as hk_session_read
 * does) and makes the call wait. */
HK_API HK_MUST_USE hk_status hk_trainer_loss(hk_trainer *t, const hk_tensor *labels, hk_reduce reduction,
                                             hk_tensor *loss);
/* Adds the gradients of the last loss to those since hk_trainer_zero_grad. upstream: the gradient of something with
 * respect to the loss, float32 of its shape; NULL: ones. */
HK_API HK_MUST_USE hk_status hk_trainer_backward(hk_trainer *t, const hk_tensor *upstream);
/* The same without a loss of the trainer: gradient is that of the caller's loss with respect to the output that is
 * trained, float32 of its shape. */
HK_API HK_MUST_USE hk_status hk_trainer_backward_output(hk_trainer *t, const hk_tensor *gradient);
/* Gradients begin at zero again. */
HK_API void hk_trainer_zero_grad(hk_trainer *t);
/* One update from the gradients as they are, which stay. */
HK_API HK_MUST_USE hk_status hk_trainer_update(hk_trainer *t);

/* Runs the model in evaluation mode with the weights (or their moving average) and running statistics as they are now;
 * outputs are read by name afterwards. */
HK_API HK_MUST_USE hk_status hk_trainer_evaluate(hk_trainer *t, const hk_tensor *inputs, size_t input_count,
                                                 bool average);
HK_API HK_MUST_USE hk_status hk_trainer_read_output(hk_trainer *t, const char *output, hk_tensor *out);
/* Waits, then copies a parameter (or state such as running statistics) by its ONNX name, its moving average, or its
 * last gradient. */
HK_API HK_MUST_USE hk_status hk_trainer_read_parameter(hk_trainer *t, const char *name, hk_tensor *out);
HK_API HK_MUST_USE hk_status hk_trainer_read_average(hk_trainer *t, const char *name, hk_tensor *out);
HK_API HK_MUST_USE hk_status hk_trainer_read_gradient(hk_trainer *t, const char *name, hk_tensor *out);
HK_API HK_MUST_USE hk_status hk_trainer_write_parameter(hk_trainer *t, const char *name, const hk_tensor *value);
/* One safetensors file with weights, moments, statistics, control state, step, seed and a hash of all of it; atomic:
 * a temporary file, fsync, rename, fsync of the folder. notes: the caller's, or NULL.
 * load needs the same model and options and refuses a file whose hash is wrong; *notes, when not NULL, is lent until
 * the next load and "" when there are none. */
HK_API HK_MUST_USE hk_status hk_trainer_save(hk_trainer *t, const char *path, const char *notes);
HK_API HK_MUST_USE hk_status hk_trainer_load(hk_trainer *t, const char *path, const char **notes);
/* Writes the ONNX file the model was loaded from with the trained weights (or their moving average) in place of the
 * old. */
HK_API HK_MUST_USE hk_status hk_trainer_export(hk_trainer *t, const char *path);
HK_API HK_MUST_USE hk_status hk_trainer_export_average(hk_trainer *t, const char *path);
/* The same weights (or their moving average) and running statistics as one safetensors file, by their ONNX names. */
HK_API HK_MUST_USE hk_status hk_trainer_export_safetensors(hk_trainer *t, bool average, const char *path);
HK_API HK_MUST_USE hk_status hk_trainer_get_plan(hk_trainer *t, hk_plan_info *out);

/* ---------------------------------------------------------------- spiking */

/* One step of spiking neurons on the host, in place of a node: the same arithmetic, float32, bit for bit. Zero in a
 * field is its default, so hk_lif_step with NULL is F.lif_step with tau 2, threshold 1 and a hard reset to 0. */
typedef struct hk_neuron_params {
    size_t size;
    float tau;         /* of LIF, in steps, above 1; default: 2 */
    bool decay_input;  /* the input leaks too: H = V + (X - (V - v_reset)) / tau; else H = V - (V - v_reset)/tau + X */
    float v_threshold; /* default: 1 */
    float v_reset;     /* of the hard reset */
    bool soft_reset;   /* V loses the threshold instead of becoming v_reset */
} hk_neuron_params;

/* v (count membrane potentials) takes the input x and is replaced; spike receives 0 or 1. A potential that reaches the
 * threshold fires. spike may be x. HK_STATUS_USAGE: a parameter is out of range. */
HK_API HK_MUST_USE hk_status hk_if_step(hk_context *ctx, const hk_neuron_params *params, size_t count, const float *x,
                                        float *v, float *spike);
HK_API HK_MUST_USE hk_status hk_lif_step(hk_context *ctx, const hk_neuron_params *params, size_t count, const float *x,
                                         float *v, float *spike);

/* How thresholds are found from the activations of the original on calibration data. */
typedef enum hk_snn_mode {
    HK_SNN_MODE_DEFAULT,    /* MMSE */
    HK_SNN_MODE_MMSE,       /* least squared error of the activation quantised to `steps` levels, among 95 shares of its
                               maximum */
    HK_SNN_MODE_MAX,        /* its maximum */
    HK_SNN_MODE_PERCENTILE, /* `level` percent of its elements are not above it; exact over all data, interpolated */
    HK_SNN_MODE_SCALE,      /* `level` times its maximum */
} hk_snn_mode;

typedef enum hk_snn_grain {
    HK_SNN_GRAIN_DEFAULT, /* with MMSE a threshold per channel, else per layer */
    HK_SNN_GRAIN_CHANNEL,
    HK_SNN_GRAIN_LAYER,
} hk_snn_grain;

typedef enum hk_snn_verdict {
    HK_SNN_PASSES,      /* works on spikes as it is, or before the first neuron */
    HK_SNN_EXACT,       /* replaced; its sum over time is the original's function of sums */
    HK_SNN_NEURON,      /* an activation that becomes neurons: as exact as its number of steps */
    HK_SNN_READOUT,     /* computed once, of the mean over time */
    HK_SNN_APPROXIMATE, /* replaced by something else */
    HK_SNN_UNSUPPORTED,
} hk_snn_verdict;
/* "exact", "unsupported", ... */
HK_API const char *hk_snn_verdict_text(hk_snn_verdict v);

typedef struct hk_snn_node {
    const char *node, *op;
    hk_snn_verdict verdict;
    const char *reason; /* what it becomes, or what to do about it */
    bool spike_only;    /* false: hands on numbers that are no spikes */
} hk_snn_node;

/* A layer of neurons. */
typedef struct hk_snn_layer {
    const char *node, *op;   /* of the activation */
    const float *thresholds; /* one, or one per channel */
    size_t threshold_count;
    size_t dead;               /* channels that were never above 0 in calibration */
    double greatest;           /* activation of the original */
    double ann_mean, snn_mean; /* mean activation in bias calibration, before correction; 0 without */
} hk_snn_layer;

typedef struct hk_snn_params {
    size_t size;
    int64_t steps; /* T; default: 16 */
    hk_snn_mode mode;
    double level; /* of PERCENTILE, in (0,100]; of SCALE, in (0,1] */
    hk_snn_grain grain;
    bool average_pool; /* MaxPool becomes AveragePool; else the difference of maxima of sums, which is exact but
                          hands on numbers */
    double tau;        /* above 1: neurons leak (LIF, decay_input false), so rates lie below activations; default: IF */
    bool hard_reset;   /* to 0, from 0; else soft, from half the threshold */
    bool scalers;      /* keep weights and put a scale before and behind each neuron; else thresholds are scaled
                          and the amplitudes of spikes are in the weights behind them */
    bool no_bias_calibration; /* else biases are corrected layer by layer by the mean error on calibration data */
    int64_t bias_samples;     /* how many samples at least that takes; default: 256 */
    int64_t delay;            /* steps that the readout leaves out */
    hk_loader *loader;        /* calibration data: one epoch of it, */
    const hk_tensor *inputs;  /* or one batch, in the order of the model's inputs */
    size_t input_count;
    void (*report)(void *user, const hk_snn_node *n); /* every node, before anything is made; lent for the call */
    void (*layer)(void *user, const hk_snn_layer *l); /* every layer of neurons, at the end */
    void *user;
} hk_snn_params;

/* Turns a trained network into a spiking one: ReLU and Clip (ReLU6) become integrate-and-fire neurons, everything that
 * is linear in time stays. Input and output are the original's: the input is given at every step, the output is the
 * mean over time. The result is a model like any other: it runs, is trained, and is saved with hk_model_save.
 * HK_STATUS_USAGE: no calibration data, or an option is out of range. HK_STATUS_UNSUPPORTED names every node that has
 * no counterpart. HK_STATUS_INVALID: a layer is dead or not finite on the data. */
HK_API HK_MUST_USE hk_status hk_snn_convert(hk_device *dev, const hk_model *m, const hk_snn_params *params,
                                            hk_model **out);

typedef struct hk_snn_info {
    int64_t steps; /* T; 0: the model has no neurons that walk through time */
    int64_t delay;
    size_t layers; /* of neurons */
} hk_snn_info;
HK_API void hk_snn_get_info(const hk_model *m, hk_snn_info *out);

/* A layer of synapses or of neurons of a model with monitors. */
typedef struct hk_snn_probe {
    const char *node, *op;
    const char *output; /* to read: float32 [T], of each step, the batch's sum: spikes, or synaptic operations; NULL:
                           synapses before the first neurons, which take numbers, once */
    double neurons;     /* per sample: the rate is spikes / (samples T neurons); 0: synapses */
    double macs;        /* of synapses: multiply-accumulates of the original per sample */
} hk_snn_probe;

/* The same network with another number of steps; with monitor, with an output per layer that counts: spikes of neurons,
 * and of synapses the elements other than 0 times the synapses each reaches. the probes, in the
 * order of the graph, live as long as the model. */
HK_API HK_MUST_USE hk_status hk_snn_with_steps(const hk_model *m, int64_t steps, bool monitor, hk_model **out);
HK_API const hk_snn_probe *hk_snn_probes(const hk_model *m, size_t *count);

#ifdef __cplusplus
}
#endif
#endif
