/* hillock verify: one case, its data sets run once or twice. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/command/verify.h"

typedef struct verify_run_state {
    const verify_options *v;
    const verify_case *c;
    verify_result *result;
    hk_session *session;
    const hk_value_info *inputs, *outputs;
    size_t input_count, output_count;
    int set;
    hk_tensor *given, *want, *got; /* of the set; data NULL where there is no file */
} verify_run_state;

static void fail(verify_run_state *r, const char *sentence)
{
    if (!*r->result->failure)
        snprintf(r->result->failure, sizeof r->result->failure, "%s", sentence);
}

static void report(verify_run_state *r, const char *output, const comparison *c)
{
    const verify_options *v = r->v;
    bool ok = c->same_type && c->close;
    char what[200];
    r->result->outputs++;
    r->result->wrong += !ok;
    if (c->same_type)
        snprintf(what, sizeof what, "set %d '%.80s': largest %.3g, relative norm %.3g", r->set, output, c->largest,
                 c->norm);
    else
        snprintf(what, sizeof what, "set %d '%.80s': its type or shape differs from the reference's", r->set, output);
    if (v->o->json) {
        json_object(stdout, NULL);
        json_string(stdout, "folder", r->c->folder);
        json_integer(stdout, "set", r->set);
        json_string(stdout, "output", output);
        json_bool(stdout, "ok", ok);
        json_number(stdout, "largest", c->largest);
        json_number(stdout, "norm", c->norm);
        json_object_end(stdout);
    } else if (!v->o->quiet && ok) {
        printf("ok   %s %s\n", r->c->folder, what);
    }
    if (!ok)
        fail(r, what);
}

/* ---- a set's tensors */

static hk_status load_list(verify_run_state *r, const char *kind, const hk_value_info *infos, size_t count,
                           hk_tensor *list)
{
    for (size_t i = 0; i < count; i++) {
        char path[1200];
        snprintf(path, sizeof path, "%s/test_data_set_%d/%s_%zu.pb", r->c->folder, r->set, kind, i);
        if (access(path, R_OK) != 0)
            continue;
        list[i].dtype = infos[i].dtype; /* what kind of message the file holds */
        hk_status st = hk_tensor_load(r->v->o->ctx, path, &list[i]);
        if (st != HK_OK)
            return st;
    }
    return HK_OK;
}

static void release_list(hk_tensor *list, size_t count)
{
    for (size_t i = 0; list && i < count; i++)
        hk_tensor_release(&list[i]);
}

static bool is_list(const hk_tensor *t)
{
    return t->data && (t->dtype == HK_SEQUENCE || t->dtype == HK_OPTIONAL);
}

/* Elements in reverse order: other contents of the same kind, so that what an operator demands of them still holds. */
static void reverse(hk_tensor *t)
{
    size_t bytes = hk_dtype_bytes(t->dtype);
    int64_t count = hk_tensor_count(t);
    char *low = t->data, *high = low + (size_t)count * bytes, kept[16];
    for (; count > 1 && low < high - bytes; low += bytes) {
        high -= bytes;
        memcpy(kept, low, bytes);
        memcpy(low, high, bytes);
        memcpy(high, kept, bytes);
    }
}

static bool has_floats(const hk_tensor *t)
{
    if (!is_list(t))
        return t->data && is_float(t->dtype) && hk_tensor_count(t) > 1;
    bool floats = false;
    for (int64_t i = 0; i < hk_tensor_count(t); i++)
        floats |= has_floats((const hk_tensor *)t->data + i);
    return floats;
}

static void change(hk_tensor *t, bool floats_alone)
{
    for (int64_t i = 0; is_list(t) && i < hk_tensor_count(t); i++)
        change((hk_tensor *)t->data + i, floats_alone);
    if (t->data && !is_list(t) && (!floats_alone || is_float(t->dtype)))
        reverse(t);
}

/* Turns the floats around; a set without floats has everything turned around. Twice makes what was. */
static void change_inputs(verify_run_state *r)
{
    bool floats = false;
    for (size_t i = 0; i < r->input_count; i++)
        floats |= has_floats(&r->given[i]);
    for (size_t i = 0; i < r->input_count; i++)
        change(&r->given[i], floats);
}

/* ---- runs */

static hk_status run_inputs(verify_run_state *r)
{
    hk_status st = HK_OK;
    for (size_t i = 0; i < r->input_count && st == HK_OK; i++)
        if (r->given[i].data)
            st = hk_session_write(r->session, r->inputs[i].name, &r->given[i]);
    return st == HK_OK ? hk_session_run(r->session) : st;
}

static hk_status compare_outputs(verify_run_state *r)
{
    bool own = r->c->rel >= 0;
    hk_status st = HK_OK;
    for (size_t i = 0; i < r->output_count && st == HK_OK; i++) {
        if (!r->want[i].data)
            continue;
        st = hk_session_read(r->session, r->outputs[i].name, &r->got[i]);
        if (st != HK_OK)
            return st;
        comparison c = compare(&r->got[i], &r->want[i], own ? 0 : r->v->rtol, own ? 0 : r->v->atol,
                               own ? r->c->rel : r->v->rel);
        report(r, r->outputs[i].name, &c);
    }
    return st;
}

static bool same_bits(const hk_tensor *a, const hk_tensor *b)
{
    bool same = a->dtype == b->dtype && a->rank == b->rank;
    for (int32_t d = 0; same && d < a->rank; d++)
        same = a->shape[d] == b->shape[d];
    for (int64_t i = 0; same && is_list(a) && i < hk_tensor_count(a); i++)
        same = same_bits((const hk_tensor *)a->data + i, (const hk_tensor *)b->data + i);
    return same && (is_list(a) || !memcmp(a->data, b->data, (size_t)hk_tensor_count(a) * hk_dtype_bytes(a->dtype)));
}

/* The same session once more with other inputs, which it may refuse, then with the set's: nothing may be left over. */
static hk_status run_again(verify_run_state *r)
{
    change_inputs(r);
    hk_status st = run_inputs(r);
    change_inputs(r);
    if (st != HK_STATUS_DEVICE_LOST)
        st = run_inputs(r);
    for (size_t i = 0; i < r->output_count && st == HK_OK; i++) {
        hk_tensor again = {0};
        char what[160];
        if (!r->want[i].data)
            continue;
        st = hk_session_read(r->session, r->outputs[i].name, &again);
        if (st == HK_OK && !same_bits(&again, &r->got[i])) {
            snprintf(what, sizeof what, "set %d '%.80s': the second run differs from the first", r->set,
                     r->outputs[i].name);
            fail(r, what);
        }
        hk_tensor_release(&again);
    }
    return st;
}

/* Nodes of element types without device kernels may run on the host. */
static hk_status check_places(verify_run_state *r)
{
    hk_plan_info plan;
    char what[300];
    hk_status st = hk_session_get_plan(r->session, &plan);
    for (size_t i = 0; st == HK_OK && i < plan.row_count; i++) {
        const hk_plan_row *row = &plan.rows[i];
        if (strcmp(row->where, "host") != 0 || !is_float(row->dtype) || row->lacking != HK_DTYPE_NONE)
            continue;
        snprintf(what, sizeof what, "node '%.100s' (%.60s) computes floats on the host", row->node, row->op);
        fail(r, what);
    }
    return st;
}

static hk_status run_set(verify_run_state *r)
{
    hk_status st = load_list(r, "input", r->inputs, r->input_count, r->given);
    if (st == HK_OK)
        st = load_list(r, "output", r->outputs, r->output_count, r->want);
    if (st == HK_OK)
        st = run_inputs(r);
    if (st == HK_OK)
        st = compare_outputs(r);
    if (st == HK_OK && r->v->device_floats)
        st = check_places(r);
    if (st == HK_OK && r->v->twice)
        st = run_again(r);
    release_list(r->given, r->input_count);
    release_list(r->want, r->output_count);
    release_list(r->got, r->output_count);
    return st;
}

static hk_status run_sets(verify_run_state *r)
{
    hk_status st = HK_OK;
    r->given = calloc(r->input_count + 1, sizeof *r->given);
    r->want = calloc(r->output_count + 1, sizeof *r->want);
    r->got = calloc(r->output_count + 1, sizeof *r->got);
    if (!r->given || !r->want || !r->got) {
        fail(r, "out of memory");
        st = HK_STATUS_OUT_OF_MEMORY;
    }
    for (r->set = 0; st == HK_OK; r->set++) {
        char path[1200];
        snprintf(path, sizeof path, "%s/test_data_set_%d", r->c->folder, r->set);
        if (access(path, R_OK) != 0)
            break;
        st = run_set(r);
    }
    free(r->given);
    free(r->want);
    free(r->got);
    return st;
}

hk_status verify_run(const verify_options *v, const verify_case *c, verify_result *result)
{
    verify_run_state r = {.v = v, .c = c, .result = result};
    hk_session_params params = {.size = sizeof params, .precision = v->precision};
    hk_model *m = NULL;
    char path[1200];
    *result = (verify_result){0};
    snprintf(path, sizeof path, "%s/model.onnx", c->folder);
    hk_status st = hk_model_load(v->o->ctx, path, NULL, &m);
    if (st == HK_OK)
        st = hk_session_create(v->dev, m, &params, &r.session);
    if (st == HK_OK) {
        r.inputs = hk_model_inputs(m, &r.input_count);
        r.outputs = hk_model_outputs(m, &r.output_count);
        st = run_sets(&r);
    }
    if (st != HK_OK)
        fail(&r, hk_context_error(v->o->ctx));
    else if (!result->outputs)
        fail(&r, "no test_data_set_N with outputs was found");
    hk_session_destroy(&r.session);
    hk_model_destroy(&m);
    return st;
}
