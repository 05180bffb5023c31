/*
 * Files: read-only mappings, writing that either succeeds whole or leaves nothing, and numpy's .npy format.
 */
#ifndef HK_FILE_H
#define HK_FILE_H

#include "core/tensor.h"

/* ---- reading */

/* A regular file in memory. A file that another process shortens while it is mapped raises SIGBUS on access, as with
 * every mapping: files in use are replaced by rename, never rewritten. */
typedef struct hk_file {
    const uint8_t *data; /* never NULL after a successful open */
    size_t bytes;
    uint64_t device, inode; /* which file it is */
    bool mapped;            /* false: empty, or memory of the caller's */
} hk_file;

/* Maps a regular file. max_bytes 0: any size. HK_STATUS_NO_INPUT when it cannot be opened or is no regular file,
 * HK_STATUS_UNSUPPORTED when it is too large. *out needs hk_file_close. */
hk_status hk_file_open(hk_context *ctx, const char *path, uint64_t max_bytes, hk_file *out);
/* The same for a descriptor, which is closed in any case; name is for messages. single_link refuses hard links. */
hk_status hk_file_open_descriptor(hk_context *ctx, int descriptor, const char *name, uint64_t max_bytes,
                                  bool single_link, hk_file *out);
void hk_file_close(hk_file *f);

/* Opens path, relative to a folder's descriptor, so that it can neither leave the folder nor pass a symbolic link:
 * openat2 where the kernel has it, else (or with stepwise set) one openat(O_NOFOLLOW) per component. Returns a
 * descriptor or -1 with errno; ELOOP: a symbolic link, EXDEV: outside. */
int hk_file_open_beneath(int folder, const char *path, bool stepwise);

/* ---- writing: into a temporary file of the same folder, then fsync, rename, fsync of the folder */

typedef struct hk_file_writer hk_file_writer;

/* HK_STATUS_CANNOT_CREATE when the folder does not exist or may not be written, or path is a folder or device. */
hk_status hk_file_writer_create(hk_context *ctx, const char *path, hk_file_writer **out);
/* The first failure is kept: later calls, and commit, return it. */
hk_status hk_file_write(hk_file_writer *w, const void *data, size_t bytes);
uint64_t hk_file_writer_bytes(const hk_file_writer *w); /* written so far */
/* Ends the writer in any case; the file is there and durable when HK_OK comes back. */
hk_status hk_file_writer_commit(hk_file_writer **w);
/* Ends a writer that was not committed, and its temporary file. Accepts NULL in *w. */
void hk_file_writer_destroy(hk_file_writer **w);
/* hk_file_save is the three above for bytes that are there already. */

/* ---- numpy's format (numpy.lib.format, versions 1.0 to 3.0) */

bool hk_npy_is(const void *data, size_t bytes); /* begins with the format's magic */
/* Reads contents of an .npy file: bool, int and uint of 1 to 8 bytes, float of 2 to 8 bytes, both byte orders, C and
 * Fortran order. The tensor owns its data. name is for messages. Object arrays are refused: they hold pickled code. */
hk_status hk_npy_read(hk_context *ctx, const char *name, const void *data, size_t bytes, hk_tensor *out);
/* Writes version 1.0, little-endian, C order; t may be strided. numpy has no bfloat16: HK_STATUS_UNSUPPORTED. */
hk_status hk_npy_write(hk_context *ctx, const hk_tensor *t, const char *path);

#endif
