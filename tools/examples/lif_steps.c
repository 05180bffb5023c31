/* lif_steps: spiking neurons step by step, without a model or a device.
 *
 *     cc -std=c11 lif_steps.c -o lif_steps $(pkg-config --cflags --libs hillock) -lm
 *     ./lif_steps
 *
 * 128 leaky integrate-and-fire neurons take Gaussian noise for ten steps; the same arithmetic is what hk.Neuron runs on
 * the device.
 */
#include <hillock/hillock.h>
#include <math.h>
#include <stdio.h>

enum { NEURONS = 128, STEPS = 10 };

/* A reproducible normal deviate: two of a linear congruence's numbers, by Box and Muller. */
static float normal(uint32_t *seed)
{
    double u[2];
    for (int i = 0; i < 2; i++) {
        *seed = *seed * 1664525u + 1013904223u;
        u[i] = ((double)(*seed >> 8) + 0.5) / 16777216.0;
    }
    return (float)(sqrt(-2 * log(u[0])) * cos(6.283185307179586 * u[1]));
}

int main(void)
{
    hk_context *ctx = NULL;
    hk_status st = hk_context_create(NULL, &ctx);
    if (st != HK_OK)
        return hk_status_exit_code(st);
    const hk_neuron_params lif = {.size = sizeof lif, .tau = 2.0f, .v_threshold = 1.0f, .v_reset = 0.0f};
    float x[NEURONS], v[NEURONS] = {0}, spike[NEURONS];
    uint32_t seed = 1;
    for (int t = 0; t < STEPS && st == HK_OK; t++) {
        int spikes = 0;
        for (int i = 0; i < NEURONS; i++)
            x[i] = normal(&seed);
        st = hk_lif_step(ctx, &lif, NEURONS, x, v, spike);
        for (int i = 0; i < NEURONS; i++)
            spikes += spike[i] > 0;
        if (st == HK_OK)
            printf("t=%d: %d spikes\n", t, spikes);
    }
    if (st != HK_OK)
        fprintf(stderr, "%s\n", hk_context_error(ctx));
    hk_context_destroy(&ctx);
    return hk_status_exit_code(st);
}
