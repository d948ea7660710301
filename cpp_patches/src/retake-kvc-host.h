// Work on caches in host memory: threads that each compute small graphs of their own.
//
// One graph over all threads has a barrier after every op, and the slowest thread decides: where
// another program takes a core, that is most of the time. Here no thread waits for another, the
// context's scheduler and the graphs it may reuse are left alone, and nothing is reserved again.
#pragma once

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <cstddef>
#include <functional>

struct ggml_tensor;

namespace retake {

// What one thread needs: a CPU backend with one thread, and the memory of its graph.
struct host_worker {
    static constexpr size_t N_TENSORS = 2048;

    host_worker();

    // an empty context for the next graph; the one before it is gone
    ggml_context * new_context();

    ggml_backend_ptr backend;
    ggml_gallocr_ptr galloc;

private:
    ggml_context_ptr ctx;
};

// Is `t` in memory that the CPU computes on?
bool on_host(const ggml_tensor * t);

// fn(worker, i) for i in [0, n), taken in order by up to n_threads threads; with `stop` true no
// further one begins. The first exception is thrown again, once all threads have ended.
void run_on_host(int n_threads, size_t n, const std::function<bool()> & stop,
        const std::function<void(host_worker &, size_t)> & fn);

} // namespace retake
