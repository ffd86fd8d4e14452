/* Patterns and names: both can come from a job (the host matches what it says it left).
 */
#include <stdlib.h>
#include <string.h>

#include "../../csrc/base/glob.h"
#include "../../csrc/base/io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t *cut = n ? memchr(data, 0, n) : NULL;
    size_t n_pattern = cut ? (size_t)(cut - data) : n;
    size_t n_name = cut ? n - n_pattern - 1 : 0;
    char *pattern = calloc(1, n_pattern + 1), *name = calloc(1, n_name + 1);

    if (n > 300) /* its steps are the product of both */
        goto out;
    memcpy(pattern, data, n_pattern);
    if (cut)
        memcpy(name, cut + 1, n_name);
    int is_match = sbx_glob_match(pattern, name);
    SBX_CHECK(is_match == 0 || is_match == 1);
out:
    free(pattern);
    free(name);
    return 0;
}
