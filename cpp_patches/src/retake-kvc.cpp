// What is supported, opening a capture, and asking about it; commit and abort: retake-kvc-cells.cpp.

#include "retake-kvc-graph.h"

#include "llama-context.h"
#include "llama-impl.h"
#include "llama-kv-cache-iswa.h"
#include "llama-memory-hybrid-idx.h"
#include "llama-memory-hybrid-iswa.h"
#include "llama-memory-hybrid.h"
#include "llama-model.h"

#include <cmath>
#include <exception>
#include <iterator>
#include <limits>
#include <memory>
#include <typeinfo>

namespace {

void require_finite(const float * x, size_t n_layer, size_t n_row, const char * what) {
    for (size_t i = 0; i < n_layer*n_row; ++i) {
        if (!std::isfinite(x[i])) {
            retake_refuse(RETAKE_KVC_NOT_FINITE, format("%s of layer %zu, entry %zu, is not finite", what, i/n_row, i%n_row));
        }
    }
}

const char * why_no_cache(const llama_memory_i * memory) {
    if (!memory) {
        return "the model has no memory";
    }
    if (dynamic_cast<const llama_kv_cache_iswa *>(memory) || dynamic_cast<const llama_memory_hybrid_iswa *>(memory)) {
        return "the model uses sliding-window attention";
    }
    if (dynamic_cast<const llama_memory_recurrent *>(memory)) {
        return "all layers of the model are recurrent";
    }
    if (dynamic_cast<const llama_memory_hybrid_idx *>(memory)) {
        return "the model keeps an index beside its KV cache";
    }
    return "the model's memory is not a plain KV cache";
}

// The hybrid memory itself, or null. Not one that is made from it: what that holds besides would stay
// behind when cells move.
llama_memory_hybrid * hybrid_of(llama_memory_i * memory) {
    return memory && typeid(*memory) == typeid(llama_memory_hybrid) ? static_cast<llama_memory_hybrid *>(memory) : nullptr;
}

} // namespace

//
// what is supported
//

llama_kv_cache & retake_kvc::cache_of(llama_context * lctx) {
    if (!lctx) {
        retake_refuse(RETAKE_KVC_INVALID, "ctx is NULL");
    }
    auto * memory = lctx->get_memory();
    auto * hybrid = hybrid_of(memory);
    llama_memory_i * cache = hybrid ? hybrid->get_mem_attn() : memory;
    if (!cache || typeid(*cache) != typeid(llama_kv_cache)) {
        retake_refuse(RETAKE_KVC_UNSUPPORTED, why_no_cache(cache));
    }
    return static_cast<llama_kv_cache &>(*cache);
}

llama_memory_recurrent * retake_kvc::states_of(llama_context * lctx) {
    auto * hybrid = hybrid_of(lctx->get_memory());
    return hybrid ? hybrid->get_mem_recr() : nullptr;
}

void retake_kvc::check_supported(llama_context * lctx) {
    const llama_kv_cache & kv      = cache_of(lctx);
    const llama_hparams  & hparams = kv.hparams;

    const auto no = [](const char * reason) { retake_refuse(RETAKE_KVC_UNSUPPORTED, reason); };

    if (kv.other)                                   { no("the KV cache shares its cells with another context"); }
    if (kv.swa_type != LLAMA_SWA_TYPE_NONE)         { no("the model uses sliding-window attention"); }
    if (hparams.is_mla())                           { no("the model uses multi-head latent attention"); }
    if (hparams.use_alibi)                          { no("the model uses ALiBi"); }
    if (hparams.ple_n_heads > 0)                    { no("the model reads the tokens before each token from its cells"); }
    if (hparams.attn_soft_cap)                      { no("the model caps its attention logits"); }
    if (!lctx->get_cparams().causal_attn)           { no("attention is not causal"); }
    if (kv.map_layer_ids.size() != kv.layers.size()) { no("some layers share their KV cache"); }

    switch (hparams.rope_type) {
        case LLAMA_ROPE_TYPE_NONE:
        case LLAMA_ROPE_TYPE_NORM:
        case LLAMA_ROPE_TYPE_NEOX:
        case LLAMA_ROPE_TYPE_MROPE:
        case LLAMA_ROPE_TYPE_IMROPE: break;
        default: no("the model's RoPE type is not known here");
    }

    if (kv.layers.empty()) { no("no layer has a KV cache"); }

    for (const auto & layer : kv.layers) {
        if (!layer.k || !layer.v) {
            no("a layer caches no V");
        }
        if (kv.model.layers[layer.il].attn_sinks) {
            no("the model uses attention sinks");
        }
        if (kv.v_trans && (ggml_is_quantized(layer.v->type) || ggml_nelements(layer.v) > std::numeric_limits<int32_t>::max())) {
            no("the V cache is transposed and quantized or too large: turn flash attention on");
        }
        if (ggml_nelements(layer.k)/layer.k->ne[0] > std::numeric_limits<int32_t>::max()) {
            no("the cache has too many cells");
        }
    }
}

retake_kvc & retake_kvc::get(llama_context * lctx) {
    check_supported(lctx);

    llama_kv_cache & kv = cache_of(lctx);
    if (!kv.kvc) {
        kv.kvc = std::make_shared<retake_kvc>(kv, states_of(lctx));
    }
    return *kv.kvc;
}

retake_kvc * retake_kvc::find(llama_context * lctx) { return cache_of(lctx).kvc.get(); }

uint32_t retake_kvc::n_pos() const { return kv.hparams.n_pos_per_embd() > 1 ? 4 : 1; }

const std::vector<float> * retake_kvc::hadamard_k(int64_t & n) const {
    if (!kv.attn_rot_k) {
        return nullptr;
    }
    // the size that build_input_k_rot() picks
    for (n = 64; kv.n_embd_head_k_all % (2*n) == 0; n *= 2) {}
    return &kv.attn_rot_hadamard.at(n);
}

const std::vector<float> * retake_kvc::hadamard_v(int64_t & n) const {
    if (!kv.attn_rot_v) {
        return nullptr;
    }
    n = 64; // as build_input_v_rot()
    return &kv.attn_rot_hadamard.at(n);
}

//
// checks
//

void retake_kvc::require_open() const {
    if (ph == phase::idle) {
        retake_refuse(RETAKE_KVC_STATE, "no capture is open: call retake_kvc_begin first");
    }
    if (ph == phase::invalid) {
        retake_refuse(RETAKE_KVC_STATE, "the capture became invalid: " + why_invalid);
    }
    if (tokens.empty()) {
        retake_refuse(RETAKE_KVC_STATE, format("no token of sequence %d was decoded since retake_kvc_begin", seq));
    }
}

void retake_kvc::require_queries(int32_t q0, int32_t nq) const {
    if (!want_q) {
        retake_refuse(RETAKE_KVC_STATE, "the capture was opened without RETAKE_KVC_CAPTURE_Q");
    }
    if (!why_no_scores.empty()) {
        retake_refuse(RETAKE_KVC_UNSUPPORTED, why_no_scores);
    }
    require_token_range("query", q0, nq);
    if (q0 < q_first) {
        retake_refuse(RETAKE_KVC_INVALID, format("no query was kept before token %d, but one of token %d is asked for", q_first, q0));
    }
    if (q_row(q0) == q_row(q0 + nq)) {
        retake_refuse(RETAKE_KVC_INVALID, format(
                "no query was kept in tokens [%d, %d) at a stride of %d", q0, q0 + nq, q_stride));
    }
}

void retake_kvc::require_token_range(const char * what, int32_t i0, int32_t n) const {
    if (i0 < 0 || n < 1 || i0 > (int32_t) tokens.size() - n) {
        retake_refuse(RETAKE_KVC_INVALID, format("%s range [%d, %lld) is outside the chunk's %zu tokens",
                what, i0, (long long) i0 + n, tokens.size()));
    }
}

//
// begin, scores, values
//

void retake_kvc::begin(llama_seq_id seq, int32_t n_max, int32_t q_first, int32_t q_stride, uint32_t flags) {
    if (ph != phase::idle) {
        retake_refuse(RETAKE_KVC_STATE, format("a capture of sequence %d is open: commit or abort it first", this->seq));
    }
    if (seq < 0 || (uint32_t) seq >= kv.n_seq_max) {
        retake_refuse(RETAKE_KVC_INVALID, format("sequence %d is outside [0, %u)", seq, kv.n_seq_max));
    }
    if (n_max < 1 || (uint32_t) n_max > kv.get_size()) {
        retake_refuse(RETAKE_KVC_INVALID, format("n_max = %d is outside [1, %u], the cells of the cache", n_max, kv.get_size()));
    }
    if (q_first < 0 || q_first >= n_max) {
        retake_refuse(RETAKE_KVC_INVALID, format("q_first = %d is outside [0, %d)", q_first, n_max));
    }
    if (q_stride < 1) {
        retake_refuse(RETAKE_KVC_INVALID, format("q_stride = %d is below 1", q_stride));
    }
    if (flags & ~(RETAKE_KVC_CAPTURE_Q | RETAKE_KVC_Q_F32 | RETAKE_KVC_SCHEDULED | RETAKE_KVC_NO_OUT_PROD)) {
        retake_refuse(RETAKE_KVC_INVALID, format("unknown flags 0x%x", flags));
    }

    if (flags & RETAKE_KVC_CAPTURE_Q) {
        const bool f32 = (flags & RETAKE_KVC_Q_F32) || kv.type_k() == GGML_TYPE_F32;
        alloc_queries((n_max - 1 - q_first)/q_stride + 1, f32 ? GGML_TYPE_F32 : GGML_TYPE_F16);
    }

    this->seq      = seq;
    this->n_max    = n_max;
    this->q_first  = q_first;
    this->q_stride = q_stride;
    want_q      = flags & RETAKE_KVC_CAPTURE_Q;
    scheduled   = flags & RETAKE_KVC_SCHEDULED;
    no_out_prod = flags & RETAKE_KVC_NO_OUT_PROD;
    ph     = phase::open;
    tokens.clear();
    tokens.reserve(n_max);
    why_invalid.clear();
    why_no_scores.clear();
}

retake_kvc::score_request::window retake_kvc::window_of(int32_t q0, int32_t nq) const {
    const int32_t row0 = q_row(q0), n_rows = q_row(q0 + nq) - row0;
    return { row0, n_rows, (double) nq/n_rows };
}

std::vector<int32_t> retake_kvc::query_positions(int32_t r0, int32_t n) const {
    std::vector<int32_t> pos;
    for (uint32_t p = 0; p < n_pos(); ++p) {
        for (int32_t r = r0; r < r0 + n; ++r) {
            pos.push_back(tokens[q_first + (size_t) r*q_stride].pos[p]);
        }
    }
    return pos;
}

void retake_kvc::scores(llama_context * lctx, float * out, int32_t n_windows, const int32_t * edge, int32_t k0, int32_t nk, uint32_t flags) {
    require_open();
    if (!out || !edge) {
        retake_refuse(RETAKE_KVC_INVALID, out ? "edge is NULL" : "out is NULL");
    }
    if (flags & ~RETAKE_KVC_UNROTATE) {
        retake_refuse(RETAKE_KVC_INVALID, format("unknown flags 0x%x", flags));
    }
    if (n_windows < 1 || n_windows > (int32_t) tokens.size()) {
        retake_refuse(RETAKE_KVC_INVALID, format("n_windows = %d is outside [1, %zu], the chunk's tokens", n_windows, tokens.size()));
    }
    for (int32_t w = 0; w < n_windows; ++w) {
        if (edge[w] < 0 || edge[w + 1] <= edge[w]) {
            retake_refuse(RETAKE_KVC_INVALID, format("query range [%d, %d) of window %d is empty or negative", edge[w], edge[w + 1], w));
        }
        require_queries(edge[w], edge[w + 1] - edge[w]);
    }
    require_token_range("key", k0, nk);

    score_request req;
    for (int32_t w = 0; w < n_windows; ++w) {
        req.windows.push_back(window_of(edge[w], edge[w + 1] - edge[w]));
    }
    req.unrotate = flags & RETAKE_KVC_UNROTATE;
    req.out      = out;
    for (int32_t i = k0; i < k0 + nk; ++i) {
        req.k_rows.push_back(row_of(tokens[i]));
    }
    for (uint32_t p = 0; p < 4; ++p) {
        for (int32_t i = k0; i < k0 + nk; ++i) {
            req.k_pos.push_back(tokens[i].pos[p]);
        }
    }

    const int64_t t0 = ggml_time_us();
    retake_compute_scores(*this, lctx, req);
    scores_us = ggml_time_us() - t0;

    require_finite(out, n_layer(), nk, "the score");
}

void retake_kvc::attention(llama_context * lctx, float * out, int32_t q0, int32_t nq, int32_t c0, int32_t nc) {
    require_open();
    if (!out) {
        retake_refuse(RETAKE_KVC_INVALID, "out is NULL");
    }
    require_queries(q0, nq);

    const uint32_t strm = kv.seq_to_stream[seq];
    const auto & order = kv.v_cells[strm].seq_pos_get(seq);
    if (c0 < 0 || nc < 1 || c0 > (int64_t) order.size() - nc) {
        retake_refuse(RETAKE_KVC_INVALID, format("cell range [%d, %lld) is outside the sequence's %zu cells",
                c0, (long long) c0 + nc, order.size()));
    }

    score_request req;
    req.windows = { window_of(q0, nq) };
    req.out = out;
    auto it = std::next(order.begin(), c0);
    for (int32_t i = 0; i < nc; ++i, ++it) {
        req.k_rows.push_back((int32_t) (strm*kv.get_size() + it->second));
        req.k_bias.push_back(kv.v_cells[strm].ext_get(it->second).bias);
    }

    const int64_t t0 = ggml_time_us();
    retake_compute_scores(*this, lctx, req);
    scores_us = ggml_time_us() - t0;

    require_finite(out, n_layer(), nc, "the attention");
}

void retake_kvc::values(llama_context * lctx, float * out, const float * projection, int32_t dim, int32_t k0, int32_t nk) {
    require_open();
    const int64_t n_embd_v = query(RETAKE_KVC_N_EMBD_V);
    if (!out) {
        retake_refuse(RETAKE_KVC_INVALID, "out is NULL");
    }
    if (n_embd_v == 0) {
        retake_refuse(RETAKE_KVC_UNSUPPORTED, "the layers' value rows differ in size");
    }
    if (projection ? dim < 1 : dim != n_embd_v) {
        retake_refuse(RETAKE_KVC_INVALID, format("dim = %d: must be positive, and %lld without a projection", dim, (long long) n_embd_v));
    }
    require_token_range("key", k0, nk);

    std::vector<int32_t> rows;
    for (int32_t i = k0; i < k0 + nk; ++i) {
        rows.push_back(row_of(tokens[i]));
    }

    const int64_t t0 = ggml_time_us();
    retake_compute_values(*this, lctx, rows, projection, dim, out);
    scores_us = ggml_time_us() - t0;

    require_finite(out, n_layer(), (size_t) nk*dim, "the value");
}

//
// running a graph
//

std::vector<uint32_t> retake_kvc::layers_on_host(const llama_context * lctx, bool host) const {
    std::vector<uint32_t> res;
    for (uint32_t l = 0; l < n_layer(); ++l) {
        const auto cur = layer(l);
        const ggml_tensor * factors = kv.model.get_rope_factors(lctx->get_cparams(), cur.il);
        const bool is_host = !scheduled && retake::on_host(cur.k) && retake::on_host(cur.v) && (!factors || retake::on_host(factors));
        if (is_host == host) {
            res.push_back(l);
        }
    }
    return res;
}

void retake_kvc::run_on_host(llama_context * lctx, size_t n_threads_max, size_t n,
        const std::function<void(retake::host_worker &, size_t)> & fn) {
    lctx->synchronize();

    const int n_threads = (int) std::min<size_t>(lctx->get_cparams().n_threads_batch, std::max<size_t>(1, n_threads_max));
    const auto stop = [lctx] { return lctx->abort_callback && lctx->abort_callback(lctx->abort_callback_data); };

    retake::run_on_host(n_threads, n, stop, fn);
}

bool retake_kvc::has_job(const llama_kv_cache * kv) {
    return kv->kvc && kv->kvc->job;
}

void retake_kvc::run_job(llama_kv_cache & kv, llama_context * lctx) {
    if (has_job(&kv)) {
        kv.kvc->job(lctx);
    }
}

void retake_kvc::at_once(llama_context * lctx, const std::function<void(llama_context *)> & fn) {
    if (layers_on_host(lctx, false).empty()) {
        fn(lctx);
    } else {
        run(lctx, fn);
    }
}

void retake_kvc::run(llama_context * lctx, std::function<void(llama_context *)> fn) {
    if (in_job) {
        fn(lctx);
        return;
    }
    lctx->synchronize();

    // no exception passes through upstream's code: its graphs must be reserved again either way
    bool done = false;
    std::exception_ptr error;
    job = [&](llama_context * lctx) {
        done = in_job = true;
        try {
            fn(lctx);
        } catch (...) {
            error = std::current_exception();
        }
        in_job = false;
    };
    try {
        lctx->memory_update(false);
    } catch (...) {
        error = error ? error : std::current_exception();
    }
    job = nullptr;

    if (error) {
        std::rethrow_exception(error);
    }
    if (!done) {
        retake_refuse(RETAKE_KVC_COMPUTE, "a pending update of the cache failed first");
    }
}

//
// queries about the state
//

int64_t retake_kvc::query(int32_t key) const {
    switch (key) {
        case RETAKE_KVC_N_LAYER:   return n_layer();
        case RETAKE_KVC_CAPTURE:   return (int64_t) ph;
        case RETAKE_KVC_N_TOKENS:  return (int64_t) tokens.size();
        case RETAKE_KVC_N_QUERIES: return want_q ? q_row((int32_t) tokens.size()) : 0;
        case RETAKE_KVC_N_EMBD_V: {
            const int64_t n = kv.hparams.n_embd_v_gqa(kv.layers[0].il);
            for (const auto & layer : kv.layers) {
                if ((int64_t) kv.hparams.n_embd_v_gqa(layer.il) != n) {
                    return 0;
                }
            }
            return n;
        }
        case RETAKE_KVC_N_POS:        return n_pos();
        case RETAKE_KVC_N_CELLS:      return kv.get_size();
        case RETAKE_KVC_N_CELLS_USED: return kv.v_cells[kv.seq_to_stream[ph == phase::idle ? 0 : seq]].get_used();
        case RETAKE_KVC_Q_BYTES: {
            int64_t n = 0;
            for (const auto & [ctx, buf] : q_bufs) {
                n += (int64_t) ggml_backend_buffer_get_size(buf.get());
            }
            return n;
        }
        case RETAKE_KVC_SCORES_US: return scores_us;
        case RETAKE_KVC_COMMIT_US: return commit_us;
        default: retake_refuse(RETAKE_KVC_INVALID, format("unknown key %d", key));
    }
}
