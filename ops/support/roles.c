/* Roles of operands. */
#include "ops/roles.h"

#include <string.h>

bool hk_node_rearranges(const hk_node *n)
{
    static const char *const types[] = {"Identity", "Transpose", "Reshape", "Cast", "Unsqueeze", "Slice", "Concat"};
    if (n->op == NULL || n->domain != NULL || n->in_count == 0 || n->out_count == 0 || n->out[0] == NULL)
        return false;
    for (size_t i = 0; i < HK_COUNT(types); i++)
        if (strcmp(n->type, types[i]) == 0)
            return true;
    return false;
}

bool hk_node_hands_on(const hk_node *n, int32_t k)
{
    return hk_node_rearranges(n) && (k == 0 || strcmp(n->type, "Concat") == 0);
}

/* A linear layer on more than two dimensions is exported as MatMul and Add; its bias is the Add's vector operand. */
static bool is_bias(const hk_node *n, int32_t operand)
{
    enum { STEPS = 4 }; /* of rearranging between MatMul and Add */
    if (n->domain != NULL || strcmp(n->type, "Add") != 0 || n->in_count != 2 || n->in[operand]->shape.rank != 1)
        return false;
    const hk_value *sum = n->in[1 - operand];
    for (int i = 0; i < STEPS && sum != NULL && sum->producer != NULL; i++) {
        if (sum->producer->domain == NULL && strcmp(sum->producer->type, "MatMul") == 0)
            return true;
        sum = hk_node_rearranges(sum->producer) ? sum->producer->in[0] : NULL;
    }
    return false;
}

bool hk_node_is_parametric(const hk_node *n, int32_t k)
{
    return n->op != NULL && k < 32 && ((n->op->parameters >> k & 1u) || is_bias(n, k));
}
