/*
 * The hillock command that this build made, in a folder of the test program's own, and what it prints and writes. For
 * programs that only need a folder, too.
 */
#ifndef HK_TEST_COMMAND_H
#define HK_TEST_COMMAND_H

#include <stdbool.h>

extern char folder[256];
extern char output[65536]; /* of the last command: stdout and stderr together */

/* Fixtures of a group of tests: the folder, below TMPDIR, and its removal. */
int make_folder(void **state);
int remove_folder(void **state);

/* Paths in the folder; the text lives until the eighth call from here. */
const char *in_folder(const char *name);
bool is_there(const char *name);
void write_file(const char *name, const char *text);

/* Runs it there and returns the exit code. */
int hillock(const char *arguments);
/* Fails unless it exits so and prints text (NULL: anything). */
void expect(const char *arguments, int code, const char *text);
/* The same with variables of the environment, NAME=VALUE ... */
void expect_in(const char *environment, const char *arguments, int code, const char *text);
/* Fails unless a file that the command wrote has text in it; reads it into output. */
void expect_file(const char *name, const char *text);

#endif
