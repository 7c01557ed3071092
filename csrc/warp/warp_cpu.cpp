// The CPU kernels of warp, compiled once per instruction set (common/simd.h).
#include "common/bilinear.h"
#include "warp/warp.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

constexpr int kChunk = 256; // pixels of a row whose taps are held at a time: 12 KB, inside the L1 cache

// Taps of up to kChunk neighbouring pixels. Computed once and used for every channel.
template <typename scalar_t>
struct ChunkTaps {
  int index[4][kChunk]; // top left, top right, bottom left, bottom right: offsets into a plane
  scalar_t x_weight[2][kChunk], y_weight[2][kChunk]; // low, high
  scalar_t x_slope[2][kChunk], y_slope[2][kChunk];
};

template <bool border, typename scalar_t>
void locate(const WarpArguments<scalar_t>& a, const scalar_t* flow_x, const scalar_t* flow_y, int y, int first,
            int count, ChunkTaps<scalar_t>& taps) {
  for (int i = 0; i < count; ++i) {
    const AxisTaps<scalar_t> tx = axis_taps<border>(static_cast<scalar_t>(first + i) + flow_x[i], a.width);
    const AxisTaps<scalar_t> ty = axis_taps<border>(static_cast<scalar_t>(y) + flow_y[i], a.height);
    taps.index[0][i] = ty.low * a.width + tx.low;
    taps.index[1][i] = ty.low * a.width + tx.high;
    taps.index[2][i] = ty.high * a.width + tx.low;
    taps.index[3][i] = ty.high * a.width + tx.high;
    taps.x_weight[0][i] = tx.low_weight;
    taps.x_weight[1][i] = tx.high_weight;
    taps.y_weight[0][i] = ty.low_weight;
    taps.y_weight[1][i] = ty.high_weight;
    taps.x_slope[0][i] = tx.low_slope;
    taps.x_slope[1][i] = tx.high_slope;
    taps.y_slope[0][i] = ty.low_slope;
    taps.y_slope[1][i] = ty.high_slope;
  }
}

// Calls body(taps, pixel, count) for each chunk of row `row` (of batch * height rows); `pixel` is the
// chunk's offset in a plane.
template <typename scalar_t, typename Body>
void for_each_chunk(const WarpArguments<scalar_t>& a, int64_t row, Body&& body) {
  ChunkTaps<scalar_t> taps;
  const int64_t plane = int64_t{a.height} * a.width;
  const int y = static_cast<int>(row % a.height);
  const scalar_t* flow = a.flow + row / a.height * 2 * plane + int64_t{y} * a.width;
  for (int first = 0; first < a.width; first += kChunk) {
    const int count = a.width - first < kChunk ? a.width - first : kChunk;
    if (a.border) {
      locate<true>(a, flow + first, flow + plane + first, y, first, count, taps);
    } else {
      locate<false>(a, flow + first, flow + plane + first, y, first, count, taps);
    }
    body(taps, int64_t{y} * a.width + first, count);
  }
}

template <typename scalar_t>
void forward(const WarpArguments<scalar_t>& a, int64_t begin, int64_t end) {
  const int64_t plane = int64_t{a.height} * a.width;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first_plane = row / a.height * a.channels;
    for_each_chunk(a, row, [&](const ChunkTaps<scalar_t>& t, int64_t pixel, int count) {
      for (int64_t c = 0; c < a.channels; ++c) {
        const scalar_t* image = a.image + (first_plane + c) * plane;
        scalar_t* output = a.result + (first_plane + c) * plane + pixel;
        for (int i = 0; i < count; ++i) {
          const scalar_t top = t.x_weight[0][i] * image[t.index[0][i]] + t.x_weight[1][i] * image[t.index[1][i]];
          const scalar_t bottom = t.x_weight[0][i] * image[t.index[2][i]] + t.x_weight[1][i] * image[t.index[3][i]];
          output[i] = t.y_weight[0][i] * top + t.y_weight[1][i] * bottom;
        }
      }
    });
  }
}

template <typename scalar_t>
void grad_flow(const WarpArguments<scalar_t>& a, int64_t begin, int64_t end) {
  const int64_t plane = int64_t{a.height} * a.width;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t n = row / a.height;
    for_each_chunk(a, row, [&](const ChunkTaps<scalar_t>& t, int64_t pixel, int count) {
      scalar_t* grad_x = a.result + 2 * n * plane + pixel;
      scalar_t* grad_y = grad_x + plane;
      for (int i = 0; i < count; ++i) {
        grad_x[i] = 0;
        grad_y[i] = 0;
      }
      for (int64_t c = 0; c < a.channels; ++c) {
        const scalar_t* image = a.image + (n * a.channels + c) * plane;
        const scalar_t* grad = a.grad + (n * a.channels + c) * plane + pixel;
        for (int i = 0; i < count; ++i) {
          const scalar_t top_left = image[t.index[0][i]], top_right = image[t.index[1][i]];
          const scalar_t bottom_left = image[t.index[2][i]], bottom_right = image[t.index[3][i]];
          const scalar_t top = t.x_weight[0][i] * top_left + t.x_weight[1][i] * top_right;
          const scalar_t bottom = t.x_weight[0][i] * bottom_left + t.x_weight[1][i] * bottom_right;
          const scalar_t top_slope = t.x_slope[0][i] * top_left + t.x_slope[1][i] * top_right;
          const scalar_t bottom_slope = t.x_slope[0][i] * bottom_left + t.x_slope[1][i] * bottom_right;
          grad_x[i] += grad[i] * (t.y_weight[0][i] * top_slope + t.y_weight[1][i] * bottom_slope);
          grad_y[i] += grad[i] * (t.y_slope[0][i] * top + t.y_slope[1][i] * bottom);
        }
      }
    });
  }
}

template <typename scalar_t>
void grad_image(const WarpArguments<scalar_t>& a, int64_t begin, int64_t end) {
  const int64_t plane = int64_t{a.height} * a.width;
  for (int64_t p = begin; p < end; ++p) {
    scalar_t* result = a.result + p * plane;
    for (int y = 0; y < a.height; ++y) {
      for_each_chunk(a, p / a.channels * a.height + y, [&](const ChunkTaps<scalar_t>& t, int64_t pixel, int count) {
        const scalar_t* grad = a.grad + p * plane + pixel;
        for (int i = 0; i < count; ++i) {
          const scalar_t top = grad[i] * t.y_weight[0][i], bottom = grad[i] * t.y_weight[1][i];
          result[t.index[0][i]] += top * t.x_weight[0][i];
          result[t.index[1][i]] += top * t.x_weight[1][i];
          result[t.index[2][i]] += bottom * t.x_weight[0][i];
          result[t.index[3][i]] += bottom * t.x_weight[1][i];
        }
      });
    }
  }
}

} // namespace

extern const WarpKernels<float> warp_float = {forward<float>, grad_flow<float>, grad_image<float>};
extern const WarpKernels<double> warp_double = {forward<double>, grad_flow<double>, grad_image<double>};

} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
