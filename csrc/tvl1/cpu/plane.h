#pragma once
// Planes of floats in a workspace, laid out so that vectors need no special case at the image's edges.
#include <string.h>

#include "common/vec.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

// Floats to the left of every row, and the unit to which rows are rounded up: the widest vector.
constexpr int kPad = 16;

HOST_DEVICE int round_up(int value) {
  return (value + kPad - 1) / kPad * kPad;
}

// Row y holds pixels [0, width) at row(y), with at least kPad floats that belong to no pixel before them and
// behind them. Kernels work on whole vectors: what they leave behind the last pixel is never read as a pixel.
struct Plane {
  float* data;
  int width, height, stride;

  float* row(int y) const {
    return data + static_cast<int64_t>(y) * stride;
  }
};

HOST_DEVICE int64_t plane_size(int width, int height) {
  return static_cast<int64_t>(kPad + round_up(width)) * height + kPad;
}

HOST_DEVICE Plane make_plane(float* memory, int width, int height) {
  return {memory + kPad, width, height, kPad + round_up(width)};
}

HOST_DEVICE void clear(const Plane& plane) {
  memset(plane.data - kPad, 0, sizeof(float) * plane_size(plane.width, plane.height));
}

// Between a plane and densely stored rows.
HOST_DEVICE void load_rows(const float* source, const Plane& plane) {
  for (int y = 0; y < plane.height; ++y) {
    memcpy(plane.row(y), source + static_cast<int64_t>(y) * plane.width, sizeof(float) * plane.width);
  }
}

HOST_DEVICE void store_rows(const Plane& plane, float* target) {
  for (int y = 0; y < plane.height; ++y) {
    memcpy(target + static_cast<int64_t>(y) * plane.width, plane.row(y), sizeof(float) * plane.width);
  }
}

// Hands out parts of the workspace, aligned to 64 bytes. Without memory it only counts.
struct Workspace {
  float* memory;
  int64_t used;

  float* take(int64_t floats) {
    float* part = memory == nullptr ? nullptr : memory + used;
    used += (floats + kPad - 1) / kPad * kPad;
    return part;
  }
};

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
