/* The order of passes, and what they share. */
#include "runtime/passes.h"

#include "runtime/fuse_chain.h"

hk_status hk_run_passes(hk_graph *g, void *user)
{
    const hk_pass_options *options = user;
    if (options->fuse)
        HK_TRY(hk_fuse_epilogues(g));
    HK_TRY(hk_choose_layouts(g, options));
    return options->fuse ? hk_fuse_chains(g) : HK_OK;
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
        case HK_ATTR_TENSOR: present = (v.tensor = *(const hk_tensor *const *)field) != NULL; break;
        case HK_ATTR_GRAPH: present = (v.graph = *(hk_graph *const *)field) != NULL; break;
        }
        if (present)
            list[count++] = v;
    }
    list[count] = (hk_attr_value){0};
    return count;
}
