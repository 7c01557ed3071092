#pragma once
// Triplets (anchor, positive, negative) chosen from a matrix of distances, and their hinge loss.
//
//   hinge(a, p, n) = max(0, distance(a, p) - distance(a, n) + margin)
//
// distances          [N, M]  float32 or float64: anchors by references
// anchor_labels      [N]     int64
// reference_labels   [M]     int64; a reference with the anchor's label is a positive, any other a negative
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
#include <cstdint>

#include "triplet/triplet_math.h"

namespace pyaction {

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
