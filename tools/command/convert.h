/* Parts of hillock convert. */
#ifndef CONVERT_H
#define CONVERT_H

#include "tools/command/command.h"

/* A node's line; user is the options. */
void print_node_verdict(void *user, const hk_snn_node *n);
/* --export: writes a spiking network in a form that others read. Prints, and returns the exit code. */
int convert_export(options *o, const char *model, const char *path);
/* --native: neurons in place of activations, without data. The same. */
int convert_native(options *o, const char *model, const char *path);

#endif
