#pragma once
// The gradients of the pixels, from what the windows that overlap there add to them. A gather: no atomics.
#include "ssim/cuda/tiles.cuh"

namespace pyaction {
namespace {

// Of all windows of an axis, the first that reaches `pixel`, where all begin at or after pixel 0.
HOST_DEVICE int first_window(int pixel, int window, int stride) {
  return pixel < window ? 0 : (pixel - window) / stride + 1;
}

// Weighted sums of kTerms numbers of `count` neighbouring windows, for kOutputs neighbouring pixels. Element k holds
// window k; output i begins with it at window i.
template <int kCount, int kOutputs, int kTerms, typename number_t, typename Weight, typename Element>
__device__ void gather_line(int any_count, const Weight& weight, const Element& element,
                            number_t (&sums)[kOutputs][kTerms]) {
  const int count = kCount > 0 ? kCount : any_count;
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
#pragma unroll
    for (int term = 0; term < kTerms; ++term) {
      sums[i][term] = 0;
    }
  }
#pragma unroll
  for (int k = 0; k < count + kOutputs - 1; ++k) {
    number_t values[kTerms];
    element(k, values);
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
      if (k >= i && k - i < count) {
        const number_t w = weight(k - i);
#pragma unroll
        for (int term = 0; term < kTerms; ++term) {
          sums[i][term] += w * values[term];
        }
      }
    }
  }
}

// own, other, constant0 and, where both gradients are wanted, constant1.
template <typename number_t, bool kBoth>
using TileSums = number_t[kBoth ? 4 : 3][kTileRows<number_t>][kTileColumns];

// The first step: the sums over the rows of windows that cover rows [y, y + rows) of pixels, of column `column` of the
// windows, which need not exist.
template <int kWindow, bool kBoth, typename scalar_t, typename number_t>
__device__ void gather_column(const SsimArguments<scalar_t, number_t>& a, const WindowGradPlanes<number_t>& planes,
                              int64_t plane, int column, int y, int rows, TileSums<number_t, kBoth>& tile) {
  constexpr int kTerms = kBoth ? 4 : 3, kOutputs = kWindow > 0 ? kTileRows<number_t> : 1;
  const int64_t top = plane * a.map_height * planes.pitch + column;
  for (int first = 0; first < rows; first += kOutputs) {
    const int pixel = y + first;
    // Windows one pixel apart: all kWindow of each pixel, of which some are outside the map.
    const int begin = kWindow > 0 ? pixel - (kWindow - 1) : first_window(pixel, a.window, a.stride);
    const int count = min(pixel / a.stride, a.map_height - 1) - begin + 1;
    number_t sums[kOutputs][kTerms];
    gather_line<kWindow, kOutputs, kTerms>(
        count, [&](int k) { return a.weights[kWindow > 0 ? kWindow - 1 - k : pixel - (begin + k) * a.stride]; },
        [&](int k, number_t* values) {
          const int row = begin + k;
          const bool inside = row >= 0 && row < a.map_height && column >= 0 && column < a.map_width;
          const int64_t at = top + int64_t{row} * planes.pitch;
          values[0] = inside ? planes.own[at] : number_t(0);
          values[1] = inside ? planes.other[at] : number_t(0);
          values[2] = inside ? planes.constant0[at] : number_t(0);
          if constexpr (kBoth) {
            values[3] = inside ? planes.constant1[at] : number_t(0);
          }
        },
        sums);
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
#pragma unroll
      for (int term = 0; term < kTerms; ++term) {
        tile[term][first + i][threadIdx.x] = sums[i][term];
      }
    }
  }
}

// The second step: the sums for the strip of pixels that begins at `x`. Column 0 of the tile holds column `begin` of
// the windows.
template <int kWindow, int kTerms, typename scalar_t, typename number_t>
__device__ void gather_columns(const SsimArguments<scalar_t, number_t>& a,
                               const number_t (&tile)[kTerms][kTileRows<number_t>][kTileColumns], int begin, int row,
                               int x, number_t (&sums)[kStrip<kWindow>][kTerms]) {
  if constexpr (kWindow > 0) {
    constexpr int kSize = (kWindow + kStrip<kWindow> - 1 + 3) / 4 * 4;
    number_t lines[kTerms][kSize];
#pragma unroll
    for (int term = 0; term < kTerms; ++term) {
      load_line(&tile[term][row][x - (kWindow - 1) - begin], lines[term]);
    }
    gather_line<kWindow, kStrip<kWindow>, kTerms>(
        kWindow, [&](int k) { return a.weights[kWindow - 1 - k]; },
        [&](int k, number_t* values) {
#pragma unroll
          for (int term = 0; term < kTerms; ++term) {
            values[term] = lines[term][k];
          }
        },
        sums);
  } else {
    const int first = first_window(x, a.window, a.stride), last = min(x / a.stride, a.map_width - 1);
    gather_line<0, 1, kTerms>(
        last - first + 1, [&](int k) { return a.weights[x - (first + k) * a.stride]; },
        [&](int k, number_t* values) {
#pragma unroll
          for (int term = 0; term < kTerms; ++term) {
            values[term] = tile[term][row][first - begin + k];
          }
        },
        sums);
  }
}

// A block: a tile of pixels of a plane. Without kBoth only the gradient of image0 is written.
template <typename scalar_t, int kWindow, bool kBoth>
__global__ void __launch_bounds__(kTileColumns)
    ssim_gather_kernel(SsimArgumentsOf<scalar_t> a, WindowGradPlanes<compute_t<scalar_t>> planes) {
  using number_t = compute_t<scalar_t>;
  constexpr int kCount = kStrip<kWindow>, kTerms = kBoth ? 4 : 3;
  alignas(16) __shared__ TileSums<number_t, kBoth> sums;
  __shared__ number_t staged[kBoth ? 2 : 1][kTileRows<number_t>][kTileColumns];
  const Tile tile = own_tile<number_t>(a.height, a.width, tile_width<kWindow>(a.window, 1));
  // Columns of windows from `begin` on: thread and column of shared memory number 0.
  const int begin = kWindow > 0 ? tile.column - (kWindow - 1) : first_window(tile.column, a.window, a.stride);
  const int end = min((tile.column + tile.columns - 1) / a.stride + 1, kWindow > 0 ? 1 << 24 : a.map_width);
  for (int64_t plane = blockIdx.y; plane < a.planes; plane += gridDim.y) {
    if (begin + static_cast<int>(threadIdx.x) < end) {
      gather_column<kWindow, kBoth>(a, planes, plane, begin + static_cast<int>(threadIdx.x), tile.row, tile.rows, sums);
    }
    __syncthreads();
    for_each_strip<kWindow>(tile, [&](int row, int column) {
      const int x = tile.column + column;
      number_t strip[kCount][kTerms];
      gather_columns<kWindow>(a, sums, begin, row, x, strip);
      const int64_t offset = (plane * a.height + tile.row + row) * a.width + x;
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const bool inside = x + i < a.width;
        const number_t pixel0 = inside ? static_cast<number_t>(a.image0[offset + i]) : number_t(0);
        const number_t pixel1 = inside ? static_cast<number_t>(a.image1[offset + i]) : number_t(0);
        staged[0][row][column + i] = pixel_grad(strip[i][2], strip[i][0], strip[i][1], pixel0, pixel1);
        if constexpr (kBoth) {
          staged[1][row][column + i] = pixel_grad(strip[i][3], strip[i][0], strip[i][1], pixel1, pixel0);
        }
      }
    });
    __syncthreads();
    store_tile(staged[0], tile, plane, a.height, a.width, a.grad0);
    if constexpr (kBoth) {
      store_tile(staged[1], tile, plane, a.height, a.width, a.grad1);
    }
  }
}

} // namespace
} // namespace pyaction
