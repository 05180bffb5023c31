#include "tests/support/trainers.h"

#include <math.h>
#include <string.h>

double gradients_apart(hk_trainer *a, hk_trainer *b, const hk_model *m)
{
    size_t count = 0;
    hk_trainer_stats s;
    OK(hk_trainer_get_stats(a, &s));
    const hk_value_info *list = hk_model_parameters(m, &count);
    double squares = 0, norms = 0;
    for (size_t i = 0; i < count; i++) {
        hk_tensor x = {0}, y = {0};
        OK(hk_trainer_read_gradient(a, list[i].name, &x));
        OK(hk_trainer_read_gradient(b, list[i].name, &y));
        for (int64_t k = 0; k < hk_tensor_count(&y); k++) {
            double want = (double)((float *)y.data)[k], d = (double)(((float *)x.data)[k] / s.loss_scale) - want;
            squares += d * d;
            norms += want * want;
        }
        hk_tensor_release(&x);
        hk_tensor_release(&y);
    }
    return sqrt(squares / norms);
}

void same_weights(hk_trainer *a, hk_trainer *b, const hk_model *m)
{
    size_t count = 0;
    const hk_value_info *list = hk_model_parameters(m, &count);
    for (size_t i = 0; i < count; i++) {
        hk_tensor x = {0}, y = {0};
        OK(hk_trainer_read_parameter(a, list[i].name, &x));
        OK(hk_trainer_read_parameter(b, list[i].name, &y));
        assert_memory_equal(x.data, y.data, (size_t)hk_tensor_count(&x) * sizeof(float));
        hk_tensor_release(&x);
        hk_tensor_release(&y);
    }
}
