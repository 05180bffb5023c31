/* Files of text that exist whole or not at all. */
#include <stdlib.h>

#include "tools/command/command.h"

FILE *text_begin(text_file *t)
{
    *t = (text_file){0};
    t->f = open_memstream(&t->text, &t->bytes);
    if (!t->f)
        fprintf(stderr, "hillock: out of memory\n");
    return t->f;
}

hk_status text_save(text_file *t, const options *o, const char *folder, const char *name)
{
    char path[1400];
    if (!t->f)
        return HK_STATUS_OUT_OF_MEMORY;
    bool whole = !ferror(t->f);
    whole = fclose(t->f) == 0 && whole;
    int length = snprintf(path, sizeof path, "%s%s%s", folder ? folder : "", folder ? "/" : "", name);
    hk_status st = whole ? HK_STATUS_CANNOT_CREATE : HK_STATUS_OUT_OF_MEMORY;
    if (!whole)
        fprintf(stderr, "hillock: out of memory\n");
    else if (length < 0 || (size_t)length >= sizeof path)
        fprintf(stderr, "hillock: '%s' cannot be created: the path is too long\n", name);
    else
        st = hk_file_save(o->ctx, path, t->text, t->bytes);
    free(t->text);
    *t = (text_file){0};
    return st;
}
