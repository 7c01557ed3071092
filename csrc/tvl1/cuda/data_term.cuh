#pragma once
// Warping: frame 1 and its gradient, sampled where the flow points; and which of two flows explains frame 1 better.
// A data term is (wx, wy: warped gradient; warped value - (wx, wy) . u - frame 0; data_norm). Planes are those of
// sequences: [sequences, H, W], and [sequences, 2, H, W] of a flow.
#include "tvl1/cuda/pyramid.cuh"

namespace pyaction {
namespace {

// Frame 1 beside its centred differences (half one-sided at the edges): one load per tap when it is sampled.
__global__ void texel_kernel(const float* frame1, Level level, float4* texels) {
  const int x = pixel_x(), y = pixel_y();
  if (!level.holds(x, y)) {
    return;
  }
  const float* image = frame1 + blockIdx.z * level.plane();
  const float dx = image[level.nearest(x + 1, y)] - image[level.nearest(x - 1, y)];
  const float dy = image[level.nearest(x, y + 1)] - image[level.nearest(x, y - 1)];
  texels[blockIdx.z * level.plane() + level.at(x, y)] = make_float4(image[level.at(x, y)], 0.5f * dx, 0.5f * dy, 0.0f);
}

// As OpenCV: frame 1 and its central differences are sampled, outside of the image there is zero.
__global__ void opencv_term_kernel(const float* frame0, const float4* texels, const float* flow, Level level,
                                   float4* term) {
  const int x = pixel_x(), y = pixel_y();
  if (!level.holds(x, y)) {
    return;
  }
  const int64_t pixel = level.at(x, y), plane = level.plane();
  const float u1 = flow[2 * blockIdx.z * plane + pixel], u2 = flow[(2 * blockIdx.z + 1) * plane + pixel];
  texels += blockIdx.z * plane;
  const CubicTap tx = cubic_tap(static_cast<float>(x) + u1, level.width);
  const CubicTap ty = cubic_tap(static_cast<float>(y) + u2, level.height);
  float x_weight[4], y_weight[4];
  cubic_weights(tx.fraction, x_weight[0], x_weight[1], x_weight[2], x_weight[3]);
  cubic_weights(ty.fraction, y_weight[0], y_weight[1], y_weight[2], y_weight[3]);
  float value = 0.0f, wx = 0.0f, wy = 0.0f;
  UNROLL
  for (int j = 0; j < 4; ++j) {
    float row_value = 0.0f, row_wx = 0.0f, row_wy = 0.0f;
    UNROLL
    for (int i = 0; i < 4; ++i) {
      const int tap_x = tx.base - 1 + i, tap_y = ty.base - 1 + j;
      const bool inside = level.holds(tap_x, tap_y);
      const float4 texel = inside ? texels[level.at(tap_x, tap_y)] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      row_value = fma_of(x_weight[i], texel.x, row_value);
      row_wx = fma_of(x_weight[i], texel.y, row_wx);
      row_wy = fma_of(x_weight[i], texel.z, row_wy);
    }
    value = fma_of(y_weight[j], row_value, value);
    wx = fma_of(y_weight[j], row_wx, wx);
    wy = fma_of(y_weight[j], row_wy, wy);
  }
  const float reference = frame0[blockIdx.z * plane + pixel];
  term[blockIdx.z * plane + pixel] =
      make_float4(wx, wy, value - wx * u1 - wy * u2 - reference, data_norm<true>(wx, wy));
}

// The bicubic surface through frame 1 and its derivatives, mixed with frame 0's; outside of the image there is nothing.
__global__ void data_term_kernel(const float* frame0, const float* frame1, const float* flow, Level level,
                                 float4* term) {
  const int x = pixel_x(), y = pixel_y();
  if (!level.holds(x, y)) {
    return;
  }
  const int64_t pixel = level.at(x, y), plane = level.plane();
  const float u1 = flow[2 * blockIdx.z * plane + pixel], u2 = flow[(2 * blockIdx.z + 1) * plane + pixel];
  frame0 += blockIdx.z * plane;
  frame1 += blockIdx.z * plane;
  const Position<float> p =
      position_of(static_cast<float>(x) + u1, static_cast<float>(y) + u2, level.width, level.height);
  const int base_x = static_cast<int>(p.base_x), base_y = static_cast<int>(p.base_y);
  float x_weight[4], y_weight[4], x_slope[4], y_slope[4];
  cubic_weights(p.x - p.base_x, x_weight[0], x_weight[1], x_weight[2], x_weight[3]);
  cubic_slopes(p.x - p.base_x, x_slope[0], x_slope[1], x_slope[2], x_slope[3]);
  cubic_weights(p.y - p.base_y, y_weight[0], y_weight[1], y_weight[2], y_weight[3]);
  cubic_slopes(p.y - p.base_y, y_slope[0], y_slope[1], y_slope[2], y_slope[3]);
  float value = 0.0f, gx = 0.0f, gy = 0.0f;
  UNROLL
  for (int j = 0; j < 4; ++j) {
    float along = 0.0f, slope = 0.0f;
    UNROLL
    for (int i = 0; i < 4; ++i) {
      const float tap = frame1[level.nearest(base_x - 1 + i, base_y - 1 + j)];
      along = fma_of(x_weight[i], tap, along);
      slope = fma_of(x_slope[i], tap, slope);
    }
    value = fma_of(y_weight[j], along, value);
    gx = fma_of(y_weight[j], slope, gx);
    gy = fma_of(y_slope[j], along, gy);
  }
  constexpr float half_share = 0.5f * kReferenceShare, rest = 1.0f - kReferenceShare;
  const float dx = frame0[level.nearest(x + 1, y)] - frame0[level.nearest(x - 1, y)];
  const float dy = frame0[level.nearest(x, y + 1)] - frame0[level.nearest(x, y - 1)];
  gx = p.inside * fma_of(rest, gx, half_share * dx);
  gy = p.inside * fma_of(rest, gy, half_share * dy);
  const float constant = value - frame0[pixel] - fma_of(gx, u1, gy * u2);
  term[blockIdx.z * plane + pixel] = make_float4(gx, gy, constant, data_norm<false>(gx, gy));
}

// |frame 1 at x + u - frame 0|, bilinear, at most kLargestResidual.
__device__ float residual_of(const float* frame0, const float* frame1, Level level, float u1, float u2, int x, int y) {
  const Position<float> p =
      position_of(static_cast<float>(x) + u1, static_cast<float>(y) + u2, level.width, level.height);
  const int base_x = static_cast<int>(p.base_x), base_y = static_cast<int>(p.base_y);
  const float right = p.x - p.base_x, down = p.y - p.base_y;
  const auto along_x = [&](int row) {
    const float left = frame1[level.nearest(base_x, row)];
    return fma_of(right, frame1[level.nearest(base_x + 1, row)] - left, left);
  };
  const float top = along_x(base_y), bottom = along_x(base_y + 1);
  const float difference = fma_of(down, bottom - top, top) - frame0[level.at(x, y)];
  return min_of(max_of(difference, -difference), kLargestResidual);
}

// The residual of the kept flow less that of the flow.
__global__ void compare_residuals_kernel(const float* frame0, const float* frame1, const float* flow, const float* kept,
                                         Level level, float* difference) {
  const int x = pixel_x(), y = pixel_y();
  if (!level.holds(x, y)) {
    return;
  }
  const int64_t pixel = level.at(x, y), plane = level.plane();
  frame0 += blockIdx.z * plane;
  frame1 += blockIdx.z * plane;
  const auto residual = [&](const float* of) {
    of += 2 * blockIdx.z * plane + pixel;
    return residual_of(frame0, frame1, level, of[0], of[plane], x, y);
  };
  difference[blockIdx.z * plane + pixel] = residual(kept) - residual(flow);
}

// The kept flow where the difference, summed over the part of a window around the pixel that is in the image, is
// negative.
__global__ void take_better_kernel(const float* difference, const float* kept, Level level, float* flow) {
  const int x = pixel_x(), y = pixel_y();
  if (!level.holds(x, y)) {
    return;
  }
  const int64_t plane = level.plane(), pixel = 2 * blockIdx.z * plane + level.at(x, y);
  difference += blockIdx.z * plane;
  float sum = 0.0f;
  for (int j = -kCompareRadius; j <= kCompareRadius; ++j) {
    for (int i = -kCompareRadius; i <= kCompareRadius; ++i) {
      sum += level.holds(x + i, y + j) ? difference[level.at(x + i, y + j)] : 0.0f;
    }
  }
  if (sum < 0.0f) {
    flow[pixel] = kept[pixel];
    flow[pixel + plane] = kept[pixel + plane];
  }
}

} // namespace
} // namespace pyaction
