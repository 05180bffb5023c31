#include "ops/op.h"

const hk_op hk_ops_chain[] = {{0}};
