/*
 * Inside of hk_env, for exec.c.
 */
#ifndef HK_ENV_H
#define HK_ENV_H

#include "runtime/exec.h"

typedef struct hk_weight {
    const hk_tensor *tensor;
    hk_stored stored;
} hk_weight;

typedef struct hk_named_state {
    const char *name;
    hk_shape shape;
    const hk_tensor *initial;
    double fill; /* without initial */
    hk_dtype dtype;
    bool follows;         /* one of several of that name, by shape (hk_state) */
    bool live;            /* of those: the one that runs since the last reset have used */
    const void *restored; /* contents to begin with, until the first plan makes the state; stored.bytes of them */
    hk_stored stored;     /* no buffer until then */
} hk_named_state;

/* Uploads those of the plan's constants that are not there yet: the model's to the environment, the plan's own to own.
 */
hk_status hk_env_add_weights(hk_env *env, const hk_plan *p, hk_store *own);
const hk_stored *hk_store_find(const hk_store *store, const hk_tensor *t);
void hk_store_finish(hk_gpu *gpu, hk_store *store);
/* Makes and initialises the states that are not there yet; a known one must have the same shape unless it follows the
 * inputs. */
hk_status hk_env_add_states(hk_env *env, const hk_graph *g);
/* Before a run: states that follow the inputs must have the shape they had in the runs since the last reset. */
hk_status hk_env_use_states(hk_env *env, const hk_graph *g);
/* Where that state of a plan lies; NULL: nowhere. */
const hk_stored *hk_env_place(const hk_env *env, const hk_state *s);
/* Makes the activation arena at least as large as the plan needs. */
hk_status hk_env_reserve(hk_env *env, const hk_plan *p);

#endif
