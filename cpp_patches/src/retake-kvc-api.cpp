// The C boundary of retake-kvc.h: statuses out, no exception through.

#include "retake-kvc-impl.h"
#include "retake-select.h"

#include "llama-context.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <new>

namespace {

thread_local std::string last_error;

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

void require(bool ok, const char * reason) {
    if (!ok) {
        retake_refuse(RETAKE_KVC_INVALID, reason);
    }
}

bool all_finite(const float * x, size_t n) {
    return std::all_of(x, x + n, [](float v) { return std::isfinite(v); });
}

void require_distinct(const int32_t * tokens, int32_t n_tokens, int32_t n) {
    std::vector<bool> seen(n);
    for (int32_t i = 0; i < n_tokens; ++i) {
        require(tokens[i] >= 0 && tokens[i] < n, "a token index is out of range");
        require(!seen[tokens[i]], "a token is given twice");
        seen[tokens[i]] = true;
    }
}

void select_farthest(int32_t n_layer, int32_t n, int32_t d, const float * units, const uint8_t * last,
        int32_t n_memory, const float * memory, const float * weights, int32_t n_seeds, int32_t n_keep, int32_t * chosen) {
    require(n_layer >= 0 && n >= 0 && d >= 0 && n_memory >= 0, "a size is negative");
    require(0 <= n_seeds && n_seeds <= n_keep && n_keep <= n, "not 0 <= n_seeds <= n_keep <= n");
    require(units && last && chosen && (memory || n_memory == 0), "an array is NULL");
    for (int32_t l = 0; l < n_layer; ++l) {
        const retake_vectors tokens { n,        d, units + (size_t) l*n*d };
        const retake_vectors old    { n_memory, d, memory ? memory + (size_t) l*n_memory*d : nullptr };
        const float * factors = weights ? weights + (size_t) l*n : nullptr;
        require(all_finite(tokens.data, (size_t) n*d) && all_finite(old.data, (size_t) n_memory*d), "a vector is not finite");
        require(!factors || (all_finite(factors, n) && std::all_of(factors, factors + n, [](float w) { return w > 0; })),
                "a weight is not finite and above 0");
        int32_t * mine = chosen + (size_t) l*n_keep;
        require_distinct(mine, n_seeds, n);
        retake_farthest_points(tokens, old, last + (size_t) l*n, factors, n_seeds, n_keep, mine);
    }
}

void select_counts(int32_t n, int32_t d, const float * units, int32_t n_kept, const int32_t * kept, float * counts) {
    require(n >= 0 && d >= 0 && 1 <= n_kept && n_kept <= n, "not 1 <= n_kept <= n, or a size is negative");
    require(units && kept && counts, "an array is NULL");
    require(all_finite(units, (size_t) n*d), "a vector is not finite");
    require_distinct(kept, n_kept, n);
    require(std::is_sorted(kept, kept + n_kept), "the kept tokens do not ascend");
    retake_nearest_counts({ n, d, units }, n_kept, kept, counts);
}

} // namespace

int32_t retake_abi_version(void) { return RETAKE_ABI_VERSION; }

const char * retake_kvc_last_error(void) { return last_error.c_str(); }

int32_t retake_kvc_supported(llama_context * ctx) {
    return status_of([&] { retake_kvc::check_supported(ctx); });
}

int64_t retake_kvc_query(llama_context * ctx, int32_t key) {
    return guarded([&] { return retake_kvc::get(ctx).query(key); });
}

int32_t retake_kvc_begin(llama_context * ctx, llama_seq_id seq, int32_t n_max, int32_t q_first, int32_t q_stride, uint32_t flags) {
    return status_of([&] { retake_kvc::get(ctx).begin(seq, n_max, q_first, q_stride, flags); });
}

int32_t retake_kvc_scores(llama_context * ctx, float * out, int32_t n_windows, const int32_t * edge, int32_t k0, int32_t nk, uint32_t flags) {
    return status_of([&] { retake_kvc::get(ctx).scores(ctx, out, n_windows, edge, k0, nk, flags); });
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

int32_t retake_kvc_measure(llama_context * ctx, float * scores, int32_t n_windows, const int32_t * edge,
        float * values, const float * projection, int32_t dim, int32_t k0, int32_t nk, uint32_t flags) {
    return status_of([&] {
        auto & kvc = retake_kvc::get(ctx);
        kvc.at_once(ctx, [&](llama_context * ctx) {
            kvc.scores(ctx, scores, n_windows, edge, k0, nk, flags);
            kvc.values(ctx, values, projection, dim, k0, nk);
        });
    });
}

int32_t retake_kvc_commit(llama_context * ctx, int32_t n_keep, const int32_t * keep, const int32_t * delta,
        uint32_t section_mask, const llama_pos * pos_cell, const float * bias) {
    return status_of([&] { retake_kvc::get(ctx).commit(ctx, n_keep, keep, delta, section_mask, pos_cell, bias); });
}

int32_t retake_kvc_abort(llama_context * ctx, bool remove_chunk) {
    return status_of([&] {
        if (auto * kvc = retake_kvc::find(ctx)) {
            ctx->synchronize(); // removing writes to the cache
            kvc->abort(remove_chunk);
        }
    });
}

int32_t retake_kvc_free(llama_context * ctx) {
    return status_of([&] {
        auto * kvc = retake_kvc::find(ctx);
        if (kvc && kvc->ph != retake_kvc::phase::idle) {
            retake_refuse(RETAKE_KVC_STATE, "a capture is open: commit or abort it first");
        }
        if (kvc) {
            ctx->synchronize();
            kvc->free_queries();
        }
    });
}

int32_t retake_select_farthest(int32_t n_layer, int32_t n, int32_t d, const float * units, const uint8_t * last,
        int32_t n_memory, const float * memory, const float * weights, int32_t n_seeds, int32_t n_keep, int32_t * chosen) {
    return status_of([&] {
        select_farthest(n_layer, n, d, units, last, n_memory, memory, weights, n_seeds, n_keep, chosen);
    });
}

int32_t retake_select_counts(int32_t n, int32_t d, const float * units, int32_t n_kept, const int32_t * kept, float * counts) {
    return status_of([&] { select_counts(n, d, units, n_kept, kept, counts); });
}
