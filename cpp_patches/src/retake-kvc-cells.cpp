// The cells of a chunk: commit, abort, and the order of a sequence's cells.

#include "retake-kvc-impl.h"

#include "llama-impl.h"

#include "../ggml/src/ggml-backend-impl.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <map>

void retake_kvc::require_own_cells() const {
    for (const auto & t : tokens) {
        const auto & cells = kv.v_cells[t.strm];
        if (cells.is_empty(t.cell) || !cells.seq_has(t.cell, seq) || cells.pos_get(t.cell) != t.pos[0]) {
            retake_refuse(RETAKE_KVC_STATE, format("cell %u no longer holds the token it was captured with", t.cell));
        }
        if (cells.seq_count(t.cell) != 1) {
            retake_refuse(RETAKE_KVC_SHARED, format("cell %u also belongs to a sequence other than %d", t.cell, seq));
        }
    }
}

static void require_kept_sets(int32_t n_layer, int32_t n_keep, int32_t n_tokens, const int32_t * keep) {
    for (int32_t l = 0; l < n_layer; ++l) {
        for (int32_t i = 0; i < n_keep; ++i) {
            const int32_t cur  = keep[(size_t) l*n_keep + i];
            const int32_t prev = i > 0 ? keep[(size_t) l*n_keep + i - 1] : -1;
            if (cur < 0 || cur >= n_tokens) {
                retake_refuse(RETAKE_KVC_INVALID, format("keep[%d][%d] = %d is outside the chunk's %d tokens", l, i, cur, n_tokens));
            }
            if (cur <= prev) {
                retake_refuse(RETAKE_KVC_INVALID, format("keep[%d][%d] = %d does not ascend (before it: %d)", l, i, cur, prev));
            }
        }
    }
}

void retake_kvc::commit(llama_context * lctx, int32_t n_keep, const int32_t * keep, const int32_t * delta,
        uint32_t section_mask, const llama_pos * pos_cell, const float * bias) {
    require_open();

    const int32_t n = (int32_t) tokens.size();

    if (n_keep < 1) {
        retake_refuse(RETAKE_KVC_INVALID, format("n_keep = %d: at least one token must stay (abort removes a chunk)", n_keep));
    }
    require_own_cells();
    if (n_keep > n) {
        if (delta) {
            retake_refuse(RETAKE_KVC_INVALID, format("n_keep = %d is above the chunk's %d tokens", n_keep, n));
        }
        close();
        return;
    }
    if (!keep || !pos_cell) {
        retake_refuse(RETAKE_KVC_INVALID, keep ? "pos_cell is NULL" : "keep is NULL");
    }
    if (delta && (section_mask == 0 || section_mask >= (1u << n_pos()))) {
        retake_refuse(RETAKE_KVC_INVALID, format("section_mask 0x%x is outside [1, %u] for this model", section_mask, (1u << n_pos()) - 1));
    }
    for (int32_t i = 0; i < n_keep; ++i) {
        if (pos_cell[i] < 0 || (i > 0 && pos_cell[i] < pos_cell[i - 1])) {
            retake_refuse(RETAKE_KVC_INVALID, format("pos_cell[%d] = %d is negative or below the one before it", i, pos_cell[i]));
        }
        if (bias && !std::isfinite(bias[i])) {
            retake_refuse(RETAKE_KVC_INVALID, format("bias[%d] = %f is not finite", i, bias[i]));
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
        std::string failure;
        try {
            retake_compute_commit(*this, lctx, req);
        } catch (const retake_error & err) {
            failure = err.reason;
        } catch (const std::exception & err) {
            failure = std::string("exception: ") + err.what();
        }
        if (!failure.empty()) {
            // some layers may be rewritten: the chunk is no longer one thing
            remove_chunk();
            close();
            retake_refuse(RETAKE_KVC_CHUNK_LOST, format("commit failed (%s): the %d tokens of the chunk were removed", failure.c_str(), n));
        }
    }
    auto ext = extents(req);
    for (int32_t i = 0; bias && i < n_keep; ++i) {
        ext[i].bias = bias[i];
    }
    write_cells(order, ext, pos_cell);
    move_states(pos_cell[n_keep - 1]);
    close();

    commit_us = ggml_time_us() - t0;
}

// The y, x and token of each kept cell. Where the layers keep different tokens a cell has none of
// its own; zero is below every later token's.
std::vector<llama_kv_cell_ext> retake_kvc::extents(const commit_request & req) const {
    std::vector<llama_kv_cell_ext> res(req.n_keep);

    bool one_token = !req.delta || !(req.section_mask & ~1u);
    for (uint32_t l = 1; l < n_layer() && one_token; ++l) {
        one_token = std::equal(req.keep, req.keep + req.n_keep, req.keep + (size_t) l*req.n_keep);
    }
    for (int32_t i = 0; i < req.n_keep && one_token; ++i) {
        const token & t = tokens[req.keep[i]];
        res[i] = kv.v_cells[t.strm].ext_get(t.cell);
    }
    return res;
}

void retake_kvc::write_cells(
        const std::vector<uint32_t> & order, const std::vector<llama_kv_cell_ext> & ext, const llama_pos * pos_cell) {
    const uint32_t strm = tokens[0].strm;
    auto & cells = kv.v_cells[strm];
    auto & head  = kv.v_heads[strm];

    const size_t n_keep = ext.size();

    for (size_t i = 0; i < order.size(); ++i) {
        cells.rm(order[i]);
        if (i < n_keep) {
            cells.pos_set(order[i], pos_cell[i]);
            cells.ext_set(order[i], ext[i]);
            cells.seq_add(order[i], seq);
        }
    }
    if (n_keep < order.size()) {
        zero_cells(strm, std::vector<uint32_t>(order.begin() + n_keep, order.end()));
        head = std::min(head, order[n_keep]);
    }
}

// A recurrent state stands where the sequence ends: later tokens are placed after both.
void retake_kvc::move_states(llama_pos last_pos) {
    if (states) {
        states->seq_add(seq, -1, -1, last_pos - states->seq_pos_max(seq));
    }
}

// Zeros are written where the memory is; the few backends that cannot get them sent.
static void zero_bytes(ggml_tensor * t, size_t offset, size_t size) {
    const ggml_backend_buffer_t buf = t->view_src ? t->view_src->buffer : t->buffer;
    if (buf->iface.memset_tensor) {
        ggml_backend_tensor_memset(t, 0, offset, size);
    } else {
        llama_clear_tensor_data(t, offset, size);
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
            zero_bytes(k, idxs[i0]*k->nb[1], n*k->nb[1]);
            if (!kv.v_trans) {
                zero_bytes(v, idxs[i0]*v->nb[1], n*v->nb[1]);
                continue;
            }
            const size_t size_el = ggml_type_size(v->type);
            for (int64_t j = 0; j < v->ne[0]; ++j) {
                zero_bytes(v, (j*v->ne[1] + idxs[i0])*size_el, n*size_el);
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

int32_t retake_kvc::cells(llama_seq_id seq, int32_t n_max, int32_t * cell, llama_pos * pos) const {
    if (seq < 0 || (uint32_t) seq >= kv.n_seq_max) {
        retake_refuse(RETAKE_KVC_INVALID, format("sequence %d is outside [0, %u)", seq, kv.n_seq_max));
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
