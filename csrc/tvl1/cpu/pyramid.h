#pragma once
// Frames as grey planes, and resizing between the levels of the pyramid.
#include "tvl1/cpu/data_term.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

template <typename pixel_t>
void load_frame(const pixel_t* frame, int channels, const Plane& grey, int begin, int end) {
  const int64_t plane = static_cast<int64_t>(grey.height) * grey.width;
  for (int y = begin; y < end; ++y) {
    float* row = grey.row(y);
    const int64_t first = static_cast<int64_t>(y) * grey.width;
    for (int x = 0; x < grey.width; ++x) {
      row[x] = grey_level(frame, channels, plane, first + x);
    }
  }
}

void load_frame(const Tvl1Frame& frame, const Plane& grey, int begin, int end) {
  if (frame.type == FrameType::kUint8) {
    load_frame(static_cast<const uint8_t*>(frame.data), frame.channels, grey, begin, end);
  } else if (frame.type == FrameType::kFloat32) {
    load_frame(static_cast<const float*>(frame.data), frame.channels, grey, begin, end);
  } else {
    load_frame(static_cast<const double*>(frame.data), frame.channels, grey, begin, end);
  }
}

// A row of a plane, and of a field of a solution: what resizing reads.
struct PlaneRow {
  const float* row;

  static constexpr int kBlock = 1; // vector(x) needs an x that is a multiple of this
  Vec vector(int x) const {
    return load(row + x);
  }
  float value(int x) const {
    return row[x];
  }
};

struct FieldRow {
  const float* row;
  int field;

  static constexpr int kBlock = kLanes;
  Vec vector(int x) const {
    return load(at<kSolutionFields>(row, x, field));
  }
  float value(int x) const {
    return at<kSolutionFields>(row, x / kLanes * kLanes, field)[x % kLanes];
  }
};

// How the columns of one width are interpolated from those of another: per vector of columns the first source column,
// and per column the two that it lies between, relative to that, and how far it is from the left one.
struct ColumnTaps {
  int *base, *left, *right;
  float* fraction;
  bool near; // the columns of a vector all come from the two vectors from `base` on
};

HOST_DEVICE ColumnTaps take_column_taps(Workspace& workspace, int width) {
  const int64_t length = kPad + round_up(width);
  const auto integers = [&] { return reinterpret_cast<int*>(workspace.take(length)); };
  return {integers(), integers(), integers(), workspace.take(length), true};
}

// block: `base` is a multiple of it.
void make_column_taps(int source_width, int width, double ratio, int block, ColumnTaps& taps) {
  taps.near = true;
  for (int x = 0; x < round_up(width); ++x) {
    const ResizeTap tap = resize_tap(x < width ? x : width - 1, ratio, source_width);
    const int next = tap.index < source_width - 1 ? tap.index + 1 : tap.index;
    int& base = taps.base[x / kLanes];
    if (x % kLanes == 0) {
      base = tap.index / block * block;
    }
    taps.left[x] = tap.index - base;
    taps.right[x] = next - base;
    taps.fraction[x] = tap.fraction;
    taps.near = taps.near && next - base < 2 * kLanes;
  }
}

// kLanes columns from x on.
template <typename Row>
HOST_DEVICE Vec interpolate_columns(const Row& row, const ColumnTaps& taps, int x) {
  const int base = taps.base[x / kLanes];
  Vec left, right;
  if (taps.near) {
    const Vec low = row.vector(base), high = row.vector(base + kLanes);
    left = pick(low, high, taps.left + x);
    right = pick(low, high, taps.right + x);
  } else {
    for (int i = 0; i < kLanes; ++i) {
      left.lanes[i] = row.value(base + taps.left[x + i]);
      right.lanes[i] = row.value(base + taps.right[x + i]);
    }
  }
  return fma_of(load(taps.fraction + x), right - left, left);
}

// `width` columns between two rows, resampled bilinearly and multiplied by `factor`. put(x, values) takes the values of
// kLanes columns.
template <typename Row, typename Put>
HOST_DEVICE void resize_row(const Row& top, const Row& bottom, float down, int width, const ColumnTaps& columns,
                            double factor, const Put& put) {
  for (int x = 0; x < width; x += kLanes) {
    const Vec above = interpolate_columns(top, columns, x);
    Vec value = fma_of(down, interpolate_columns(bottom, columns, x) - above, above);
    for (int i = 0; factor != 1 && i < kLanes; ++i) {
      value.lanes[i] = scaled(factor, value.lanes[i]);
    }
    put(x, value);
  }
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
