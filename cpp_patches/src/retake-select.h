// Which tokens of a chunk stay, where that takes a distance between all of them: farthest points, and
// for each dropped token the kept one that is most like it. One thread, no ggml.
//
// The arithmetic is fixed to the bit, so that retake_edge/golden/coverage.py, the specification in
// numpy, chooses the same tokens: a dot product is 16 sums, the j-th over products j, j + 16,
// j + 32, ... in that order, each product rounded to F32 before it is added; then sums j and j + 8
// are added, then j and j + 4, j + 2, j + 1. Nothing may be contracted to a fused multiply-add.
#pragma once

#include <cstdint>

// d floats a vector; all vectors finite, their length 1 or 0
struct retake_vectors {
    int32_t       n = 0;
    int32_t       d = 0;
    const float * data = nullptr; // [n][d]
};

// chosen[n_keep]: the n_seeds first are given, the others are written. last[n] (or null): tokens to
// take only when no other is left. weights[n] (or null): factors of the squared distances.
void retake_farthest_points(const retake_vectors & tokens, const retake_vectors & memory, const uint8_t * last,
        const float * weights, int32_t n_seeds, int32_t n_keep, int32_t * chosen);

// counts[n_kept]: the tokens to which kept[i] (strictly ascending) is nearest, itself included
void retake_nearest_counts(const retake_vectors & tokens, int32_t n_kept, const int32_t * kept, float * counts);
