/* classify MODEL INPUT: runs an image classifier on a batch of images and prints the three likeliest classes of each.
 *
 *     cc -std=c11 classify.c -o classify $(pkg-config --cflags --libs hillock) -lm
 *     ./classify digits.onnx images.npy
 */
#include <hillock/hillock.h>
#include <math.h>
#include <stdio.h>

static void print_row(int64_t row, const float *x, int64_t classes)
{
    int64_t last = -1, best = 0;
    double sum = 0, most = -INFINITY;
    for (int64_t c = 0; c < classes; c++)
        most = fmax(most, x[c]);
    for (int64_t c = 0; c < classes; c++)
        sum += exp(x[c] - most);
    printf("%lld:", (long long)row);
    for (int k = 0; k < 3 && best >= 0; k++, last = best) {
        best = -1; /* of the classes behind the last, the first of the largest */
        for (int64_t c = 0; c < classes; c++)
            if ((last < 0 || x[c] < x[last] || (x[c] == x[last] && c > last)) && (best < 0 || x[c] > x[best]))
                best = c;
        if (best >= 0)
            printf("  class %lld %.1f %%", (long long)best, 100 * exp(x[best] - most) / sum);
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    hk_context *ctx = NULL;
    hk_device *dev = NULL;
    hk_model *model = NULL;
    hk_session *session = NULL;
    hk_tensor x = {0}, y = {0};
    size_t ins = 0, outs = 0;
    if (argc != 3 || hk_context_create(NULL, &ctx) != HK_OK)
        return fprintf(stderr, "usage: classify MODEL INPUT\n"), 64;
    hk_status st = hk_device_open(ctx, NULL, &dev);
    if (st == HK_OK && (st = hk_model_load(ctx, argv[1], NULL, &model)) == HK_OK) {
        const hk_value_info *in = hk_model_inputs(model, &ins), *out = hk_model_outputs(model, &outs);
        if (ins && outs && (st = hk_session_create(dev, model, NULL, &session)) == HK_OK &&
            (st = hk_tensor_load(ctx, argv[2], &x)) == HK_OK &&
            (st = hk_session_write(session, in->name, &x)) == HK_OK && (st = hk_session_run(session)) == HK_OK)
            st = hk_session_read(session, out->name, &y);
    }
    bool logits = y.dtype == HK_FLOAT32 && y.rank == 2;
    for (int64_t i = 0; logits && i < y.shape[0]; i++)
        print_row(i, (const float *)y.data + i * y.shape[1], y.shape[1]);
    if (st != HK_OK || !logits)
        fprintf(stderr, "classify: %s\n", st ? hk_context_error(ctx) : "the model makes no logits [images, classes]");
    hk_tensor_release(&x);
    hk_tensor_release(&y);
    hk_session_destroy(&session);
    hk_model_destroy(&model);
    hk_device_close(&dev);
    hk_context_destroy(&ctx);
    return st == HK_OK && !logits ? 65 : hk_status_exit_code(st);
}
