#pragma once
// Batch-hard on CUDA: a matrix product whose tiles are looked through while they are in registers. The matrix itself is
// never stored, and nothing is added atomically.
#include "triplet/cuda/block.cuh"
#include "triplet/triplet.h"

namespace pyaction {
namespace {

constexpr int kTile = 64;  // anchors by references
constexpr int kDepth = 16; // coordinates that are in shared memory at a time
constexpr int kOwn = 4;    // each thread's share of a tile: kOwn anchors by kOwn references
constexpr int kAcross = kTile / kOwn;
static_assert(kAcross * kAcross == kThreads, "a thread for each share");
static_assert(kTile * kDepth == kOwn * kThreads, "kOwn coordinates to load for each thread");

constexpr int64_t kBlocksWanted = 1024; // keeps any GPU busy

// The hardest references that one share of the references holds: [share, anchor]; kNoIndex where it holds none.
template <typename scalar_t>
struct HardestOfShares {
  Neighbour<scalar_t>* positives;
  Neighbour<scalar_t>* negatives;
  int32_t shares;
};

// Coordinates [d, d + kOwn) of a point, relative to the origin; 0 where there are none.
template <typename scalar_t>
__device__ void load_coordinates(const Points<scalar_t>& points, const scalar_t* origin, int64_t point, int64_t d,
                                 scalar_t (&values)[kOwn]) {
  UNROLL
  for (int i = 0; i < kOwn; ++i) {
    const bool inside = point < points.count && d + i < points.dimensions;
    values[i] = inside ? points.values[point * points.dimensions + d + i] - origin[d + i] : scalar_t(0);
  }
}

// Products of kTile anchors and kTile references, and the references' squared norms. Called by the whole block.
template <typename scalar_t>
__device__ void multiply_tile(const HardestArguments<scalar_t>& a, int64_t first_anchor, int64_t first_reference,
                              scalar_t (&products)[kOwn][kOwn], scalar_t (&own_norms)[kOwn]) {
  // The rows' ends are there so that fewer threads write to one bank; kOwn values of a row are one load.
  alignas(16) __shared__ scalar_t anchors[kDepth][kTile + kOwn];
  alignas(16) __shared__ scalar_t references[kDepth][kTile + kOwn];
  __shared__ scalar_t norms[kTile];
  const int row = threadIdx.x / kAcross * kOwn, column = threadIdx.x % kAcross * kOwn;
  constexpr int loaders = kDepth / kOwn; // of one point: neighbouring lanes
  const int point = threadIdx.x / loaders, part = threadIdx.x % loaders * kOwn;
  scalar_t norm = 0;
  for (int64_t d = 0; d < a.references.dimensions; d += kDepth) {
    scalar_t anchor[kOwn], reference[kOwn];
    load_coordinates(a.anchors, a.references.values, first_anchor + point, d + part, anchor);
    load_coordinates(a.references, a.references.values, first_reference + point, d + part, reference);
    __syncthreads(); // what was there has been read
    UNROLL
    for (int i = 0; i < kOwn; ++i) {
      anchors[part + i][point] = anchor[i];
      references[part + i][point] = reference[i];
      norm += reference[i] * reference[i];
    }
    __syncthreads();
    UNROLL
    for (int k = 0; k < kDepth; ++k) {
      UNROLL
      for (int i = 0; i < kOwn; ++i) {
        UNROLL
        for (int j = 0; j < kOwn; ++j) {
          products[i][j] += anchors[k][row + i] * references[k][column + j];
        }
      }
    }
  }
  for (int flips = loaders / 2; flips > 0; flips /= 2) {
    norm += __shfl_xor_sync(kAllLanes, norm, flips);
  }
  __syncthreads(); // the previous tile's norms have been read
  if (part == 0) {
    norms[point] = norm;
  }
  __syncthreads();
  UNROLL
  for (int j = 0; j < kOwn; ++j) {
    own_norms[j] = norms[column + j];
  }
}

// Block (x, y): kTile anchors, and the y-th share of the references, tile by tile. The anchors' own |a|^2 is left out:
// it changes no order. With fewer registers than these bounds leave, which it would choose by itself, the
// compiler spills.
template <typename scalar_t>
__global__ void __launch_bounds__(kThreads, sizeof(scalar_t) == 4 ? 3 : 2)
    hardest_tiles_kernel(HardestArguments<scalar_t> a, HardestOfShares<scalar_t> results) {
  const int64_t first_anchor = int64_t{blockIdx.x} * kTile;
  const int64_t own_anchor = first_anchor + threadIdx.x / kAcross * kOwn;
  Neighbour<scalar_t> positives[kOwn], negatives[kOwn];
  UNROLL
  for (int i = 0; i < kOwn; ++i) {
    positives[i] = negatives[i] = {0, kNoIndex}; // no number has the key 0
  }
  for (int64_t first = int64_t{blockIdx.y} * kTile; first < a.references.count; first += int64_t{gridDim.y} * kTile) {
    scalar_t products[kOwn][kOwn] = {}, norms[kOwn];
    multiply_tile(a, first_anchor, first, products, norms);
    UNROLL
    for (int j = 0; j < kOwn; ++j) {
      const int64_t reference = first + threadIdx.x % kAcross * kOwn + j;
      if (reference >= a.references.count) {
        continue;
      }
      const int64_t label = a.references.labels[reference];
      UNROLL
      for (int i = 0; i < kOwn; ++i) {
        const int64_t anchor = own_anchor + i;
        if (anchor >= a.anchors.count || (a.exclude_self && anchor == reference)) {
          continue;
        }
        const scalar_t score = norms[j] - 2 * products[i][j];
        const bool same = a.anchors.labels[anchor] == label;
        const Neighbour<scalar_t> candidate = {key_of(same ? score : -score), static_cast<int32_t>(reference)};
        positives[i] = same && farther(candidate, positives[i]) ? candidate : positives[i];
        negatives[i] = !same && farther(candidate, negatives[i]) ? candidate : negatives[i];
      }
    }
  }
  UNROLL
  for (int i = 0; i < kOwn; ++i) {
    const Neighbour<scalar_t> positive = first_of_lanes(positives[i], kAcross, farther<scalar_t>);
    const Neighbour<scalar_t> negative = first_of_lanes(negatives[i], kAcross, farther<scalar_t>);
    if (threadIdx.x % kAcross == 0 && own_anchor + i < a.anchors.count) {
      results.positives[blockIdx.y * a.anchors.count + own_anchor + i] = positive;
      results.negatives[blockIdx.y * a.anchors.count + own_anchor + i] = negative;
    }
  }
}

// One thread: one anchor.
template <typename scalar_t>
__global__ void merge_shares_kernel(HardestArguments<scalar_t> a, HardestOfShares<scalar_t> results) {
  const int64_t anchor = thread_index();
  if (anchor >= a.anchors.count) {
    return;
  }
  Neighbour<scalar_t> positive = results.positives[anchor], negative = results.negatives[anchor];
  for (int64_t share = 1; share < results.shares; ++share) {
    const Neighbour<scalar_t> other_positive = results.positives[share * a.anchors.count + anchor];
    const Neighbour<scalar_t> other_negative = results.negatives[share * a.anchors.count + anchor];
    positive = farther(other_positive, positive) ? other_positive : positive;
    negative = farther(other_negative, negative) ? other_negative : negative;
  }
  a.chosen[anchor] = positive.index == kNoIndex ? -1 : positive.index;
  a.chosen[a.anchors.count + anchor] = negative.index == kNoIndex ? -1 : negative.index;
}

} // namespace
} // namespace pyaction
