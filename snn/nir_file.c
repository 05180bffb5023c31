/* NIR as HDF5: the file is made in memory and saved whole. Layout: nir/serialization.py of the package. */
#include <string.h>

#include "core/file.h"
#include "snn/nir.h"

#ifdef HK_HAVE_HDF5
#include <hdf5.h>

#define NIR_VERSION "1.0.8" /* of the package whose layout this is */
enum { GROWTH = 1 << 20 };

/* All return false on failure; what is opened is closed. */

static bool put(hid_t group, const char *name, hid_t type, hid_t space, const void *data)
{
    hid_t set = H5Dcreate2(group, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    bool ok = set >= 0 && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;
    return (set < 0 || H5Dclose(set) >= 0) && ok;
}

static hid_t text_type(void)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && (H5Tset_size(type, H5T_VARIABLE) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0)) {
        H5Tclose(type);
        return -1;
    }
    return type;
}

/* rank 0: one string. */
static bool put_texts(hid_t group, const char *name, const char *const *texts, int rank, const hsize_t *dims)
{
    hid_t type = text_type(), space = rank ? H5Screate_simple(rank, dims, NULL) : H5Screate(H5S_SCALAR);
    bool ok = type >= 0 && space >= 0 && put(group, name, type, space, texts);
    if (type >= 0)
        H5Tclose(type);
    if (space >= 0)
        H5Sclose(space);
    return ok;
}

static bool put_field(hid_t group, const hk_nir_field *f)
{
    const hk_tensor *t = f->data;
    hsize_t dims[HK_MAX_RANK];
    if (!t)
        return put_texts(group, f->name, &f->text, 0, NULL);
    for (int32_t d = 0; d < t->rank; d++)
        dims[d] = (hsize_t)t->shape[d];
    hid_t type = t->dtype == HK_INT64     ? H5T_NATIVE_INT64
                 : t->dtype == HK_FLOAT64 ? H5T_NATIVE_DOUBLE
                                          : H5T_NATIVE_FLOAT;
    hid_t space = t->rank ? H5Screate_simple(t->rank, dims, NULL) : H5Screate(H5S_SCALAR);
    bool ok = space >= 0 && put(group, f->name, type, space, t->data);
    if (space >= 0)
        H5Sclose(space);
    return ok;
}

static bool put_group(hid_t around, const char *name, const hk_nir_field *fields, size_t count, hid_t *kept)
{
    hid_t group = H5Gcreate2(around, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    bool ok = group >= 0;
    for (size_t i = 0; i < count && ok; i++)
        ok = put_field(group, &fields[i]);
    if (ok && kept)
        *kept = group;
    else if (group >= 0)
        H5Gclose(group);
    return ok;
}

static bool put_node(hid_t nodes, const hk_nir_node *n)
{
    const hk_nir_field type = {.name = "type", .text = n->type};
    hid_t group = -1;
    bool ok = put_group(nodes, n->name, n->fields, n->field_count, &group) && put_field(group, &type);
    if (group >= 0)
        H5Gclose(group);
    return ok;
}

static bool put_edges(hid_t group, const hk_nir *n)
{
    const char **names = hk_arena_array(n->arena, 2 * n->edge_count + 1, sizeof *names);
    for (size_t i = 0; names && i < 2 * n->edge_count; i++)
        names[i] = n->nodes[n->edges[i / 2][i % 2]]->name;
    return names && put_texts(group, "edges", names, 2, (hsize_t[]){n->edge_count, 2});
}

static bool put_all(hid_t file, const hk_nir *n)
{
    const hk_nir_field version = {.name = "version", .text = NIR_VERSION}, type = {.name = "type", .text = "NIRGraph"};
    hid_t graph = -1, nodes = -1;
    bool ok = put_field(file, &version) && put_group(file, "node", &type, 1, &graph) && put_edges(graph, n) &&
              put_group(graph, "metadata", n->metadata, n->metadata_count, NULL) &&
              put_group(graph, "nodes", NULL, 0, &nodes);
    for (size_t i = 0; i < n->node_count && ok; i++)
        ok = put_node(nodes, n->nodes[i]);
    if (nodes >= 0)
        H5Gclose(nodes);
    if (graph >= 0)
        H5Gclose(graph);
    return ok;
}

static bool make_image(hk_context *ctx, const hk_nir *n, void **image, size_t *bytes)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    hid_t file = access >= 0 && H5Pset_fapl_core(access, GROWTH, 0) >= 0
                     ? H5Fcreate("nir", H5F_ACC_TRUNC, H5P_DEFAULT, access)
                     : -1;
    bool ok = file >= 0 && put_all(file, n) && H5Fflush(file, H5F_SCOPE_GLOBAL) >= 0;
    ssize_t size = ok ? H5Fget_file_image(file, NULL, 0) : -1;
    *image = size > 0 ? hk_alloc(ctx, (size_t)size) : NULL;
    ok = *image && H5Fget_file_image(file, *image, (size_t)size) == size;
    *bytes = ok ? (size_t)size : 0;
    if (file >= 0)
        H5Fclose(file);
    if (access >= 0)
        H5Pclose(access);
    return ok;
}

hk_status hk_nir_save(hk_context *ctx, const hk_nir *n, const char *path)
{
    void *image = NULL, *user = NULL;
    size_t bytes = 0;
    H5E_auto2_t print = NULL;
    H5Eget_auto2(H5E_DEFAULT, &print, &user); /* the library says it on stderr, we in a sentence */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    bool made = make_image(ctx, n, &image, &bytes);
    H5Eset_auto2(H5E_DEFAULT, print, user);
    hk_status st = made ? hk_file_save(ctx, path, image, bytes)
                        : hk_fail(ctx, HK_STATUS_OUT_OF_MEMORY, "'%s': libhdf5 cannot make the file in memory", path);
    hk_free(ctx, image);
    return st;
}

#else

hk_status hk_nir_save(hk_context *ctx, const hk_nir *n, const char *path)
{
    (void)n;
    return hk_fail(ctx, HK_STATUS_UNSUPPORTED,
                   "'%s': NIR files are HDF5, and this build has no libhdf5; install its development files "
                   "(libhdf5-dev, hdf5-devel), configure and build again",
                   path);
}

#endif
