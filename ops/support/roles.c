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

/* ---- scale and shift of a normalization that is written out: exporters have no operator for RMSNormalization, and
 * below opset 21 make GroupNorm InstanceNormalization with ones and zeros between two Reshapes */

enum { WAY = 8 }; /* steps that are followed back */

static bool is_type(const hk_node *n, const char *type)
{
    return n != NULL && n->domain == NULL && strcmp(n->type, type) == 0;
}

static const hk_node *producer_of(const hk_value *v)
{
    for (int i = 0; i < WAY && v != NULL && v->producer != NULL && hk_node_rearranges(v->producer); i++)
        v = v->producer->in[0];
    return v == NULL ? NULL : v->producer;
}

/* Of as many numbers as a normalization may have groups: a file may name the same ones in many nodes. */
static bool all_are(const hk_value *v, double x)
{
    int64_t count = v != NULL && v->data != NULL ? hk_tensor_count(v->data) : 0;
    if (count > 1024)
        return false;
    for (int64_t i = 0; i < count; i++)
        if (hk_get_double(v->data, i) != x)
            return false;
    return count > 0;
}

static bool is_group_norm(const hk_node *n)
{
    return is_type(n, "InstanceNormalization") && n->in_count == 3 && is_type(n->in[0]->producer, "Reshape") &&
           all_are(n->in[1], 1) && all_are(n->in[2], 0);
}

/* The square root of a mean of what was squared, a small number added, or the inverse of that. */
static bool is_deviation(const hk_value *v)
{
    bool root = false;
    for (int i = 0; i < WAY && v != NULL && v->producer != NULL && v->producer->in_count > 0; i++) {
        const hk_node *n = v->producer;
        bool second = n->in_count > 1 && n->in[0]->producer == NULL; /* 1 / x, and eps + x */
        if (is_type(n, "ReduceMean"))
            return root;
        root |= is_type(n, "Sqrt") || is_type(n, "Pow");
        if (!root && !is_type(n, "Reciprocal") && !is_type(n, "Div") && !hk_node_rearranges(n))
            return false;
        v = n->in[second];
    }
    return false;
}

static bool is_normalization(const hk_node *n)
{
    if (is_group_norm(n))
        return true;
    if (is_type(n, "Div"))
        return is_deviation(n->in[1]);
    return is_type(n, "Mul") && (is_deviation(n->in[0]) || is_deviation(n->in[1]));
}

/* A constant with one number for each channel, whatever has rearranged it. */
static bool is_vector(const hk_value *v)
{
    int32_t wide = 0;
    for (int32_t d = 0; v != NULL && d < v->shape.rank; d++)
        wide += v->shape.dim[d] != 1;
    for (int i = 0; i < WAY && v != NULL && v->producer != NULL && hk_node_rearranges(v->producer); i++)
        v = v->producer->in[0];
    return v != NULL && v->producer == NULL && v->data != NULL && wide == 1;
}

bool hk_node_scales_norm(const hk_node *n, int32_t k)
{
    if (n->in_count != 2 || k > 1 || !is_vector(n->in[k]) || n->in[1 - k] == NULL)
        return false;
    const hk_node *before = producer_of(n->in[1 - k]);
    if (is_type(n, "Mul"))
        return before != NULL && is_normalization(before);
    return is_type(n, "Add") && is_type(before, "Mul") &&
           (hk_node_scales_norm(before, 0) || hk_node_scales_norm(before, 1));
}

bool hk_node_is_parametric(const hk_node *n, int32_t k)
{
    if (n->op == NULL || k >= 32)
        return false;
    if (n->op->parameters >> k & 1u)
        return !is_group_norm(n);
    return is_bias(n, k) || hk_node_scales_norm(n, k);
}
