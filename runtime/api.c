/* Public calls that belong to no object: versions, statuses, tensor files. */
#include <string.h>

#include "core/file.h"
#include "core/tensor.h"
#include "importer/import.h"
#include "train/dataset.h"

#define TEXT_OF(x) TEXT_OF_(x)
#define TEXT_OF_(x) #x

const char *hk_version(void)
{
    return TEXT_OF(HK_VERSION_MAJOR) "." TEXT_OF(HK_VERSION_MINOR) "." TEXT_OF(HK_VERSION_PATCH);
}

const char *hk_build_info(void)
{
    return "hillock " TEXT_OF(HK_VERSION_MAJOR) "." TEXT_OF(HK_VERSION_MINOR) "." TEXT_OF(
        HK_VERSION_PATCH) ", "
#if defined(__clang__)
                          "clang " __clang_version__
#else
                          "gcc " __VERSION__
#endif
                          ", " HK_BUILD_TYPE ", glslang " HK_GLSLANG "; reads " HK_DATA_FORMATS
#ifdef HK_HAVE_HDF5
                          "; writes NIR";
#else
                          "; writes no NIR (built without libhdf5)";
#endif
}

const char *hk_status_text(hk_status st)
{
    switch (st) {
#define HK_X(name, exit_code, text)                                                                                    \
    case HK_STATUS_##name: return text;
        HK_STATUS_MAP(HK_X)
#undef HK_X
    }
    return "an unknown status";
}

int hk_status_exit_code(hk_status st)
{
    switch (st) {
#define HK_X(name, exit_code, text)                                                                                    \
    case HK_STATUS_##name: return exit_code;
        HK_STATUS_MAP(HK_X)
#undef HK_X
    }
    return 70;
}

hk_status hk_tensor_load(hk_context *ctx, const char *path, hk_tensor *out)
{
    hk_file file = {0};
    HK_TRY(hk_file_open(ctx, path, 0, &file));
    bool npy = hk_npy_is(file.data, file.bytes);
    hk_status st = npy ? hk_npy_read(ctx, path, file.data, file.bytes, out)
                       : hk_pb_read(ctx, path, file.data, file.bytes, out->dtype, out);
    hk_file_close(&file);
    return st;
}

hk_status hk_tensor_save(hk_context *ctx, const hk_tensor *t, const char *path)
{
    size_t n = strlen(path);
    return n > 3 && !strcmp(path + n - 3, ".pb") ? hk_pb_write(ctx, t, path) : hk_npy_write(ctx, t, path);
}
