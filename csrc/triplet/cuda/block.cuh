#pragma once
// What all threads of a block find out together, by shuffles within warps and shared memory between them. Every sum has
// a fixed order.
#include "common/cuda/launch.h"
#include "triplet/triplet_math.h"

namespace pyaction {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp; // of a block

// The sum of the values of the threads before this one, and of all. Called by the whole block.
template <typename T>
__device__ T exclusive_scan(T value, T& total) {
  __shared__ T sums[kWarps];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  T up_to = value;
  for (int step = 1; step < kWarp; step *= 2) {
    const T before = __shfl_up_sync(kAllLanes, up_to, step);
    up_to += lane >= step ? before : T(0);
  }
  const T before = __shfl_up_sync(kAllLanes, up_to, 1); // not up_to - value, which rounds
  __syncthreads();                                      // the previous call's sums have been read
  if (lane == kWarp - 1) {
    sums[warp] = up_to;
  }
  __syncthreads();
  T warps_before = 0;
  total = 0;
  for (int i = 0; i < kWarps; ++i) {
    warps_before = i == warp ? total : warps_before;
    total += sums[i];
  }
  return lane > 0 ? warps_before + before : warps_before;
}

// The first in the order of `precedes` of `width` neighbouring lanes.
template <typename scalar_t, typename Precedes>
__device__ Neighbour<scalar_t> first_of_lanes(Neighbour<scalar_t> candidate, int width, Precedes precedes) {
  for (int flips = width / 2; flips > 0; flips /= 2) {
    Neighbour<scalar_t> other;
    other.key = __shfl_xor_sync(kAllLanes, candidate.key, flips);
    other.index = __shfl_xor_sync(kAllLanes, candidate.index, flips);
    candidate = precedes(other, candidate) ? other : candidate;
  }
  return candidate;
}

// The nearest of the threads' candidates. Called by the whole block.
template <typename scalar_t>
__device__ Neighbour<scalar_t> nearest_of_block(Neighbour<scalar_t> candidate) {
  __shared__ Neighbour<scalar_t> of_warps[kWarps];
  candidate = first_of_lanes(candidate, kWarp, nearer<scalar_t>);
  __syncthreads(); // the previous call's candidates have been read
  if (threadIdx.x % kWarp == 0) {
    of_warps[threadIdx.x / kWarp] = candidate;
  }
  __syncthreads();
  for (int i = 0; i < kWarps; ++i) {
    candidate = nearer(of_warps[i], candidate) ? of_warps[i] : candidate;
  }
  return candidate;
}

// The place of this thread's element in a list that the block fills, where `listed`. Called by whole warps; `count` is
// shared, and what the warps add to it comes in any order.
__device__ int32_t place_in_list(bool listed, int32_t* count) {
  const unsigned lane = threadIdx.x % kWarp, listed_lanes = __ballot_sync(kAllLanes, listed);
  int32_t before = 0;
  if (lane == 0 && listed_lanes != 0) {
    before = atomicAdd(count, __popc(listed_lanes));
  }
  return __shfl_sync(kAllLanes, before, 0) + __popc(listed_lanes & ((1u << lane) - 1));
}

} // namespace
} // namespace pyaction
