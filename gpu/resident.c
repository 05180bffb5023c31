/*
 * The libraries of the process: which there are, and keeping the new ones.
 */
#include "gpu/resident.h"

#include <dlfcn.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>

enum { BATCH = 16, NAME_BYTES = 512 };

static bool add(hk_resident *r, uintptr_t base)
{
    if (r->count == HK_RESIDENT_MAX)
        return false;
    r->base[r->count++] = base;
    return true;
}

static int note(struct dl_phdr_info *info, size_t size, void *user)
{
    (void)size;
    return add(user, (uintptr_t)info->dlpi_addr) ? 0 : 1;
}

void hk_resident_look(hk_resident *before)
{
    before->count = 0;
    dl_iterate_phdr(note, before);
}

typedef struct search {
    hk_resident *known;
    size_t count;
    char names[BATCH][NAME_BYTES];
} search;

/* Only names are taken here: libraries cannot be opened while the list of them is held. */
static int note_new(struct dl_phdr_info *info, size_t size, void *user)
{
    (void)size;
    search *s = user;
    uintptr_t base = (uintptr_t)info->dlpi_addr;
    for (size_t i = 0; i < s->known->count; i++)
        if (s->known->base[i] == base)
            return 0;
    if (s->count == BATCH || !add(s->known, base))
        return 1;
    int length = snprintf(s->names[s->count], NAME_BYTES, "%s", info->dlpi_name == NULL ? "" : info->dlpi_name);
    s->count += length > 0 && length < NAME_BYTES;
    return 0;
}

void hk_resident_keep(hk_resident *before)
{
    search s = {.known = before};
    do {
        s.count = 0;
        dl_iterate_phdr(note_new, &s);
        for (size_t i = 0; i < s.count; i++) {
            void *library = dlopen(s.names[i], RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
            if (library != NULL)
                dlclose(library); /* RTLD_NODELETE marks the library, not this handle */
        }
    } while (s.count == BATCH);
}
