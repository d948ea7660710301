// What the compute graphs share: a graph and where it runs, RoPE, Hadamard rotations.
//
// Only ops that every backend has are used. Layers whose cache is in host memory run on threads of
// their own (retake-kvc-host.h). All others share the context's scheduler: their work is cut into
// graphs by its node limit, and each layer's nodes are pinned to the backend that holds its K.
#pragma once

#include "retake-kvc-host.h"
#include "retake-kvc-impl.h"

#include "llama-context.h"
#include "llama-impl.h"
#include "llama-model.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <utility>

namespace retake {

// upper bound for the tensors (nodes, views and inputs) that one layer adds to a graph
constexpr int64_t N_TENSORS_LAYER = 40;

// One graph, on the context's scheduler or on a host worker: build, compute, read the outputs.
class graph {
public:
    graph(llama_context * lctx) : lctx(lctx), sched(lctx->get_sched()) {
        auto * res = lctx->get_gf_res_reserve();
        ggml_backend_sched_reset(sched);
        res->reset();
        // no eval callback of the user's on these nodes
        ggml_backend_sched_set_eval_callback(sched, nullptr, nullptr);
        gf   = res->get_gf();
        ctx0 = res->get_ctx();
        // half of the limit: splits add copies
        n_left = res->get_max_nodes()/2;
    }

    graph(host_worker & worker) : worker(&worker), backend(worker.backend.get()) {
        ctx0   = worker.new_context();
        gf     = ggml_new_graph_custom(ctx0, host_worker::N_TENSORS, false);
        n_left = host_worker::N_TENSORS;
    }

    ggml_context * ctx() const { return ctx0; }

    bool has_room(int64_t n_tensors) const { return n_left >= n_tensors; }
    void reserve (int64_t n_tensors)       { n_left -= n_tensors; }

    // one thread computes this graph: small blocks that stay in its cache are best
    bool on_worker() const { return worker; }

    template <typename T>
    ggml_tensor * input(ggml_type type, std::initializer_list<int64_t> ne, std::vector<T> data) {
        ggml_tensor * t = ggml_new_tensor(ctx(), type, (int) ne.size(), ne.begin());
        GGML_ASSERT(ggml_nbytes(t) == data.size()*sizeof(T));
        ggml_set_input(t);

        const auto * bytes = reinterpret_cast<const uint8_t *>(data.data());
        inputs.push_back({ t, std::vector<uint8_t>(bytes, bytes + data.size()*sizeof(T)) });
        return t;
    }

    // nodes built from here on run where `t` lives
    void place_with(const ggml_tensor * t) {
        if (worker) {
            return;
        }
        const auto buft = ggml_backend_buffer_get_type(t->buffer);

        backend = nullptr;
        for (int i = 0; i < ggml_backend_sched_get_n_backends(sched); ++i) {
            ggml_backend_t cur = ggml_backend_sched_get_backend(sched, i);
            if (ggml_backend_get_device(cur) == ggml_backend_buft_get_device(buft)) {
                backend = cur;
            }
        }
        if (!backend) { // host buffers belong to the CPU, the last backend
            backend = ggml_backend_sched_get_backend(sched, ggml_backend_sched_get_n_backends(sched) - 1);
        }
    }

    bool on_cpu() const {
        return ggml_backend_dev_type(ggml_backend_get_device(backend)) == GGML_BACKEND_DEVICE_TYPE_CPU;
    }

    bool supports(const ggml_tensor * t) const { return ggml_backend_supports_op(backend, t); }

    // Pin a node to the current backend. An input, and a view of one, is never pinned: the
    // scheduler would take it to be there already, copy nothing, and the kernel would get a host
    // pointer.
    ggml_tensor * on(ggml_tensor * t) {
        if (sched && !is_input(t) && supports(t)) {
            ggml_backend_sched_set_tensor_backend(sched, t, backend);
        }
        return t;
    }

    void expand(ggml_tensor * t) { ggml_build_forward_expand(gf, t); }

    void output(ggml_tensor * t, std::function<void(const float *)> read) {
        ggml_set_output(t);
        expand(t);
        outputs.push_back({ t, std::move(read) });
    }

    void compute() {
        const bool ok = worker ? ggml_gallocr_alloc_graph(worker->galloc.get(), gf) : ggml_backend_sched_alloc_graph(sched, gf);
        if (!ok) {
            throw retake_error { RETAKE_KVC_MEMORY, "the compute buffer could not be allocated" };
        }
        for (const auto & [t, data] : inputs) {
            if (t->buffer) { // an input that no node uses is not allocated
                ggml_backend_tensor_set(t, data.data(), 0, data.size());
            }
        }
        const auto status = worker ? ggml_backend_graph_compute(backend, gf) : lctx->graph_compute(gf, true);
        if (sched) {
            ggml_backend_sched_synchronize(sched);
        }
        if (status != GGML_STATUS_SUCCESS) {
            throw retake_error { RETAKE_KVC_COMPUTE, format("the graph ended with status %d", (int) status) };
        }
        std::vector<float> host;
        for (const auto & [t, read] : outputs) {
            host.resize(ggml_nelements(t));
            ggml_backend_tensor_get(t, host.data(), 0, ggml_nbytes(t));
            read(host.data());
        }
    }

private:
    // view_src is the tensor that owns the memory, also of a view of a view
    static bool is_input(const ggml_tensor * t) {
        return ((t->view_src ? t->view_src : t)->flags | t->flags) & GGML_TENSOR_FLAG_INPUT;
    }

    llama_context *      lctx    = nullptr;
    ggml_backend_sched_t sched   = nullptr;
    host_worker *        worker  = nullptr;
    ggml_backend_t       backend = nullptr;
    ggml_context *       ctx0    = nullptr;
    ggml_cgraph *        gf      = nullptr;
    int64_t              n_left  = 0;

    std::vector<std::pair<ggml_tensor *, std::vector<uint8_t>>>               inputs;
    std::vector<std::pair<ggml_tensor *, std::function<void(const float *)>>> outputs;
};

// RoPE as this model's graph applies it, with its magnitude factor taken out (rotations compose,
// factors would multiply).
struct rope {
    rope(const retake_kvc & kvc, const llama_context * lctx, int il) {
        const auto & cparams = lctx->get_cparams();
        const auto & hparams = kvc.hparams();

        active      = hparams.has_rope(il) && hparams.rope_type != LLAMA_ROPE_TYPE_NONE;
        n_pos       = kvc.n_pos();
        n_rot       = hparams.n_rot(il);
        type        = hparams.rope_type;
        n_ctx_orig  = cparams.n_ctx_orig_yarn;
        freq_base   = kvc.model().get_rope_freq_base (cparams, il);
        freq_scale  = kvc.model().get_rope_freq_scale(cparams, il);
        factors     = kvc.model().get_rope_factors(cparams, il);
        ext_factor  = cparams.yarn_ext_factor;
        beta_fast   = cparams.yarn_beta_fast;
        beta_slow   = cparams.yarn_beta_slow;
        std::copy(hparams.rope_sections.begin(), hparams.rope_sections.end(), sections);

        // rope_yarn multiplies by this when ext_factor is set (ggml: ops.cpp)
        const float mscale_yarn = ext_factor != 0.0f ? 1.0f + 0.1f*logf(1.0f/freq_scale) : 1.0f;

        attn_factor = 1.0f/mscale_yarn;
        mscale      = cparams.yarn_attn_factor*mscale_yarn;
    }

    // cur [n_embd_head, n_head, n], pos I32 [n*n_pos]
    ggml_tensor * apply(graph & g, ggml_tensor * cur, ggml_tensor * pos, bool back) {
        auto * ctx = g.ctx();
        if (n_pos == 4) {
            const auto fn = back ? ggml_rope_multi_back : ggml_rope_multi;
            return g.on(fn(ctx, cur, pos, factors, n_rot, sections, type, n_ctx_orig,
                    freq_base, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow));
        }
        const auto fn = back ? ggml_rope_ext_back : ggml_rope_ext;
        return g.on(fn(ctx, cur, pos, factors, n_rot, type, n_ctx_orig,
                freq_base, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow));
    }

    bool          active;
    uint32_t      n_pos;
    int           n_rot, type, n_ctx_orig;
    float         freq_base, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow;
    float         mscale; // what the model's own RoPE multiplied q and k by
    int           sections[4];
    ggml_tensor * factors;
};

// the cache tensor as rows over all streams
inline ggml_tensor * rows_of(graph & g, ggml_tensor * t) {
    return g.on(ggml_reshape_2d(g.ctx(), t, t->ne[0], t->ne[1]*t->ne[2]));
}

// cur [n_embd_head, n_head, n] times a Hadamard matrix (its own inverse)
inline ggml_tensor * hadamard(graph & g, ggml_tensor * cur, ggml_tensor * rot) {
    const int64_t n = rot->ne[0];
    ggml_tensor * t = g.on(ggml_reshape_2d(g.ctx(), cur, n, ggml_nelements(cur)/n));
    t = g.on(ggml_mul_mat(g.ctx(), rot, t));
    return g.on(ggml_reshape_3d(g.ctx(), t, cur->ne[0], cur->ne[1], cur->ne[2]));
}

inline ggml_tensor * hadamard_input(graph & g, const std::vector<float> * matrix, int64_t n) {
    return matrix ? g.input<float>(GGML_TYPE_F32, { n, n }, *matrix) : nullptr;
}

} // namespace retake
