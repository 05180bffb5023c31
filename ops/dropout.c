#include "ops/op.h"

const hk_op hk_ops_dropout[] = {{0}};
