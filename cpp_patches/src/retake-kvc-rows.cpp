// Rows of the cache: moving the kept ones together, and reading values through a projection.

#include "retake-kvc-graph.h"

using namespace retake;

namespace {

// element indices of rows of a transposed V: cache layout [stream][n_embd_v][kv_size]
template <typename T>
std::vector<T> transposed_elements(const ggml_tensor * v, const std::vector<int64_t> & rows, int64_t n_embd_v) {
    const int64_t kv_size = v->ne[1];
    std::vector<T> res;
    res.reserve(rows.size()*n_embd_v);
    for (const int64_t row : rows) {
        const int64_t strm = row/kv_size;
        const int64_t cell = row%kv_size;
        for (int64_t j = 0; j < n_embd_v; ++j) {
            res.push_back((T) (strm*kv_size*v->ne[0] + j*kv_size + cell));
        }
    }
    return res;
}

template <typename T>
std::vector<int64_t> widen(const std::vector<T> & rows) {
    return std::vector<int64_t>(rows.begin(), rows.end());
}

// F32 [n_embd_v, n] of the value rows, in either layout; idxs from value_idxs()
ggml_tensor * gather_values(graph & g, ggml_tensor * v, ggml_tensor * idxs, bool v_trans, int64_t n_embd_v) {
    if (!v_trans) {
        return g.on(ggml_get_rows(g.ctx(), rows_of(g, v), idxs));
    }
    ggml_tensor * flat = g.on(ggml_reshape_2d(g.ctx(), v, 1, ggml_nelements(v)));
    ggml_tensor * t    = g.on(ggml_get_rows(g.ctx(), flat, idxs));
    return g.on(ggml_reshape_2d(g.ctx(), t, n_embd_v, ggml_nelements(t)/n_embd_v));
}

ggml_tensor * value_idxs(graph & g, const ggml_tensor * v, const std::vector<int32_t> & rows, bool v_trans, int64_t n_embd_v) {
    if (!v_trans) {
        return g.input<int32_t>(GGML_TYPE_I32, { (int64_t) rows.size() }, rows);
    }
    auto elements = transposed_elements<int32_t>(v, widen(rows), n_embd_v);
    const int64_t n = (int64_t) elements.size();
    return g.input<int32_t>(GGML_TYPE_I32, { n }, std::move(elements));
}

void build_compact_keys(graph & g, const retake_kvc & kvc, llama_context * lctx,
        const retake_kvc::commit_request & req, uint32_t l, ggml_tensor * src, ggml_tensor * dst, ggml_tensor * rot) {
    const auto    layer = kvc.layer(l);
    const int64_t n     = req.n_keep;

    ggml_tensor * rows = rows_of(g, layer.k);
    ggml_tensor * k    = g.on(ggml_get_rows(g.ctx(), rows, src));

    rope rp(kvc, lctx, layer.il);

    const int32_t * delta = req.delta ? req.delta + (size_t) l*n : nullptr;
    if (rp.active && delta && std::any_of(delta, delta + n, [](int32_t d) { return d != 0; })) {
        std::vector<int32_t> pos;
        for (uint32_t p = 0; p < rp.n_pos; ++p) {
            for (int64_t i = 0; i < n; ++i) {
                pos.push_back(req.section_mask & (1u << p) ? delta[i] : 0);
            }
        }
        const int64_t n_embd = kvc.hparams().n_embd_head_k(layer.il);

        k = g.on(ggml_reshape_3d(g.ctx(), k, n_embd, kvc.hparams().n_head_kv(layer.il), n));
        if (rot) {
            k = hadamard(g, k, rot);
        }
        k = rp.apply(g, k, g.input<int32_t>(GGML_TYPE_I32, { n*(int64_t) rp.n_pos }, pos), false);
        if (rot) {
            k = hadamard(g, k, rot);
        }
        k = g.on(ggml_reshape_2d(g.ctx(), k, rows->ne[0], n));
    }
    g.expand(g.on(ggml_set_rows(g.ctx(), rows, k, dst)));
}

void build_compact_values(graph & g, const retake_kvc & kvc,
        const retake_kvc::commit_request & req, uint32_t l, const std::vector<int32_t> & src_rows, ggml_tensor * src, ggml_tensor * dst) {
    const auto    layer    = kvc.layer(l);
    const int64_t n_embd_v = kvc.hparams().n_embd_v_gqa(layer.il);

    g.place_with(layer.v);
    if (!kvc.v_trans()) {
        ggml_tensor * v = gather_values(g, layer.v, src, false, n_embd_v);
        g.expand(g.on(ggml_set_rows(g.ctx(), rows_of(g, layer.v), v, dst)));
        return;
    }
    ggml_tensor * idxs = value_idxs(g, layer.v, src_rows, true, n_embd_v);
    ggml_tensor * v    = gather_values(g, layer.v, idxs, true, n_embd_v);
    v = g.on(ggml_reshape_2d(g.ctx(), v, 1, ggml_nelements(v)));

    auto elements = transposed_elements<int64_t>(layer.v, req.dst_rows, n_embd_v);
    const int64_t n = (int64_t) elements.size();
    ggml_tensor * to   = g.input<int64_t>(GGML_TYPE_I64, { n }, std::move(elements));
    ggml_tensor * flat = g.on(ggml_reshape_2d(g.ctx(), layer.v, 1, ggml_nelements(layer.v)));
    g.expand(g.on(ggml_set_rows(g.ctx(), flat, v, to)));
}

// one layer's kept rows, moved together
void build_compact(graph & g, const retake_kvc & kvc, llama_context * lctx,
        const retake_kvc::commit_request & req, uint32_t l, ggml_tensor * dst, ggml_tensor * rot) {
    const int64_t n = req.n_keep;

    std::vector<int32_t> src_rows(n);
    for (int64_t i = 0; i < n; ++i) {
        src_rows[i] = req.src_rows[req.keep[(size_t) l*n + i]];
    }
    ggml_tensor * src = g.input<int32_t>(GGML_TYPE_I32, { n }, src_rows);

    g.place_with(kvc.layer(l).k);
    build_compact_keys(g, kvc, lctx, req, l, src, dst, rot);
    build_compact_values(g, kvc, req, l, src_rows, src, dst);
}

// one layer's value rows, projected, on their way to `out`
void build_values(graph & g, const retake_kvc & kvc, uint32_t l, ggml_tensor * idxs, ggml_tensor * proj, ggml_tensor * rot,
        int64_t n, int32_t dim, float * out) {
    const auto    layer    = kvc.layer(l);
    const int64_t n_head   = kvc.hparams().n_head_kv(layer.il);
    const int64_t n_embd_v = kvc.hparams().n_embd_v_gqa(layer.il);

    g.place_with(layer.v);
    ggml_tensor * v = gather_values(g, layer.v, idxs, kvc.v_trans(), n_embd_v);
    if (rot) {
        v = hadamard(g, g.on(ggml_reshape_3d(g.ctx(), v, n_embd_v/n_head, n_head, n)), rot);
        v = g.on(ggml_reshape_2d(g.ctx(), v, n_embd_v, n));
    }
    if (proj) {
        v = g.on(ggml_mul_mat(g.ctx(), proj, v));
        ggml_mul_mat_set_prec(v, GGML_PREC_F32);
    } else {
        v = g.on(ggml_cont(g.ctx(), v)); // an output must own its memory
    }
    float * dst = out + (size_t) l*n*dim;
    g.output(v, [dst, n, dim](const float * src) { std::copy(src, src + n*dim, dst); });
}

// build(g, layers) with as many layers as the graph has room for, until all are done
template <typename F>
void run_in_graphs(llama_context * lctx, std::vector<uint32_t> layers, F build) {
    while (!layers.empty()) {
        graph g(lctx);
        g.reserve(3); // inputs that the layers share
        size_t n = 0;
        for (; n < layers.size() && g.has_room(N_TENSORS_LAYER); ++n) {
            g.reserve(N_TENSORS_LAYER);
        }
        build(g, std::vector<uint32_t>(layers.begin(), layers.begin() + n));
        g.compute();
        layers.erase(layers.begin(), layers.begin() + n);
    }
}

// build(g, layers) for every layer: one at a time on the host's threads, together on the scheduler
template <typename F>
void run_layers(retake_kvc & kvc, llama_context * lctx, F build) {
    const auto host = kvc.layers_on_host(lctx, true);
    const auto rest = kvc.layers_on_host(lctx, false);

    if (!host.empty()) {
        kvc.run_on_host(lctx, host.size(), host.size(), [&](host_worker & worker, size_t i) {
            graph g(worker);
            build(g, std::vector<uint32_t> { host[i] });
            g.compute();
        });
    }
    if (!rest.empty()) {
        kvc.run(lctx, [&](llama_context * lctx) { run_in_graphs(lctx, rest, build); });
    }
}

} // namespace

void retake_compute_commit(retake_kvc & kvc, llama_context * lctx, const retake_kvc::commit_request & req) {
    run_layers(kvc, lctx, [&](graph & g, const std::vector<uint32_t> & layers) {
        ggml_tensor * dst = g.input<int64_t>(GGML_TYPE_I64, { req.n_keep }, req.dst_rows);
        int64_t n_rot = 0;
        const auto * matrix = kvc.hadamard_k(n_rot);
        ggml_tensor * rot = hadamard_input(g, matrix, n_rot);
        for (const uint32_t l : layers) {
            build_compact(g, kvc, lctx, req, l, dst, rot);
        }
    });
}

void retake_compute_values(retake_kvc & kvc, llama_context * lctx, const std::vector<int32_t> & v_rows,
        const float * projection, int32_t dim, float * out) {
    run_layers(kvc, lctx, [&](graph & g, const std::vector<uint32_t> & layers) {
        const auto    first    = kvc.layer(layers[0]);
        const int64_t n_embd_v = kvc.hparams().n_embd_v_gqa(first.il); // of every layer
        int64_t n_rot = 0;
        const auto * matrix = kvc.hadamard_v(n_rot);
        ggml_tensor * rot  = hadamard_input(g, matrix, n_rot);
        ggml_tensor * proj = projection
            ? g.input<float>(GGML_TYPE_F32, { n_embd_v, dim }, std::vector<float>(projection, projection + n_embd_v*dim))
            : nullptr;
        ggml_tensor * idxs = value_idxs(g, first.v, v_rows, kvc.v_trans(), n_embd_v);
        for (const uint32_t l : layers) {
            build_values(g, kvc, l, idxs, proj, rot, (int64_t) v_rows.size(), dim, out);
        }
    });
}
