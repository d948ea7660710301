// The calls of retake-kvc.h: checks first, then the graphs, then the cells.

#include "retake-kvc-impl.h"

#include "llama-context.h"
#include "llama-impl.h"
#include "llama-model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>

namespace {

thread_local std::string last_error;

[[noreturn]] void refuse(int32_t status, std::string reason) {
    throw retake_error { status, std::move(reason) };
}

// Run fn; no exception crosses the C boundary.
template <typename F>
int64_t guarded(F fn) {
    try {
        last_error.clear();
        return fn();
    } catch (const retake_error & err) {
        last_error = err.reason;
        return err.status;
    } catch (const std::bad_alloc &) {
        last_error = "out of host memory";
        return RETAKE_KVC_MEMORY;
    } catch (const std::exception & err) {
        last_error = err.what();
        return RETAKE_KVC_INTERNAL;
    }
}

template <typename F>
int32_t status_of(F fn) {
    return (int32_t) guarded([&] { fn(); return (int64_t) RETAKE_KVC_OK; });
}

llama_kv_cache & cache_of(llama_context * lctx) {
    if (!lctx) {
        refuse(RETAKE_KVC_INVALID, "ctx is NULL");
    }
    auto * kv = dynamic_cast<llama_kv_cache *>(lctx->get_memory());
    if (!kv) {
        refuse(RETAKE_KVC_UNSUPPORTED,
                "this model's memory is not a plain KV cache (hybrid, recurrent, sliding-window or MLA memory, or none)");
    }
    return *kv;
}

void require_finite(const float * x, size_t n_layer, size_t n_row, const char * what) {
    for (size_t i = 0; i < n_layer*n_row; ++i) {
        if (!std::isfinite(x[i])) {
            refuse(RETAKE_KVC_NOT_FINITE, format("%s of layer %zu, entry %zu, is not finite", what, i/n_row, i%n_row));
        }
    }
}

} // namespace

//
// what is supported
//

void retake_kvc::check_supported(llama_context * lctx) {
    const llama_kv_cache & kv      = cache_of(lctx);
    const llama_hparams  & hparams = kv.hparams;

    const auto no = [](const char * reason) { refuse(RETAKE_KVC_UNSUPPORTED, reason); };

    if (kv.other)                                   { no("the KV cache shares its cells with another context"); }
    if (kv.swa_type != LLAMA_SWA_TYPE_NONE)         { no("the model uses sliding-window attention"); }
    if (hparams.is_mla())                           { no("the model uses multi-head latent attention"); }
    if (hparams.use_alibi)                          { no("the model uses ALiBi"); }
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
        kv.kvc = std::make_shared<retake_kvc>(kv);
    }
    return *kv.kvc;
}

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
        refuse(RETAKE_KVC_STATE, "no capture is open: call retake_kvc_begin first");
    }
    if (ph == phase::invalid) {
        refuse(RETAKE_KVC_STATE, "the capture became invalid: " + why_invalid);
    }
    if (tokens.empty()) {
        refuse(RETAKE_KVC_STATE, format("no token of sequence %d was decoded since retake_kvc_begin", seq));
    }
}

void retake_kvc::require_queries(int32_t q0, int32_t nq) const {
    if (!want_q) {
        refuse(RETAKE_KVC_STATE, "the capture was opened without RETAKE_KVC_CAPTURE_Q");
    }
    if (!why_no_scores.empty()) {
        refuse(RETAKE_KVC_UNSUPPORTED, why_no_scores);
    }
    require_token_range("query", q0, nq);
    if ((q0 + q_stride - 1)/q_stride*q_stride >= q0 + nq) {
        refuse(RETAKE_KVC_INVALID, format(
                "no query was kept in tokens [%d, %d) at a stride of %d", q0, q0 + nq, q_stride));
    }
}

void retake_kvc::require_token_range(const char * what, int32_t i0, int32_t n) const {
    if (i0 < 0 || n < 1 || i0 > (int32_t) tokens.size() - n) {
        refuse(RETAKE_KVC_INVALID, format("%s range [%d, %lld) is outside the chunk's %zu tokens",
                what, i0, (long long) i0 + n, tokens.size()));
    }
}

void retake_kvc::require_own_cells() const {
    for (const auto & t : tokens) {
        const auto & cells = kv.v_cells[t.strm];
        if (cells.is_empty(t.cell) || !cells.seq_has(t.cell, seq) || cells.pos_get(t.cell) != t.pos[0]) {
            refuse(RETAKE_KVC_STATE, format("cell %u no longer holds the token it was captured with", t.cell));
        }
        if (cells.seq_count(t.cell) != 1) {
            refuse(RETAKE_KVC_SHARED, format("cell %u also belongs to a sequence other than %d", t.cell, seq));
        }
    }
}

//
// begin, scores, values
//

void retake_kvc::begin(llama_seq_id seq, int32_t n_max, int32_t q_stride, uint32_t flags) {
    if (ph != phase::idle) {
        refuse(RETAKE_KVC_STATE, format("a capture of sequence %d is open: commit or abort it first", this->seq));
    }
    if (seq < 0 || (uint32_t) seq >= kv.n_seq_max) {
        refuse(RETAKE_KVC_INVALID, format("sequence %d is outside [0, %u)", seq, kv.n_seq_max));
    }
    if (n_max < 1 || (uint32_t) n_max > kv.get_size()) {
        refuse(RETAKE_KVC_INVALID, format("n_max = %d is outside [1, %u], the cells of the cache", n_max, kv.get_size()));
    }
    if (q_stride < 1) {
        refuse(RETAKE_KVC_INVALID, format("q_stride = %d is below 1", q_stride));
    }
    if (flags & ~(RETAKE_KVC_CAPTURE_Q | RETAKE_KVC_Q_F32)) {
        refuse(RETAKE_KVC_INVALID, format("unknown flags 0x%x", flags));
    }

    if (flags & RETAKE_KVC_CAPTURE_Q) {
        const bool f32 = (flags & RETAKE_KVC_Q_F32) || kv.type_k() == GGML_TYPE_F32;
        alloc_queries((n_max - 1)/q_stride + 1, f32 ? GGML_TYPE_F32 : GGML_TYPE_F16);
    }

    this->seq      = seq;
    this->n_max    = n_max;
    this->q_stride = q_stride;
    want_q = flags & RETAKE_KVC_CAPTURE_Q;
    ph     = phase::open;
    tokens.clear();
    tokens.reserve(n_max);
    why_invalid.clear();
}

void retake_kvc::set_query_window(score_request & req, int32_t q0, int32_t nq) const {
    req.q_row0   = (q0 + q_stride - 1)/q_stride;
    req.n_q_rows = (q0 + nq - 1)/q_stride + 1 - req.q_row0;
    req.scale    = (double) nq/req.n_q_rows;
}

void retake_kvc::scores(llama_context * lctx, float * out, int32_t q0, int32_t nq, int32_t k0, int32_t nk, uint32_t flags) {
    require_open();
    if (!out) {
        refuse(RETAKE_KVC_INVALID, "out is NULL");
    }
    if (flags & ~RETAKE_KVC_UNROTATE) {
        refuse(RETAKE_KVC_INVALID, format("unknown flags 0x%x", flags));
    }
    require_queries(q0, nq);
    require_token_range("key", k0, nk);

    score_request req;
    set_query_window(req, q0, nq);
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
    run(lctx, [&](llama_context * lctx) { retake_compute_scores(*this, lctx, req); });
    scores_us = ggml_time_us() - t0;

    require_finite(out, n_layer(), nk, "the score");
}

void retake_kvc::attention(llama_context * lctx, float * out, int32_t q0, int32_t nq, int32_t c0, int32_t nc) {
    require_open();
    if (!out) {
        refuse(RETAKE_KVC_INVALID, "out is NULL");
    }
    require_queries(q0, nq);

    const uint32_t strm = kv.seq_to_stream[seq];
    const auto & order = kv.v_cells[strm].seq_pos_get(seq);
    if (c0 < 0 || nc < 1 || c0 > (int64_t) order.size() - nc) {
        refuse(RETAKE_KVC_INVALID, format("cell range [%d, %lld) is outside the sequence's %zu cells",
                c0, (long long) c0 + nc, order.size()));
    }

    score_request req;
    set_query_window(req, q0, nq);
    req.out = out;
    auto it = std::next(order.begin(), c0);
    for (int32_t i = 0; i < nc; ++i, ++it) {
        req.k_rows.push_back((int32_t) (strm*kv.get_size() + it->second));
    }

    const int64_t t0 = ggml_time_us();
    run(lctx, [&](llama_context * lctx) { retake_compute_scores(*this, lctx, req); });
    scores_us = ggml_time_us() - t0;

    require_finite(out, n_layer(), nc, "the attention");
}

void retake_kvc::values(llama_context * lctx, float * out, const float * projection, int32_t dim, int32_t k0, int32_t nk) {
    require_open();
    const int64_t n_embd_v = query(RETAKE_KVC_N_EMBD_V);
    if (!out) {
        refuse(RETAKE_KVC_INVALID, "out is NULL");
    }
    if (n_embd_v == 0) {
        refuse(RETAKE_KVC_UNSUPPORTED, "the layers' value rows differ in size");
    }
    if (projection ? dim < 1 : dim != n_embd_v) {
        refuse(RETAKE_KVC_INVALID, format("dim = %d: must be positive, and %lld without a projection", dim, (long long) n_embd_v));
    }
    require_token_range("key", k0, nk);

    std::vector<int32_t> rows;
    for (int32_t i = k0; i < k0 + nk; ++i) {
        rows.push_back(row_of(tokens[i]));
    }

    const int64_t t0 = ggml_time_us();
    run(lctx, [&](llama_context * lctx) { retake_compute_values(*this, lctx, rows, projection, dim, out); });
    scores_us = ggml_time_us() - t0;

    require_finite(out, n_layer(), (size_t) nk*dim, "the value");
}

//
// commit, abort
//

static void require_kept_sets(int32_t n_layer, int32_t n_keep, int32_t n_tokens, const int32_t * keep) {
    for (int32_t l = 0; l < n_layer; ++l) {
        for (int32_t i = 0; i < n_keep; ++i) {
            const int32_t cur  = keep[(size_t) l*n_keep + i];
            const int32_t prev = i > 0 ? keep[(size_t) l*n_keep + i - 1] : -1;
            if (cur < 0 || cur >= n_tokens) {
                refuse(RETAKE_KVC_INVALID, format("keep[%d][%d] = %d is outside the chunk's %d tokens", l, i, cur, n_tokens));
            }
            if (cur <= prev) {
                refuse(RETAKE_KVC_INVALID, format("keep[%d][%d] = %d does not ascend (before it: %d)", l, i, cur, prev));
            }
        }
    }
}

void retake_kvc::commit(llama_context * lctx, int32_t n_keep, const int32_t * keep, const int32_t * delta,
        uint32_t section_mask, const llama_pos * pos_cell) {
    require_open();

    const int32_t n = (int32_t) tokens.size();

    if (n_keep < 1) {
        refuse(RETAKE_KVC_INVALID, format("n_keep = %d: at least one token must stay (abort removes a chunk)", n_keep));
    }
    require_own_cells();
    if (n_keep > n) {
        if (delta) {
            refuse(RETAKE_KVC_INVALID, format("n_keep = %d is above the chunk's %d tokens", n_keep, n));
        }
        close();
        return;
    }
    if (!keep || !pos_cell) {
        refuse(RETAKE_KVC_INVALID, keep ? "pos_cell is NULL" : "keep is NULL");
    }
    if (delta && (section_mask == 0 || section_mask >= (1u << n_pos()))) {
        refuse(RETAKE_KVC_INVALID, format("section_mask 0x%x is outside [1, %u] for this model", section_mask, (1u << n_pos()) - 1));
    }
    for (int32_t i = 0; i < n_keep; ++i) {
        if (pos_cell[i] < 0 || (i > 0 && pos_cell[i] < pos_cell[i - 1])) {
            refuse(RETAKE_KVC_INVALID, format("pos_cell[%d] = %d is negative or below the one before it", i, pos_cell[i]));
        }
    }
    require_kept_sets((int32_t) n_layer(), n_keep, n, keep);

    const int64_t t0 = ggml_time_us();

    // the chunk's lowest cells take the kept rows
    const uint32_t strm = tokens[0].strm;
    std::vector<uint32_t> order;
    commit_request req;
    for (const auto & t : tokens) {
        order.push_back(t.cell);
        req.src_rows.push_back(row_of(t));
    }
    std::sort(order.begin(), order.end());
    for (int32_t i = 0; i < n_keep; ++i) {
        req.dst_rows.push_back((int64_t) strm*kv.get_size() + order[i]);
    }
    req.n_keep       = n_keep;
    req.keep         = keep;
    req.delta        = delta;
    req.section_mask = section_mask;

    const bool rows_stay = n_keep == n && !delta && std::equal(req.src_rows.begin(), req.src_rows.end(), req.dst_rows.begin());
    if (!rows_stay) {
        try {
            run(lctx, [&](llama_context * lctx) { retake_compute_commit(*this, lctx, req); });
        } catch (const retake_error & err) {
            // some layers may be rewritten: the chunk is no longer one thing
            const std::string reason = err.reason;
            remove_chunk();
            close();
            refuse(RETAKE_KVC_CHUNK_LOST, format("commit failed (%s): the %d tokens of the chunk were removed", reason.c_str(), n));
        }
    }
    write_cells(order, n_keep, pos_cell);
    close();

    commit_us = ggml_time_us() - t0;
}

void retake_kvc::write_cells(const std::vector<uint32_t> & order, int32_t n_keep, const llama_pos * pos_cell) {
    const uint32_t strm = tokens[0].strm;
    auto & cells = kv.v_cells[strm];
    auto & head  = kv.v_heads[strm];

    const bool whole = n_keep == (int32_t) order.size();

    for (size_t i = 0; i < order.size(); ++i) {
        const uint32_t cell = order[i];
        // x and y stay where a cell still is one token; elsewhere each layer has its own
        const llama_kv_cell_ext ext = whole ? cells.ext_get(cell) : llama_kv_cell_ext {};
        cells.rm(cell);
        if ((int32_t) i < n_keep) {
            cells.pos_set(cell, pos_cell[i]);
            cells.ext_set(cell, ext);
            cells.seq_add(cell, seq);
        }
    }
    if (!whole) {
        zero_cells(strm, std::vector<uint32_t>(order.begin() + n_keep, order.end()));
        head = std::min(head, order[n_keep]);
    }
}

// A masked cell is still read: NaN left in a freed row would reach every later token.
void retake_kvc::zero_cells(uint32_t strm, const std::vector<uint32_t> & idxs) {
    for (size_t i0 = 0, i1 = 0; i0 < idxs.size(); i0 = i1) {
        for (i1 = i0 + 1; i1 < idxs.size() && idxs[i1] == idxs[i1 - 1] + 1; ++i1) {}
        const size_t n = i1 - i0;

        for (const auto & layer : kv.layers) {
            ggml_tensor * k = layer.k_stream[strm];
            ggml_tensor * v = layer.v_stream[strm];
            llama_clear_tensor_data(k, idxs[i0]*k->nb[1], n*k->nb[1]);
            if (!kv.v_trans) {
                llama_clear_tensor_data(v, idxs[i0]*v->nb[1], n*v->nb[1]);
                continue;
            }
            const size_t size_el = ggml_type_size(v->type);
            for (int64_t j = 0; j < v->ne[0]; ++j) {
                llama_clear_tensor_data(v, (j*v->ne[1] + idxs[i0])*size_el, n*size_el);
            }
        }
    }
}

void retake_kvc::remove_chunk() {
    std::map<uint32_t, std::vector<uint32_t>> freed; // stream -> cells

    for (const auto & t : tokens) {
        auto & cells = kv.v_cells[t.strm];
        if (cells.is_empty(t.cell) || !cells.seq_has(t.cell, seq) || cells.pos_get(t.cell) != t.pos[0]) {
            continue;
        }
        if (cells.seq_rm(t.cell, seq)) {
            freed[t.strm].push_back(t.cell);
        }
    }
    for (auto & [strm, idxs] : freed) {
        std::sort(idxs.begin(), idxs.end());
        zero_cells(strm, idxs);
        kv.v_heads[strm] = std::min(kv.v_heads[strm], idxs.front());
    }
}

void retake_kvc::abort(bool remove) {
    if (ph != phase::idle && remove) {
        remove_chunk();
    }
    close();
}

//
// running a graph
//

bool retake_kvc::has_job(const llama_kv_cache * kv) {
    return kv->kvc && kv->kvc->job;
}

void retake_kvc::run_job(llama_kv_cache & kv, llama_context * lctx) {
    if (has_job(&kv)) {
        kv.kvc->job(lctx);
    }
}

void retake_kvc::run(llama_context * lctx, std::function<void(llama_context *)> fn) {
    lctx->synchronize();

    // no exception passes through upstream's code: its graphs must be reserved again either way
    bool done = false;
    std::exception_ptr error;
    job = [&](llama_context * lctx) {
        done = true;
        try {
            fn(lctx);
        } catch (...) {
            error = std::current_exception();
        }
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
        refuse(RETAKE_KVC_COMPUTE, "a pending update of the cache failed first");
    }
}

//
// queries about the state
//

int32_t retake_kvc::cells(llama_seq_id seq, int32_t n_max, int32_t * cell, llama_pos * pos) const {
    if (seq < 0 || (uint32_t) seq >= kv.n_seq_max) {
        refuse(RETAKE_KVC_INVALID, format("sequence %d is outside [0, %u)", seq, kv.n_seq_max));
    }
    const auto & order = kv.v_cells[kv.seq_to_stream[seq]].seq_pos_get(seq);

    int32_t i = 0;
    for (const auto & [p, c] : order) {
        if (i >= n_max) {
            break;
        }
        if (cell) { cell[i] = (int32_t) c; }
        if (pos)  { pos [i] = p; }
        i++;
    }
    return (int32_t) order.size();
}

int64_t retake_kvc::query(int32_t key) const {
    switch (key) {
        case RETAKE_KVC_N_LAYER:   return n_layer();
        case RETAKE_KVC_CAPTURE:   return (int64_t) ph;
        case RETAKE_KVC_N_TOKENS:  return (int64_t) tokens.size();
        case RETAKE_KVC_N_QUERIES: return want_q && !tokens.empty() ? (int64_t) (tokens.size() - 1)/q_stride + 1 : 0;
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
        default: refuse(RETAKE_KVC_INVALID, format("unknown key %d", key));
    }
}

//
// the C boundary
//

int32_t retake_abi_version(void) { return RETAKE_ABI_VERSION; }

const char * retake_kvc_last_error(void) { return last_error.c_str(); }

int32_t retake_kvc_supported(llama_context * ctx) {
    return status_of([&] { retake_kvc::check_supported(ctx); });
}

int64_t retake_kvc_query(llama_context * ctx, int32_t key) {
    return guarded([&] { return retake_kvc::get(ctx).query(key); });
}

int32_t retake_kvc_begin(llama_context * ctx, llama_seq_id seq, int32_t n_max, int32_t q_stride, uint32_t flags) {
    return status_of([&] { retake_kvc::get(ctx).begin(seq, n_max, q_stride, flags); });
}

int32_t retake_kvc_scores(llama_context * ctx, float * out, int32_t q0, int32_t nq, int32_t k0, int32_t nk, uint32_t flags) {
    return status_of([&] { retake_kvc::get(ctx).scores(ctx, out, q0, nq, k0, nk, flags); });
}

int32_t retake_kvc_attention(llama_context * ctx, float * out, int32_t q0, int32_t nq, int32_t c0, int32_t nc) {
    return status_of([&] { retake_kvc::get(ctx).attention(ctx, out, q0, nq, c0, nc); });
}

int32_t retake_kvc_cells(llama_context * ctx, llama_seq_id seq, int32_t n_max, int32_t * cell, llama_pos * pos) {
    return (int32_t) guarded([&] { return (int64_t) retake_kvc::get(ctx).cells(seq, n_max, cell, pos); });
}

int32_t retake_kvc_values(llama_context * ctx, float * out, const float * projection, int32_t dim, int32_t k0, int32_t nk) {
    return status_of([&] { retake_kvc::get(ctx).values(ctx, out, projection, dim, k0, nk); });
}

int32_t retake_kvc_commit(llama_context * ctx, int32_t n_keep, const int32_t * keep, const int32_t * delta,
        uint32_t section_mask, const llama_pos * pos_cell) {
    return status_of([&] { retake_kvc::get(ctx).commit(ctx, n_keep, keep, delta, section_mask, pos_cell); });
}

int32_t retake_kvc_abort(llama_context * ctx, bool remove_chunk) {
    return status_of([&] { retake_kvc::get(ctx).abort(remove_chunk); });
}

int32_t retake_kvc_free(llama_context * ctx) {
    return status_of([&] {
        auto & kvc = retake_kvc::get(ctx);
        if (kvc.ph != retake_kvc::phase::idle) {
            refuse(RETAKE_KVC_STATE, "a capture is open: commit or abort it first");
        }
        ctx->synchronize();
        kvc.free_queries();
    });
}
