/* The order of passes, and what they share. */
#include "runtime/passes.h"

#include "runtime/fuse_chain.h"

enum {
    TRAINED = 1, /* also on the joint graph of a training step */
    UNITS = 2,   /* only where products run on matrix units in precision `fast` */
};

typedef struct pass {
    hk_pass pass;
    uint32_t when;
    hk_status (*run)(hk_graph *g);
} pass;

static hk_status run(hk_graph *g, const hk_pass_options *options, const pass *list, size_t count)
{
    bool units = options->precision == HK_PRECISION_FAST && options->matrices;
    for (size_t i = 0; i < count; i++)
        if (!(options->off >> list[i].pass & 1u) && (options->inference || list[i].when & TRAINED) &&
            (units || !(list[i].when & UNITS)))
            HK_TRY(list[i].run(g));
    return HK_OK;
}

hk_status hk_run_template_passes(hk_graph *g, const hk_pass_options *options)
{
    static const pass list[] = {{HK_PASS_BATCHNORM, 0, hk_fold_batchnorm}};
    return run(g, options, list, HK_COUNT(list));
}

hk_status hk_run_forward_passes(hk_graph *g, void *user)
{
    static const pass list[] = {{HK_PASS_FORMULAS, TRAINED, hk_fuse_formulas},
                                {HK_PASS_ATTENTION, TRAINED, hk_fuse_trained_attention},
                                {HK_PASS_TRANSPOSES, TRAINED, hk_fold_transposes}};
    return run(g, user, list, HK_COUNT(list));
}

hk_status hk_run_passes(hk_graph *g, void *user)
{
    static const pass before_layout[] = {
        {HK_PASS_PATCHES, UNITS, hk_fold_patches},   {HK_PASS_VIEWS, 0, hk_drop_views},
        {HK_PASS_COMMON, 0, hk_merge_common},        {HK_PASS_PADS, 0, hk_fold_pads},
        {HK_PASS_FORMULAS, 0, hk_fuse_formulas},     {HK_PASS_ATTENTION, 0, hk_fuse_attention},
        {HK_PASS_TRANSPOSES, 0, hk_fold_transposes}, {HK_PASS_EPILOGUES, TRAINED, hk_fuse_epilogues},
        {HK_PASS_EXCITATION, 0, hk_fuse_excitation}};
    static const pass after_layout[] = {{HK_PASS_EPILOGUES, TRAINED, hk_fuse_gradients},
                                        {HK_PASS_JOINS, UNITS, hk_join_products},
                                        {HK_PASS_NORMS, UNITS, hk_fuse_norms},
                                        {HK_PASS_CHAINS, TRAINED, hk_fuse_chains}};
    const hk_pass_options *options = user;
    HK_TRY(run(g, options, before_layout, HK_COUNT(before_layout)));
    HK_TRY(hk_choose_layouts(g, options));
    HK_TRY(hk_fuse_neurons(g, options));
    HK_TRY(run(g, options, after_layout, HK_COUNT(after_layout)));
    return hk_choose_storage(g, options);
}

size_t hk_copy_attrs(const hk_node *n, hk_attr_value *list, size_t capacity)
{
    size_t count = 0;
    for (const hk_attr *a = n->op->attrs; a && a->name && count + 1 < capacity; a++) {
        const void *field = (const char *)n->attrs + a->offset;
        hk_attr_value v = {.name = a->name, .kind = a->kind};
        bool present = true;
        switch (a->kind) {
        case HK_ATTR_INT: v.i = *(const int64_t *)field; break;
        case HK_ATTR_FLOAT: v.f = *(const float *)field; break;
        case HK_ATTR_STRING: present = (v.s = *(const char *const *)field) != NULL; break;
        case HK_ATTR_INTS: present = (v.ints = *(const hk_ints *)field).v != NULL; break;
        case HK_ATTR_FLOATS: present = (v.floats = *(const hk_floats *)field).v != NULL; break;
        case HK_ATTR_STRINGS: present = (v.strings = *(const hk_strings *)field).v != NULL; break;
        case HK_ATTR_TENSOR: present = (v.tensor = *(const hk_tensor *const *)field) != NULL; break;
        case HK_ATTR_TYPE: present = (v.type = *(const hk_type *)field).dtype != HK_DTYPE_NONE; break;
        case HK_ATTR_GRAPH: present = (v.graph = *(hk_graph *const *)field) != NULL; break;
        }
        if (present)
            list[count++] = v;
    }
    list[count] = (hk_attr_value){0};
    return count;
}
