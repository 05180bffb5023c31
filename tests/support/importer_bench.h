/*
 * What the importer's tests share: a context that counts, bytes being written, and what importing them gave.
 */
#ifndef HK_TEST_IMPORTER_BENCH_H
#define HK_TEST_IMPORTER_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "importer/import.h"
#include "ops/op.h"
#include "tests/support/onnx_bytes.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifdef SANITIZED
enum { SLOWER = 20 };
#else
enum { SLOWER = 1 };
#endif

typedef struct bench {
    counted memory;
    onnx_bytes o;
    hk_import_result *r;
    hk_status st;
    double seconds; /* of the last import, processor time */
} bench;

int start(void **state);
int stop(void **state);

/* Imports what has been written so far; open messages are closed. */
hk_status import_bytes(bench *b);
hk_status import_path(bench *b, const char *path);
/* Forgets the bytes written. */
void restart(bench *b);

const char *error_of(const bench *b);
void assert_ok(bench *b);
void assert_fails(bench *b, hk_status expected, const char *says);
void assert_problem(bench *b, size_t i, const char *node, const char *op, const char *reason);

hk_value *value(bench *b, const char *name);
size_t parameters(const bench *b);

#endif
