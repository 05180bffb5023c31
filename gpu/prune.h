/*
 * A kernel's module without what its specialization constants rule out.
 */
#ifndef HK_GPU_PRUNE_H
#define HK_GPU_PRUNE_H

#include "core/context.h"
#include "core/kernel.h"

/* SPIR-V that does what the kernel's does when constant i is spec[i] (those from spec_count on have their defaults),
 * valid with these constants alone; they are still to be given to the driver. To be freed; NULL when out of memory. */
uint32_t *hk_prune(hk_context *ctx, const hk_kernel *kernel, const uint32_t *spec, uint32_t spec_count, size_t *bytes);
/* Every loop's control becomes DontUnroll. */
void hk_keep_loops(uint32_t *code, size_t bytes);

#endif
