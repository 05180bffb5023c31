/* Runs a fuzz target on the files it is given: replays a corpus without libFuzzer. Exit code 77: cannot run here. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int main(int argc, char **argv)
{
    int code = LLVMFuzzerInitialize(&argc, &argv);
    if (code != 0)
        return code;
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (f == NULL || fseek(f, 0, SEEK_END) != 0)
            return 66;
        long bytes = ftell(f);
        rewind(f);
        uint8_t *data = malloc(bytes > 0 ? (size_t)bytes : 1);
        if (bytes < 0 || data == NULL || fread(data, 1, (size_t)bytes, f) != (size_t)bytes)
            return 74;
        fclose(f);
        fprintf(stderr, "%s\n", argv[i]);
        LLVMFuzzerTestOneInput(data, (size_t)bytes);
        free(data);
    }
    printf("%d inputs, nothing found\n", argc - 1);
    return 0;
}
