#pragma once
// Windows that do not overlap: one kernel each way, every pixel read once from memory.
//
// A warp is split into groups of `lanes`, a power of two. A group works on one window, a lane on one of its columns, or
// on two where there are more than 32. The lanes of neighbouring windows read neighbouring pixels.
#include "ssim/cuda/planes.cuh"

namespace pyaction {
namespace {

constexpr int kPatchThreads = 128;
constexpr int kPapersWindow = 8;
constexpr int kHeldRows = 8; // of a lane's column are in registers at a time: all that is read is on its way at once

template <typename number_t>
struct HeldPixels {
  number_t of0[kHeldRows], of1[kHeldRows];
};

// Where a group works.
struct Patch {
  int64_t top_left; // in the images
  int64_t index;    // in the map
  int lane, lanes;
};

// Column `x` of a window, from row `top`. What is outside the window repeats `middle`, which then counts for nothing.
template <int kWindow, typename scalar_t, typename number_t>
__device__ HeldPixels<number_t> hold_pixels(const SsimArguments<scalar_t, number_t>& a, const Patch& patch, int x,
                                            int top, number_t middle0, number_t middle1) {
  const int window = kWindow > 0 ? kWindow : a.window;
  HeldPixels<number_t> held;
  UNROLL
  for (int i = 0; i < kHeldRows; ++i) {
    const bool inside = x < window && top + i < window;
    const int64_t at = patch.top_left + int64_t{top + i} * a.width + x;
    held.of0[i] = inside ? static_cast<number_t>(a.image0[at]) : middle0;
    held.of1[i] = inside ? static_cast<number_t>(a.image1[at]) : middle1;
  }
  return held;
}

// Sums over the lanes of a group, in each of them.
template <typename number_t>
__device__ void sum_over_group(WindowMoments<number_t>& sums, int lanes) {
  UNROLL
  for (int distance = 1; distance < 32; distance *= 2) {
    if (distance < lanes) {
      sums.mean0 += __shfl_xor_sync(0xffffffffu, sums.mean0, distance);
      sums.mean1 += __shfl_xor_sync(0xffffffffu, sums.mean1, distance);
      sums.variance0 += __shfl_xor_sync(0xffffffffu, sums.variance0, distance);
      sums.variance1 += __shfl_xor_sync(0xffffffffu, sums.variance1, distance);
      sums.covariance += __shfl_xor_sync(0xffffffffu, sums.covariance, distance);
    }
  }
}

// The moments of a window, in each lane of its group; `held` is left with the last pixels that the lane has read. One
// pass, with every pixel taken relative to the one in the middle: E[x^2] - E[x]^2 would lose a small variance beside a
// large mean.
template <int kWindow, typename scalar_t, typename number_t>
__device__ WindowMoments<number_t> patch_moments(const SsimArguments<scalar_t, number_t>& a, const Patch& patch,
                                                 HeldPixels<number_t>& held) {
  const int window = kWindow > 0 ? kWindow : a.window;
  const int64_t middle = patch.top_left + int64_t{window / 2} * a.width + window / 2;
  const number_t middle0 = static_cast<number_t>(a.image0[middle]), middle1 = static_cast<number_t>(a.image1[middle]);
  WindowMoments<number_t> sums = {0, 0, 0, 0, 0};
  for (int x = patch.lane; x < window; x += patch.lanes) {
    // Columns are summed on their own first: short sums round less.
    WindowMoments<number_t> column = {0, 0, 0, 0, 0};
    for (int top = 0; top < window; top += kHeldRows) {
      held = hold_pixels<kWindow>(a, patch, x, top, middle0, middle1);
      UNROLL
      for (int i = 0; i < kHeldRows; ++i) {
        const number_t off0 = held.of0[i] - middle0, off1 = held.of1[i] - middle1;
        const number_t weighted0 = a.weights[top + i] * off0, weighted1 = a.weights[top + i] * off1;
        column.mean0 += weighted0;
        column.mean1 += weighted1;
        column.variance0 += weighted0 * off0;
        column.variance1 += weighted1 * off1;
        column.covariance += weighted0 * off1;
      }
    }
    const number_t weight = a.weights[x];
    sums.mean0 += weight * column.mean0;
    sums.mean1 += weight * column.mean1;
    sums.variance0 += weight * column.variance0;
    sums.variance1 += weight * column.variance1;
    sums.covariance += weight * column.covariance;
  }
  sum_over_group(sums, patch.lanes);
  return {middle0 + sums.mean0, middle1 + sums.mean1, sums.variance0 - sums.mean0 * sums.mean0,
          sums.variance1 - sums.mean1 * sums.mean1, sums.covariance - sums.mean0 * sums.mean1};
}

// Writes the gradients of a window's pixels.
template <int kWindow, typename scalar_t, typename number_t>
__device__ void store_patch_grads(const SsimArguments<scalar_t, number_t>& a, const Patch& patch,
                                  const WindowGrad<number_t>& g, HeldPixels<number_t>& held) {
  const int window = kWindow > 0 ? kWindow : a.window;
  for (int x = patch.lane; x < window; x += patch.lanes) {
    const number_t across = a.weights[x];
    for (int top = 0; top < window; top += kHeldRows) {
      if (window > kHeldRows) { // else it still holds them
        held = hold_pixels<kWindow>(a, patch, x, top, number_t(0), number_t(0));
      }
      UNROLL
      for (int i = 0; i < kHeldRows; ++i) {
        if (top + i < window) {
          const int64_t at = patch.top_left + int64_t{top + i} * a.width + x;
          const number_t weight = across * a.weights[top + i], own = weight * g.own, other = weight * g.other;
          if (a.grad0 != nullptr) {
            a.grad0[at] = static_cast<scalar_t>(pixel_grad(weight * g.constant0, own, other, held.of0[i], held.of1[i]));
          }
          if (a.grad1 != nullptr) {
            a.grad1[at] = static_cast<scalar_t>(pixel_grad(weight * g.constant1, own, other, held.of1[i], held.of0[i]));
          }
        }
      }
    }
  }
}

// Zeros from a window to the next ones, to the right and below, or to the ends of the plane.
template <typename scalar_t, typename number_t>
__device__ void clear_gaps(const SsimArguments<scalar_t, number_t>& a, const Patch& patch, int row, int column) {
  const int bottom = row + 1 < a.map_height ? a.stride : a.height - row * a.stride;
  const int right = column + 1 < a.map_width ? a.stride : a.width - column * a.stride;
  for (int y = right > a.window ? 0 : a.window; y < bottom; ++y) {
    for (int x = patch.lane + (y < a.window ? a.window : 0); x < right; x += patch.lanes) {
      const int64_t at = patch.top_left + int64_t{y} * a.width + x;
      if (a.grad0 != nullptr) {
        a.grad0[at] = static_cast<scalar_t>(number_t(0));
      }
      if (a.grad1 != nullptr) {
        a.grad1[at] = static_cast<scalar_t>(number_t(0));
      }
    }
  }
}

// A block: kPatchThreads / lanes windows of a plane, in the planes blockIdx.y, blockIdx.y + gridDim.y, ...
template <typename scalar_t, int kWindow, bool kGrad>
__global__ void __launch_bounds__(kPatchThreads) ssim_patch_kernel(SsimArgumentsOf<scalar_t> a, int any_lanes) {
  using number_t = compute_t<scalar_t>;
  const int map_plane = a.map_height * a.map_width;
  const int lanes = kWindow > 0 ? kWindow : any_lanes, shift = __ffs(lanes) - 1;
  const int thread = static_cast<int>(threadIdx.x);
  const int number = (static_cast<int>(blockIdx.x) * kPatchThreads + thread) >> shift;
  // The last block may have groups to spare: they work along, for the shuffles, and write nothing.
  const int index = min(number, map_plane - 1);
  const int row = index / a.map_width, column = index - row * a.map_width;
  for (int64_t plane = blockIdx.y; plane < a.planes; plane += gridDim.y) {
    Patch patch;
    patch.top_left = (plane * a.height + int64_t{row} * a.stride) * a.width + int64_t{column} * a.stride;
    patch.index = plane * map_plane + index;
    patch.lane = thread & (lanes - 1);
    patch.lanes = lanes;
    HeldPixels<number_t> held;
    const WindowMoments<number_t> moments = patch_moments<kWindow>(a, patch, held);
    if (number >= map_plane) {
      continue;
    }
    if constexpr (kGrad) {
      const number_t grad = static_cast<number_t>(a.grad[patch.index]);
      store_patch_grads<kWindow>(a, patch, window_grad(moments, a.c1, a.c2, grad), held);
      clear_gaps(a, patch, row, column);
    } else if (patch.lane == 0) {
      a.map[patch.index] = static_cast<scalar_t>(window_similarity(moments, a.c1, a.c2));
    }
  }
}

template <bool kGrad, typename scalar_t, typename number_t>
void launch_patches(const SsimArguments<scalar_t, number_t>& a, cudaStream_t stream) {
  int lanes = 1;
  while (lanes < a.window && lanes < 32) {
    lanes *= 2;
  }
  const unsigned blocks = blocks_for(int64_t{a.map_height} * a.map_width, kPatchThreads / lanes);
  const auto kernel = a.window == kPapersWindow ? ssim_patch_kernel<scalar_t, kPapersWindow, kGrad>
                                                : ssim_patch_kernel<scalar_t, 0, kGrad>;
  launch(kernel, plane_grid(blocks, a.planes), kPatchThreads, stream, a, lanes);
}

} // namespace
} // namespace pyaction
