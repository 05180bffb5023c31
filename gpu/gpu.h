/*
 * The device layer: Vulkan alone. It knows buffers, pipelines, recordings and one queue with one timeline; it does not
 * know what an operator is. Everything above passes device addresses in push constants: there are no descriptors.
 *
 * Ownership and errors are as in hillock.h; sentences go to the context the device was opened in.
 */
#ifndef HK_GPU_H
#define HK_GPU_H

#include "core/context.h"
#include "core/kernel.h"

typedef struct hk_gpu hk_gpu;
typedef struct hk_gpu_buffer hk_gpu_buffer;
typedef struct hk_gpu_pipeline hk_gpu_pipeline;
typedef struct hk_gpu_commands hk_gpu_commands;

/* ---- device */

/* Debug modes, parsed from HILLOCK_DEBUG or hk_device_params.debug. */
typedef enum hk_debug {
    HK_DEBUG_CHECK_PLAN = 1,
    HK_DEBUG_SHUFFLE = 2,
    HK_DEBUG_POISON = 4,
    HK_DEBUG_ISOLATE = 8,
    HK_DEBUG_VALIDATE = 16,
    HK_DEBUG_GPU_TUNING = 32, /* software devices run the kernels that GPUs run */
} hk_debug;
/* Passes switched off (no-PASS) are the bits above those. */
#define HK_DEBUG_PASS_SHIFT 16
#define HK_DEBUG_NO_PASS(pass) (1u << (HK_DEBUG_PASS_SHIFT + (pass)))

typedef struct hk_coopmat_shape { /* a subgroup-scope shape that the driver advertises */
    uint32_t m, n, k;
} hk_coopmat_shape;

hk_status hk_gpu_list(hk_context *ctx, hk_device_info *infos, size_t capacity, size_t *count);
hk_status hk_gpu_open(hk_context *ctx, const hk_device_params *params, hk_gpu **out);
void hk_gpu_close(hk_gpu **gpu); /* waits for the queue; finite */
hk_context *hk_gpu_context(const hk_gpu *gpu);
const hk_device_info *hk_gpu_info(const hk_gpu *gpu); /* caps after masking: what kernels may use */
bool hk_gpu_has(const hk_gpu *gpu, hk_cap cap);
/* The fp16 matrix shape kernels should use (16x16x16 preferred), bf16's too; false without HK_CAP_COOPMAT. */
bool hk_gpu_coopmat_shape(const hk_gpu *gpu, hk_coopmat_shape *out);
/* The int8 matrix shape kernels should use (16x16x32 preferred); false without HK_CAP_INT8_MATRIX. */
bool hk_gpu_int8_shape(const hk_gpu *gpu, hk_coopmat_shape *out);
bool hk_gpu_multiplies(const hk_gpu *gpu); /* has matrix units, or emulates them */
/* Bits (1 << HK_MATRIX_x): operands that the device's matrix units take, or that are emulated and not masked. */
uint32_t hk_gpu_matrix_types(const hk_gpu *gpu);
unsigned hk_gpu_debug(const hk_gpu *gpu); /* HK_DEBUG_* bits */
/* Where a file of that kind about this device and driver lies in the cache folder; the caller frees it with hk_free.
 * NULL: there is no such folder. make: the folder is made if it is missing. */
hk_status hk_gpu_cache_path(hk_gpu *gpu, const char *kind, bool make, char **out);
void hk_gpu_stats(const hk_gpu *gpu, hk_device_stats *out);

/* Host time by purpose (hk_device_stats). The planning clock stands still while pipelines are made and weights sent. */
uint64_t hk_gpu_planning_clock(const hk_gpu *gpu);
void hk_gpu_count_planning(hk_gpu *gpu, uint64_t since); /* a value of the planning clock */
void hk_gpu_count_weights(hk_gpu *gpu, uint64_t since);  /* a value of hk_now_ns() */

/* ---- memory: each buffer has its own allocation, so make few and large ones */

typedef enum hk_gpu_memory {
    HK_GPU_DEVICE,   /* device-local; not mapped */
    HK_GPU_UPLOAD,   /* host-visible, coherent, for writing by the host; device-local too where that exists */
    HK_GPU_READBACK, /* host-visible, coherent, cached: for reading by the host */
} hk_gpu_memory;

/* Bytes that may still be allocated on the device: what the driver says is left, within max_memory_bytes. */
uint64_t hk_gpu_memory_room(hk_gpu *gpu);

/* bytes > 0. The buffer can be the operand of copies, fills and shaders. HK_STATUS_OUT_OF_MEMORY names purpose and
 * bytes, also when max_memory_bytes or maxMemoryAllocationSize would be exceeded. */
hk_status hk_gpu_buffer_create(hk_gpu *gpu, hk_gpu_memory kind, uint64_t bytes, const char *purpose,
                               hk_gpu_buffer **out);
/* The caller has waited for its last use; if submits are still pending (on error paths), it waits for all of them. */
void hk_gpu_buffer_destroy(hk_gpu *gpu, hk_gpu_buffer **buffer);
uint64_t hk_gpu_buffer_address(const hk_gpu_buffer *b);
uint64_t hk_gpu_buffer_bytes(const hk_gpu_buffer *b);
void *hk_gpu_buffer_mapped(const hk_gpu_buffer *b); /* NULL for HK_GPU_DEVICE */
/* Blocking copies through a staging buffer (or straight into mapped memory), any size. Both wait for earlier submits.
 */
hk_status hk_gpu_upload(hk_gpu *gpu, hk_gpu_buffer *dst, uint64_t offset, const void *data, uint64_t bytes);
hk_status hk_gpu_download(hk_gpu *gpu, const hk_gpu_buffer *src, uint64_t offset, void *data, uint64_t bytes);

/* ---- kernels and pipelines */

/* spec[i] is the specialization constant with constant_id i; ids 0,1,2 are the workgroup size. subgroup_size: 0, or the
 * size to require (with full subgroups) where HK_CAP_SUBGROUP_SIZE allows. Pipelines live as long as the device and are
 * shared: equal requests give the same object. */
typedef struct hk_gpu_pipeline_key {
    const hk_kernel *kernel;
    uint32_t spec_count;
    uint32_t subgroup_size;
    uint32_t spec[HK_SPEC_MAX];
    /* A software device leaves every loop a loop, whatever the kernel wishes: tiles tuned for GPUs take its compiler
     * three to five times as long unrolled. GPUs get what the kernel says. */
    bool keep_loops;
} hk_gpu_pipeline_key;

/* Creates all missing ones, on up to 4 threads; out[i] belongs to keys[i]. */
hk_status hk_gpu_pipelines(hk_gpu *gpu, const hk_gpu_pipeline_key *keys, size_t count, hk_gpu_pipeline **out);

/* ---- recordings */

hk_status hk_gpu_commands_create(hk_gpu *gpu, uint32_t timestamp_capacity, hk_gpu_commands **out);
void hk_gpu_commands_destroy(hk_gpu *gpu, hk_gpu_commands **c); /* waits like hk_gpu_buffer_destroy */
/* A recording may be submitted many times, also again while still pending. begin discards what was recorded. */
hk_status hk_gpu_begin(hk_gpu_commands *c);
void hk_gpu_dispatch(hk_gpu_commands *c, hk_gpu_pipeline *p, const uint32_t grid[3], const void *push,
                     uint32_t push_bytes);
void hk_gpu_copy(hk_gpu_commands *c, const hk_gpu_buffer *src, uint64_t src_offset, hk_gpu_buffer *dst,
                 uint64_t dst_offset, uint64_t bytes);
/* offset and bytes are multiples of 4. */
void hk_gpu_fill(hk_gpu_commands *c, hk_gpu_buffer *dst, uint64_t offset, uint64_t bytes, uint32_t word);
/* The one barrier: every earlier shader and transfer access before every later one. */
void hk_gpu_barrier(hk_gpu_commands *c);
/* The same, and makes results visible to the host. */
void hk_gpu_barrier_host(hk_gpu_commands *c);
void hk_gpu_timestamp(hk_gpu_commands *c, uint32_t index);
hk_status hk_gpu_end(hk_gpu_commands *c);
/* Nanoseconds since an arbitrary origin of timestamps [0, count), after the wait. */
hk_status hk_gpu_timestamps(hk_gpu_commands *c, uint32_t count, uint64_t *ns);

/* ---- the queue: one submit runs several recordings in order (a full barrier between submits is the recordings' duty)
 */

hk_status hk_gpu_submit(hk_gpu *gpu, hk_gpu_commands *const *list, size_t count, uint64_t *ticket);
/* Spins briefly, then sleeps; HK_STATUS_DEVICE_LOST after HILLOCK_TIMEOUT_MS (default 120000), and from then on always.
 */
hk_status hk_gpu_wait(hk_gpu *gpu, uint64_t ticket);
uint64_t hk_gpu_completed(hk_gpu *gpu); /* the highest finished ticket */

/* ---- fault injection, for tests: the n-th (from 1) call of the named Vulkan entry point fails with result. name NULL:
 * of any entry point that can fail. n 0 switches it off. */
void hk_gpu_fail_call(const char *name, uint64_t n, int32_t result);
/* True while an armed failure has not happened yet. */
bool hk_gpu_fail_pending(void);

#endif
