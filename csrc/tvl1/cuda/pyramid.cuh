#pragma once
// Frames as grey planes, resizing between the levels of the pyramid, and what all kernels of TV-L1 share. Unless said
// otherwise a thread works on one pixel of one plane: blockIdx.z is the plane.
#include "tvl1/tvl1_math.h"

namespace pyaction {
namespace {

constexpr dim3 kPixelBlock(32, 8);

struct Level {
  int width, height;

  __device__ bool holds(int x, int y) const {
    return x >= 0 && y >= 0 && x < width && y < height;
  }
  __device__ int64_t plane() const {
    return int64_t{width} * height;
  }
  __device__ int64_t at(int x, int y) const {
    return int64_t{y} * width + x;
  }
  // Of the pixel (x, y), or of the one at the edge that is nearest to it.
  __device__ int64_t nearest(int x, int y) const {
    return at(min(max(x, 0), width - 1), min(max(y, 0), height - 1));
  }
};

__device__ int pixel_x() {
  return blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ int pixel_y() {
  return blockIdx.y * blockDim.y + threadIdx.y;
}

// stride: pixels from a sequence's frame to the next sequence's.
template <typename pixel_t>
__global__ void load_kernel(const pixel_t* frames, int64_t stride, int channels, Level level, float* grey) {
  const int x = pixel_x(), y = pixel_y();
  if (level.holds(x, y)) {
    grey[blockIdx.z * level.plane() + level.at(x, y)] =
        grey_level(frames + blockIdx.z * stride, channels, level.plane(), level.at(x, y));
  }
}

// target = factor * source, resampled bilinearly; a step of one target pixel is `ratio` source pixels. Planes with even
// number are x components, those with odd number y components.
__global__ void resize_kernel(const float* source, Level from, float* target, Level to, double x_ratio, double y_ratio,
                              double x_factor, double y_factor) {
  const int x = pixel_x(), y = pixel_y();
  if (!to.holds(x, y)) {
    return;
  }
  const ResizeTap tx = resize_tap(x, x_ratio, from.width), ty = resize_tap(y, y_ratio, from.height);
  const int right = tx.fraction > 0 ? tx.index + 1 : tx.index, below = ty.fraction > 0 ? ty.index + 1 : ty.index;
  source += blockIdx.z * from.plane();
  const auto along_x = [&](int row) {
    const float left = source[from.at(tx.index, row)];
    return fma_of(tx.fraction, source[from.at(right, row)] - left, left);
  };
  const float top = along_x(ty.index), bottom = along_x(below);
  target[blockIdx.z * to.plane() + to.at(x, y)] =
      scaled(blockIdx.z % 2 == 0 ? x_factor : y_factor, fma_of(ty.fraction, bottom - top, top));
}

// The flow [sequences, 2, H, W] into memory where the sequences are `stride` floats apart.
__global__ void store_kernel(const float* flow, Level level, float* target, int64_t stride) {
  const int x = pixel_x(), y = pixel_y();
  if (level.holds(x, y)) {
    const int64_t component = blockIdx.z % 2 * level.plane() + level.at(x, y);
    target[blockIdx.z / 2 * stride + component] = flow[blockIdx.z / 2 * 2 * level.plane() + component];
  }
}

} // namespace
} // namespace pyaction
