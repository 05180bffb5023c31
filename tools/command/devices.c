/* hillock devices */
#include <stdlib.h>

#include "tools/command/command.h"

static const char usage[] =
    "usage: hillock devices [--json]\n\n"
    "Lists the Vulkan devices, what they can do beyond the baseline, and their limits. The first usable one is the\n"
    "default; --device or HILLOCK_DEVICE chooses another by number, part of the name, or UUID.\n\n"
    "example: hillock devices\n";

static const char *const types[] = {"other", "integrated", "discrete", "virtual", "software"};

static void print_device(size_t i, const hk_device_info *d)
{
    static const char *const caps[] = {
#define X(name, text) text,
        HK_CAP_MAP(X)
#undef X
    };
    printf("%zu  %s, %s\n   %s, %s, %.1f GiB, largest allocation %.2f GiB\n", i, d->name, types[d->type], d->driver,
           d->uuid, (double)d->memory_bytes / 0x1p30, (double)d->max_allocation_bytes / 0x1p30);
    if (!d->usable) {
        printf("   not usable: %s\n", d->why);
        return;
    }
    printf("   subgroup %u, workgroup %u, shared memory %u KiB, can:", d->subgroup_size, d->max_invocations,
           d->max_shared_bytes / 1024);
    for (int c = 0; c < HK_CAP_COUNT; c++)
        if (d->caps >> c & 1u)
            printf(" %s", caps[c]);
    printf("\n");
    if (d->type == HK_DEVICE_SOFTWARE)
        printf("   a software device: correct, and some hundred times slower than a GPU\n");
}

static void print_json(const hk_device_info *infos, size_t count)
{
    json_begin(stdout);
    json_string(stdout, "schema", "hillock-devices-1");
    json_array(stdout, "devices");
    for (size_t i = 0; i < count; i++) {
        const hk_device_info *d = &infos[i];
        json_object(stdout, NULL);
        json_string(stdout, "name", d->name);
        json_string(stdout, "driver", d->driver);
        json_string(stdout, "uuid", d->uuid);
        json_string(stdout, "type", types[d->type]);
        json_bool(stdout, "usable", d->usable);
        json_string(stdout, "why", d->why);
        json_object(stdout, "caps");
#define X(cap, text) json_bool(stdout, text, d->caps >> HK_CAP_##cap & 1u);
        HK_CAP_MAP(X)
#undef X
        json_object_end(stdout);
        json_integer(stdout, "subgroup_size", d->subgroup_size);
        json_integer(stdout, "max_invocations", d->max_invocations);
        json_integer(stdout, "max_shared_bytes", d->max_shared_bytes);
        json_integer(stdout, "memory_bytes", (long long)d->memory_bytes);
        json_integer(stdout, "max_allocation_bytes", (long long)d->max_allocation_bytes);
        json_object_end(stdout);
    }
    json_array_end(stdout);
    json_end(stdout);
}

static int run(int argc, char **argv)
{
    options o;
    int code = options_parse(&o, &verb_devices, NULL, argc, argv);
    if (code >= 0)
        return code;
    hk_device_info infos[16];
    size_t count = 0;
    hk_status st = hk_device_list(o.ctx, infos, 16, &count);
    count = count > 16 ? 16 : count;
    if (st == HK_OK && o.json)
        print_json(infos, count);
    else
        for (size_t i = 0; st == HK_OK && i < count; i++)
            print_device(i, &infos[i]);
    if (st == HK_OK && !count) {
        fprintf(stderr,
                "hillock: no Vulkan device: install a driver, or mesa-vulkan-drivers for the software device\n");
        return finish_code(&o, 69);
    }
    return finish(&o, st);
}

const verb verb_devices = {"devices", "list Vulkan devices and what they can do", usage, run};
