/*
 * Execution: plans become recordings over real memory, replayed by one submit each.
 *
 * An hk_env is what the plans of one session or trainer share: the device, uploaded weights, states, and the activation
 * arena, which is as large as its largest plan needs. An hk_exec is one plan, recorded.
 *
 * Each submit runs three recordings: a prologue (copy the inputs and the step block from an upload slot), the body, and
 * an epilogue (copy the outputs to a readback slot). There are two slots, so two runs can be in flight; every recording
 * begins with the full barrier.
 */
#ifndef HK_EXEC_H
#define HK_EXEC_H

#include "gpu/gpu.h"
#include "ops/step.h"
#include "runtime/plan.h"

#define HK_SLOTS 2

/* What a dispatch runs on any device. */
hk_gpu_pipeline_key hk_pipeline_key(const hk_record *r);

/* ---- what plans share */

typedef struct hk_stored { /* a constant or state on the device */
    hk_gpu_buffer *buffer;
    uint64_t offset, bytes;
} hk_stored;

/* Constants on the device, by tensor address, and the buffers that hold them. */
typedef struct hk_store {
    struct hk_weight *weights; /* sorted by tensor address */
    size_t count, capacity;
    hk_gpu_buffer **buffers;
    size_t buffer_count, buffer_capacity;
    uint64_t bytes;
} hk_store;

typedef struct hk_env {
    hk_context *ctx;
    hk_gpu *gpu;
    hk_arena *arena;
    hk_precision precision;
    struct hk_tuning *tuning; /* the session's table of measurements; NULL: none */
    int64_t max_iterations;   /* of a Loop, 0: the default */
    uint64_t iterations;      /* of all loops in the run under way */
    hk_profile profile;
    bool fresh;          /* membrane potentials are not kept between runs */
    hk_plan_fault fault; /* planted by tests */
    hk_gpu_buffer *activations[HK_MAX_BANKS];
    uint32_t generation; /* of the activation arena: recordings of an older one are stale */
    const hk_tensor *
        *base; /* the model's own tensors, sorted by address: these are shared, what a plan folds is its own */
    size_t base_count;
    hk_store weights;
    struct hk_named_state *states;
    size_t state_count, state_capacity;
    hk_store state_store; /* its buffers alone are used */
    uint64_t last_ticket;
} hk_env;

/* base outlives the environment. */
hk_status hk_env_create(hk_gpu *gpu, const hk_graph *base, hk_env **out);
void hk_env_destroy(hk_env **env); /* waits for the last submit */
/* A state's place on the device; NULL if no plan has used a state of that name. */
const hk_stored *hk_env_state(const hk_env *env, const char *name);
/* Contents of a state, dense; the calls wait. count elements of dtype, device storage type. */
hk_status hk_env_read_state(hk_env *env, const char *name, uint64_t offset_bytes, void *data, uint64_t bytes);
hk_status hk_env_write_state(hk_env *env, const char *name, uint64_t offset_bytes, const void *data, uint64_t bytes);
/* Forgets all states, so that the next plan makes them with their initial contents, in whatever shape it needs. Plans
 * made before must be gone. Waits. */
hk_status hk_env_reset_states(hk_env *env);
/* Gives the states that follow the inputs (hk_state.follows) their initial contents again, in whatever shape the next
 * run needs; plans stay. Waits. */
hk_status hk_env_restart_states(hk_env *env);
/* i < env->state_count; NULL: there is nothing to keep of it. */
const char *hk_env_state_name(const hk_env *env, size_t i, const hk_stored **stored);
/* Writes a state, also one that no plan has made yet: then it begins with these contents instead of its initial ones.
 */
hk_status hk_env_restore_state(hk_env *env, const char *name, const void *data, uint64_t bytes);

/* ---- one plan, recorded */

typedef struct hk_exec hk_exec;

/* Where an input's contents come from: a contiguous host tensor, or device memory that is already widened. */
typedef struct hk_feed {
    const hk_tensor *host;
    const hk_gpu_buffer *buffer;
    uint64_t offset;
} hk_feed;

/* Plans and records g, which it takes over (also on failure). Runs what is computed once. */
hk_status hk_exec_create(hk_env *env, hk_graph *g, hk_exec **out);
void hk_exec_destroy(hk_exec **e); /* waits for its last submit */
const hk_plan *hk_exec_plan(const hk_exec *e);
/* feeds in graph input order. Waits only if both slots are in flight. */
hk_status hk_exec_submit(hk_exec *e, const hk_feed *feeds, const hk_step *step, uint64_t *ticket);
bool hk_exec_holds(const hk_exec *e, uint64_t ticket); /* one of the last two runs of e */
hk_status hk_exec_wait(hk_exec *e, uint64_t ticket);   /* of a run of e */
/* Output i of the run with that ticket, which has been waited for and is one of the last two: copied to t, whose data
 * has room (dtype and shape are the value's). */
hk_status hk_exec_read(hk_exec *e, uint64_t ticket, size_t i, void *data);
/* Where output i lies on the device until the next submit. */
hk_feed hk_exec_output(const hk_exec *e, size_t i);
bool hk_exec_output_is_input(const hk_exec *e, size_t i); /* it lies where an input does, of which it is a view */
/* Nanoseconds of the last run: of the whole body, and per record in plan order (zeros without HK_PROFILE_DISPATCHES).
 */
hk_status hk_exec_profile(hk_exec *e, uint64_t *body_ns, uint64_t *ns);

#endif
