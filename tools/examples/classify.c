/* classify MODEL INPUT: runs an image classifier on a batch of images and prints the three likeliest classes of each.
 *
 *     cc -std=c11 classify.c -o classify $(pkg-config --cflags --libs hillock) -lm
 *     ./classify digits.onnx images.npy
 */
#include <hillock/hillock.h>
#include <math.h>
#include <stdio.h>

#define TOP 3

static void print_row(int64_t row, const float *logits, int64_t classes)
{
    double sum = 0, most = -INFINITY;
    int64_t best[TOP] = {-1, -1, -1};
    for (int64_t c = 0; c < classes; c++)
        most = fmax(most, logits[c]);
    for (int64_t c = 0; c < classes; c++) {
        sum += exp(logits[c] - most);
        for (int k = 0; k < TOP; k++)
            if (best[k] < 0 || logits[c] > logits[best[k]]) {
                for (int j = TOP - 1; j > k; j--)
                    best[j] = best[j - 1];
                best[k] = c;
                break;
            }
    }
    printf("%lld:", (long long)row);
    for (int k = 0; k < TOP && k < classes; k++)
        printf("  class %lld %.1f %%", (long long)best[k], 100 * exp(logits[best[k]] - most) / sum);
    printf("\n");
}

static hk_status classify(hk_context *ctx, const char *path, const char *images)
{
    hk_device *dev = NULL;
    hk_model *model = NULL;
    hk_session *session = NULL;
    hk_tensor x = {0}, y = {0};
    size_t n = 0;
    hk_status st = hk_device_open(ctx, NULL, &dev);
    if (st == HK_OK && (st = hk_model_load(ctx, path, NULL, &model)) == HK_OK &&
        (st = hk_session_create(dev, model, NULL, &session)) == HK_OK &&
        (st = hk_tensor_load(ctx, images, &x)) == HK_OK &&
        (st = hk_session_write(session, hk_model_inputs(model, &n)[0].name, &x)) == HK_OK &&
        (st = hk_session_run(session)) == HK_OK)
        st = hk_session_read(session, hk_model_outputs(model, &n)[0].name, &y);
    for (int64_t i = 0; st == HK_OK && y.dtype == HK_FLOAT32 && y.rank == 2 && i < y.shape[0]; i++)
        print_row(i, (const float *)y.data + i * y.shape[1], y.shape[1]);
    hk_tensor_release(&x);
    hk_tensor_release(&y);
    hk_session_destroy(&session);
    hk_model_destroy(&model);
    hk_device_close(&dev);
    return st;
}

int main(int argc, char **argv)
{
    hk_context *ctx = NULL;
    if (argc != 3 || hk_context_create(NULL, &ctx) != HK_OK)
        return fprintf(stderr, "usage: classify MODEL INPUT\n"), 64;
    hk_status st = classify(ctx, argv[1], argv[2]);
    if (st != HK_OK)
        fprintf(stderr, "classify: %s\n", hk_context_error(ctx));
    hk_context_destroy(&ctx);
    return hk_status_exit_code(st);
}
