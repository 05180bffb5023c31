/*
 * What a run did, for hk_plan_info: one row per record, host step and view.
 */
#ifndef HK_REPORT_H
#define HK_REPORT_H

#include "runtime/program.h"

typedef struct hk_report {
    hk_arena *arena;
    hk_plan_info info;
} hk_report;

/* Replaces the report's contents. first: the run's first stage (hk_run.first); NULL with a single exec. */
hk_status hk_report_make(hk_context *ctx, hk_report *r, const hk_env *env, const hk_stage *first, uint32_t segments);
hk_status hk_report_exec(hk_context *ctx, hk_report *r, const hk_env *env, hk_exec *e);
/* Every record of the run's stages, and of the bodies' last runs, in the order of its plan. */
hk_status hk_report_visit(hk_context *ctx, const hk_stage *first,
                          void (*visit)(void *user, const hk_record *r, uint64_t ns), void *user);
void hk_report_finish(hk_report *r);

#endif
