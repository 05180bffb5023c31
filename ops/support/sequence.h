/*
 * Sequences and optionals: what the operators on them share. Their items are values of the graph, and as soon as these
 * are known inference replaces the operators (hk_op.expand): nothing of a list reaches the device but its items.
 */
#ifndef HK_SEQUENCE_H
#define HK_SEQUENCE_H

#include "ops/op.h"

enum {
    HK_LIST_MAX = 4096,          /* items of one list */
    HK_LIST_TOTAL_MAX = 1 << 18, /* of all lists that a graph makes: lists made of lists grow with their square */
    HK_MAP_WEIGHT = 4,           /* a node that SequenceMap makes counts as so many items */
};

/* Type of output i: a list of that many items (-1: unknown). */
hk_status hk_infer_list(hk_infer *in, int32_t i, hk_dtype dtype, hk_dtype item, hk_dtype element, int64_t count);
/* Output i becomes a list of known items; its node is to go. */
hk_status hk_expand_list(hk_graph *g, const hk_node *n, int32_t i, hk_value *const *items, int64_t count);
/* An allocated list on the host, items to be filled in; NULL when out of memory or the output is absent. */
hk_tensor *hk_eval_list(hk_eval *e, int32_t i, hk_dtype dtype, int64_t count);
static inline const hk_tensor *hk_list_item(const hk_tensor *list, int64_t i)
{
    return (const hk_tensor *)list->data + i;
}

#endif
