#pragma once
// Frames as grey planes, and resizing between the levels of the pyramid.
#include "tvl1/cpu/plane.h"
#include "tvl1/tvl1_math.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

template <typename pixel_t>
void load_frame(const pixel_t* frame, int channels, const Plane& grey) {
  const int64_t plane = static_cast<int64_t>(grey.height) * grey.width;
  for (int y = 0; y < grey.height; ++y) {
    float* row = grey.row(y);
    const int64_t first = static_cast<int64_t>(y) * grey.width;
    for (int x = 0; x < grey.width; ++x) {
      row[x] = grey_level(frame, channels, plane, first + x);
    }
  }
}

void load_frame(const Tvl1Frame& frame, const Plane& grey) {
  if (frame.type == FrameType::kUint8) {
    load_frame(static_cast<const uint8_t*>(frame.data), frame.channels, grey);
  } else if (frame.type == FrameType::kFloat32) {
    load_frame(static_cast<const float*>(frame.data), frame.channels, grey);
  } else {
    load_frame(static_cast<const double*>(frame.data), frame.channels, grey);
  }
}

// Scratch of resize(): the taps of a row, and two source rows as wide as the target.
struct ResizeScratch {
  int* index;
  float* fraction;
  float* rows[2];
};

HOST_DEVICE ResizeScratch take_resize_scratch(Workspace& workspace, int width) {
  const int64_t length = kPad + round_up(width);
  return {reinterpret_cast<int*>(workspace.take(length)),
          workspace.take(length),
          {workspace.take(length), workspace.take(length)}};
}

// One source row, resampled along x.
void resize_row(const float* source, int source_width, int width, const ResizeScratch& scratch, float* out) {
  for (int x = 0; x < width; ++x) {
    const int index = scratch.index[x];
    const float left = source[index], right = source[index < source_width - 1 ? index + 1 : index];
    out[x] = fma_of(scratch.fraction[x], right - left, left);
  }
}

// target = factor * source, resampled bilinearly; a step of one target pixel is `ratio` source pixels.
void resize(const Plane& source, const Plane& target, double x_ratio, double y_ratio, double factor,
            const ResizeScratch& scratch) {
  for (int x = 0; x < target.width; ++x) {
    const ResizeTap tap = resize_tap(x, x_ratio, source.width);
    scratch.index[x] = tap.index;
    scratch.fraction[x] = tap.fraction;
  }
  int held[2] = {-1, -1}; // source rows in the scratch; row y is held in scratch.rows[y % 2]
  const auto row_at = [&](int y) {
    if (held[y % 2] != y) {
      resize_row(source.row(y), source.width, target.width, scratch, scratch.rows[y % 2]);
      held[y % 2] = y;
    }
    return scratch.rows[y % 2];
  };
  for (int y = 0; y < target.height; ++y) {
    const ResizeTap tap = resize_tap(y, y_ratio, source.height);
    const float* top = row_at(tap.index);
    const float* bottom = row_at(tap.fraction > 0 ? tap.index + 1 : tap.index);
    float* row = target.row(y);
    for (int x = 0; x < target.width; x += kLanes) {
      const Vec above = load(top + x);
      store(row + x, fma_of(tap.fraction, load(bottom + x) - above, above));
    }
    for (int x = 0; factor != 1 && x < target.width; ++x) {
      row[x] = scaled(factor, row[x]);
    }
  }
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
