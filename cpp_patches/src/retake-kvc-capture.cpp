// While a chunk is decoded: which token went to which cell, and its query.
//
// The queries go through one set_rows a layer with the destination rows as a graph input, so the
// graph does not depend on the stride or on how full the buffer is, and is reused between ubatches.
// The graph's shape does depend on whether queries are captured at all: the input below answers
// can_reuse() for that, in graphs with and without capture.

#include "retake-kvc-impl.h"

#include "llama-impl.h"
#include "llama-memory-hybrid.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

namespace {

// the attention part of a batch's memory context
const llama_kv_cache_context * attention_of(const llama_memory_context_i * mctx) {
    const auto * hybrid = dynamic_cast<const llama_memory_hybrid_context *>(mctx);
    return hybrid ? hybrid->get_attn() : static_cast<const llama_kv_cache_context *>(mctx);
}

class graph_input_kvc : public llm_graph_input_i {
public:
    explicit graph_input_kvc(const llama_kv_cache_context * mctx) : mctx(mctx) {}

    void set_input(const llama_ubatch * ubatch) override {
        retake_kvc * kvc = retake_kvc::of(retake_kvc::kv_of(mctx));
        if (!kvc) {
            return;
        }
        if (!why_no_scores.empty()) {
            kvc->why_no_scores = why_no_scores;
        }
        // a graph may hold no attention layer at all: then the input was never allocated
        if (!idxs || !idxs->buffer) {
            kvc->record(retake_kvc::sinfo_of(mctx), *ubatch, nullptr);
            return;
        }
        std::vector<int64_t> rows(ubatch->n_tokens);
        kvc->record(retake_kvc::sinfo_of(mctx), *ubatch, rows.data());
        ggml_backend_tensor_set(idxs, rows.data(), 0, rows.size()*sizeof(rows[0]));
    }

    bool can_reuse(const llm_graph_params & params) override {
        mctx = attention_of(params.mctx);

        const retake_kvc * kvc = retake_kvc::of(retake_kvc::kv_of(mctx));

        return generation == (kvc ? kvc->capture_generation() : 0) &&
            (!idxs || idxs->ne[0] == params.ubatch.n_tokens);
    }

    const llama_kv_cache_context * mctx;

    uint64_t      generation = 0;
    ggml_tensor * idxs       = nullptr; // I64 [n_tokens] rows of the query buffers
    std::string   why_no_scores;        // of this graph; each capture that it serves is told anew
};

} // namespace

llm_graph_input_ptr retake_kvc::build_input(
        ggml_context * ctx0, const llama_ubatch & ubatch, const llama_kv_cache_context * mctx) {
    auto inp = std::make_unique<graph_input_kvc>(mctx);

    const retake_kvc * kvc = of(kv_of(mctx));

    inp->generation = kvc ? kvc->capture_generation() : 0;
    if (inp->generation != 0) {
        inp->idxs = ggml_new_tensor_1d(ctx0, GGML_TYPE_I64, ubatch.n_tokens);
        ggml_set_input(inp->idxs);
        ggml_set_name(inp->idxs, "retake_q_idxs");
    }

    return inp;
}

void retake_kvc::build_capture(
        ggml_context * ctx0, ggml_cgraph * gf, llm_graph_result * res,
        ggml_tensor * q_cur, const ggml_tensor * kq_b, const ggml_tensor * sinks, float kq_scale, int il) {
    graph_input_kvc * inp = nullptr;
    for (auto & cur : res->inputs) {
        if (auto * candidate = dynamic_cast<graph_input_kvc *>(cur.get())) {
            inp = candidate;
        }
    }
    if (!inp || !inp->idxs) {
        return;
    }

    retake_kvc & kvc = *of(kv_of(inp->mctx));

    if (kq_b || sinks) {
        inp->why_no_scores = format("layer %d adds a bias or sinks to its attention", il);
        return;
    }

    const auto it = kvc.kv.map_layer_ids.find(il);
    if (it == kvc.kv.map_layer_ids.end()) {
        inp->why_no_scores = format("layer %d has no KV cache of its own", il);
        return;
    }

    ggml_tensor * q = kvc.q[it->second];

    const int64_t n_embd_q = q_cur->ne[0]*q_cur->ne[1];
    if (n_embd_q != q->ne[0] || q_cur->ne[3] != 1 || q_cur->ne[2] != inp->idxs->ne[0]) {
        inp->why_no_scores = format("layer %d has queries of an unexpected shape", il);
        return;
    }

    if (q_cur->nb[0] == ggml_type_size(q_cur->type) && q_cur->nb[1] == ggml_row_size(q_cur->type, q_cur->ne[0])) {
        q_cur = ggml_view_2d(ctx0, q_cur, n_embd_q, q_cur->ne[2], q_cur->nb[2], 0);
    } else {
        q_cur = ggml_cont_2d(ctx0, q_cur, n_embd_q, q_cur->ne[2]);
    }

    kvc.kq_scale[it->second] = kq_scale;

    ggml_build_forward_expand(gf, ggml_set_rows(ctx0, q, q_cur, inp->idxs));
}

void retake_kvc::record(const llama_kv_cache::slot_info & sinfo, const llama_ubatch & ubatch, int64_t * idxs) {
    const uint32_t n_tokens = ubatch.n_tokens;

    if (idxs) {
        std::fill(idxs, idxs + n_tokens, (int64_t) q_rows);
    }
    if (ph == phase::idle) {
        return;
    }

    for (uint32_t i = 0; i < n_tokens; ++i) {
        const uint32_t s  = i / sinfo.size();
        const uint32_t ii = i % sinfo.size();

        token t = { (uint32_t) sinfo.strm[s], sinfo.idxs[s][ii], { 0, 0, 0, 0 } };

        if (ph == phase::invalid) {
            // this cell now belongs to a token of after the capture: forget it, so that
            // abort(remove_chunk) leaves it alone
            tokens.erase(std::remove_if(tokens.begin(), tokens.end(), [&](const token & old) {
                return old.strm == t.strm && old.cell == t.cell;
            }), tokens.end());
            continue;
        }

        const auto * ids = ubatch.seq_id[i];
        if (std::find(ids, ids + ubatch.n_seq_id[i], seq) == ids + ubatch.n_seq_id[i]) {
            continue;
        }
        if ((int32_t) tokens.size() == n_max) {
            ph = phase::invalid;
            why_invalid = format("more than n_max = %d tokens were decoded", n_max);
            continue;
        }

        for (uint32_t p = 0; p < 4; ++p) {
            // llama.cpp expands a text token's position to (p, p, p, 0) under M-RoPE
            t.pos[p] = ubatch.n_pos > 1
                ? (p < ubatch.n_pos ? ubatch.pos[p*n_tokens + i] : 0)
                : (p < 3 ? ubatch.pos[i] : 0);
        }

        const int32_t n = (int32_t) tokens.size();
        if (idxs && n >= q_first && (n - q_first) % q_stride == 0) {
            idxs[i] = (n - q_first)/q_stride;
        }
        tokens.push_back(t);
    }
}

void retake_kvc::invalidate(llama_kv_cache & kv, llama_seq_id seq, const char * what, bool gone) {
    retake_kvc * kvc = kv.kvc.get();

    if (!kvc || kvc->ph == phase::idle || (seq >= 0 && seq != kvc->seq)) {
        return;
    }
    if (kvc->ph == phase::open) {
        kvc->ph = phase::invalid;
        kvc->why_invalid = format("%s changed sequence %d during the capture", what, kvc->seq);
    }
    if (gone) {
        kvc->tokens.clear();
    }
}

void retake_kvc::alloc_queries(int32_t n_rows, ggml_type type) {
    if (!q.empty() && q_type == type && q_rows == n_rows) {
        return;
    }
    free_queries();

    // one buffer for each place that a layer's K lives in
    std::map<ggml_backend_buffer_type_t, std::vector<uint32_t>> layers_of;
    for (uint32_t l = 0; l < n_layer(); ++l) {
        layers_of[ggml_backend_buffer_get_type(kv.layers[l].k->buffer)].push_back(l);
    }

    std::vector<ggml_tensor *> q_new(n_layer());

    for (const auto & [buft, ls] : layers_of) {
        const ggml_init_params params = { ls.size()*ggml_tensor_overhead(), nullptr, true };
        ggml_context_ptr ctx { ggml_init(params) };
        if (!ctx) {
            throw retake_error { RETAKE_KVC_MEMORY, "no memory for the query buffers' headers" };
        }

        size_t n_bytes = 0;
        for (const uint32_t l : ls) {
            const uint32_t il = kv.layers[l].il;
            const int64_t n_embd_q = (int64_t) kv.hparams.n_embd_head_k(il)*kv.hparams.n_head(il);
            q_new[l] = ggml_new_tensor_2d(ctx.get(), type, n_embd_q, n_rows + 1);
            ggml_format_name(q_new[l], "retake_q_l%u", il);
            n_bytes += ggml_nbytes(q_new[l]);
        }

        ggml_backend_buffer_ptr buf { ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), buft) };
        if (!buf) {
            q_bufs.clear();
            throw retake_error { RETAKE_KVC_MEMORY, format(
                    "%.1f MiB for the queries of %d tokens could not be allocated on %s: "
                    "use a larger q_stride or a smaller chunk", n_bytes/1048576.0, n_rows, ggml_backend_buft_name(buft)) };
        }
        ggml_backend_buffer_clear(buf.get(), 0);
        q_bufs.emplace_back(std::move(ctx), std::move(buf));
    }

    q      = std::move(q_new);
    q_rows = n_rows;
    q_type = type;
    kq_scale.assign(n_layer(), 0.0f);
    generation++;
}

void retake_kvc::free_queries() {
    q.clear();
    q_bufs.clear();
    q_rows = 0;
    q_type = GGML_TYPE_COUNT;
    why_no_scores.clear();
}
