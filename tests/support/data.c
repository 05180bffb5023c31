/* Running and comparing model folders. */
#include "tests/support/data.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/tensor.h"

double data_error(const hk_tensor *a, const hk_tensor *b)
{
    hk_shape x = hk_tensor_shape(a), y = hk_tensor_shape(b);
    if (a->dtype != b->dtype || !hk_shape_equal(&x, &y))
        return 1e300;
    double error = 0, norm = 0;
    if (hk_dtype_is_list(a->dtype)) {
        for (int64_t i = 0; i < hk_tensor_count(a); i++)
            error = fmax(error, data_error((const hk_tensor *)a->data + i, (const hk_tensor *)b->data + i));
        return error;
    }
    for (int64_t i = 0; i < hk_shape_count(&x); i++) {
        double p = hk_get_double(a, i), q = hk_get_double(b, i);
        if (isnan(p) || isnan(q)) {
            if (isnan(p) != isnan(q))
                return 1e300;
            continue;
        }
        if (p == q)
            continue;
        error += (p - q) * (p - q);
        norm += q * q;
    }
    for (int64_t i = 0; i < hk_shape_count(&x); i++) {
        double p = hk_get_double(a, i), q = hk_get_double(b, i);
        norm += p == q && isfinite(q) ? q * q : 0;
    }
    if (!hk_dtype_is_float(a->dtype))
        return error > 0 ? 1e300 : 0;
    return error > 0 ? sqrt(error / fmax(norm, 1e-30)) : 0;
}

bool data_run_set(hk_context *ctx, hk_session *s, const hk_model *m, const char *folder, int set, double *error)
{
    char path[512];
    size_t count = 0;
    const hk_value_info *infos = hk_model_inputs(m, &count);
    for (size_t i = 0; i < count; i++) {
        hk_tensor t = {.dtype = infos[i].dtype};
        snprintf(path, sizeof path, "%s/test_data_set_%d/input_%zu.pb", folder, set, i);
        if (access(path, R_OK) != 0)
            return false;
        if (hk_tensor_load(ctx, path, &t) != HK_OK || hk_session_write(s, infos[i].name, &t) != HK_OK)
            fail_msg("%s: %s", path, hk_context_error(ctx));
        hk_tensor_release(&t);
    }
    if (hk_session_run(s) != HK_OK)
        fail_msg("%s set %d: %s", folder, set, hk_context_error(ctx));
    *error = 0;
    infos = hk_model_outputs(m, &count);
    for (size_t i = 0; i < count; i++) {
        hk_tensor got = {0}, want = {.dtype = infos[i].dtype};
        snprintf(path, sizeof path, "%s/test_data_set_%d/output_%zu.pb", folder, set, i);
        if (hk_session_read(s, infos[i].name, &got) != HK_OK)
            fail_msg("%s: %s", path, hk_context_error(ctx));
        if (access(path, R_OK) == 0) {
            if (hk_tensor_load(ctx, path, &want) != HK_OK)
                fail_msg("%s: %s", path, hk_context_error(ctx));
            *error = fmax(*error, data_error(&got, &want));
        }
        hk_tensor_release(&got);
        hk_tensor_release(&want);
    }
    return true;
}
