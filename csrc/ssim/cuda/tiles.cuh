#pragma once
// Windows that overlap. Both axes are weighted separately, in tiles: the threads of a block go down the columns of
// pixels, each its own, and put the moments of the columns into shared memory; then they join the columns of each
// window by the law of total variance. The gradient gathers, in the same two steps, what the windows add to a pixel.
//
// Templates with kWindow > 0 are for windows of that size, one pixel apart: a thread works on several neighbouring
// outputs and reads what they share once. kWindow = 0 takes any window and stride, one output at a time.
//
// Loops are unrolled for nvcc alone (not by UNROLL): g++, in tests/simt, would take minutes over it with sanitizers.
#include "ssim/cuda/planes.cuh"

namespace pyaction {
namespace {

constexpr int kTileColumns = 128; // of shared memory, and threads of a block

// Rows of outputs of a tile. The moments of their columns take 20 KB of shared memory, in float and double alike.
template <typename number_t>
constexpr int kTileRows = 32 / sizeof(number_t);

// Neighbouring outputs of a thread in the second step: one float4.
template <int kWindow>
constexpr int kStrip = kWindow > 0 ? 4 : 1;

// Outputs of a tile along a row of it, from kTileColumns inputs. Strips are whole, so rows of them stay aligned.
template <int kWindow>
HOST_DEVICE int tile_width(int window, int stride) {
  return ((kTileColumns - window) / stride + 1) / kStrip<kWindow> * kStrip<kWindow>;
}

// What the windows of an image add to the gradients of their pixels: WindowGrad, member by member.
template <typename number_t>
struct WindowGradPlanes {
  number_t *constant0, *constant1; // [planes, map_height, pitch]; null where that gradient is not needed
  number_t *own, *other;
  int pitch; // a multiple of 4; beyond map_width stands anything
};

// The moments of kOutputs neighbouring windows of a line of elements, which have moments themselves. All is taken
// relative to an element in the middle, which all of the windows hold (so the window is no shorter than kOutputs):
// E[x^2] - E[x]^2 would lose a small variance beside a large mean.
template <int kWindow, int kOutputs, typename number_t, typename Element>
__device__ void join_line(const number_t* weights, int any_window, const Element& element,
                          WindowMoments<number_t>* results) { // [kOutputs]
  static_assert(kOutputs == 1 || kOutputs <= kWindow, "no element is in all of the windows");
  const int window = kWindow > 0 ? kWindow : any_window;
  const WindowMoments<number_t> pivot = element((window + kOutputs - 1) / 2);
  WindowMoments<number_t> sums[kOutputs] = {};
#pragma unroll
  for (int k = 0; k < window + kOutputs - 1; ++k) {
    const WindowMoments<number_t> e = element(k);
    const number_t off0 = e.mean0 - pivot.mean0, off1 = e.mean1 - pivot.mean1;
    const number_t square0 = e.variance0 + off0 * off0, square1 = e.variance1 + off1 * off1;
    const number_t product = e.covariance + off0 * off1;
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
      if (k >= i && k - i < window) {
        const number_t weight = weights[k - i];
        sums[i].mean0 += weight * off0;
        sums[i].mean1 += weight * off1;
        sums[i].variance0 += weight * square0;
        sums[i].variance1 += weight * square1;
        sums[i].covariance += weight * product;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    const WindowMoments<number_t> s = sums[i];
    results[i] = {pivot.mean0 + s.mean0, pivot.mean1 + s.mean1, s.variance0 - s.mean0 * s.mean0,
                  s.variance1 - s.mean1 * s.mean1, s.covariance - s.mean0 * s.mean1};
  }
}

template <typename number_t>
using TileMoments = number_t[5][kTileRows<number_t>][kTileColumns]; // members of WindowMoments

// The first step: the moments of column `x` of the rows of windows [row, row + rows).
template <int kWindow, typename scalar_t, typename number_t>
__device__ void column_moments(const SsimArguments<scalar_t, number_t>& a, int64_t plane, int x, int row, int rows,
                               TileMoments<number_t>& tile) {
  constexpr int kRows = kTileRows<number_t>, kOutputs = kWindow > 0 ? kRows : 1;
  const int64_t column = plane * a.height * a.width + x;
  for (int first = 0; first < rows; first += kOutputs) {
    const int top = (row + first) * a.stride;
    WindowMoments<number_t> moments[kOutputs];
    join_line<kWindow, kOutputs>(
        a.weights, a.window,
        [&](int k) {
          // Below the image are only windows that are not there.
          const int64_t at = column + int64_t{min(top + k, a.height - 1)} * a.width;
          return WindowMoments<number_t>{static_cast<number_t>(a.image0[at]), static_cast<number_t>(a.image1[at]), 0, 0,
                                         0};
        },
        moments);
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
      tile[0][first + i][threadIdx.x] = moments[i].mean0;
      tile[1][first + i][threadIdx.x] = moments[i].mean1;
      tile[2][first + i][threadIdx.x] = moments[i].variance0;
      tile[3][first + i][threadIdx.x] = moments[i].variance1;
      tile[4][first + i][threadIdx.x] = moments[i].covariance;
    }
  }
}

// The part of an output that a block works on.
struct Tile {
  int row, column, rows, columns;
};

// Tile blockIdx.x of outputs of height x width.
template <typename number_t>
__device__ Tile own_tile(int height, int width, int tile_width) {
  const int across = (width + tile_width - 1) / tile_width, number = static_cast<int>(blockIdx.x);
  Tile tile;
  tile.row = number / across * kTileRows<number_t>;
  tile.column = number % across * tile_width;
  tile.rows = min(kTileRows<number_t>, height - tile.row);
  tile.columns = min(tile_width, width - tile.column);
  return tile;
}

// Calls body(row, column) for the strips of a tile, shared among the threads.
template <int kWindow, typename Body>
__device__ void for_each_strip(const Tile& tile, const Body& body) {
  const int strips = (tile.columns + kStrip<kWindow> - 1) / kStrip<kWindow>;
  for (int i = threadIdx.x; i < tile.rows * strips; i += kTileColumns) {
    const int row = i / strips;
    body(row, (i - row * strips) * kStrip<kWindow>);
  }
}

// Writes a tile out, row by row: neighbouring threads, neighbouring addresses.
template <typename number_t, typename scalar_t>
__device__ void store_tile(const number_t (&staged)[kTileRows<number_t>][kTileColumns], const Tile& tile, int64_t plane,
                           int height, int width, scalar_t* result) {
  const int x = threadIdx.x;
  if (x < tile.columns) {
    result += (plane * height + tile.row) * width + tile.column + x;
    for (int y = 0; y < tile.rows; ++y) {
      result[int64_t{y} * width] = static_cast<scalar_t>(staged[y][x]);
    }
  }
}

template <int kCount, typename number_t>
__device__ void store_strip(const number_t* values, number_t* to) {
  if constexpr (kCount == 4) {
    *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
  } else {
    *to = *values;
  }
}

// What kCount neighbouring windows add to the gradients. `row` counts over all planes.
template <int kCount, typename scalar_t, typename number_t>
__device__ void store_window_grads(const SsimArguments<scalar_t, number_t>& a, const WindowGradPlanes<number_t>& planes,
                                   int64_t row, int column, const WindowMoments<number_t>* windows) { // [kCount]
  number_t constant0[kCount], constant1[kCount], own[kCount], other[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const bool inside = column + i < a.map_width;
    const number_t grad = inside ? static_cast<number_t>(a.grad[row * a.map_width + column + i]) : number_t(0);
    const WindowGrad<number_t> g = window_grad(windows[i], a.c1, a.c2, grad);
    constant0[i] = g.constant0;
    constant1[i] = g.constant1;
    own[i] = g.own;
    other[i] = g.other;
  }
  const int64_t at = row * planes.pitch + column;
  if (planes.constant0 != nullptr) {
    store_strip<kCount>(constant0, planes.constant0 + at);
  }
  if (planes.constant1 != nullptr) {
    store_strip<kCount>(constant1, planes.constant1 + at);
  }
  store_strip<kCount>(own, planes.own + at);
  store_strip<kCount>(other, planes.other + at);
}

// kSize numbers of shared memory, which begin at a multiple of four floats.
template <int kSize>
__device__ void load_line(const float* from, float (&line)[kSize]) {
  static_assert(kSize % 4 == 0, "it is read by float4");
#pragma unroll
  for (int i = 0; i < kSize; i += 4) {
    const float4 four = *reinterpret_cast<const float4*>(from + i);
    line[i] = four.x;
    line[i + 1] = four.y;
    line[i + 2] = four.z;
    line[i + 3] = four.w;
  }
}

// The second step: the moments of the strip of windows that begins at `column` of a row of the tile.
template <int kWindow, typename scalar_t, typename number_t>
__device__ void join_columns(const SsimArguments<scalar_t, number_t>& a, const TileMoments<number_t>& tile, int row,
                             int column, WindowMoments<number_t>* windows) { // [kStrip]
  if constexpr (kWindow > 0) {
    constexpr int kSize = (kWindow + kStrip<kWindow> - 1 + 3) / 4 * 4;
    number_t lines[5][kSize];
#pragma unroll
    for (int i = 0; i < 5; ++i) {
      load_line(&tile[i][row][column], lines[i]);
    }
    join_line<kWindow, kStrip<kWindow>>(
        a.weights, kWindow,
        [&](int k) { return WindowMoments<number_t>{lines[0][k], lines[1][k], lines[2][k], lines[3][k], lines[4][k]}; },
        windows);
  } else {
    join_line<0, 1>(
        a.weights, a.window,
        [&](int k) {
          const int at = column * a.stride + k;
          return WindowMoments<number_t>{tile[0][row][at], tile[1][row][at], tile[2][row][at], tile[3][row][at],
                                         tile[4][row][at]};
        },
        windows);
  }
}

// A block: a tile of windows of a plane. Writes the map, or what the windows add to the gradients.
template <typename scalar_t, int kWindow, bool kGrad>
__global__ void __launch_bounds__(kTileColumns)
    ssim_tile_kernel(SsimArgumentsOf<scalar_t> a, WindowGradPlanes<compute_t<scalar_t>> planes) {
  using number_t = compute_t<scalar_t>;
  constexpr int kCount = kStrip<kWindow>;
  alignas(16) __shared__ TileMoments<number_t> moments;
  __shared__ number_t staged[kTileRows<number_t>][kTileColumns];
  const int stride = kWindow > 0 ? 1 : a.stride;
  const Tile tile = own_tile<number_t>(a.map_height, a.map_width, tile_width<kWindow>(a.window, stride));
  const int x = tile.column * stride + static_cast<int>(threadIdx.x);
  const int inputs = (tile.columns - 1) * stride + a.window;
  for (int64_t plane = blockIdx.y; plane < a.planes; plane += gridDim.y) {
    if (static_cast<int>(threadIdx.x) < inputs) {
      column_moments<kWindow>(a, plane, x, tile.row, tile.rows, moments);
    }
    __syncthreads();
    for_each_strip<kWindow>(tile, [&](int row, int column) {
      WindowMoments<number_t> windows[kCount];
      join_columns<kWindow>(a, moments, row, column, windows);
      if constexpr (kGrad) {
        store_window_grads<kCount>(a, planes, plane * a.map_height + tile.row + row, tile.column + column, windows);
      } else {
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
          staged[row][column + i] = window_similarity(windows[i], a.c1, a.c2);
        }
      }
    });
    __syncthreads();
    if constexpr (!kGrad) {
      store_tile(staged, tile, plane, a.map_height, a.map_width, a.map);
    }
  }
}

} // namespace
} // namespace pyaction
