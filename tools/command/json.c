/* A JSON writer: one object on stdout. */
#include <math.h>
#include <string.h>

#include "tools/command/command.h"

static char previous = '{'; /* what was written last decides whether a comma comes first */

static void comma(FILE *f)
{
    if (previous != '{' && previous != '[' && previous != ':')
        fputc(',', f);
    previous = 'v';
}

static void text(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            fprintf(f, "\\%c", c);
        else if (c < ' ')
            fprintf(f, "\\u%04x", c);
        else
            fputc(c, f);
    }
    fputc('"', f);
}

void json_key(FILE *f, const char *key)
{
    comma(f);
    text(f, key);
    fputc(':', f);
    previous = ':';
}

static void open_with(FILE *f, const char *key, char bracket)
{
    if (key)
        json_key(f, key);
    comma(f);
    fputc(bracket, f);
    previous = bracket;
}

static void close_with(FILE *f, char bracket)
{
    fputc(bracket, f);
    previous = 'v';
}

void json_begin(FILE *f)
{
    fputc('{', f);
    previous = '{';
}

void json_end(FILE *f)
{
    fputs("}\n", f);
    previous = '{';
}

void json_string(FILE *f, const char *key, const char *value)
{
    if (key)
        json_key(f, key);
    comma(f);
    text(f, value);
}

void json_number(FILE *f, const char *key, double value)
{
    if (key)
        json_key(f, key);
    comma(f);
    if (isfinite(value))
        fprintf(f, "%.9g", value);
    else
        fputs("null", f);
}

void json_integer(FILE *f, const char *key, long long value)
{
    if (key)
        json_key(f, key);
    comma(f);
    fprintf(f, "%lld", value);
}

void json_bool(FILE *f, const char *key, bool value)
{
    json_key(f, key);
    comma(f);
    fputs(value ? "true" : "false", f);
}

void json_array(FILE *f, const char *key)
{
    open_with(f, key, '[');
}

void json_array_end(FILE *f)
{
    close_with(f, ']');
}

void json_object(FILE *f, const char *key)
{
    open_with(f, key, '{');
}

void json_object_end(FILE *f)
{
    close_with(f, '}');
}

void json_shape(FILE *f, const char *key, int32_t rank, const int64_t *shape)
{
    json_array(f, key);
    for (int32_t i = 0; i < rank; i++)
        json_integer(f, NULL, shape[i]);
    json_array_end(f);
}
