// Scores: the attention that keys receive, softmax(QK^T) summed over queries and heads.
//
// A window is a run of queries whose sum is wanted apart. All windows of a chunk are computed from
// one copy of its keys, in blocks of queries, since P = softmax(QK^T) is too large to be held whole.

#include "retake-kvc-graph.h"

#include <map>
#include <mutex>

using namespace retake;

namespace {

// upper bound for the tensors of one block, those of its windows' sums apart
constexpr int64_t N_TENSORS_BLOCK  = 16;
constexpr int64_t N_TENSORS_WINDOW = 6;

// one block of P: small enough for one core's cache, large enough for a GPU
constexpr size_t  P_BYTES_HOST   = 1u << 20;
constexpr size_t  P_BYTES_DEVICE = 64u << 20;
constexpr int64_t N_ROWS_MIN     = 16; // rows below which the matrix product degrades on a CPU

// Queries of one task of a host worker. Its keys are made anew for each task, so a task must be
// long; the same size for any number of threads, so that the sums are the same, too.
constexpr int32_t N_TASK_ROWS = 256;
// keys for each query from which on they are read where they are, and not copied
constexpr int64_t N_KEYS_PER_QUERY = 8;
// what all workers may hold at once; one may always run
constexpr size_t  TASK_BYTES_MAX = 256u << 20;

using request = retake_kvc::score_request;

// Sums of one layer, or of one task's share of it: [n_windows][nk]
struct window_sums {
    window_sums(const request & req) : nk(req.k_rows.size()), sums(req.windows.size()*nk, 0.0) {}

    void add(size_t w, const float * src) {
        for (size_t j = 0; j < nk; ++j) {
            sums[w*nk + j] += src[j];
        }
    }
    void add(const window_sums & other) {
        for (size_t i = 0; i < sums.size(); ++i) {
            sums[i] += other.sums[i];
        }
    }

    size_t nk;
    std::vector<double> sums;
};

// each key's score in the window that attends to it most, the mean over heads
void write_scores(const request & req, uint32_t l, uint32_t n_head, const window_sums & total) {
    for (size_t j = 0; j < total.nk; ++j) {
        double best = 0.0;
        for (size_t w = 0; w < req.windows.size(); ++w) {
            const double s = req.windows[w].scale/n_head*total.sums[w*total.nk + j];
            best = s > best || std::isnan(s) ? s : best; // a NaN stays: it is reported
            if (std::isnan(s)) {
                break;
            }
        }
        req.out[l*total.nk + j] = (float) best;
    }
}

// the part of a window that lies in some rows
struct piece {
    size_t  w;
    int32_t r0, n; // rows of the query buffer
};

std::vector<piece> pieces_of(const request & req, int32_t r0, int32_t n) {
    std::vector<piece> res;
    for (size_t w = 0; w < req.windows.size(); ++w) {
        const int32_t a = std::max(r0, req.windows[w].row0);
        const int32_t b = std::min(r0 + n, req.windows[w].row0 + req.windows[w].n_rows);
        if (a < b) {
            res.push_back({ w, a, b - a });
        }
    }
    return res;
}

// inputs that all layers of a graph share
struct key_inputs {
    key_inputs(graph & g, const retake_kvc & kvc, const request & req) {
        const int64_t nk = (int64_t) req.k_rows.size();
        rows = g.input<int32_t>(GGML_TYPE_I32, { nk }, req.k_rows);
        if (req.unrotate) {
            pos = g.input<int32_t>(GGML_TYPE_I32, { nk*(int64_t) kvc.n_pos() },
                    std::vector<int32_t>(req.k_pos.begin(), req.k_pos.begin() + nk*kvc.n_pos()));
        }
        int64_t n_rot = 0;
        const auto * matrix = kvc.hadamard_k(n_rot);
        rot = hadamard_input(g, matrix, n_rot);
        g.reserve(4);
    }

    ggml_tensor * rows = nullptr;
    ggml_tensor * pos  = nullptr;
    ggml_tensor * rot  = nullptr;
};

// Everything about one layer that its blocks share.
struct layer_part {
    layer_part(graph & g, const retake_kvc & kvc, const llama_context * lctx, const request & req, uint32_t l, const key_inputs & in)
            : kvc(kvc), req(req), l(l), layer(kvc.layer(l)), rp(kvc, lctx, layer.il) {
        nk        = (int64_t) req.k_rows.size();
        n_embd    = kvc.hparams().n_embd_head_k(layer.il);
        n_head    = kvc.hparams().n_head(layer.il);
        n_head_kv = kvc.hparams().n_head_kv(layer.il);
        n_rep     = n_head/n_head_kv;
        unrotate  = req.unrotate && rp.active;
        kq_scale  = kvc.kq_scale[l]/(unrotate ? rp.mscale*rp.mscale : 1.0f);

        g.place_with(layer.k);
        k = build_keys(g, in);
        if (!req.k_bias.empty()) {
            // softmax(scale*(p + bias/scale)): an addition that broadcasts, not a mask as large as P
            std::vector<float> row(req.k_bias);
            for (auto & x : row) {
                x /= kq_scale;
            }
            bias = g.input<float>(GGML_TYPE_F32, { nk }, row);
        }
    }

    // Can the keys be read where they are? Worth it for few queries over many cells, as of an answer:
    // a copy of a whole video's keys is large.
    bool can_view(const graph & g, const key_inputs & in) const {
        const auto & rows = req.k_rows;
        const auto   type = layer.k->type;
        const auto & last = req.windows.back();
        for (size_t i = 1; i < rows.size(); ++i) {
            if (rows[i] != rows[i - 1] + 1) {
                return false;
            }
        }
        return g.on_worker() && !in.rot && !unrotate && (type == GGML_TYPE_F16 || type == GGML_TYPE_F32) &&
            N_KEYS_PER_QUERY*(last.row0 + last.n_rows - req.windows[0].row0) <= nk;
    }

    // ready for mul_mat: [n_embd, nk, n_head_kv]
    ggml_tensor * build_keys(graph & g, const key_inputs & in) {
        if (can_view(g, in)) {
            return ggml_view_3d(g.ctx(), layer.k, n_embd, nk, n_head_kv, layer.k->nb[1], ggml_row_size(layer.k->type, n_embd),
                    req.k_rows[0]*layer.k->nb[1]);
        }
        ggml_tensor * k = g.on(ggml_get_rows(g.ctx(), rows_of(g, layer.k), in.rows));
        k = g.on(ggml_reshape_3d(g.ctx(), k, n_embd, n_head_kv, nk));
        if (in.rot) {
            k = hadamard(g, k, in.rot);
        }
        if (unrotate) {
            k = rp.apply(g, k, in.pos, true);
        }
        k = g.on(ggml_permute(g.ctx(), k, 0, 2, 1, 3));
        // F32 caches are scored in F32 throughout; elsewhere F16 halves the traffic
        return g.on(layer.k->type == GGML_TYPE_F32 ? ggml_cont(g.ctx(), k) : ggml_cast(g.ctx(), k, GGML_TYPE_F16));
    }

    // n rows of the query buffer from r0 on, those of one KV head together, token by token:
    // F32 [n_embd, n_rep*n, n_head_kv]
    ggml_tensor * build_queries(graph & g, int32_t r0, int32_t n) {
        ggml_tensor * buf = kvc.q[l];
        const size_t size = ggml_row_size(buf->type, n_embd);
        ggml_tensor * q;
        if (unrotate) {
            q = g.on(ggml_view_3d(g.ctx(), buf, n_embd, n_head, n, size, buf->nb[1], r0*buf->nb[1]));
            q = q->type == GGML_TYPE_F32 ? q : g.on(ggml_cast(g.ctx(), q, GGML_TYPE_F32));
            q = rp.apply(g, q, g.input<int32_t>(GGML_TYPE_I32, { n*(int64_t) rp.n_pos }, kvc.query_positions(r0, n)), true);
            q = g.on(ggml_reshape_4d(g.ctx(), q, n_embd, n_rep, n_head_kv, n));
        } else {
            q = g.on(ggml_view_4d(g.ctx(), buf, n_embd, n_rep, n_head_kv, n, size, n_rep*size, buf->nb[1], r0*buf->nb[1]));
        }
        q = g.on(ggml_permute(g.ctx(), q, 0, 1, 3, 2));
        q = g.on(q->type == GGML_TYPE_F32 ? ggml_cont(g.ctx(), q) : ggml_cast(g.ctx(), q, GGML_TYPE_F32));
        return g.on(ggml_reshape_3d(g.ctx(), q, n_embd, n_rep*n, n_head_kv));
    }

    // softmax(QK^T) over the keys: [nk, rows of q, heads of k]
    ggml_tensor * build_weights(graph & g, ggml_tensor * k, ggml_tensor * q) {
        ggml_tensor * p = g.on(ggml_mul_mat(g.ctx(), k, q));
        ggml_mul_mat_set_prec(p, GGML_PREC_F32);
        if (bias) {
            p = g.on(ggml_add(g.ctx(), p, bias));
        }
        return g.on(ggml_soft_max_ext(g.ctx(), p, nullptr, kq_scale, 0.0f));
    }

    const retake_kvc & kvc;
    const request    & req;
    uint32_t l;
    retake_kvc::layer_info layer;
    rope    rp;
    int64_t nk, n_embd, n_head, n_head_kv, n_rep;
    bool    unrotate;
    float   kq_scale;
    ggml_tensor * k    = nullptr;
    ggml_tensor * bias = nullptr;
};

// Sums of P's rows, weighted: p [nk, n], one column of `weight` [n_sums][n] a sum -> [nk, n_sums]
ggml_tensor * build_sums(graph & g, bool no_out_prod, ggml_tensor * p, int64_t n_sums, const std::vector<float> & weight) {
    const int64_t n = p->ne[1];

    if (!no_out_prod) {
        // one streaming pass where the backend has an outer product
        std::vector<float> columns(weight.size()); // [n][n_sums]
        for (int64_t s = 0; s < n_sums; ++s) {
            for (int64_t i = 0; i < n; ++i) {
                columns[i*n_sums + s] = weight[s*n + i];
            }
        }
        ggml_tensor * sums = ggml_out_prod(g.ctx(), p, g.input<float>(GGML_TYPE_F32, { n_sums, n }, columns));
        if (g.supports(sums)) {
            return g.on(sums);
        }
    }
    // elsewhere transpose, then a matrix product (sum_rows has one thread on the CPU)
    ggml_tensor * t = g.on(ggml_cont(g.ctx(), g.on(ggml_transpose(g.ctx(), p))));
    t = g.on(ggml_mul_mat(g.ctx(), t, g.input<float>(GGML_TYPE_F32, { n, n_sums }, weight)));
    ggml_mul_mat_set_prec(t, GGML_PREC_F32);
    return t;
}

//
// host memory: one KV head at a time, a sum for each window alone
//

struct task {
    uint32_t l;
    int32_t  r0, n; // rows of the query buffer
};

void compute_task(host_worker & worker, const retake_kvc & kvc, const llama_context * lctx, const request & req,
        const task & cur, window_sums & sums) {
    const int32_t end = cur.r0 + cur.n;

    int64_t h  = 0;
    int32_t r0 = cur.r0;
    while (r0 < end) {
        graph g(worker);
        key_inputs in(g, kvc, req);
        g.reserve(N_TENSORS_LAYER);
        layer_part part(g, kvc, lctx, req, cur.l, in);
        const int32_t first = r0; // of this graph's queries
        ggml_tensor * q = part.build_queries(g, first, end - first);

        const int64_t n_rep   = part.n_rep;
        const int64_t n_min   = (N_ROWS_MIN + n_rep - 1)/n_rep;
        const int64_t n_block = std::max<int64_t>(n_min, P_BYTES_HOST/(part.nk*n_rep*sizeof(float)));

        // all heads of some rows, then the next rows
        while (r0 < end) {
            const int32_t n = (int32_t) std::min<int64_t>(n_block, end - r0);
            const auto pieces = pieces_of(req, r0, n);
            const int64_t n_tensors = N_TENSORS_BLOCK + N_TENSORS_WINDOW*(int64_t) pieces.size();
            if (!g.has_room(n_tensors)) {
                break;
            }
            g.reserve(n_tensors);

            ggml_tensor * kh = ggml_view_2d(g.ctx(), part.k, part.n_embd, part.nk, part.k->nb[1], h*part.k->nb[2]);
            ggml_tensor * qh = ggml_view_2d(g.ctx(), q, part.n_embd, n_rep*n, q->nb[1], h*q->nb[2] + (r0 - first)*n_rep*q->nb[1]);
            ggml_tensor * p  = part.build_weights(g, kh, qh);
            for (const auto & x : pieces) {
                const int64_t n_rows = n_rep*x.n;
                ggml_tensor * rows = ggml_view_2d(g.ctx(), p, part.nk, n_rows, p->nb[1], (x.r0 - r0)*n_rep*p->nb[1]);
                ggml_tensor * s = build_sums(g, kvc.no_out_prod, rows, 1, std::vector<float>(n_rows, 1.0f));
                g.output(s, [&sums, w = x.w](const float * src) { sums.add(w, src); });
            }
            if (++h == part.n_head_kv) {
                h = 0;
                r0 += n;
            }
        }
        g.compute();
    }
}

// what one task holds: keys twice, queries twice, a block, its share of the sums
size_t task_bytes(const retake_kvc & kvc, const request & req, uint32_t l) {
    const uint32_t il = kvc.layer(l).il;
    const auto & hparams = kvc.hparams();
    const size_t nk    = req.k_rows.size();
    const size_t n_rep = hparams.n_head(il)/hparams.n_head_kv(il);
    return 2*sizeof(float)*(nk*hparams.n_embd_k_gqa(il) + N_TASK_ROWS*hparams.n_embd_head_k(il)*hparams.n_head(il)) +
        std::max<size_t>(P_BYTES_HOST, (N_ROWS_MIN + n_rep)*nk*sizeof(float)) + req.windows.size()*nk*sizeof(double);
}

void scores_on_host(retake_kvc & kvc, llama_context * lctx, const request & req, const std::vector<uint32_t> & layers) {
    std::vector<task> tasks;
    size_t n_bytes = 1;
    for (const uint32_t l : layers) {
        n_bytes = std::max(n_bytes, task_bytes(kvc, req, l));
        const int32_t end = req.windows.back().row0 + req.windows.back().n_rows;
        for (int32_t r0 = req.windows[0].row0; r0 < end; r0 += N_TASK_ROWS) {
            tasks.push_back({ l, r0, std::min(N_TASK_ROWS, end - r0) });
        }
    }

    // added up in the order of the tasks, so that the same sums come out every time
    std::mutex mutex;
    std::map<size_t, window_sums> done;
    window_sums total(req);
    size_t next = 0;

    kvc.run_on_host(lctx, TASK_BYTES_MAX/n_bytes, tasks.size(), [&](host_worker & worker, size_t i) {
        window_sums sums(req);
        compute_task(worker, kvc, lctx, req, tasks[i], sums);

        const std::lock_guard<std::mutex> lock(mutex);
        done.emplace(i, std::move(sums));
        for (auto it = done.begin(); it != done.end() && it->first == next; it = done.erase(it), ++next) {
            total.add(it->second);
            const uint32_t l = tasks[next].l;
            if (next + 1 == tasks.size() || tasks[next + 1].l != l) {
                write_scores(req, l, kvc.hparams().n_head(kvc.layer(l).il), total);
                total = window_sums(req);
            }
        }
    });
}

//
// the scheduler: all heads at once, all windows of a block in one sum
//

void build_block(graph & g, const retake_kvc & kvc, const request & req, layer_part & part, int32_t r0, int32_t n, window_sums & sums) {
    ggml_tensor * p = part.build_weights(g, part.k, part.build_queries(g, r0, n));

    const int64_t n_rows = part.n_rep*n*part.n_head_kv;
    p = g.on(ggml_reshape_2d(g.ctx(), p, part.nk, n_rows));

    const auto pieces = pieces_of(req, r0, n);
    std::vector<float> weight(pieces.size()*n_rows, 0.0f);
    for (size_t s = 0; s < pieces.size(); ++s) {
        for (int64_t i = 0; i < n_rows; ++i) {
            const int32_t r = r0 + (int32_t) (i % (part.n_rep*n)/part.n_rep);
            weight[s*n_rows + i] = r >= pieces[s].r0 && r < pieces[s].r0 + pieces[s].n;
        }
    }
    const int64_t nk = part.nk;
    g.output(build_sums(g, kvc.no_out_prod, p, (int64_t) pieces.size(), weight), [&sums, pieces, nk](const float * src) {
        for (size_t s = 0; s < pieces.size(); ++s) {
            sums.add(pieces[s].w, src + s*nk);
        }
    });
}

void scores_on_scheduler(retake_kvc & kvc, llama_context * lctx, const request & req, const std::vector<uint32_t> & layers) {
    const int64_t nk  = (int64_t) req.k_rows.size();
    const int32_t end = req.windows.back().row0 + req.windows.back().n_rows;

    std::vector<window_sums> sums(layers.size(), window_sums(req));

    size_t  i  = 0;
    int32_t r0 = req.windows[0].row0; // next query row of layer i

    while (i < layers.size()) {
        graph g(lctx);
        key_inputs in(g, kvc, req);

        while (i < layers.size() && g.has_room(N_TENSORS_LAYER + N_TENSORS_BLOCK + N_TENSORS_WINDOW)) {
            g.reserve(N_TENSORS_LAYER);
            layer_part part(g, kvc, lctx, req, layers[i], in);

            const size_t  p_bytes = g.on_cpu() ? P_BYTES_HOST : P_BYTES_DEVICE;
            const int64_t n_min   = g.on_cpu() ? N_ROWS_MIN : 1;
            const int64_t n_block = std::max<int64_t>(n_min, p_bytes/(nk*part.n_head*sizeof(float)));

            for (; r0 < end && g.has_room(N_TENSORS_BLOCK + N_TENSORS_WINDOW); r0 += (int32_t) std::min<int64_t>(n_block, end - r0)) {
                g.reserve(N_TENSORS_BLOCK + N_TENSORS_WINDOW);
                build_block(g, kvc, req, part, r0, (int32_t) std::min<int64_t>(n_block, end - r0), sums[i]);
            }
            if (r0 < end) {
                break; // this layer goes on in the next graph
            }
            r0 = req.windows[0].row0;
            i++;
        }

        g.compute();
    }

    for (size_t j = 0; j < layers.size(); ++j) {
        write_scores(req, layers[j], kvc.hparams().n_head(kvc.layer(layers[j]).il), sums[j]);
    }
}

} // namespace

void retake_compute_scores(retake_kvc & kvc, llama_context * lctx, const request & req) {
    const auto host = kvc.layers_on_host(lctx, true);
    const auto rest = kvc.layers_on_host(lctx, false);

    if (!host.empty()) {
        scores_on_host(kvc, lctx, req, host);
    }
    if (!rest.empty()) {
        kvc.run(lctx, [&](llama_context * lctx) { scores_on_scheduler(kvc, lctx, req, rest); });
    }
}
