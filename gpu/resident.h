/*
 * Keeping drivers in memory once they are loaded.
 *
 * Each instance loads the machine's drivers and its end unloads them. NVIDIA's have thread-local variables in the space
 * that the C library sets aside at the start of a process, and unloading does not give that back: after some 28
 * instances the driver cannot be loaded any more (580.159 with glibc 2.39). Keeping only the libraries with such
 * variables makes it free memory twice, for one half of the driver then begins anew and the other does not. So whatever
 * came with an instance stays for the life of the process.
 */
#ifndef HK_RESIDENT_H
#define HK_RESIDENT_H

#include <stddef.h>
#include <stdint.h>

enum { HK_RESIDENT_MAX = 512 };

/* The libraries of the process at one moment, by their base addresses. */
typedef struct hk_resident {
    size_t count;
    uintptr_t base[HK_RESIDENT_MAX];
} hk_resident;

void hk_resident_look(hk_resident *before);
/* Those that were loaded since will not be unloaded; they are added to before. */
void hk_resident_keep(hk_resident *before);

#endif
