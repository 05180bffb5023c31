/* Learning rates over time. */
#include <math.h>

#include <hillock/hillock.h>

#define PI 3.14159265358979323846

static double between(double from, double to, double x) /* half a cosine */
{
    return to + (from - to) * 0.5 * (1 + cos(PI * x));
}

/* torch.optim.lr_scheduler.OneCycleLR: 30 % up from 1/25, the rest down to 1/25 of 1/10,000. */
static double one_cycle(double update, double total)
{
    double top = 0.3 * total - 1, last = total - 1, least = 1.0 / 25;
    if (update <= top)
        return between(least, 1, top > 0 ? update / top : 1);
    return between(1, least * 1e-4, last > top ? fmin((update - top) / (last - top), 1) : 1);
}

double hk_schedule_factor(const hk_schedule *s, uint64_t update)
{
    double u = (double)update, least = (double)s->least;
    if (s->kind == HK_SCHEDULE_ONE_CYCLE)
        return s->total ? one_cycle(u, (double)s->total) : 1;
    if (update < s->warmup)
        return (u + 1) / ((double)s->warmup + 1);
    double length = s->total > s->warmup ? (double)(s->total - s->warmup) : 0;
    double x = length > 0 ? fmin((u - (double)s->warmup) / length, 1) : 0;
    switch (s->kind) {
    case HK_SCHEDULE_STEP:
        return s->every ? pow(s->gamma != 0 ? (double)s->gamma : 0.1, (double)((update - s->warmup) / s->every)) : 1;
    case HK_SCHEDULE_COSINE: return between(1, least, x);
    case HK_SCHEDULE_LINEAR: return 1 + (least - 1) * x;
    case HK_SCHEDULE_CONSTANT:
    case HK_SCHEDULE_ONE_CYCLE: break;
    }
    return 1;
}

double hk_plateau_step(hk_plateau *p, double metric)
{
    if (!p->begun) {
        p->begun = true;
        p->best = p->larger ? -INFINITY : INFINITY;
        p->factor = 1;
    }
    /* PyTorch's relative threshold */
    bool better = p->larger ? metric > p->best * (1 + 1e-4) : metric < p->best * (1 - 1e-4);
    if (better) {
        p->best = metric;
        p->bad = 0;
    } else if (++p->bad > (p->patience ? p->patience : 10)) {
        p->factor *= p->gamma != 0 ? (double)p->gamma : 0.1;
        p->bad = 0;
    }
    return p->factor;
}
