/* What tests of training in several precisions share. */
#ifndef HK_TEST_TRAINERS_H
#define HK_TEST_TRAINERS_H

#include "tests/support/program.h"

/* ‖a − b‖ / ‖b‖ of all gradients of m's parameters; a's are of a scaled loss. */
double gradients_apart(hk_trainer *a, hk_trainer *b, const hk_model *m);
/* Fails unless both have the same bits in all of m's parameters. */
void same_weights(hk_trainer *a, hk_trainer *b, const hk_model *m);

#endif
