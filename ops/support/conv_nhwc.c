/* Convolution in HK_LAYOUT_NHWC8: the forward kernels, of which the data gradient takes the one on matrix units. */
#include <string.h>

#include "kernels.h"
#include "ops/support/conv_lower.h"
#include "ops/support/gemm.h"
#include "ops/support/move.h"
#include "ops/support/tile_time.h"
#include "shaders/conv_nhwc.push.h"

enum { H = HK_AXIS_H, W = HK_AXIS_W };
enum { EPILOGUE_PARTIAL = 4, EPILOGUE_GATE = 8 };

enum { MOST_ROW = 7 };   /* taps of a row whose weights the depthwise kernel holds */
enum { MOST_STEM = 64 }; /* taps of all channels that the kernel for few channels walks */

static bool is_depthwise(const hk_conv *p)
{
    return p->groups == p->c && p->groups == p->k && p->groups > 1 && p->w.kernel[W] <= MOST_ROW;
}

/* What the kernels can do: two spatial axes, one group or as many as channels, taps that fit the packed masks. */
static bool geometry_fits(const hk_conv *p)
{
    const hk_window *w = &p->w;
    return w->spatial <= 2 && (p->groups == 1 || is_depthwise(p)) && w->kernel[H] <= 16 && w->kernel[W] <= 16 &&
           w->begin[H] < 65536 && w->begin[W] < 65536;
}

bool hk_conv_accepts_nhwc8(const hk_node *n)
{
    hk_conv p;
    hk_problem_text problem;
    const hk_value *x = hk_in(n, 0), *w = hk_in(n, 1);
    const hk_conv_attrs *attrs = n->attrs; /* whole numbers are not rounded to 11 bits */
    return x->dtype == HK_FLOAT32 && !attrs->exact && hk_conv_resolve(n->attrs, &x->shape, &w->shape, &p, &problem) &&
           geometry_fits(&p) && (!hk_in(n, 4) || p.c % 8 == 0);
}

/* Few channels, whose padding to an octet would cost more than the kernel for them. */
static bool is_stem(const hk_conv *p)
{
    return p->groups == 1 && p->c < 8 && p->c * hk_window_taps(&p->w) <= MOST_STEM && p->w.kernel[W] <= MOST_ROW;
}

bool hk_conv_enters_nhwc8(const hk_node *n)
{
    hk_conv p;
    hk_problem_text problem;
    return hk_conv_accepts_nhwc8(n) && !hk_in(n, 4) &&
           hk_conv_resolve(n->attrs, &n->in[0]->shape, &n->in[1]->shape, &p, &problem) && is_stem(&p);
}

static hk_status check(const hk_lower *l, const hk_conv_job *job)
{
    const hk_value *x = job->x, *w = job->w, *y = job->y, *r = job->residual, *s = job->scale;
    bool stem = x->layout == HK_LAYOUT_CONTIGUOUS && is_stem(&job->p) && !s;
    hk_layout weights = stem || is_depthwise(&job->p) ? HK_LAYOUT_CONTIGUOUS : HK_LAYOUT_NHWC8;
    bool layouts = (stem || x->layout == HK_LAYOUT_NHWC8) && w->layout == weights && y->layout == HK_LAYOUT_NHWC8 &&
                   (!r || r->layout == HK_LAYOUT_NHWC8) && (!s || s->layout == HK_LAYOUT_CONTIGUOUS);
    bool storages = x->dtype == HK_FLOAT32 && hk_stores_halves(x) == (stem ? false : hk_stores_halves(y)) &&
                    (!r || hk_stores_halves(r) == hk_stores_halves(y)) && !hk_stores_halves(s);
    bool sums = !job->row_sums || (is_depthwise(&job->p) && job->p.k % 8 == 0 && !hk_stores_halves(job->row_sums));
    if (layouts && storages && sums && geometry_fits(&job->p))
        return HK_OK;
    return hk_fail(
        l->ctx, HK_STATUS_INTERNAL,
        "node '%s' (%s): expected input, residual, output and, unless there is a group for each channel, the "
        "packed weight all in NHWC8, in one storage, with at most two spatial axes, or a contiguous float32 input of "
        "few channels; hk_conv_accepts_nhwc8 and hk_conv_enters_nhwc8 tell a pass so",
        l->node->name, l->node->type);
}

/* Of the result and of what it is made from: y and x forward, dX and dY in the data gradient. */
static struct conv_nhwc_push push_of(const hk_conv_job *job)
{
    const hk_conv *p = &job->p;
    const hk_window *w = &p->w;
    bool forward = job->pass == HK_CONV_FORWARD;
    int64_t outputs = forward ? p->k : p->c, inputs = forward ? p->c : p->k;
    const int64_t *from = forward ? w->in : w->out, *to = forward ? w->out : w->in;
    return (struct conv_nhwc_push){.outputs = (uint32_t)outputs,
                                   .octets_in = (uint32_t)(inputs + 7) / 8,
                                   .octets_out = (uint32_t)(outputs + 7) / 8,
                                   .pixels = (uint32_t)(p->n * to[H] * to[W]),
                                   .images = (uint32_t)p->n,
                                   .x_h = (uint32_t)from[H],
                                   .x_w = (uint32_t)from[W],
                                   .y_h = (uint32_t)to[H],
                                   .y_w = (uint32_t)to[W],
                                   .pads = (uint32_t)w->begin[H] | (uint32_t)w->begin[W] << 16,
                                   .scale_octets = job->scale && job->scale->shape.dim[0] > 1 ? (uint32_t)p->c / 8 : 0,
                                   .alpha = job->alpha,
                                   .beta = job->beta};
}

static void use_operands(hk_record *r, const hk_conv_job *job)
{
    hk_use(r, job->x, HK_READ, offsetof(struct conv_nhwc_push, x));
    hk_use(r, job->w, HK_READ, offsetof(struct conv_nhwc_push, w));
    hk_use(r, job->y, HK_WRITE, offsetof(struct conv_nhwc_push, y));
    hk_use(r, job->bias, HK_READ, offsetof(struct conv_nhwc_push, bias));
    hk_use(r, job->residual, HK_READ, offsetof(struct conv_nhwc_push, residual));
    hk_use(r, job->scale, HK_READ, offsetof(struct conv_nhwc_push, scale));
}

/* ---- float32 arithmetic */

static void lower_octets(hk_lower *l, const hk_conv_job *job)
{
    struct conv_nhwc_push push = push_of(job);
    hk_record *r = hk_emit(l, &hk_kernel_conv_nhwc, hk_stores_halves(job->x) ? "conv nhwc8 f16" : "conv nhwc8 f32");
    uint32_t lanes = l->cpu ? 8 : HK_MIN(128u, l->device->max_invocations), each = l->cpu ? 2 : 4;
    hk_push(r, &push, sizeof push);
    use_operands(r, job);
    hk_workgroup(r, lanes, 1, 1);
    hk_spec(r, 3, each);
    hk_conv_window_specs(r, &job->p.w, 4);
    hk_spec(r, 10, hk_stores_halves(job->x));
    hk_spec(r, 11, hk_stores_halves(job->w));
    hk_spec(r, 12, hk_conv_epilogue(job));
    hk_spec(r, 13, job->activation);
    hk_spec(r, 14, job->scale != NULL);
    r->flops = hk_conv_flops(&job->p);
    uint64_t per_group = (uint64_t)lanes * each;
    hk_grid_1d(l, r, (push.pixels + per_group - 1) / per_group * push.octets_out);
}

/* ---- a group for each channel */

/* (output, tap) to (tap, octets * 8), once where the weights are constant; what completes the last octet stays. */
static hk_status turn_weights(hk_lower *l, const hk_conv_job *job, int64_t taps, hk_value **turned)
{
    int64_t row = (job->p.k + 7) / 8 * 8;
    hk_value *w = hk_as_float32(l, job->w);
    hk_move m = {0};
    *turned = hk_scratch(l, HK_FLOAT32, taps * row);
    if (!*turned)
        return hk_out_of_memory(l->ctx, "a convolution's weights");
    hk_move_add(&m, job->p.k, taps, 1);
    hk_move_add(&m, taps, 1, row);
    size_t first = l->record_count;
    HK_TRY(hk_emit_move(l, &m, w, *turned));
    for (size_t i = first; i < l->record_count; i++)
        l->records[i]->keep = true;
    return HK_OK;
}

/* What the kernels share whose invocations make strips of a line: all but their own constants. */
static void emit_strips(hk_lower *l, hk_record *r, const hk_conv_job *job, const struct conv_nhwc_push *push)
{
    uint32_t lanes = l->cpu ? 8 : HK_MIN(128u, l->device->max_invocations), each = 4;
    uint64_t lines = (uint64_t)push->images * push->y_h, enough = 512 * (uint64_t)HK_MAX(l->compute_units_hint, 1u);
    while (each > 1 && !l->cpu && lines * ((push->y_w + each - 1) / each) * push->octets_out < enough)
        each /= 2;
    hk_push(r, push, sizeof *push);
    use_operands(r, job);
    hk_workgroup(r, lanes, 1, 1);
    hk_spec(r, 3, each);
    hk_conv_window_specs(r, &job->p.w, 4);
    r->flops = hk_conv_flops(&job->p);
    hk_grid_1d(l, r, (lines * ((push->y_w + each - 1) / each) * push->octets_out + lanes - 1) / lanes);
}

/* A workgroup for each line of y and as many octets as its lanes have room for beside the line's strips. */
static void emit_lines(hk_lower *l, hk_record *r, const hk_conv_job *job, const struct conv_nhwc_push *push)
{
    uint32_t lanes = l->cpu ? 8 : 128, each = l->cpu || push->y_w > 64 ? 4 : push->y_w > 32 ? 2 : 1;
    uint32_t strips = (push->y_w + each - 1) / each, width = 1;
    while (lanes > l->device->max_invocations)
        lanes /= 2;
    while (2 * width * strips <= lanes && width < push->octets_out)
        width *= 2;
    hk_push(r, push, sizeof *push);
    use_operands(r, job);
    hk_use(r, job->row_sums, HK_WRITE, offsetof(struct conv_nhwc_push, table));
    hk_workgroup(r, lanes, 1, 1);
    hk_spec(r, 3, each);
    hk_conv_window_specs(r, &job->p.w, 4);
    hk_spec(r, 14, width);
    hk_spec(r, 15, lanes);
    r->flops = hk_conv_flops(&job->p);
    hk_grid_1d(l, r, (uint64_t)push->images * push->y_h * ((push->octets_out + width - 1) / width));
}

static hk_status lower_depthwise(hk_lower *l, const hk_conv_job *job)
{
    struct conv_nhwc_push push = push_of(job);
    hk_conv_job turned = *job;
    HK_TRY(turn_weights(l, job, hk_window_taps(&job->p.w), &turned.w));
    hk_record *r = hk_emit(l, &hk_kernel_conv_nhwc_depthwise,
                           job->row_sums ? "conv depthwise nhwc8, sums" : "conv depthwise nhwc8");
    if (job->row_sums)
        emit_lines(l, r, &turned, &push);
    else
        emit_strips(l, r, &turned, &push);
    hk_spec(r, 10, hk_stores_halves(job->x));
    hk_spec(r, 11, hk_conv_epilogue(job));
    hk_spec(r, 12, job->activation);
    hk_spec(r, 13, job->row_sums != NULL);
    return HK_OK;
}

/* ---- few channels */

static hk_status lower_stem(hk_lower *l, const hk_conv_job *job)
{
    struct conv_nhwc_push push = push_of(job);
    hk_conv_job turned = *job;
    HK_TRY(turn_weights(l, job, job->p.c * hk_window_taps(&job->p.w), &turned.w));
    hk_record *r = hk_emit(l, &hk_kernel_conv_nhwc_stem, "conv few channels to nhwc8");
    emit_strips(l, r, &turned, &push);
    hk_spec(r, 10, (uint32_t)job->p.c);
    hk_spec(r, 11, hk_stores_halves(job->y));
    hk_spec(r, 12, hk_conv_epilogue(job));
    hk_spec(r, 13, job->activation);
    return HK_OK;
}

/* ---- matrix units */

static const hk_nhwc_tile tiles[] = {
    {128, 256, 32, 2, 4, 0.954f, "conv nhwc8 matrix 128x256x32"},
    {256, 128, 32, 4, 2, 0.877f, "conv nhwc8 matrix 256x128x32"},
    {128, 128, 32, 2, 2, 0.947f, "conv nhwc8 matrix 128x128x32"},
    {256, 64, 32, 4, 1, 0.735f, "conv nhwc8 matrix 256x64x32"},
    {128, 64, 32, 4, 1, 0.646f, "conv nhwc8 matrix 128x64x32"},
    {64, 128, 32, 1, 4, 1.06f, "conv nhwc8 matrix 64x128x32"},
    {64, 64, 64, 2, 2, 1.08f, "conv nhwc8 matrix 64x64x64"},
    {64, 64, 32, 2, 2, 1.03f, "conv nhwc8 matrix 64x64x32"},
    {64, 32, 64, 2, 2, 0.879f, "conv nhwc8 matrix 64x32x64"},
    {32, 32, 64, 2, 2, 19.9f, "conv nhwc8 matrix 32x32x64"},
    {32, 32, 32, 2, 2, 1.28f, "conv nhwc8 matrix 32x32x32"},
};

const hk_nhwc_tile *hk_nhwc_tiles(size_t *count)
{
    *count = HK_COUNT(tiles);
    return tiles;
}

static const hk_kernel *matrix_kernel(const hk_lower *l)
{
    return l->coopmat_emulated ? &hk_kernel_conv_nhwc_matrix_emulated : &hk_kernel_conv_nhwc_matrix;
}

static uint32_t threads_of(const hk_lower *l, const hk_nhwc_tile *t)
{
    return (uint32_t)t->wm * t->wn * l->device->subgroup_size;
}

static uint32_t shared_bytes(const hk_lower *l, const hk_nhwc_tile *t)
{
    uint32_t m = l->coopmat_m, n = l->coopmat_n;
    uint32_t words = (t->bm + t->bn) * (t->bk / 8u + 1), sums = t->wm * m * (t->bn / 4u + t->wn);
    uint32_t emulated = l->coopmat_emulated ? 4u * ((uint32_t)t->bm * t->bn + (uint32_t)t->wm * t->wn * m * n) : 0;
    return 16 * HK_MAX(words, sums) + 8 + emulated;
}

static bool tile_fits(const hk_lower *l, const hk_nhwc_tile *t)
{
    uint32_t m = l->coopmat_m, n = l->coopmat_n, threads = threads_of(l, t), octets = t->bk / 8u;
    return threads <= l->device->max_invocations && shared_bytes(l, t) <= l->device->max_shared_bytes &&
           threads % octets == 0 && t->bm * octets % threads == 0 && t->bn * octets % threads == 0 &&
           t->bm / t->wm % m == 0 && t->bn / t->wn % n == 0 && t->bk % l->coopmat_k == 0;
}

bool hk_nhwc_tile_fits(const hk_lower *l, const hk_conv_job *job, const hk_nhwc_tile *t)
{
    const hk_kernel *kernel = matrix_kernel(l);
    return kernel->spirv && (kernel->needs & ~l->device->caps) == 0 && l->device->subgroup_size >= 8 && l->coopmat_m &&
           l->coopmat_m % 8 == 0 && l->coopmat_n % 8 == 0 && l->coopmat_k % 8 == 0 && hk_stores_halves(job->x) &&
           (job->pass == HK_CONV_DATA || hk_stores_halves(job->w)) && tile_fits(l, t);
}

typedef struct nhwc_choice {
    const hk_nhwc_tile *tile;
    uint32_t splits, k_split; /* k_split in elements, whole K tiles */
} nhwc_choice;

static nhwc_choice split_by(const hk_nhwc_tile *t, int64_t k, uint32_t splits)
{
    int64_t steps = (k + t->bk - 1) / t->bk, each = (steps + splits - 1) / splits;
    return (nhwc_choice){t, (uint32_t)((steps + each - 1) / each), (uint32_t)(each * t->bk)};
}

/* ---- classes of the data gradient's pixels, by what is left of their places when the strides divide them */

static uint32_t classes_of(const hk_conv_job *job)
{
    const hk_window *w = &job->p.w;
    return job->pass == HK_CONV_DATA ? (uint32_t)(w->stride[H] * w->stride[W]) : 1;
}

/* Whether tap t of an axis lies over pixels of dY for pixels at + i stride of dX, and then over which: i + *shift.
 * Forward each does: the pixel of X at the corner of the window + *shift. */
static bool tap_of(const hk_conv_job *job, int axis, int64_t at, int64_t t, int64_t *shift)
{
    const hk_window *w = &job->p.w;
    *shift = t * w->dilation[axis];
    if (job->pass == HK_CONV_FORWARD)
        return true;
    *shift = at + w->begin[axis] - *shift;
    if (*shift % w->stride[axis])
        return false;
    *shift /= w->stride[axis];
    return true;
}

static int64_t taps_of_class(const hk_conv_job *job, uint32_t i)
{
    const hk_window *w = &job->p.w;
    int64_t rows = 0, columns = 0, shift;
    for (int64_t r = 0; r < w->kernel[H]; r++)
        rows += tap_of(job, H, i / w->stride[W], r, &shift);
    for (int64_t s = 0; s < w->kernel[W]; s++)
        columns += tap_of(job, W, i % w->stride[W], s, &shift);
    return rows * columns;
}

/* Of the class with the most taps. */
static int64_t sum_of_k(const hk_conv_job *job, const struct conv_nhwc_push *push)
{
    int64_t taps = 0;
    for (uint32_t i = 0; i < classes_of(job); i++)
        taps = HK_MAX(taps, taps_of_class(job, i));
    return taps * push->octets_in * 8;
}

/* Workgroups without splits: each class has as many as the first, which is the largest. */
static uint64_t places(const hk_conv_job *job, const struct conv_nhwc_push *push, const hk_nhwc_tile *t)
{
    const hk_window *w = &job->p.w;
    uint64_t pixels = push->pixels;
    if (classes_of(job) > 1)
        pixels = (uint64_t)push->images * (uint64_t)((push->y_h + w->stride[H] - 1) / w->stride[H]) *
                 (uint64_t)((push->y_w + w->stride[W] - 1) / w->stride[W]);
    return (pixels + t->bm - 1) / t->bm * classes_of(job) * ((push->octets_out * 8u + t->bn - 1) / t->bn);
}

/* Fitted to 4,158 times of 108 layers of ResNet-50, MobileNetV2 and EfficientNet-B0 at batch 1 and 64 on an H200
 * (tools/bench/conv_tiles MOST_SPLITS fast), as were the rates: the two small tiles never reach their arithmetic. What
 * the choice takes more than the best tile counted beside the root mean square of the logarithm, 0.125. */
static const hk_tile_model matrix_model = {.registers = 18.9,
                                           .registers_per_sum = 1.31,
                                           .multiplies = 1e6,
                                           .full_threads = 163,
                                           .step = 0.178,
                                           .step_load = 0.0291,
                                           .fill = 3.63,
                                           .fill_load = 0.0317,
                                           .dispatch = 3.3,
                                           .sum_rate = 5.57e6,
                                           .l2_rate = 5.71e6,
                                           .memory_rate = 5.27e6,
                                           .apart = 0.573};

static double time_of(const hk_lower *l, const hk_conv_job *job, const struct conv_nhwc_push *push,
                      const nhwc_choice *c, int64_t k)
{
    const hk_nhwc_tile *t = c->tile;
    uint32_t threads = threads_of(l, t);
    double results = (double)push->pixels * push->octets_out * 8;
    double read = (double)push->images * push->x_h * push->x_w * push->octets_in * 8;
    const hk_tile_shape shape = {.bm = t->bm,
                                 .bn = t->bn,
                                 .bk = t->bk,
                                 .threads = threads,
                                 .sums = (double)t->bm * t->bn / threads,
                                 .loads = (t->bm + t->bn) * (t->bk / 8.0) / threads,
                                 .rate = (double)t->rate,
                                 .shared_bytes = shared_bytes(l, t),
                                 .staged = true};
    /* classes with fewer taps take less: as if all workgroups summed the mean of them */
    int64_t all_k = hk_window_taps(&job->p.w) * push->octets_in * 8;
    double share = (double)all_k / (double)(classes_of(job) * k);
    const hk_tile_work work = {.workgroups = (int64_t)(places(job, push, t) * c->splits),
                               .k = (int64_t)(c->k_split * share),
                               .splits = c->splits,
                               .results = results,
                               .element_bytes = 2,
                               .bytes = 2.0 * (results + read + (double)push->outputs * (double)k)};
    return hk_tile_time(l, &matrix_model, &shape, &work);
}

static nhwc_choice choose_tile(hk_lower *l, const hk_conv_job *job, const struct conv_nhwc_push *push)
{
    static const uint32_t counts[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32};
    int64_t k = sum_of_k(job, push), result = (int64_t)push->pixels * push->octets_out * 8;
    char problem[HK_PROBLEM_BYTES];
    hk_choice choice;
    hk_choice_begin(l, &choice, HK_CHOICE_TILE, "conv nhwc8 %s", hk_conv_problem(l, job, problem));
    for (size_t i = 0; i < HK_COUNT(tiles); i++) {
        if (!hk_nhwc_tile_fits(l, job, &tiles[i]))
            continue;
        for (size_t s = 0; s < HK_COUNT(counts); s++) {
            nhwc_choice c = split_by(&tiles[i], k, counts[s]);
            if (counts[s] > 1 && (k < 2 * (int64_t)counts[s] * tiles[i].bk || result > INT32_MAX / counts[s]))
                break;
            hk_choice_add(&choice, &(hk_candidate){.name = tiles[i].name,
                                                   .variant = &tiles[i],
                                                   .splits = c.splits,
                                                   .cost = time_of(l, job, push, &c, k)});
        }
    }
    const hk_candidate *taken = hk_choice_end(l, &choice);
    return taken ? split_by(taken->variant, k, taken->splits) : (nhwc_choice){0};
}

enum { CLASS_WORDS = 8 };

/* The entries of a class: octet k of the sum lies at this offset (in octets) from where the pixel counts, under this
 * tap, and at this octet of a row of weights. */
static uint32_t *put_entries(uint32_t *to, const hk_conv_job *job, const struct conv_nhwc_push *push, uint32_t class)
{
    const hk_window *w = &job->p.w;
    uint32_t octets = push->octets_in;
    int64_t y, x;
    for (int64_t r = 0; r < w->kernel[H]; r++)
        for (int64_t s = 0; s < w->kernel[W]; s++) {
            if (!tap_of(job, H, class / w->stride[W], r, &y) || !tap_of(job, W, class % w->stride[W], s, &x))
                continue;
            for (uint32_t o = 0; o < octets; o++) {
                uint32_t of_row = (uint32_t)(r * w->kernel[W] + s) * octets + o;
                *to++ = (uint32_t)(y * push->x_w + x) * octets + o;
                *to++ = (classes_of(job) > 1 ? of_row << 10 : 0) | (uint32_t)(r << 5 | s);
            }
        }
    return to;
}

/* Entries, and with classes records before them: first entry, octets, rows and columns of pixels, the first one's
 * place.
 */
static uint32_t *make_table(hk_lower *l, const hk_conv_job *job, const struct conv_nhwc_push *push, uint32_t *bytes)
{
    const hk_window *w = &job->p.w;
    uint32_t classes = classes_of(job), head = classes > 1 ? CLASS_WORDS * classes : 0;
    *bytes = 4 * (head + 2 * (uint32_t)hk_window_taps(w) * push->octets_in); /* each tap is in one class */
    uint32_t *table = hk_arena_alloc(l->arena, *bytes);
    if (!table)
        return NULL;
    uint32_t *to = table + head;
    for (uint32_t i = 0; i < classes; i++) {
        uint32_t first = (uint32_t)(to - table) / 2, stride_h = (uint32_t)w->stride[H],
                 stride_w = (uint32_t)w->stride[W], at_h = i / stride_w, at_w = i % stride_w;
        to = put_entries(to, job, push, i);
        const uint32_t record[CLASS_WORDS] = {first,
                                              (uint32_t)(to - table) / 2 - first,
                                              push->y_h > at_h ? (push->y_h - at_h + stride_h - 1) / stride_h : 0,
                                              push->y_w > at_w ? (push->y_w - at_w + stride_w - 1) / stride_w : 0,
                                              at_h,
                                              at_w};
        if (head)
            memcpy(table + (size_t)CLASS_WORDS * i, record, sizeof record);
    }
    return table;
}

static hk_value *result_of(const hk_conv_job *job)
{
    return job->pass == HK_CONV_FORWARD ? job->y : job->x;
}

static uint32_t epilogue_of(const hk_conv_job *job)
{
    return hk_conv_epilogue(job) | (job->gate ? EPILOGUE_GATE : 0u);
}

void hk_conv_emit_nhwc8_sum(hk_lower *l, const hk_conv_job *job, hk_value *partial, uint32_t splits)
{
    struct conv_nhwc_push push = push_of(job);
    hk_record *r = hk_emit(l, &hk_kernel_conv_nhwc_sum, "conv nhwc8 sum of splits");
    uint32_t threads = l->cpu ? 64 : 128;
    push.splits = splits;
    hk_push(r, &push, sizeof push);
    hk_use(r, partial, HK_READ, offsetof(struct conv_nhwc_push, x));
    hk_use(r, result_of(job), HK_WRITE, offsetof(struct conv_nhwc_push, y));
    hk_use(r, job->bias, HK_READ, offsetof(struct conv_nhwc_push, bias));
    hk_use(r, job->residual, HK_READ, offsetof(struct conv_nhwc_push, residual));
    hk_use(r, job->gate, HK_READ, offsetof(struct conv_nhwc_push, scale));
    hk_workgroup(r, threads, 1, 1);
    hk_spec(r, 3, epilogue_of(job));
    hk_spec(r, 4, job->activation);
    hk_grid_1d(l, r, ((uint64_t)push.pixels * push.octets_out * 2 + threads - 1) / threads);
}

static hk_status lower_matrix(hk_lower *l, const hk_conv_job *job, const nhwc_choice *c)
{
    struct conv_nhwc_push push = push_of(job);
    const hk_nhwc_tile *t = c->tile;
    bool split = c->splits > 1;
    int64_t result = (int64_t)push.pixels * push.octets_out * 8;
    hk_value *y = split ? hk_scratch(l, HK_FLOAT32, result * c->splits) : result_of(job);
    push.splits = c->splits;
    push.k_split = c->k_split;
    bool forward = job->pass == HK_CONV_FORWARD, classes = classes_of(job) > 1;
    hk_record *r = hk_emit(l, matrix_kernel(l), t->name);
    if (hk_window_taps(&job->p.w) > 1 || classes) {
        r->block = make_table(l, job, &push, &r->block_bytes);
        r->block_offset = offsetof(struct conv_nhwc_push, table);
        if (!r->block)
            return hk_out_of_memory(l->ctx, "a convolution's table");
    }
    hk_push(r, &push, sizeof push);
    hk_use(r, forward ? job->x : job->y, HK_READ, offsetof(struct conv_nhwc_push, x));
    hk_use(r, job->w, HK_READ, offsetof(struct conv_nhwc_push, w));
    hk_use(r, y, HK_WRITE, offsetof(struct conv_nhwc_push, y));
    hk_use(r, job->scale, HK_READ, offsetof(struct conv_nhwc_push, scale));
    if (!split) {
        hk_use(r, job->bias, HK_READ, offsetof(struct conv_nhwc_push, bias));
        hk_use(r, job->residual, HK_READ, offsetof(struct conv_nhwc_push, residual));
        hk_use(r, job->gate, HK_READ, offsetof(struct conv_nhwc_push, scale));
    }
    hk_workgroup(r, threads_of(l, t), 1, 1);
    r->subgroup_size = hk_lower_has(l, HK_CAP_SUBGROUP_SIZE) ? l->device->subgroup_size : 0;
    const uint32_t specs[] = {t->bm,        t->bn,        t->bk,       t->wm, t->wn, threads_of(l, t),
                              l->coopmat_m, l->coopmat_n, l->coopmat_k};
    for (uint32_t i = 0; i < HK_COUNT(specs); i++)
        hk_spec(r, 3 + i, specs[i]);
    hk_conv_window_specs(r, &job->p.w, 12);
    hk_spec(r, 18, split ? EPILOGUE_PARTIAL : epilogue_of(job));
    hk_spec(r, 19, split ? 0 : job->activation);
    hk_spec(r, 20, job->scale != NULL);
    hk_spec(r, 21, forward);
    hk_spec(r, 22, classes);
    r->flops = hk_conv_flops(&job->p);
    hk_grid_1d(l, r, places(job, &push, t) * c->splits);
    if (split)
        hk_conv_emit_nhwc8_sum(l, job, y, c->splits);
    return HK_OK;
}

/* A copy of factors that lie where vectors cannot be read from. */
static hk_value *aligned(hk_lower *l, hk_value *scale)
{
    if (!scale || hk_value_alignment(scale) == 16)
        return scale;
    hk_value *copy = hk_scratch(l, HK_FLOAT32, hk_shape_count(&scale->shape));
    if (copy)
        hk_emit_copy(l, scale, 0, copy, 0, hk_value_bytes(scale));
    return copy ? copy : scale;
}

hk_status hk_conv_lower_nhwc8_matrix(hk_lower *l, const hk_conv_job *job, bool *done)
{
    struct conv_nhwc_push push = push_of(job);
    nhwc_choice c = job->nhwc_tile ? split_by(job->nhwc_tile, sum_of_k(job, &push), HK_MAX(job->splits, 1u))
                                   : choose_tile(l, job, &push);
    *done = c.tile != NULL;
    if (!c.tile)
        return HK_OK;
    HK_TRY(lower_matrix(l, job, &c));
    hk_choice_leave(l, HK_CHOICE_TILE);
    return HK_OK;
}

hk_status hk_conv_lower_nhwc8(hk_lower *l, const hk_conv_job *problem)
{
    hk_conv_job job = *problem;
    bool done;
    HK_TRY(check(l, &job));
    if (job.x->layout == HK_LAYOUT_CONTIGUOUS)
        return lower_stem(l, &job);
    if (is_depthwise(&job.p))
        return lower_depthwise(l, &job);
    job.scale = aligned(l, job.scale);
    HK_TRY(hk_conv_lower_nhwc8_matrix(l, &job, &done));
    if (!done)
        lower_octets(l, &job);
    return HK_OK;
}
