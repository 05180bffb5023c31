/*
 * Files: read-only mappings, opening beneath a folder, and writing that succeeds whole or leaves nothing.
 */
#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- reading */

hk_status hk_file_open(hk_context *ctx, const char *path, uint64_t max_bytes, hk_file *out)
{
    /* O_NONBLOCK: opening a FIFO that nobody writes must not wait. It changes nothing for regular files. */
    int descriptor;
    do
        descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    while (descriptor < 0 && errno == EINTR);
    if (descriptor < 0)
        return hk_fail(ctx, HK_STATUS_NO_INPUT, "'%s' cannot be opened: %s", path, strerror(errno));
    return hk_file_open_descriptor(ctx, descriptor, path, max_bytes, false, out);
}

static hk_status map_descriptor(hk_context *ctx, int descriptor, const char *name, uint64_t max_bytes, bool single_link,
                                hk_file *out)
{
    struct stat s;
    if (fstat(descriptor, &s) != 0)
        return hk_fail(ctx, HK_STATUS_IO, "'%s' cannot be examined: %s", name, strerror(errno));
    if (!S_ISREG(s.st_mode))
        return hk_fail(ctx, HK_STATUS_NO_INPUT, "'%s' is %s, expected a regular file", name,
                       S_ISDIR(s.st_mode) ? "a folder" : "a device, pipe or socket");
    if (single_link && s.st_nlink != 1)
        return hk_fail(ctx, HK_STATUS_INVALID,
                       "'%s' has %ju hard links: it may be a file from elsewhere; copy it to a file of its own", name,
                       (uintmax_t)s.st_nlink);
    uint64_t bytes = s.st_size < 0 ? 0 : (uint64_t)s.st_size;
    if ((max_bytes != 0 && bytes > max_bytes) || bytes > (uint64_t)PTRDIFF_MAX)
        return hk_fail(ctx, HK_STATUS_UNSUPPORTED, "'%s' has %" PRIu64 " bytes, more than the limit of %" PRIu64, name,
                       bytes, max_bytes);
    hk_file f = {.data = (const uint8_t *)"", .bytes = (size_t)bytes, .device = s.st_dev, .inode = s.st_ino};
    if (bytes != 0) {
        void *p = mmap(NULL, f.bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (p == MAP_FAILED)
            return hk_fail(ctx, errno == ENOMEM ? HK_STATUS_OUT_OF_MEMORY : HK_STATUS_IO, "'%s' cannot be mapped: %s",
                           name, strerror(errno));
        f.data = p;
        f.mapped = true;
    }
    *out = f;
    return HK_OK;
}

hk_status hk_file_open_descriptor(hk_context *ctx, int descriptor, const char *name, uint64_t max_bytes,
                                  bool single_link, hk_file *out)
{
    hk_status st = map_descriptor(ctx, descriptor, name, max_bytes, single_link, out);
    close(descriptor);
    return st;
}

void hk_file_close(hk_file *f)
{
    if (f->mapped)
        munmap((void *)(uintptr_t)f->data, f->bytes);
    *f = (hk_file){0};
}

/* ---- opening beneath a folder */

enum { OPEN_BENEATH = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY };

#if defined(SYS_openat2)
/* linux/openat2.h, which older kernel headers lack. */
struct open_how_v0 {
    uint64_t flags, mode, resolve;
};
enum { HOW_NO_SYMLINKS = 0x04, HOW_BENEATH = 0x08 };

static int open_with_kernel(int folder, const char *path)
{
    struct open_how_v0 how = {.flags = OPEN_BENEATH, .resolve = HOW_NO_SYMLINKS | HOW_BENEATH};
    long descriptor;
    do
        descriptor = syscall(SYS_openat2, folder, path, &how, sizeof how);
    while (descriptor < 0 && (errno == EINTR || errno == EAGAIN)); /* EAGAIN: a rename went on at the same time */
    return (int)descriptor;
}
#else
static int open_with_kernel(int folder, const char *path)
{
    (void)folder;
    (void)path;
    errno = ENOSYS;
    return -1;
}
#endif

/* One component at a time: none may be "..", none a symbolic link, all but the last a folder. */
static int open_stepwise(int folder, const char *path)
{
    int at = dup(folder);
    while (at >= 0) {
        while (*path == '/')
            path++;
        const char *end = strchrnul(path, '/');
        const char *next = end;
        while (*next == '/')
            next++;
        char component[256];
        size_t length = (size_t)(end - path);
        int flags = *next != '\0' ? O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW : (OPEN_BENEATH | O_NOFOLLOW);
        int error = 0, below = -1;
        if (length == 2 && memcmp(path, "..", 2) == 0) {
            error = EXDEV;
        } else if (length >= sizeof component) {
            error = ENAMETOOLONG;
        } else {
            memcpy(component, path, length);
            component[length] = '\0';
            below = openat(at, length == 0 ? "." : component, flags);
            error = errno;
            /* A link at a folder's place is reported as what it is, not as "not a folder". */
            struct stat s;
            if (below < 0 && error == ENOTDIR && fstatat(at, component, &s, AT_SYMLINK_NOFOLLOW) == 0 &&
                S_ISLNK(s.st_mode))
                error = ELOOP;
        }
        close(at);
        at = below;
        if (at < 0)
            errno = error;
        if (*next == '\0')
            break;
        path = next;
    }
    return at;
}

int hk_file_open_beneath(int folder, const char *path, bool stepwise)
{
    if (*path == '/') {
        errno = EXDEV;
        return -1;
    }
    if (!stepwise) {
        int descriptor = open_with_kernel(folder, path);
        /* Kernels before 5.6 lack the call, and sandboxes that do not know it answer EPERM. */
        if (descriptor >= 0 || (errno != ENOSYS && errno != EPERM && errno != EINVAL))
            return descriptor;
    }
    return open_stepwise(folder, path);
}

/* ---- writing */

enum { WRITER_BUFFER_BYTES = 64 * 1024, NAME_ATTEMPTS = 64 };

struct hk_file_writer {
    hk_context *ctx;
    char *path;      /* where it goes */
    char *temporary; /* where it grows */
    int folder, descriptor;
    uint64_t bytes;
    hk_status failed; /* the first failure of a write */
    size_t filled;
    unsigned char buffer[WRITER_BUFFER_BYTES];
};

static hk_status fail_write(hk_file_writer *w, const char *what)
{
    bool full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
    return hk_fail(w->ctx, HK_STATUS_IO, "'%s' cannot be %s: %s%s", w->path, what, strerror(errno),
                   full ? "; make room there and run again" : "");
}

/* A name that no other process chooses at the same time: O_EXCL decides, the number only makes a clash unlikely. */
static hk_status create_temporary(hk_file_writer *w, size_t folder_length, mode_t mode)
{
    const char *base = w->path + folder_length;
    size_t bytes = strlen(w->path) + 32;
    w->temporary = hk_alloc(w->ctx, bytes);
    if (w->temporary == NULL)
        return hk_out_of_memory(w->ctx, "a file name");
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    uint32_t number = (uint32_t)now.tv_nsec ^ (uint32_t)getpid() << 12;
    for (int attempt = 0; attempt < NAME_ATTEMPTS; attempt++, number = number * 1664525u + 1013904223u) {
        /* The base name is cut, for a name of 255 bytes leaves no room for a suffix. */
        snprintf(w->temporary, bytes, "%.*s.%.200s.%08" PRIx32 ".tmp", (int)folder_length, w->path, base, number);
        w->descriptor = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
        if (w->descriptor >= 0)
            return HK_OK;
        if (errno != EEXIST && errno != EINTR)
            break;
    }
    hk_status st = hk_fail(w->ctx, HK_STATUS_CANNOT_CREATE, "'%s' cannot be created: %s", w->path, strerror(errno));
    hk_free(w->ctx, w->temporary);
    w->temporary = NULL;
    return st;
}

static hk_status open_writer(hk_file_writer *w, const char *path)
{
    w->path = hk_alloc(w->ctx, strlen(path) + 1);
    if (w->path == NULL)
        return hk_out_of_memory(w->ctx, "a file name");
    memcpy(w->path, path, strlen(path) + 1);
    const char *slash = strrchr(path, '/');
    size_t folder_length = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    if (path[folder_length] == '\0')
        return hk_fail(w->ctx, HK_STATUS_CANNOT_CREATE, "'%s' cannot be created: it names a folder", path);

    /* A rename would put a file in place of a device such as /dev/null. */
    struct stat s;
    mode_t mode = 0666;
    if (lstat(path, &s) == 0) {
        if (!S_ISREG(s.st_mode) && !S_ISLNK(s.st_mode))
            return hk_fail(w->ctx, HK_STATUS_CANNOT_CREATE, "'%s' cannot be created: it is %s", path,
                           S_ISDIR(s.st_mode) ? "a folder" : "a device, pipe or socket");
        if (S_ISREG(s.st_mode))
            mode = s.st_mode & 0777;
    }
    HK_TRY(create_temporary(w, folder_length, mode));
    if (mode != 0666 && fchmod(w->descriptor, mode) != 0) /* what a file was readable for stays so */
        return hk_fail(w->ctx, HK_STATUS_CANNOT_CREATE, "'%s' cannot be created: %s", path, strerror(errno));
    char *folder = w->temporary; /* cut after its folder for a moment, to open that */
    char kept = folder[folder_length];
    folder[folder_length] = '\0';
    w->folder = open(folder_length == 0 ? "." : folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    folder[folder_length] = kept;
    if (w->folder < 0)
        return hk_fail(w->ctx, HK_STATUS_CANNOT_CREATE, "'%s' cannot be created: its folder cannot be opened: %s", path,
                       strerror(errno));
    return HK_OK;
}

hk_status hk_file_writer_create(hk_context *ctx, const char *path, hk_file_writer **out)
{
    hk_file_writer *w = hk_alloc(ctx, sizeof *w);
    if (w == NULL)
        return hk_out_of_memory(ctx, "a file's buffer");
    w->ctx = ctx;
    w->folder = w->descriptor = -1;
    hk_status st = open_writer(w, path);
    if (st != HK_OK)
        hk_file_writer_destroy(&w);
    else
        *out = w;
    return st;
}

static hk_status write_through(hk_file_writer *w, const void *data, size_t bytes)
{
    const char *p = data;
    while (bytes > 0) {
        ssize_t done = write(w->descriptor, p, HK_MIN(bytes, (size_t)1 << 30));
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return fail_write(w, "written");
        p += done;
        bytes -= (size_t)done;
    }
    return HK_OK;
}

static hk_status flush(hk_file_writer *w)
{
    size_t filled = w->filled;
    w->filled = 0;
    if (w->failed == HK_OK && filled != 0)
        w->failed = write_through(w, w->buffer, filled);
    return w->failed;
}

hk_status hk_file_write(hk_file_writer *w, const void *data, size_t bytes)
{
    if (w->failed != HK_OK)
        return w->failed;
    w->bytes += bytes;
    if (bytes > sizeof w->buffer - w->filled)
        HK_TRY(flush(w));
    if (bytes >= sizeof w->buffer)
        return w->failed = write_through(w, data, bytes);
    if (bytes != 0)
        memcpy(w->buffer + w->filled, data, bytes);
    w->filled += bytes;
    return HK_OK;
}

uint64_t hk_file_writer_bytes(const hk_file_writer *w)
{
    return w->bytes;
}

/* Some file systems know no fsync and say so; that is no failure of the write. */
static bool sync_failed(int descriptor)
{
    int result;
    do
        result = fsync(descriptor);
    while (result != 0 && errno == EINTR);
    return result != 0 && errno != EINVAL && errno != ENOTSUP && errno != EROFS;
}

hk_status hk_file_writer_commit(hk_file_writer **writer)
{
    hk_file_writer *w = *writer;
    hk_status st = flush(w);
    if (st == HK_OK && sync_failed(w->descriptor))
        st = fail_write(w, "written");
    if (st == HK_OK) {
        int closed = close(w->descriptor);
        w->descriptor = -1;
        if (closed != 0 && errno != EINTR)
            st = fail_write(w, "written");
    }
    if (st == HK_OK && rename(w->temporary, w->path) != 0)
        st = hk_fail(w->ctx, HK_STATUS_CANNOT_CREATE, "'%s' cannot be created: %s", w->path, strerror(errno));
    if (st == HK_OK) {
        hk_free(w->ctx, w->temporary);
        w->temporary = NULL;
        if (sync_failed(w->folder))
            st = fail_write(w, "made durable");
    }
    hk_file_writer_destroy(writer);
    return st;
}

void hk_file_writer_destroy(hk_file_writer **writer)
{
    if (writer == NULL || *writer == NULL)
        return;
    hk_file_writer *w = *writer;
    hk_context *ctx = w->ctx;
    if (w->descriptor >= 0)
        close(w->descriptor);
    if (w->temporary != NULL)
        unlink(w->temporary);
    if (w->folder >= 0)
        close(w->folder);
    hk_free(ctx, w->temporary);
    hk_free(ctx, w->path);
    hk_free(ctx, w);
    *writer = NULL;
}

hk_status hk_file_save(hk_context *ctx, const char *path, const void *data, size_t bytes)
{
    hk_file_writer *w = NULL;
    HK_TRY(hk_file_writer_create(ctx, path, &w));
    hk_file_write(w, data, bytes); /* commit returns its failure */
    return hk_file_writer_commit(&w);
}
