/*
 * Which operands of a node are weights, biases, scales or slopes. What a value becomes trainable by (importer) and what
 * edits of a model copy or replace (train/edit.h) is the same question.
 */
#ifndef HK_ROLES_H
#define HK_ROLES_H

#include "ops/op.h"

/* The operators a weight may pass on its way: Identity, Transpose, Cast, Concat and the like; operand k is what passes.
 */
bool hk_node_rearranges(const hk_node *n);
bool hk_node_hands_on(const hk_node *n, int32_t k);
/* Operand k of a Mul or Add is the scale or the shift of a normalization that is written out. */
bool hk_node_scales_norm(const hk_node *n, int32_t k);
/* Operand k, which is present, is a parameter's place: by the operator's table, the vector that is added to a matrix
 * product, or what scales and shifts a normalization. */
bool hk_node_is_parametric(const hk_node *n, int32_t k);

#endif
