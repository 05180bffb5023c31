/*
 * Tables of measurements: which candidate (ops/support/choice.h) was the fastest for a problem on one device.
 *
 * A table is a text file. Its first lines name the format, the device and its driver, every other line a problem: its
 * text, kernel, splits, microseconds of that kernel and of the one predicted to be the fastest, with tabs between.
 */
#ifndef HK_TUNE_TABLE_H
#define HK_TUNE_TABLE_H

#include "gpu/gpu.h"
#include "ops/support/choice.h"

hk_status hk_tuning_create(hk_context *ctx, hk_tuning **out);
void hk_tuning_destroy(hk_tuning **t);
/* HK_STATUS_INVALID for what is no table, HK_STATUS_USAGE for one of another device. */
hk_status hk_tuning_load(hk_gpu *gpu, const char *path, hk_tuning **out);
/* The decided problems, in the order of their text. */
hk_status hk_tuning_save(hk_gpu *gpu, const hk_tuning *t, const char *path);
/* path itself, or the device's own table in the cache folder (make: which is made) for "device". In arena. */
hk_status hk_tuning_path(hk_gpu *gpu, hk_arena *arena, const char *path, bool make, const char **out);

/* hk_session's, for whoever makes a table: before the first run. */
void hk_session_use_tuning(hk_session *s, hk_tuning *t);
/* Every record of the last run, with its time (HK_PROFILE_DISPATCHES). */
hk_status hk_session_each_record(hk_session *s, void (*visit)(void *user, const hk_record *r, uint64_t ns), void *user);

#endif
