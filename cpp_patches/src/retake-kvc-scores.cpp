// Scores: the attention that keys receive, softmax(QK^T) summed over queries and heads.

#include "retake-kvc-graph.h"

using namespace retake;

namespace {

// upper bound for the tensors of one block of queries
constexpr int64_t N_TENSORS_BLOCK = 24;

// one block of P = softmax(QK^T): small enough for a CPU's cache, large enough for a GPU, and never
// so few queries that the matrix product degrades
constexpr size_t  P_BYTES_CPU = 1u << 20;
constexpr size_t  P_BYTES_GPU = 64u << 20;
constexpr int64_t N_BLOCK_MIN = 16;

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

// the keys' biases, once for each of n queries: [nk, n]; null where there are none
ggml_tensor * build_bias(graph & g, const retake_kvc::score_request & req, int64_t n) {
    if (req.k_bias.empty()) {
        return nullptr;
    }
    std::vector<float> rows;
    for (int64_t i = 0; i < n; ++i) {
        rows.insert(rows.end(), req.k_bias.begin(), req.k_bias.end());
    }
    return g.input<float>(GGML_TYPE_F32, { (int64_t) req.k_bias.size(), n }, rows);
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
                p = g.on(ggml_soft_max_ext(g.ctx(), p, build_bias(g, req, n), kq_scale, 0.0f));

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
