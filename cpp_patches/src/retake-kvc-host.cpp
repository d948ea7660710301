// Threads that each compute small graphs of their own; see retake-kvc-host.h.

#include "retake-kvc-host.h"
#include "retake-kvc-impl.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

namespace retake {

host_worker::host_worker() : backend(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr)) {
    if (!backend) {
        retake_refuse(RETAKE_KVC_MEMORY, "no CPU backend could be made for a thread");
    }
    auto * reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend.get()));
    auto set_n_threads = (ggml_backend_set_n_threads_t) ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    if (set_n_threads) {
        set_n_threads(backend.get(), 1);
    }
    galloc.reset(ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend.get())));
}

ggml_context * host_worker::new_context() {
    const size_t size = N_TENSORS*ggml_tensor_overhead() + ggml_graph_overhead_custom(N_TENSORS, false);
    ctx.reset(ggml_init({ size, nullptr, true }));
    if (!ctx) {
        retake_refuse(RETAKE_KVC_MEMORY, "no memory for the headers of a graph");
    }
    return ctx.get();
}

bool on_host(const ggml_tensor * t) {
    const auto buft = ggml_backend_buffer_get_type(t->buffer);
    const auto dev  = ggml_backend_buft_get_device(buft);
    return ggml_backend_buft_is_host(buft) && (!dev || ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU);
}

void run_on_host(int n_threads, size_t n, const std::function<bool()> & stop,
        const std::function<void(host_worker &, size_t)> & fn) {
    std::mutex mutex;
    std::exception_ptr error;
    size_t next = 0;

    const auto take = [&](size_t & i) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (error || next == n) {
            return false;
        }
        if (stop()) {
            retake_refuse(RETAKE_KVC_COMPUTE, "the abort callback asked to stop");
        }
        i = next++;
        return true;
    };
    const auto work = [&] {
        try {
            host_worker worker;
            for (size_t i = 0; take(i);) {
                fn(worker, i);
            }
        } catch (...) {
            const std::lock_guard<std::mutex> lock(mutex);
            error = error ? error : std::current_exception();
        }
    };

    std::vector<std::thread> threads;
    for (size_t i = 1; i < std::min<size_t>(std::max(n_threads, 1), n); ++i) {
        try {
            threads.emplace_back(work);
        } catch (const std::system_error &) {
            break; // fewer threads do it as well
        }
    }
    work();
    for (auto & thread : threads) {
        thread.join();
    }
    if (error) {
        std::rethrow_exception(error);
    }
}

} // namespace retake
