#pragma once
// Triplets (anchor, positive, negative), and their hinge loss. A reference with the anchor's label is a positive, any
// other a negative.
//
// hardest_pairs serves batch-hard, from the embeddings: the matrix of distances is never stored, and nothing sorted.
//
// anchors            [N, D]  float32 or float64
// references         [M, D]  same dtype
// exclude_self       the references are the anchors, and no anchor is a positive of itself
//
//   chosen    [2, N]  int64: of each anchor its farthest positive and its nearest negative, the first of equals; -1
//                     where it has none. A reference at NaN is harder than any other.
//
// An anchor's references are ordered by |r|^2 - 2 a r, which is |a - r|^2 but for the anchor's own |a|^2. All are
// taken relative to the first reference: that loses no digits far from the origin, and keeps embeddings on a grid,
// and so equal distances equal, as a mean would not.
//
// The other minings may need every distance of an anchor, or its negatives in order: these get them as a matrix.
//
//   hinge(a, p, n) = max(0, distance(a, p) - distance(a, n) + margin)
//
// distances          [N, M]  float32 or float64: anchors by references
// anchor_labels      [N]     int64
// reference_labels   [M]     int64
// exclude_self       reference i is anchor i, which is neither a positive nor a negative of itself; N = M
// mining             which triplets are selected: triplet_math.h
//
// triplet_hinge gives, without a triplet ever being stored:
//   hinge     [N]     sum of the anchor's hinges, same dtype; NaN where the distance of a positive or negative is NaN
//   selected  [N]     int64: how many triplets were selected
//   active    [N]     int64: how many of these have a hinge above zero
//   weights   [N, M]  d sum(hinge) / d distances, same dtype
//
// mine_triplets gives the selected triplets as three int64 vectors, by anchor, then positive, then the nearest
// negative first.
//
// Both sort each anchor's negatives once, after which a positive selects a range of them:
// O(N M log M) time, and both give the same bits on every run.
#include <stdint.h>

#include "common/simd.h"
#include "triplet/triplet_math.h"

namespace pyaction {

template <typename scalar_t>
struct Points {
  const scalar_t* values; // [count, dimensions]
  const int64_t* labels;  // [count]
  int64_t count, dimensions;
};

template <typename scalar_t>
struct HardestArguments {
  Points<scalar_t> anchors, references;
  bool exclude_self;
  int64_t* chosen; // [2, N]
};

constexpr int kPackedGroup = 64; // points that HardestKernels work on together

template <typename scalar_t>
struct HardestKernels {
  // Elements that packed points take. They are aligned to 64 bytes.
  int64_t (*packed_size)(int64_t points, int64_t dimensions);
  // Copies groups [begin, end) of the points, relative to an origin, to where they belong among the packed.
  void (*pack)(const Points<scalar_t>&, const scalar_t* origin, int64_t begin, int64_t end, scalar_t* packed);
  // Works on groups [begin, end) of the anchors.
  void (*find)(const HardestArguments<scalar_t>&, int64_t begin, int64_t end, const scalar_t* packed_anchors,
               const scalar_t* packed_references);
};

PYACTION_SIMD_TABLE(HardestKernels<float>, hardest_float)
PYACTION_SIMD_TABLE(HardestKernels<double>, hardest_double)

template <typename scalar_t>
struct TripletArguments {
  const scalar_t* distances;       // [N, M]
  const int64_t* anchor_labels;    // [N]
  const int64_t* reference_labels; // [M]
  int64_t anchors;
  int32_t references;
  Mining mining;
  double margin;
  bool exclude_self;
};

template <typename scalar_t>
struct HingeResults {
  scalar_t* hinge;   // [N]
  int64_t* selected; // [N]
  int64_t* active;   // [N]
  scalar_t* weights; // [N, M]
};

// Triplets of anchor i are [offsets[i], offsets[i + 1]) of the three vectors.
struct MinedTriplets {
  const int64_t* offsets; // [N + 1]
  int64_t* anchors;
  int64_t* positives;
  int64_t* negatives;
};

} // namespace pyaction
