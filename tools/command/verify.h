/*
 * hillock verify, between its files: one case of a list, and what came of it.
 */
#ifndef VERIFY_H
#define VERIFY_H

#include "tools/command/command.h"

typedef struct verify_options {
    options *o;
    hk_device *dev;
    hk_precision precision;
    double rtol, atol, rel;
    bool twice, device_floats;
} verify_options;

typedef struct verify_case {
    char *name; /* as it was given */
    char *folder;
    double rel;         /* bound of this case's norm errors alone; negative: the bounds of verify_options */
    const char *reason; /* why it may fail; NULL: it must pass */
} verify_case;

typedef struct verify_result {
    size_t outputs, wrong; /* compared, of those beyond the bound */
    char failure[1024];    /* a sentence; "" when the case passed */
} verify_result;

/* Runs every data set of the case and prints a line for each output. A status other than HK_OK: it could not run to
 * the end, and result->failure says why. */
hk_status verify_run(const verify_options *v, const verify_case *c, verify_result *result);

/* verify --layers: the whole verb from here; ends the options. */
int verify_layers(verify_options *v);

/* Cases in order, owned. */
typedef struct verify_list {
    verify_case *cases;
    size_t count, capacity;
    char **texts; /* of files */
    size_t text_count;
} verify_list;

bool verify_list_add(verify_list *l, const char *root, const char *name, double rel); /* false: out of memory */
/* "NAME", or "NAME<TAB>BOUND" a line; # begins a comment. Returns an exit code, 0 when it went well. */
int verify_list_read(verify_list *l, const char *root, const char *path);
/* "NAME<TAB>REASON" a line: sets the reasons of the cases that the list has. */
int verify_list_expect(verify_list *l, const char *path);
void verify_list_free(verify_list *l);

#endif
