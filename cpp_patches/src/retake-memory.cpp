// The memory breakdown that llama.cpp keeps in C++ containers, handed over as plain records.

#include "retake-memory.h"

#include "llama-ext.h"

#include "ggml-backend.h"

#include <cstdio>
#include <exception>

static retake_memory_part part_of(ggml_backend_buffer_type_t buft, const llama_memory_breakdown_data & data) {
    retake_memory_part part = {};

    snprintf(part.name, sizeof(part.name), "%s", ggml_backend_buft_name(buft));
    part.weights = data.model;
    part.cells   = data.context;
    part.compute = data.compute;

    // the CPU's own buffer types may name no device
    ggml_backend_dev_t dev = ggml_backend_buft_get_device(buft);
    if (!dev) {
        dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    }
    if (dev) {
        size_t free = 0, total = 0;
        snprintf(part.device, sizeof(part.device), "%s", ggml_backend_dev_name(dev));
        ggml_backend_dev_memory(dev, &free, &total);
        // repacked weights are in the machine's memory, but not as plain tensors
        part.on_host = ggml_backend_buft_is_host(buft) || ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU;
        part.device_free  = free;
        part.device_total = total;
    }
    return part;
}

int32_t retake_memory_parts(const llama_context * ctx, retake_memory_part * parts, int32_t n_max) {
    if (!ctx || n_max < 0 || (n_max > 0 && !parts)) {
        return -1;
    }
    try {
        int32_t n = 0;
        for (const auto & [buft, data] : llama_get_memory_breakdown(ctx)) {
            if (n < n_max) {
                parts[n] = part_of(buft, data);
            }
            n++;
        }
        return n;
    } catch (const std::exception &) {
        return -1;
    }
}
