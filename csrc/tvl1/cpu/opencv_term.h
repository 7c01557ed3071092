#pragma once
// Warping as OpenCV does it: frame 1 and its central differences, sampled where the flow points.
#include "tvl1/cpu/data_term.h"

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

// Rows [begin, end) of an image, interleaved with its centred differences (half one-sided at the edges), inside a zero
// border. The rows of the image have repeated edges.
void make_texels(const Plane& image, const TexelPlane& texels, int begin, int end) {
  const int64_t border = sizeof(float) * 4 * kBorder, line = sizeof(float) * texels.stride;
  for (int y = begin; y < end; ++y) {
    const float *row = image.row(y), *above = image.row(y - 1), *below = image.row(y + 1);
    float* out = texels.row(y);
    memset(out - 4 * kBorder, 0, border);
    for (int x = 0; x < image.width; ++x) {
      out[4 * x] = row[x];
      out[4 * x + 1] = 0.5f * (row[x + 1] - row[x - 1]);
      out[4 * x + 2] = 0.5f * (below[x] - above[x]);
      out[4 * x + 3] = 0.0f;
    }
    memset(out + 4 * image.width, 0, border);
  }
  if (begin == 0) {
    memset(texels.row(-kBorder) - 4 * kBorder, 0, kBorder * line);
  }
  if (end == image.height) {
    memset(texels.row(end) - 4 * kBorder, 0, kBorder * line);
  }
}

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

// Rows [begin, end) of a warp's data term.
void make_opencv_term(const Plane& frame0, const TexelPlane& texels, const Solution& solution, const DataTerm& term,
                      int begin, int end) {
  SampleChunk chunk;
  alignas(64) float flow_x[kSampleChunk], flow_y[kSampleChunk];
  for (int y = begin; y < end; ++y) {
    for (int first = 0; first < frame0.width; first += kSampleChunk) {
      const int count = frame0.width - first < kSampleChunk ? frame0.width - first : kSampleChunk;
      for (int x = 0; x < count; x += kLanes) {
        store(flow_x + x, load_u(solution, first + x, y, kU1));
        store(flow_y + x, load_u(solution, first + x, y, kU2));
      }
      const float* reference = frame0.row(y) + first;
      locate(texels, flow_x, flow_y, y, first, count, chunk);
      sample(texels, count, chunk);
      for (int x = 0; x < count; x += kLanes) {
        float* block = at<kTermFields>(term.row(y), first + x, 0);
        for (int i = 0; i < kLanes && x + i < count; ++i) {
          const float gx = chunk.sampled[x + i][1], gy = chunk.sampled[x + i][2];
          block[kWx * kLanes + i] = gx;
          block[kWy * kLanes + i] = gy;
          block[kConstant * kLanes + i] =
              chunk.sampled[x + i][0] - gx * flow_x[x + i] - gy * flow_y[x + i] - reference[x + i];
          block[kNorm * kLanes + i] = data_norm<true>(gx, gy);
        }
      }
    }
  }
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
