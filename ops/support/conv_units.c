#include "ops/support/conv_units.h"
#include "ops/support/gemm.h"

bool hk_units_run(const hk_lower *l, const hk_kernel *kernel)
{
    return hk_matrix_halves(l) && l->coopmat_m && kernel->spirv && (kernel->needs & ~l->device->caps) == 0 &&
           l->coopmat_n % 8 == 0 && l->coopmat_k % 8 == 0 && l->device->subgroup_size >= 8;
}

uint32_t hk_units_threads(const hk_lower *l, const hk_units_tile *t)
{
    return t->wm * t->wn * hk_matrix_lanes(l);
}

bool hk_units_tile_fits(const hk_lower *l, const hk_units_tile *t)
{
    uint32_t m = l->coopmat_m, n = l->coopmat_n, threads = hk_units_threads(l, t);
    uint32_t words = hk_matrix_halves(l) * (t->bm + t->bn) * (t->bk / 8 + 1), sums = t->wm * m * (t->bn / 4 + t->wn);
    uint32_t undos = (t->bm + t->bn) / HK_SPLIT_SIDE * (t->bk / HK_SPLIT_SIDE) + threads;
    uint32_t emulated = l->coopmat_emulated ? 4 * (t->bm * t->bn + t->wm * t->wn * m * n) : 0;
    return threads <= l->device->max_invocations &&
           16 * HK_MAX(words, sums) + 4 * undos + emulated <= l->device->max_shared_bytes &&
           t->bm * t->bk / 8 % threads == 0 && t->bn * t->bk / 8 % threads == 0 && t->bm / t->wm % m == 0 &&
           t->bn / t->wn % n == 0 && t->bk % l->coopmat_k == 0;
}

double hk_units_cost(const hk_lower *l, const hk_units_tile *t, int64_t workgroups, int64_t steps, uint32_t splits,
                     int64_t results)
{
    double units = HK_MAX(l->compute_units_hint, 1u);
    double rounds = (double)((workgroups + (int64_t)units - 1) / (int64_t)units);
    double cost = rounds * (((double)steps + 4) * t->bk * t->bm * t->bn / t->rate);
    if (splits > 1)
        cost += 3e6 + 30.0 * (double)(results * splits) / units;
    return cost;
}
