// The compute graphs: scores, the compaction of K and V, and projected values.
//
// All run on the context's scheduler with ops that every backend has. Work is cut into graphs by
// the scheduler's node limit; each layer's nodes are pinned to the backend that holds its K, so
// that a CPU layer's cache is never copied to a GPU.

#include "retake-kvc-impl.h"

#include "llama-context.h"
#include "llama-impl.h"
#include "llama-model.h"

#include <algorithm>
#include <cmath>

namespace {

// upper bounds for the tensors (nodes, views and inputs) that one layer or one block adds
constexpr int64_t N_TENSORS_LAYER = 40;
constexpr int64_t N_TENSORS_BLOCK = 24;

// one block of P = softmax(QK^T): small enough for a CPU's cache, large enough for a GPU, and never
// so few queries that the matrix product degrades
constexpr size_t  P_BYTES_CPU = 1u << 20;
constexpr size_t  P_BYTES_GPU = 64u << 20;
constexpr int64_t N_BLOCK_MIN = 16;

// One graph on the context's scheduler: build, compute, read the outputs.
class graph {
public:
    graph(llama_context * lctx) : lctx(lctx), sched(lctx->get_sched()), res(lctx->get_gf_res_reserve()) {
        ggml_backend_sched_reset(sched);
        res->reset();
        // no eval callback of the user's on these nodes
        ggml_backend_sched_set_eval_callback(sched, nullptr, nullptr);
        // half of the limit: splits add copies
        n_left = res->get_max_nodes()/2;
    }

    ggml_context * ctx() const { return res->get_ctx(); }

    bool has_room(int64_t n_tensors) const { return n_left >= n_tensors; }
    void reserve (int64_t n_tensors)       { n_left -= n_tensors; }

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

    // pin a node to the current backend
    ggml_tensor * on(ggml_tensor * t) {
        if (supports(t)) {
            ggml_backend_sched_set_tensor_backend(sched, t, backend);
        }
        return t;
    }

    void expand(ggml_tensor * t) { ggml_build_forward_expand(res->get_gf(), t); }

    void output(ggml_tensor * t, std::function<void(const float *)> read) {
        ggml_set_output(t);
        expand(t);
        outputs.push_back({ t, std::move(read) });
    }

    void compute() {
        if (!ggml_backend_sched_alloc_graph(sched, res->get_gf())) {
            throw retake_error { RETAKE_KVC_MEMORY, "the compute buffer could not be allocated" };
        }
        for (const auto & [t, data] : inputs) {
            if (t->buffer) { // an input that no node uses is not allocated
                ggml_backend_tensor_set(t, data.data(), 0, data.size());
            }
        }
        const auto status = lctx->graph_compute(res->get_gf(), true);
        ggml_backend_sched_synchronize(sched);
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
    llama_context *      lctx;
    ggml_backend_sched_t sched;
    llm_graph_result *   res;
    ggml_backend_t       backend = nullptr;
    int64_t              n_left;

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
ggml_tensor * rows_of(graph & g, ggml_tensor * t) {
    return g.on(ggml_reshape_2d(g.ctx(), t, t->ne[0], t->ne[1]*t->ne[2]));
}

// cur [n_embd_head, n_head, n] times a Hadamard matrix (its own inverse)
ggml_tensor * hadamard(graph & g, ggml_tensor * cur, ggml_tensor * rot) {
    const int64_t n = rot->ne[0];
    ggml_tensor * t = g.on(ggml_reshape_2d(g.ctx(), cur, n, ggml_nelements(cur)/n));
    t = g.on(ggml_mul_mat(g.ctx(), rot, t));
    return g.on(ggml_reshape_3d(g.ctx(), t, cur->ne[0], cur->ne[1], cur->ne[2]));
}

ggml_tensor * hadamard_input(graph & g, const std::vector<float> * matrix, int64_t n) {
    return matrix ? g.input<float>(GGML_TYPE_F32, { n, n }, *matrix) : nullptr;
}

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

//
// scores
//

// K of the request's rows, ready for mul_mat: [n_embd_head, nk, n_head_kv]
ggml_tensor * build_keys(graph & g, const retake_kvc & kvc, const retake_kvc::score_request & req,
        const retake_kvc::layer_info & layer, rope & rp, ggml_tensor * rows, ggml_tensor * pos, ggml_tensor * rot) {
    const int64_t n_head_kv = kvc.hparams().n_head_kv(layer.il);
    const int64_t n_embd    = kvc.hparams().n_embd_head_k(layer.il);

    ggml_tensor * k = g.on(ggml_get_rows(g.ctx(), rows_of(g, layer.k), rows));
    k = g.on(ggml_reshape_3d(g.ctx(), k, n_embd, n_head_kv, (int64_t) req.k_rows.size()));
    if (rot) {
        k = hadamard(g, k, rot);
    }
    if (req.unrotate && rp.active) {
        k = rp.apply(g, k, pos, true);
    }
    k = g.on(ggml_permute(g.ctx(), k, 0, 2, 1, 3));
    // F32 caches are scored in F32 throughout; elsewhere F16 halves the traffic
    return g.on(layer.k->type == GGML_TYPE_F32 ? ggml_cont(g.ctx(), k) : ggml_cast(g.ctx(), k, GGML_TYPE_F16));
}

// n query rows from r0 on: F32 [n_embd_head, n, n_head]
ggml_tensor * build_queries(graph & g, const retake_kvc & kvc, const retake_kvc::score_request & req,
        uint32_t l, rope & rp, int32_t r0, int32_t n) {
    const uint32_t il      = kvc.layer(l).il;
    const int64_t  n_embd  = kvc.hparams().n_embd_head_k(il);
    const int64_t  n_head  = kvc.hparams().n_head(il);

    ggml_tensor * buf = kvc.q[l];
    ggml_tensor * q = g.on(ggml_view_3d(g.ctx(), buf, n_embd, n_head, n,
            ggml_row_size(buf->type, n_embd), buf->nb[1], r0*buf->nb[1]));

    if (req.unrotate && rp.active) {
        std::vector<int32_t> pos;
        for (uint32_t p = 0; p < rp.n_pos; ++p) {
            for (int32_t r = r0; r < r0 + n; ++r) {
                pos.push_back(kvc.tokens[(size_t) r*kvc.q_stride].pos[p]);
            }
        }
        if (q->type != GGML_TYPE_F32) {
            q = g.on(ggml_cast(g.ctx(), q, GGML_TYPE_F32));
        }
        q = rp.apply(g, q, g.input<int32_t>(GGML_TYPE_I32, { n*(int64_t) rp.n_pos }, pos), true);
    }
    q = g.on(ggml_permute(g.ctx(), q, 0, 2, 1, 3));
    return g.on(q->type == GGML_TYPE_F32 ? ggml_cont(g.ctx(), q) : ggml_cast(g.ctx(), q, GGML_TYPE_F32));
}

// sum over queries (and heads, or left to the host): P [nk, n, n_head] -> [nk, 1, n_head] or [nk]
ggml_tensor * build_column_sums(graph & g, ggml_tensor * p) {
    const int64_t n = p->ne[1], n_head = p->ne[2];

    // one streaming pass where the backend has an outer product
    ggml_tensor * ones = g.input<float>(GGML_TYPE_F32, { 1, n, n_head }, std::vector<float>(n*n_head, 1.0f));
    ggml_tensor * sums = ggml_out_prod(g.ctx(), p, ones);
    if (g.supports(sums)) {
        return g.on(sums);
    }
    // elsewhere transpose, then a matrix-vector product (sum_rows has one thread on the CPU)
    ggml_tensor * t = g.on(ggml_reshape_2d(g.ctx(), p, p->ne[0], n*n_head));
    t    = g.on(ggml_cont(g.ctx(), g.on(ggml_transpose(g.ctx(), t))));
    ones = g.on(ggml_reshape_2d(g.ctx(), ones, n*n_head, 1));
    return g.on(ggml_mul_mat(g.ctx(), t, ones));
}

} // namespace

void retake_compute_scores(retake_kvc & kvc, llama_context * lctx, const retake_kvc::score_request & req) {
    const int64_t nk = (int64_t) req.k_rows.size();

    std::vector<double> sums((size_t) kvc.n_layer()*nk, 0.0);

    uint32_t l  = 0;
    int32_t  r0 = 0; // next query row of layer l

    while (l < kvc.n_layer()) {
        graph g(lctx);

        ggml_tensor * rows = g.input<int32_t>(GGML_TYPE_I32, { nk }, req.k_rows);
        ggml_tensor * pos  = req.unrotate
            ? g.input<int32_t>(GGML_TYPE_I32, { nk*(int64_t) kvc.n_pos() },
                    std::vector<int32_t>(req.k_pos.begin(), req.k_pos.begin() + nk*kvc.n_pos()))
            : nullptr;
        int64_t n_rot = 0;
        const auto * matrix = kvc.hadamard_k(n_rot);
        ggml_tensor * rot = hadamard_input(g, matrix, n_rot);
        g.reserve(3);

        while (l < kvc.n_layer() && g.has_room(N_TENSORS_LAYER + N_TENSORS_BLOCK)) {
            const auto    layer  = kvc.layer(l);
            const int64_t n_head = kvc.hparams().n_head(layer.il);

            g.place_with(layer.k);
            g.reserve(N_TENSORS_LAYER);

            rope rp(kvc, lctx, layer.il);
            ggml_tensor * k = build_keys(g, kvc, req, layer, rp, rows, pos, rot);

            const float kq_scale = kvc.kq_scale[l]/(req.unrotate && rp.active ? rp.mscale*rp.mscale : 1.0f);

            const size_t  p_bytes = g.on_cpu() ? P_BYTES_CPU : P_BYTES_GPU;
            const int64_t n_block = std::max<int64_t>(N_BLOCK_MIN, p_bytes/(nk*n_head*sizeof(float)));

            while (r0 < req.n_q_rows && g.has_room(N_TENSORS_BLOCK)) {
                g.reserve(N_TENSORS_BLOCK);
                const int32_t n = (int32_t) std::min<int64_t>(n_block, req.n_q_rows - r0);

                ggml_tensor * q = build_queries(g, kvc, req, l, rp, req.q_row0 + r0, n);
                ggml_tensor * p = g.on(ggml_mul_mat(g.ctx(), k, q));
                ggml_mul_mat_set_prec(p, GGML_PREC_F32);
                p = g.on(ggml_soft_max_ext(g.ctx(), p, nullptr, kq_scale, 0.0f));

                ggml_tensor * s = build_column_sums(g, p);

                const int64_t n_rep = ggml_nelements(s)/nk;
                double * dst = sums.data() + (size_t) l*nk;
                g.output(s, [dst, nk, n_rep](const float * src) {
                    for (int64_t i = 0; i < n_rep; ++i) {
                        for (int64_t j = 0; j < nk; ++j) {
                            dst[j] += src[i*nk + j];
                        }
                    }
                });
                r0 += n;
            }
            if (r0 < req.n_q_rows) {
                break; // this layer goes on in the next graph
            }
            r0 = 0;
            l++;
        }

        g.compute();
    }

    for (uint32_t i = 0; i < kvc.n_layer(); ++i) {
        const double f = req.scale/kvc.hparams().n_head(kvc.layer(i).il);
        for (int64_t j = 0; j < nk; ++j) {
            req.out[i*nk + j] = (float) (f*sums[i*nk + j]);
        }
    }
}

//
// commit
//

static void build_compact_keys(graph & g, const retake_kvc & kvc, llama_context * lctx,
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

static void build_compact_values(graph & g, const retake_kvc & kvc,
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

void retake_compute_commit(retake_kvc & kvc, llama_context * lctx, const retake_kvc::commit_request & req) {
    const int64_t n = req.n_keep;

    uint32_t l = 0;
    while (l < kvc.n_layer()) {
        graph g(lctx);

        ggml_tensor * dst = g.input<int64_t>(GGML_TYPE_I64, { n }, req.dst_rows);
        int64_t n_rot = 0;
        const auto * matrix = kvc.hadamard_k(n_rot);
        ggml_tensor * rot = hadamard_input(g, matrix, n_rot);
        g.reserve(2);

        for (; l < kvc.n_layer() && g.has_room(N_TENSORS_LAYER); ++l) {
            g.reserve(N_TENSORS_LAYER);

            std::vector<int32_t> src_rows(n);
            for (int64_t i = 0; i < n; ++i) {
                src_rows[i] = req.src_rows[req.keep[(size_t) l*n + i]];
            }
            ggml_tensor * src = g.input<int32_t>(GGML_TYPE_I32, { n }, src_rows);

            g.place_with(kvc.layer(l).k);
            build_compact_keys(g, kvc, lctx, req, l, src, dst, rot);
            build_compact_values(g, kvc, req, l, src_rows, src, dst);
        }

        g.compute();
    }
}

//
// values
//

void retake_compute_values(retake_kvc & kvc, llama_context * lctx, const std::vector<int32_t> & v_rows,
        const float * projection, int32_t dim, float * out) {
    const int64_t n = (int64_t) v_rows.size();

    uint32_t l = 0;
    while (l < kvc.n_layer()) {
        graph g(lctx);

        int64_t n_rot = 0;
        const auto * matrix = kvc.hadamard_v(n_rot);
        ggml_tensor * rot = hadamard_input(g, matrix, n_rot);

        const int64_t n_embd_v = kvc.hparams().n_embd_v_gqa(kvc.layer(l).il);
        ggml_tensor * proj = projection
            ? g.input<float>(GGML_TYPE_F32, { n_embd_v, dim }, std::vector<float>(projection, projection + n_embd_v*dim))
            : nullptr;
        ggml_tensor * idxs = value_idxs(g, kvc.layer(l).v, v_rows, kvc.v_trans(), n_embd_v);
        g.reserve(3);

        for (; l < kvc.n_layer() && g.has_room(N_TENSORS_LAYER); ++l) {
            g.reserve(N_TENSORS_LAYER);

            const auto    layer  = kvc.layer(l);
            const int64_t n_head = kvc.hparams().n_head_kv(layer.il);

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

        g.compute();
    }
}
