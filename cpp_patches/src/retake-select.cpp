#include "retake-select.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

namespace {

constexpr int   N_LANES  = 16;
constexpr float FAR      = -2.5f; // below minus half of the largest squared distance of unit vectors, 4
constexpr float ROUNDING = 5e-7f; // identical directions are at distance 0, whatever their lengths were

// How many dot products run side by side, so that their sums stay in registers: TILE vectors by TILE
// others, or one by a panel of WIDTH.
#if defined(__AVX512F__)
constexpr int TILE = 4, WIDTH = 16;
#elif defined(__AVX2__)
constexpr int TILE = 2, WIDTH = 8;
#elif defined(__aarch64__)
constexpr int TILE = 2, WIDTH = 4;
#else
constexpr int TILE = 1, WIDTH = 4;
#endif

#if defined(__GNUC__)
typedef float lanes __attribute__((vector_size(4*N_LANES)));
typedef float wide  __attribute__((vector_size(4*WIDTH)));

inline void multiply_add(lanes & sum, const lanes & a, const lanes & b) { sum += a*b; }
inline void multiply_add(wide & sum, float a, const wide & b) { sum += a*b; }
inline void add(wide & sum, const wide & b) { sum += b; }
#else
struct lanes { float x[N_LANES]; };
struct wide  { float x[WIDTH]; };

inline void multiply_add(lanes & sum, const lanes & a, const lanes & b) {
    for (int j = 0; j < N_LANES; ++j) {
        sum.x[j] += a.x[j]*b.x[j];
    }
}

inline void multiply_add(wide & sum, float a, const wide & b) {
    for (int j = 0; j < WIDTH; ++j) {
        sum.x[j] += a*b.x[j];
    }
}

inline void add(wide & sum, const wide & b) {
    for (int j = 0; j < WIDTH; ++j) {
        sum.x[j] += b.x[j];
    }
}
#endif

// vectors with zeros up to a multiple of N_LANES, and half of their squared lengths
struct table {
    explicit table(const retake_vectors & v) : n_blocks((v.d + N_LANES - 1)/N_LANES), rows((size_t) v.n*n_blocks), half(v.n) {
        for (int32_t i = 0; i < v.n; ++i) {
            std::memset(row(i), 0, sizeof(lanes)*n_blocks);
            std::memcpy(row(i), v.data + (size_t) i*v.d, sizeof(float)*v.d);
        }
    }

    lanes       * row(int32_t i)       { return rows.data() + (size_t) i*n_blocks; }
    const lanes * row(int32_t i) const { return rows.data() + (size_t) i*n_blocks; }

    int32_t            n_blocks;
    std::vector<lanes> rows;
    std::vector<float> half;
};

inline float total(const lanes & sums) {
    float x[N_LANES];
    std::memcpy(x, &sums, sizeof(x));
    for (int width = N_LANES/2; width > 0; width /= 2) {
        for (int j = 0; j < width; ++j) {
            x[j] += x[j + width];
        }
    }
    return x[0];
}

template <int R, int C>
inline void dots(const lanes * const * a, const lanes * const * b, int32_t n_blocks, float (&out)[R][C]) {
    lanes sums[R][C];
    std::memset(sums, 0, sizeof(sums));
    for (int32_t k = 0; k < n_blocks; ++k) {
        for (int r = 0; r < R; ++r) {
            for (int c = 0; c < C; ++c) {
                multiply_add(sums[r][c], a[r][k], b[c][k]);
            }
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int c = 0; c < C; ++c) {
            out[r][c] = total(sums[r][c]);
        }
    }
}

void set_half_lengths(table & t) {
    for (size_t i = 0; i < t.half.size(); ++i) {
        const lanes * x = t.row((int32_t) i);
        float out[1][1];
        dots<1, 1>(&x, &x, t.n_blocks, out);
        t.half[i] = out[0][0]/2;
    }
}

// Vectors in panels: WIDTH of them side by side, element by element
struct panels {
    explicit panels(int32_t n_blocks) : n_wide(n_blocks*N_LANES) {}

    void push(const lanes * row, float half_length) {
        const int32_t c = n++ % WIDTH;
        if (c == 0) {
            elements.resize(elements.size() + n_wide);
            half.resize(half.size() + WIDTH, std::numeric_limits<float>::infinity()); // near to nothing
        }
        float * to = (float *) (elements.data() + elements.size() - n_wide) + c;
        const float * from = (const float *) row;
        for (int32_t k = 0; k < n_wide; ++k) {
            to[(size_t) k*WIDTH] = from[k];
        }
        half[n - 1] = half_length;
    }

    // half of minus the squared distance to the nearest vector of a panel
    float closeness(int32_t panel, const lanes * row, float half_length) const {
        const float * x  = (const float *) row;
        const wide  * at = elements.data() + (size_t) panel*n_wide;
        wide sums[N_LANES];
        std::memset(sums, 0, sizeof(sums));
        for (int32_t k = 0; k < n_wide; k += N_LANES) {
            for (int j = 0; j < N_LANES; ++j) {
                multiply_add(sums[j], x[k + j], at[k + j]);
            }
        }
        for (int width = N_LANES/2; width > 0; width /= 2) {
            for (int j = 0; j < width; ++j) {
                add(sums[j], sums[j + width]);
            }
        }
        float near[WIDTH];
        std::memcpy(near, sums, sizeof(near));
        for (int c = 0; c < WIDTH; ++c) {
            near[c] = near[c] - (half_length + half[panel*WIDTH + c]) + ROUNDING;
        }
        for (int width = WIDTH/2; width > 0; width /= 2) {
            for (int c = 0; c < width; ++c) {
                near[c] = near[c] < near[c + width] ? near[c + width] : near[c];
            }
        }
        return std::min(near[0], 0.0f);
    }

    int32_t            n = 0;
    int32_t            n_wide;
    std::vector<wide>  elements;
    std::vector<float> half;
};

// One token's closeness: half of minus the squared distance to the nearest of the `seen` first
// centres. It only rises, so what is known of it bounds it from below.
struct progress {
    float   closeness = FAR;
    int32_t seen      = 0;
};

using entry = std::pair<float, int32_t>; // (closeness times weight, token): the least is the farthest

} // namespace

// Lazy greedy (Minoux 1978): the token that seems farthest is compared with the centres it has not
// met, as long as it still seems so; who has met them all is the farthest.
void retake_farthest_points(const retake_vectors & tokens, const retake_vectors & memory, const uint8_t * last,
        const float * weights, int32_t n_seeds, int32_t n_keep, int32_t * chosen) {
    table t(tokens), old(memory);
    set_half_lengths(t);
    set_half_lengths(old);

    panels centres(t.n_blocks);
    for (int32_t i = 0; i < memory.n; ++i) {
        centres.push(old.row(i), old.half[i]);
    }
    std::vector<uint8_t> taken(tokens.n);
    for (int32_t i = 0; i < n_seeds; ++i) {
        centres.push(t.row(chosen[i]), t.half[chosen[i]]);
        taken[chosen[i]] = 1;
    }

    std::vector<progress> known(tokens.n);
    std::vector<entry>    heap;
    const auto gain = [&](int32_t i) { return weights ? known[i].closeness*weights[i] : known[i].closeness; };
    for (int32_t i = 0; i < tokens.n; ++i) {
        if (last && last[i]) {
            // above every real closeness, and said to have met all centres: taken once nothing else is left
            known[i] = { 1.0f, std::numeric_limits<int32_t>::max() };
        }
        if (!taken[i]) {
            heap.emplace_back(gain(i), i);
        }
    }
    std::make_heap(heap.begin(), heap.end(), std::greater<entry>());

    // Compare a token with the next WIDTH centres. The newest panel may not be full yet; what it lacks is
    // infinitely far, and `seen` counts only what is there, so the rest is met when it has come.
    const auto meet_panel = [&](int32_t i) {
        progress & p = known[i];
        const int32_t panel = p.seen/WIDTH;
        p.closeness = std::max(p.closeness, centres.closeness(panel, t.row(i), t.half[i]));
        p.seen      = std::min((panel + 1)*WIDTH, centres.n);
    };

    for (int32_t n = n_seeds; n < n_keep; ) {
        std::pop_heap(heap.begin(), heap.end(), std::greater<entry>());
        const int32_t i = heap.back().second;
        heap.pop_back();
        entry mine { gain(i), i };
        // The heap holds lower bounds: as soon as another one's is lower, this token is no longer the next.
        while (known[i].seen < centres.n && (heap.empty() || mine < heap.front())) {
            meet_panel(i);
            mine.first = gain(i);
        }
        if (heap.empty() || mine < heap.front()) {
            chosen[n++] = i;
            centres.push(t.row(i), t.half[i]);
        } else {
            heap.push_back(mine);
            std::push_heap(heap.begin(), heap.end(), std::greater<entry>());
        }
    }
}

void retake_nearest_counts(const retake_vectors & tokens, int32_t n_kept, const int32_t * kept, float * counts) {
    const table t(tokens);

    std::vector<int32_t> dropped;
    for (int32_t i = 0, k = 0; i < tokens.n; ++i) {
        if (k < n_kept && kept[k] == i) {
            ++k;
        } else {
            dropped.push_back(i);
        }
    }

    const int32_t n_dropped = (int32_t) dropped.size();
    std::vector<float>   best(n_dropped, -std::numeric_limits<float>::infinity());
    std::vector<int32_t> nearest(n_dropped, 0);

    const int32_t n_part = std::max(TILE, (1 << 19)/(int32_t) (sizeof(lanes)*std::max(t.n_blocks, 1))/TILE*TILE); // stays in a core's cache
    for (int32_t k0 = 0; k0 < n_kept; k0 += n_part) {
        for (int32_t i = 0; i < n_dropped; i += TILE) {
            const lanes * rows[TILE];
            for (int r = 0; r < TILE; ++r) {
                rows[r] = t.row(dropped[std::min(i + r, n_dropped - 1)]);
            }
            for (int32_t k = k0; k < std::min(k0 + n_part, n_kept); k += TILE) {
                const lanes * columns[TILE];
                for (int c = 0; c < TILE; ++c) {
                    columns[c] = t.row(kept[std::min(k + c, n_kept - 1)]);
                }
                float dot[TILE][TILE];
                dots<TILE, TILE>(rows, columns, t.n_blocks, dot);
                for (int r = 0; r < std::min(TILE, n_dropped - i); ++r) {
                    for (int c = 0; c < std::min(TILE, n_kept - k); ++c) {
                        if (dot[r][c] > best[i + r]) {
                            best   [i + r] = dot[r][c];
                            nearest[i + r] = k + c;
                        }
                    }
                }
            }
        }
    }

    std::fill(counts, counts + n_kept, 1.0f);
    for (const int32_t k : nearest) {
        counts[k] += 1.0f;
    }
}
