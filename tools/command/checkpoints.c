/* Checkpoints of a training run. */
#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/command/train.h"

static bool checkpoint_number(const char *name, uint64_t *number)
{
    char *end = NULL;
    if (strncmp(name, "ckpt-", 5) != 0 || name[5] < '0' || name[5] > '9')
        return false;
    *number = strtoull(name + 5, &end, 10);
    return !strcmp(end, ".safetensors");
}

static void path_of(const training *r, uint64_t number, char *path, size_t bytes)
{
    snprintf(path, bytes, "%s/ckpt-%010" PRIu64 ".safetensors", r->s.out, number);
}

/* The largest number below a limit; false when there is none. */
static bool newest_below(const training *r, uint64_t limit, uint64_t *number)
{
    DIR *folder = opendir(r->s.out);
    bool found = false;
    uint64_t n;
    for (struct dirent *e; folder && (e = readdir(folder)) != NULL;)
        if (checkpoint_number(e->d_name, &n) && n < limit && (!found || n > *number)) {
            *number = n;
            found = true;
        }
    if (folder)
        closedir(folder);
    return found;
}

static void remove_old(const training *r)
{
    uint64_t number = UINT64_MAX;
    char path[1100];
    for (double kept = 0; newest_below(r, number, &number); kept++) {
        if (kept < r->s.keep)
            continue;
        path_of(r, number, path, sizeof path);
        if (unlink(path) != 0)
            return; /* it would be found again */
        number++;
    }
}

hk_status save_checkpoint(training *r)
{
    char path[1100], notes[512];
    const run_state *s = &r->state;
    snprintf(notes, sizeof notes, "%a %" PRIu64 " %" PRIu64 " %a %" PRIu64 " %d %a %a %u", s->best, s->best_epoch,
             s->bad_epochs, s->loss_sum, s->loss_count, r->plateau.begun, r->plateau.best, r->plateau.factor,
             r->plateau.bad);
    path_of(r, r->done, path, sizeof path);
    hk_status st = hk_trainer_save(r->trainer, path, notes);
    if (st == HK_OK)
        remove_old(r);
    return st;
}

static bool read_notes(training *r, const char *notes)
{
    run_state *s = &r->state;
    char *at = (char *)(uintptr_t)notes;
    s->best = strtod(at, &at);
    s->best_epoch = strtoull(at, &at, 10);
    s->bad_epochs = strtoull(at, &at, 10);
    s->loss_sum = strtod(at, &at);
    s->loss_count = strtoull(at, &at, 10);
    r->plateau.begun = strtoull(at, &at, 10) != 0;
    r->plateau.best = strtod(at, &at);
    r->plateau.factor = strtod(at, &at);
    r->plateau.bad = (uint32_t)strtoull(at, &at, 10);
    return at != notes;
}

hk_status resume_checkpoint(training *r)
{
    uint64_t number = UINT64_MAX, left = 0;
    char path[1100];
    for (; newest_below(r, number, &number); left++) {
        const char *notes = "";
        path_of(r, number, path, sizeof path);
        hk_status st = hk_trainer_load(r->trainer, path, &notes);
        if (st == HK_STATUS_OUT_OF_MEMORY || st == HK_STATUS_DEVICE_LOST)
            return st;
        if (st == HK_OK && read_notes(r, notes)) {
            hk_trainer_stats stats;
            st = hk_trainer_get_stats(r->trainer, &stats);
            r->done = stats.micro;
            if (!r->o->quiet)
                fprintf(stderr, "hillock train: resumes from '%s'\n", path);
            return st;
        }
        fprintf(stderr, "hillock train: left aside: %s\n", hk_context_error(r->o->ctx));
    }
    if (left) {
        fprintf(stderr,
                "hillock train: none of the %" PRIu64 " checkpoints in '%s' can be continued; remove them to begin "
                "anew, or give another --out\n",
                left, r->s.out);
        return HK_STATUS_INVALID;
    }
    if (!r->o->quiet)
        fprintf(stderr, "hillock train: no checkpoint in '%s': begins anew\n", r->s.out);
    return HK_OK;
}
