// The state of a capture, and the hooks that llama.cpp's files call (see the patches).
#pragma once

#include "retake-kvc.h"

#include "llama-kv-cache.h"
#include "llama-memory-recurrent.h"

#include <functional>
#include <string>
#include <utility>
#include <vector>

// A refusal on its way to the C boundary: a status of retake_kvc_status and one sentence.
struct retake_error {
    int32_t     status;
    std::string reason;
};

[[noreturn]] inline void retake_refuse(int32_t status, std::string reason) {
    throw retake_error { status, std::move(reason) };
}

namespace retake { struct host_worker; }

struct retake_kvc {
    enum class phase { idle, open, invalid };

    // one decoded token of the chunk
    struct token {
        uint32_t  strm;
        uint32_t  cell;
        llama_pos pos[4]; // M-RoPE: t, y, x, extra; otherwise pos[0] alone
    };

    // what a score graph needs; rows are global rows of the cache tensors
    struct score_request {
        // queries whose sum is wanted apart; each window begins where the one before it ends
        struct window {
            int32_t row0, n_rows; // rows of the query buffer
            double  scale;
        };

        std::vector<window>    windows;
        bool                   unrotate = false;
        std::vector<int32_t>   k_rows;
        std::vector<llama_pos> k_pos; // [4][nk], only for unrotate
        std::vector<float>     k_bias; // [nk], or empty: none
        float *                out = nullptr; // [n_layer][nk]
    };

    struct commit_request {
        int32_t         n_keep       = 0;
        const int32_t * keep         = nullptr;
        const int32_t * delta        = nullptr;
        uint32_t        section_mask = 0;

        std::vector<int32_t> src_rows; // [n_tokens] row of each token
        std::vector<int64_t> dst_rows; // [n_keep]
    };

    retake_kvc(llama_kv_cache & kv, llama_memory_recurrent * states) : kv(kv), states(states) {}

    //
    // hooks
    //

    // an input for every attention graph over a plain cache, alone or beside recurrent states:
    // records which tokens went where
    static llm_graph_input_ptr build_input(
            ggml_context * ctx0, const llama_ubatch & ubatch, const llama_kv_cache_context * mctx);

    // store this layer's queries, if the graph's input asks for it
    static void build_capture(
            ggml_context * ctx0, ggml_cgraph * gf, llm_graph_result * res,
            ggml_tensor * q_cur, const ggml_tensor * kq_b, const ggml_tensor * sinks, float kq_scale, int il);

    // the cells of `seq` (-1: any) are about to change; gone: none of them survives
    static void invalidate(llama_kv_cache & kv, llama_seq_id seq, const char * what, bool gone);

    // a graph of ours waits for llama_context::memory_update
    static bool has_job(const llama_kv_cache * kv);
    static void run_job(llama_kv_cache & kv, llama_context * lctx);

    //
    // the API, without the C boundary: throw retake_error
    //

    static retake_kvc & get (llama_context * lctx); // creates the state; refuses unsupported memory
    static retake_kvc * find(llama_context * lctx); // null if nothing was ever captured
    static llama_kv_cache & cache_of(llama_context * lctx);
    static llama_memory_recurrent * states_of(llama_context * lctx); // null without recurrent layers
    static void check_supported(llama_context * lctx);

    void begin(llama_seq_id seq, int32_t n_max, int32_t q_first, int32_t q_stride, uint32_t flags);
    void scores(llama_context * lctx, float * out, int32_t n_windows, const int32_t * edge, int32_t k0, int32_t nk, uint32_t flags);
    void attention(llama_context * lctx, float * out, int32_t q0, int32_t nq, int32_t c0, int32_t nc);
    void values(llama_context * lctx, float * out, const float * projection, int32_t dim, int32_t k0, int32_t nk);
    void commit(llama_context * lctx, int32_t n_keep, const int32_t * keep, const int32_t * delta,
            uint32_t section_mask, const llama_pos * pos_cell, const float * bias);
    void abort(bool remove_chunk);
    void free_queries();

    int32_t cells(llama_seq_id seq, int32_t n_max, int32_t * cell, llama_pos * pos) const;
    int64_t query(int32_t key) const;

    //
    // state
    //

    llama_kv_cache         & kv;
    llama_memory_recurrent * states; // of a hybrid model's recurrent layers, or null

    phase        ph       = phase::idle;
    llama_seq_id seq      = -1;
    int32_t      n_max    = 0;
    int32_t      q_first  = 0; // the first token whose query is kept
    int32_t      q_stride = 1;
    bool         want_q   = false;
    bool         scheduled   = false; // all graphs on the scheduler
    bool         no_out_prod = false; // as on a backend without an outer product
    std::string  why_invalid;

    std::vector<token> tokens;

    // query buffers, one tensor a cache layer: [n_embd_head_k*n_head, n_rows + 1]; the last row
    // takes the queries that are not kept, so that the graph is the same for every ubatch
    std::vector<std::pair<ggml_context_ptr, ggml_backend_buffer_ptr>> q_bufs;
    std::vector<ggml_tensor *> q;        // [n_layer]
    std::vector<float>         kq_scale; // [n_layer], recorded when the graph is built
    int32_t                    q_rows = 0;
    ggml_type                  q_type = GGML_TYPE_COUNT;
    uint64_t                   generation = 0; // of the buffers: graphs of an older one are not reused
    std::string                why_no_scores;  // in this capture: a layer's attention is not a plain softmax

    std::function<void(llama_context *)> job;
    bool in_job = false;

    int64_t scores_us = 0;
    int64_t commit_us = 0;

    // 0 while no queries are to be captured
    uint64_t capture_generation() const { return ph == phase::open && want_q ? generation : 0; }

    uint32_t n_layer() const { return (uint32_t) kv.layers.size(); }
    uint32_t n_pos()   const;

    // called once per ubatch, in order; idxs: destination rows or null
    void record(const llama_kv_cache::slot_info & sinfo, const llama_ubatch & ubatch, int64_t * idxs);

    // private parts of the cache, for the graphs
    struct layer_info {
        uint32_t      il;
        ggml_tensor * k;
        ggml_tensor * v;
    };
    layer_info layer(uint32_t l) const { return { kv.layers[l].il, kv.layers[l].k, kv.layers[l].v }; }

    const llama_model   & model()   const { return kv.model; }
    const llama_hparams & hparams() const { return kv.hparams; }
    bool v_trans() const { return kv.v_trans; }
    const std::vector<float> * hadamard_k(int64_t & n) const;
    const std::vector<float> * hadamard_v(int64_t & n) const;

    // positions of n kept queries from row r0 on: [n_pos][n]
    std::vector<int32_t> query_positions(int32_t r0, int32_t n) const;

    // the layers whose graphs run on threads of their own, or all others
    std::vector<uint32_t> layers_on_host(const llama_context * lctx, bool host) const;

    // fn(worker, i) for i in [0, n) on the context's threads, at most n_threads_max (and at least one)
    void run_on_host(llama_context * lctx, size_t n_threads_max, size_t n,
            const std::function<void(retake::host_worker &, size_t)> & fn);

    // fn, in which any number of graphs run on the scheduler in one memory_update
    void at_once(llama_context * lctx, const std::function<void(llama_context *)> & fn);

    // run fn on the context's scheduler, inside llama_context::memory_update
    void run(llama_context * lctx, std::function<void(llama_context *)> fn);

    static const llama_kv_cache::slot_info & sinfo_of(const llama_kv_cache_context * mctx) {
        return mctx->sinfos[mctx->i_cur];
    }
    static llama_kv_cache * kv_of(const llama_kv_cache_context * mctx) { return mctx->kv; }
    static retake_kvc * of(const llama_kv_cache * kv) { return kv ? kv->kvc.get() : nullptr; }

private:
    void alloc_queries(int32_t n_rows, ggml_type type);
    void require_open() const;
    void require_queries(int32_t q0, int32_t nq) const;
    void require_token_range(const char * what, int32_t i0, int32_t n) const;
    void require_own_cells() const;
    score_request::window window_of(int32_t q0, int32_t nq) const;
    // kept queries of the tokens before token i
    int32_t q_row(int32_t i) const { return i <= q_first ? 0 : (i - q_first + q_stride - 1)/q_stride; }
    int32_t row_of(const token & t) const { return (int32_t) (t.strm*kv.get_size() + t.cell); }

    // metadata only
    std::vector<llama_kv_cell_ext> extents(const commit_request & req) const;
    void write_cells(const std::vector<uint32_t> & order, const std::vector<llama_kv_cell_ext> & ext, const llama_pos * pos_cell);
    void move_states(llama_pos last_pos);
    void zero_cells(uint32_t strm, const std::vector<uint32_t> & idxs);
    void remove_chunk();
    void close() { ph = phase::idle; tokens.clear(); why_invalid.clear(); }
};

// the graphs: retake-kvc-scores.cpp and retake-kvc-rows.cpp
void retake_compute_scores(retake_kvc & kvc, llama_context * lctx, const retake_kvc::score_request & req);
void retake_compute_commit(retake_kvc & kvc, llama_context * lctx, const retake_kvc::commit_request & req);
void retake_compute_values(retake_kvc & kvc, llama_context * lctx, const std::vector<int32_t> & v_rows,
        const float * projection, int32_t dim, float * out);
