#pragma once
// Windows that do not overlap: one kernel each way, every pixel read once from memory.
//
// A warp is split into groups of `lanes`, a power of two. A group works on one window, a lane on one of its columns, or
// on two where there are more than 32. The lanes of neighbouring windows read neighbouring pixels.
#include "ssim/cuda/planes.cuh"

namespace pyaction {
namespace {

constexpr int kPatchThreads = 128;
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
template <typename scalar_t, typename number_t>
__device__ HeldPixels<number_t> hold_pixels(const SsimArguments<scalar_t, number_t>& a, const Patch& patch, int x,
                                            int top, number_t middle0, number_t middle1) {
  HeldPixels<number_t> held;
  UNROLL
  for (int i = 0; i < kHeldRows; ++i) {
    const bool inside = x < a.window && top + i < a.window;
    const int64_t at = patch.top_left + int64_t{top + i} * a.width + x;
    held.of0[i] = inside ? static_cast<number_t>(a.image0[at]) : middle0;
    held.of1[i] = inside ? static_cast<number_t>(a.image1[at]) : middle1;
  }
  return held;
}

// The sum over the lanes of a group, in each of them.
template <typename number_t>
__device__ number_t group_sum(number_t value, int lanes) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  }
  return value;
}

// The moments of a window, in each lane of its group; `held` is left with the last pixels that the lane has read. One
// pass, with every pixel taken relative to the one in the middle: E[x^2] - E[x]^2 would lose a small variance beside a
// large mean.
template <typename scalar_t, typename number_t>
__device__ WindowMoments<number_t> patch_moments(const SsimArguments<scalar_t, number_t>& a, const Patch& patch,
                                                 HeldPixels<number_t>& held) {
  const int64_t middle = patch.top_left + int64_t{a.window / 2} * a.width + a.window / 2;
  const number_t middle0 = static_cast<number_t>(a.image0[middle]), middle1 = static_cast<number_t>(a.image1[middle]);
  number_t mean0 = 0, mean1 = 0, square0 = 0, square1 = 0, product = 0;
  for (int x = patch.lane; x < a.window; x += patch.lanes) {
    // Columns are summed on their own first: short sums round less.
    number_t column_mean0 = 0, column_mean1 = 0, column_square0 = 0, column_square1 = 0, column_product = 0;
    for (int top = 0; top < a.window; top += kHeldRows) {
      held = hold_pixels(a, patch, x, top, middle0, middle1);
      UNROLL
      for (int i = 0; i < kHeldRows; ++i) {
        const number_t off0 = held.of0[i] - middle0, off1 = held.of1[i] - middle1;
        const number_t weighted0 = a.weights[top + i] * off0, weighted1 = a.weights[top + i] * off1;
        column_mean0 += weighted0;
        column_mean1 += weighted1;
        column_square0 += weighted0 * off0;
        column_square1 += weighted1 * off1;
        column_product += weighted0 * off1;
      }
    }
    const number_t weight = a.weights[x];
    mean0 += weight * column_mean0;
    mean1 += weight * column_mean1;
    square0 += weight * column_square0;
    square1 += weight * column_square1;
    product += weight * column_product;
  }
  mean0 = group_sum(mean0, patch.lanes);
  mean1 = group_sum(mean1, patch.lanes);
  square0 = group_sum(square0, patch.lanes);
  square1 = group_sum(square1, patch.lanes);
  product = group_sum(product, patch.lanes);
  return {middle0 + mean0, middle1 + mean1, square0 - mean0 * mean0, square1 - mean1 * mean1, product - mean0 * mean1};
}

// Writes the gradients of a window's pixels.
template <typename scalar_t, typename number_t>
__device__ void store_patch_grads(const SsimArguments<scalar_t, number_t>& a, const Patch& patch,
                                  const WindowGrad<number_t>& g, HeldPixels<number_t>& held) {
  for (int x = patch.lane; x < a.window; x += patch.lanes) {
    const number_t across = a.weights[x];
    for (int top = 0; top < a.window; top += kHeldRows) {
      if (a.window > kHeldRows) { // else it still holds them
        held = hold_pixels(a, patch, x, top, number_t(0), number_t(0));
      }
      UNROLL
      for (int i = 0; i < kHeldRows; ++i) {
        if (top + i < a.window) {
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
template <typename scalar_t, bool kGrad>
__global__ void __launch_bounds__(kPatchThreads) ssim_patch_kernel(SsimArgumentsOf<scalar_t> a, int lanes) {
  using number_t = compute_t<scalar_t>;
  const int map_plane = a.map_height * a.map_width;
  const int shift = __ffs(lanes) - 1, thread = static_cast<int>(threadIdx.x);
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
    const WindowMoments<number_t> moments = patch_moments(a, patch, held);
    if (number >= map_plane) {
      continue;
    }
    if constexpr (kGrad) {
      const number_t grad = static_cast<number_t>(a.grad[patch.index]);
      store_patch_grads(a, patch, window_grad(moments, a.c1, a.c2, grad), held);
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
  launch(ssim_patch_kernel<scalar_t, kGrad>, plane_grid(blocks, a.planes), kPatchThreads, stream, a, lanes);
}

} // namespace
} // namespace pyaction
