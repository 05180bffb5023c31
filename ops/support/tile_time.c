/* The time of tiles. */
#include "ops/support/tile_time.h"

#include <math.h>

/* Workgroups that a unit holds at once: 65,536 registers, 255 of a thread at most, 227 KiB of shared memory. */
static double resident(const hk_tile_model *c, const hk_tile_shape *t)
{
    double registers = HK_MIN(c->registers + c->registers_per_sum * t->sums, 255.0);
    double most = floor(HK_MIN(65536 / (t->threads * registers), 227 * 1024 / (t->shared_bytes + 1024)));
    return HK_MAX(most, 1.0);
}

/* Workgroups run in rounds of as many as fit. A round takes what its multiplications take, but few threads cannot keep
 * a unit busy, and each K step costs the latency of its loads. Every round pays for filling and emptying; splits pay
 * for the partial sums and for one more dispatch behind a barrier. */
double hk_tile_time(const hk_lower *l, const hk_tile_model *c, const hk_tile_shape *t, const hk_tile_work *w)
{
    double units = HK_MAX(l->compute_units_hint, 1u), left = ceil((double)w->workgroups / units);
    double most = resident(c, t), steps = ceil((double)w->k / t->bk);
    double work = steps * t->bk * t->bm * t->bn / (c->multiplies * t->rate);
    double step = c->step + c->step_load * t->loads + (t->staged ? 0 : c->step_stage);
    double alone = HK_MAX(work * HK_MAX(c->full_threads / t->threads, 1.0), steps * step);
    double fill = c->fill + c->fill_load * t->loads + (t->sliced ? c->slices : 0);
    double full_rounds = floor(left / most), rest = left - full_rounds * most;
    double time = full_rounds * (HK_MAX(most * work, alone) + fill);
    time += rest > 0 ? HK_MAX(rest * work, alone) + fill : 0;
    double loaded = w->element_bytes * (double)w->workgroups * (t->bm + t->bn) * (double)w->k;
    double memory = HK_MAX(loaded / c->l2_rate, w->bytes / c->memory_rate);
    time = HK_MAX(time, memory) + c->apart * HK_MIN(time, memory);
    if (w->splits > 1)
        time += c->dispatch + 8.0 * w->results * (double)w->splits / c->sum_rate;
    return time;
}
