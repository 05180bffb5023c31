/*
 * Philox4x32-10, the counter-based generator (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2,
 * 3", SC 2011): every random bit is a function of key and counter, equal on host and device (shaders/philox.glsl).
 */
#ifndef HK_PHILOX_H
#define HK_PHILOX_H

#include <stdint.h>

/* A stable number for what draws: FNV-1a of its name. */
uint32_t hk_philox_stream(const char *name);
void hk_philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]);

#endif
