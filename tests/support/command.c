/* The hillock command, run by tests. */
#include "tests/support/command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

char folder[256];
char output[65536];

int make_folder(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/hillock-test-XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

int remove_folder(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

const char *in_folder(const char *name)
{
    static char paths[8][400];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

bool is_there(const char *name)
{
    return access(in_folder(name), F_OK) == 0;
}

void write_file(const char *name, const char *text)
{
    FILE *f = fopen(in_folder(name), "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int run(const char *environment, const char *arguments)
{
    char command[2048];
    snprintf(command, sizeof command, "cd '%s' && %s '%s' %s 2>&1", folder, environment, HK_COMMAND, arguments);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    output[fread(output, 1, sizeof output - 1, f)] = '\0';
    int status = pclose(f);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

int hillock(const char *arguments)
{
    return run("", arguments);
}

void expect_in(const char *environment, const char *arguments, int code, const char *text)
{
    int got = run(environment, arguments);
    if (got != code || (text && !strstr(output, text)))
        fail_msg("%s hillock %s: exit %d, expected %d with '%s'; printed:\n%s", environment, arguments, got, code,
                 text ? text : "", output);
}

void expect(const char *arguments, int code, const char *text)
{
    expect_in("", arguments, code, text);
}

void expect_file(const char *name, const char *text)
{
    FILE *f = fopen(in_folder(name), "r");
    assert_non_null(f);
    output[fread(output, 1, sizeof output - 1, f)] = '\0';
    fclose(f);
    if (!strstr(output, text))
        fail_msg("'%s' has no '%s':\n%s", name, text, output);
}
