#pragma once
// Warping: frame 1 and its gradient, sampled where the flow points.
#include "tvl1/cpu/plane.h"
#include "tvl1/tvl1_math.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

// Value, x gradient, y gradient and nothing of one pixel, side by side: one load per tap instead of three.
typedef float Texel __attribute__((vector_size(16), may_alias));

HOST_DEVICE Texel fma_of(float a, Texel b, Texel c) {
#if defined(__FMA__)
  return _mm_fmadd_ps(_mm_set1_ps(a), b, c);
#else
  return a * b + c;
#endif
}

constexpr int kBorder = 4; // zero texels around the image: what the taps of cubic_tap() can reach

struct TexelPlane {
  float* data; // texel (0, 0)
  int width, height;
  int64_t stride; // floats from row to row

  float* row(int y) const {
    return data + y * stride;
  }
};

HOST_DEVICE int64_t texel_plane_size(int width, int height) {
  return 4 * static_cast<int64_t>(width + 2 * kBorder) * (height + 2 * kBorder);
}

HOST_DEVICE TexelPlane make_texel_plane(float* memory, int width, int height) {
  const int64_t stride = 4 * static_cast<int64_t>(width + 2 * kBorder);
  return {memory + kBorder * stride + 4 * kBorder, width, height, stride};
}

// Interleaves an image with its centred differences (half one-sided at the edges), inside a zero border.
void make_texels(const Plane& image, const TexelPlane& texels) {
  memset(texels.data - kBorder * texels.stride - 4 * kBorder, 0,
         sizeof(float) * texel_plane_size(image.width, image.height));
  for (int y = 0; y < image.height; ++y) {
    float* row = image.row(y);
    row[-1] = row[0];
    row[image.width] = row[image.width - 1];
    const float* above = image.row(y > 0 ? y - 1 : y);
    const float* below = image.row(y < image.height - 1 ? y + 1 : y);
    float* out = texels.row(y);
    for (int x = 0; x < image.width; ++x) {
      out[4 * x] = row[x];
      out[4 * x + 1] = 0.5f * (row[x + 1] - row[x - 1]);
      out[4 * x + 2] = 0.5f * (below[x] - above[x]);
    }
  }
}

// What the iterations need of a warp, per pixel.
struct DataTerm {
  Plane wx, wy;   // warped gradient
  Plane constant; // warped value - (wx, wy) . u - frame 0
  Plane norm;     // see data_norm
};

constexpr int kSampleChunk = 64; // pixels whose weights are held at a time

struct SampleChunk {
  alignas(64) float x_weight[4][kSampleChunk], y_weight[4][kSampleChunk];
  alignas(64) int64_t offset[kSampleChunk]; // of the tap at the top left
  alignas(64) float sampled[kSampleChunk][4];
};

// Weights and addresses of `count` pixels of row y from x = first on.
void locate(const TexelPlane& texels, const float* u1, const float* u2, int y, int first, int count,
            SampleChunk& chunk) {
  for (int i = 0; i < count; ++i) {
    const CubicTap tap_x = cubic_tap(static_cast<float>(first + i) + u1[i], texels.width);
    const CubicTap tap_y = cubic_tap(static_cast<float>(y) + u2[i], texels.height);
    cubic_weights(tap_x.fraction, chunk.x_weight[0][i], chunk.x_weight[1][i], chunk.x_weight[2][i],
                  chunk.x_weight[3][i]);
    cubic_weights(tap_y.fraction, chunk.y_weight[0][i], chunk.y_weight[1][i], chunk.y_weight[2][i],
                  chunk.y_weight[3][i]);
    chunk.offset[i] = (tap_y.base - 1) * texels.stride + 4 * (tap_x.base - 1);
  }
}

// Four neighbouring texels of a row, weighted.
HOST_DEVICE Texel sample_row(const float* texels, const SampleChunk& chunk, int i) {
  const Texel* row = reinterpret_cast<const Texel*>(texels);
  Texel sum = chunk.x_weight[0][i] * row[0];
  sum = fma_of(chunk.x_weight[1][i], row[1], sum);
  sum = fma_of(chunk.x_weight[2][i], row[2], sum);
  return fma_of(chunk.x_weight[3][i], row[3], sum);
}

// noipa: gcc 12 rewrites the address of the store relative to the weights', then takes the function for one without
// effects, and drops the call.
__attribute__((noipa)) void sample(const TexelPlane& texels, int count, SampleChunk& chunk) {
  for (int i = 0; i < count; ++i) {
    const float* taps = texels.data + chunk.offset[i];
    Texel sum = chunk.y_weight[0][i] * sample_row(taps, chunk, i);
    for (int j = 1; j < 4; ++j) {
      sum = fma_of(chunk.y_weight[j][i], sample_row(taps + j * texels.stride, chunk, i), sum);
    }
    *reinterpret_cast<Texel*>(chunk.sampled[i]) = sum;
  }
}

template <bool exact>
void make_data_term(const Plane& frame0, const TexelPlane& texels, const Plane& u1, const Plane& u2,
                    const DataTerm& term) {
  SampleChunk chunk;
  for (int y = 0; y < frame0.height; ++y) {
    for (int first = 0; first < frame0.width; first += kSampleChunk) {
      const int count = frame0.width - first < kSampleChunk ? frame0.width - first : kSampleChunk;
      const float *flow_x = u1.row(y) + first, *flow_y = u2.row(y) + first, *reference = frame0.row(y) + first;
      locate(texels, flow_x, flow_y, y, first, count, chunk);
      sample(texels, count, chunk);
      float *wx = term.wx.row(y) + first, *wy = term.wy.row(y) + first;
      float *constant = term.constant.row(y) + first, *norm = term.norm.row(y) + first;
      for (int i = 0; i < count; ++i) {
        const float gx = chunk.sampled[i][1], gy = chunk.sampled[i][2];
        wx[i] = gx;
        wy[i] = gy;
        constant[i] = chunk.sampled[i][0] - gx * flow_x[i] - gy * flow_y[i] - reference[i];
        norm[i] = data_norm<exact>(gx, gy);
      }
    }
  }
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
