// What a context takes of each kind of memory: the public C API.
//
// On a model loaded with no_alloc, nothing is allocated and the figures are what would be: a plan
// made without reading any weights.

#ifndef RETAKE_MEMORY_H
#define RETAKE_MEMORY_H

#include "llama.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RETAKE_MEMORY_NAME_MAX 64

// One kind of buffer. "name" is llama.cpp's ("CPU", "CPU_REPACK", "CUDA0", "CUDA_Host"), "device"
// the device whose memory it is; on_host: it is the machine's own memory, also where a device reads it.
// Sizes in bytes. device_free and device_total are the device's own account, 0 where it keeps none.
struct retake_memory_part {
    char     name  [RETAKE_MEMORY_NAME_MAX];
    char     device[RETAKE_MEMORY_NAME_MAX];
    int32_t  on_host;
    int32_t  reserved;
    uint64_t weights;
    uint64_t cells;
    uint64_t compute;
    uint64_t device_free;
    uint64_t device_total;
};

// Fills parts[0..n_max) and returns how many parts there are (perhaps more than n_max), or -1 if
// the breakdown cannot be made.
LLAMA_API int32_t retake_memory_parts(
        const struct llama_context * ctx, struct retake_memory_part * parts, int32_t n_max);

#ifdef __cplusplus
}
#endif

#endif
