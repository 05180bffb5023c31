#include "ops/op.h"

const hk_op hk_ops_pointwise_grad[] = {{0}};
