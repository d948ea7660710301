// Compression of a llama.cpp KV cache, one chunk at a time: the public C API.
//
// A chunk is every token of one sequence decoded between begin and commit (or abort). Its queries
// are kept while it is decoded; afterwards its tokens can be scored by the attention they receive,
// and each layer can keep its own subset of the chunk's K/V rows.
//
//     retake_kvc_begin(ctx, seq, n_max, 0, 1, RETAKE_KVC_CAPTURE_Q);
//     llama_decode(ctx, ...);                       // any number of batches and ubatches
//     retake_kvc_scores(ctx, scores, 1, (int32_t[]) { 0, n }, 0, n, 0);
//     retake_kvc_commit(ctx, n_keep, keep, NULL, 0, pos_cell);
//
// Every call returns RETAKE_KVC_OK or a negative status, and leaves its reason for
// retake_kvc_last_error() (per thread). Nothing aborts the process on a bad argument. A refused call
// changes nothing. Calls on one context must not run at the same time, nor beside llama_decode
// on it; the state belongs to the context's memory and dies with it.
//
// Arrays are dense, row-major, and owned by the caller. "layer" counts the layers of the KV cache
// (retake_kvc_query RETAKE_KVC_N_LAYER), in ascending order. "token" i is the i-th token decoded
// since begin.
//
// A hybrid model's cache is that of its attention layers; its recurrent states stream on. A commit
// moves their position along with the chunk's last cell. What removes a chunk leaves the states
// where they are after it: they have no way back but llama_state_seq_set_data of an earlier state.

#ifndef RETAKE_KVC_H
#define RETAKE_KVC_H

#include "llama.h"

#include <stdbool.h>
#include <stdint.h>

#define RETAKE_ABI_VERSION 4

#ifdef __cplusplus
extern "C" {
#endif

enum retake_kvc_status {
    RETAKE_KVC_OK          =  0,
    RETAKE_KVC_INVALID     = -1, // an argument is out of range
    RETAKE_KVC_UNSUPPORTED = -2, // this model or KV cache cannot be compressed
    RETAKE_KVC_STATE       = -3, // no capture is open, one is open already, or it became invalid
    RETAKE_KVC_SHARED      = -4, // a captured cell also belongs to another sequence
    RETAKE_KVC_NOT_FINITE  = -5, // a result is NaN or infinite: the chunk's K or Q is broken
    RETAKE_KVC_MEMORY      = -6, // a buffer could not be allocated; nothing was changed
    RETAKE_KVC_COMPUTE     = -7, // the graph failed; the cache was not changed
    RETAKE_KVC_CHUNK_LOST  = -8, // commit failed half way: the whole chunk was removed
    RETAKE_KVC_INTERNAL    = -9, // a bug; the reason says where
};

// flags of retake_kvc_begin
#define RETAKE_KVC_CAPTURE_Q 1u // keep queries: needed by scores and attention
#define RETAKE_KVC_Q_F32     2u // keep them as F32 even where K is narrower (default then: F16)
// for tests, so that every path runs on every backend
#define RETAKE_KVC_SCHEDULED   4u // all graphs on the context's scheduler, also those of host memory
#define RETAKE_KVC_NO_OUT_PROD 8u // sum as on a backend without an outer product

// flags of retake_kvc_scores
#define RETAKE_KVC_UNROTATE  1u // score the vectors as they were before RoPE

enum retake_kvc_key {
    RETAKE_KVC_N_LAYER      = 0,  // layers of the KV cache
    RETAKE_KVC_CAPTURE      = 1,  // 0 idle, 1 open, 2 became invalid
    RETAKE_KVC_N_TOKENS     = 2,  // tokens decoded since begin
    RETAKE_KVC_N_QUERIES    = 3,  // of them, tokens whose query was kept
    RETAKE_KVC_N_EMBD_V     = 4,  // floats of one value row, all KV heads (0: differs per layer)
    RETAKE_KVC_N_POS        = 5,  // positions a token: 1, or 4 with M-RoPE
    RETAKE_KVC_N_CELLS      = 6,  // cells of the cache, per stream
    RETAKE_KVC_N_CELLS_USED = 7,  // of them, in use in the stream of `seq` 0 or of the capture
    RETAKE_KVC_Q_BYTES      = 8,  // bytes held by the query buffers
    RETAKE_KVC_SCORES_US    = 9,  // time of the last scores, attention or values call
    RETAKE_KVC_COMMIT_US    = 10, // time of the last commit
};

LLAMA_API int32_t retake_abi_version(void);

// The reason of the last refusal in this thread; "" if the last call succeeded. Valid until the
// next call in this thread.
LLAMA_API const char * retake_kvc_last_error(void);

// Can this context's cache be compressed? OK, or UNSUPPORTED with the reason. Starts nothing.
LLAMA_API int32_t retake_kvc_supported(struct llama_context * ctx);

// The value of `key` (retake_kvc_key), or a negative status.
LLAMA_API int64_t retake_kvc_query(struct llama_context * ctx, int32_t key);

// Open a capture for `seq`: at most n_max tokens; from token q_first on (0: all), the query of every
// q_stride-th is kept, token q_first's always. Decoding more than n_max tokens makes the capture
// invalid, not the decode.
LLAMA_API int32_t retake_kvc_begin(
        struct llama_context * ctx,
                llama_seq_id   seq,
                     int32_t   n_max,
                     int32_t   q_first,
                     int32_t   q_stride,
                    uint32_t   flags);

// out[n_layer][nk]: the attention that token k0 + j receives in the window in which it receives
// most. Window w holds the queries of tokens edge[w] .. edge[w + 1] - 1 (edge[n_windows + 1], strictly
// ascending). In a window it is the mean over the query heads of the sum over queries, softmax over
// tokens k0 .. k0 + nk - 1 alone (no causal mask, no older keys). With a stride the sum is scaled by
// tokens / queries kept in the window, so that with one window a layer's scores add up to its
// tokens. NOT_FINITE still fills `out`.
LLAMA_API int32_t retake_kvc_scores(
        struct llama_context * ctx,
                       float * out,
                     int32_t   n_windows,
               const int32_t * edge,
                     int32_t   k0,
                     int32_t   nk,
                    uint32_t   flags);

// As scores with one window, the nq tokens from q0 on, but over cells of the whole sequence, biases
// included: the nc cells from c0 on, in the order of retake_kvc_cells. out[n_layer][nc].
LLAMA_API int32_t retake_kvc_attention(
        struct llama_context * ctx,
                       float * out,
                     int32_t   q0,
                     int32_t   nq,
                     int32_t   c0,
                     int32_t   nc);

// The cells of `seq` by ascending (position, cell): the order in which commits wrote them. Writes
// at most n_max entries into cell and pos (each may be NULL); returns the number of cells.
LLAMA_API int32_t retake_kvc_cells(
        struct llama_context * ctx,
                llama_seq_id   seq,
                     int32_t   n_max,
                     int32_t * cell,
                   llama_pos * pos);

// out[n_layer][nk][dim]: value rows (all KV heads concatenated) of tokens k0 .. k0 + nk - 1, times
// projection[dim][n_embd_v]; without a projection (NULL) dim must be n_embd_v and the rows come as
// they are. Needs no captured queries.
LLAMA_API int32_t retake_kvc_values(
        struct llama_context * ctx,
                       float * out,
                 const float * projection,
                     int32_t   dim,
                     int32_t   k0,
                     int32_t   nk);

// retake_kvc_scores into `scores` and retake_kvc_values into `values`, at the cost of one: layers that
// share the context's scheduler update its memory and reserve its graphs once for both.
LLAMA_API int32_t retake_kvc_measure(
        struct llama_context * ctx,
                       float * scores,
                     int32_t   n_windows,
               const int32_t * edge,
                       float * values,
                 const float * projection,
                     int32_t   dim,
                     int32_t   k0,
                     int32_t   nk,
                    uint32_t   flags);

// Keep n_keep tokens of the chunk in each layer, free the other cells, close the capture.
//   keep[n_layer][n_keep]   token indices, strictly ascending within a layer
//   delta[n_layer][n_keep]  position change of the kept keys, or NULL: keys stay as they are
//   section_mask            axes that delta applies to, bit 0 = time, 1 = height, 2 = width,
//                           3 = extra; 1 for models with one position; ignored without delta
//   pos_cell[n_keep]        position of each kept cell, non-decreasing. It decides what later
//                           tokens may see: keep it below the next token's position
//   bias[n_keep]            added to the attention logits of each kept cell, in all layers, or
//                           NULL: 0. ln(n) lets a cell weigh as much as n cells like it
// n_keep above the chunk's size is allowed without delta and keeps everything (keep, pos_cell and
// bias are then not read). The kept rows move to the chunk's lowest cells, in order.
LLAMA_API int32_t retake_kvc_commit(
        struct llama_context * ctx,
                     int32_t   n_keep,
               const int32_t * keep,
               const int32_t * delta,
                    uint32_t   section_mask,
             const llama_pos * pos_cell,
                 const float * bias);

// Close the capture, valid or not; remove_chunk also removes the tokens decoded since begin. OK when
// none is open. The query buffers stay for the next begin: retake_kvc_free returns them.
LLAMA_API int32_t retake_kvc_abort(struct llama_context * ctx, bool remove_chunk);
LLAMA_API int32_t retake_kvc_free (struct llama_context * ctx);

// Selection on the host, one thread, no context: retake-select.h says how it computes. Vectors are
// directions: finite, of length 1 (or 0).

// Extend each layer's seeds to n_keep tokens, every new one farthest from all chosen so far.
//   units[n_layer][n][d]          the tokens
//   last[n_layer][n]              not 0: taken only after all others
//   memory[n_layer][n_memory][d]  directions that count as chosen already; NULL if n_memory is 0
//   weights[n_layer][n]           factors of the squared distances, above 0; NULL: 1
//   chosen[n_layer][n_keep]       in: n_seeds distinct tokens a layer, first; out: all
// Ties go to the lowest index.
LLAMA_API int32_t retake_select_farthest(
                     int32_t   n_layer,
                     int32_t   n,
                     int32_t   d,
                 const float * units,
               const uint8_t * last,
                     int32_t   n_memory,
                 const float * memory,
                 const float * weights,
                     int32_t   n_seeds,
                     int32_t   n_keep,
                     int32_t * chosen);

// counts[n_kept]: how many of the tokens units[n][d] are nearest to each of kept[n_kept] (strictly
// ascending), itself included. Ties go to the lowest index.
LLAMA_API int32_t retake_select_counts(
                     int32_t   n,
                     int32_t   d,
                 const float * units,
                     int32_t   n_kept,
               const int32_t * kept,
                       float * counts);

#ifdef __cplusplus
}
#endif

#endif // RETAKE_KVC_H
