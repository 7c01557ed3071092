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
  // Behind the last row there is room for what a pick() may load beyond what it needs.
  return static_cast<int64_t>(kPad + round_up(width)) * height + 3 * kPad;
}

HOST_DEVICE Plane make_plane(float* memory, int width, int height) {
  return {memory + kPad, width, height, kPad + round_up(width)};
}

// A plane with room around it for copies of its edges: one row above, two below; the columns are in the padding.
HOST_DEVICE int64_t framed_size(int width, int height) {
  return plane_size(width, height + 3);
}

HOST_DEVICE Plane make_framed_plane(float* memory, int width, int height) {
  Plane plane = make_plane(memory, width, height);
  plane.data += plane.stride;
  return plane;
}

// Fills that room, two columns on each side.
HOST_DEVICE void repeat_edges(const Plane& plane) {
  for (int y = 0; y < plane.height; ++y) {
    float* row = plane.row(y);
    row[-2] = row[-1] = row[0];
    row[plane.width] = row[plane.width + 1] = row[plane.width - 1];
  }
  const int64_t bytes = sizeof(float) * (plane.width + 4);
  memcpy(plane.row(-1) - 2, plane.row(0) - 2, bytes);
  memcpy(plane.row(plane.height) - 2, plane.row(plane.height - 1) - 2, bytes);
  memcpy(plane.row(plane.height + 1) - 2, plane.row(plane.height - 1) - 2, bytes);
}

// Between a plane and densely stored rows.
HOST_DEVICE void load_rows(const float* source, const Plane& plane, int begin, int end) {
  for (int y = begin; y < end; ++y) {
    memcpy(plane.row(y), source + static_cast<int64_t>(y) * plane.width, sizeof(float) * plane.width);
  }
}

HOST_DEVICE void store_rows(const Plane& plane, float* target, int begin, int end) {
  for (int y = begin; y < end; ++y) {
    memcpy(target + static_cast<int64_t>(y) * plane.width, plane.row(y), sizeof(float) * plane.width);
  }
}

// `count` fields of one level, side by side in blocks of kLanes columns: kLanes values of field 0, of field 1, and so
// on. A pass over all of them is a pass over one piece of memory, which is a third faster than one over as many planes.
template <int count>
struct Packed {
  float* data;
  int width, height;
  int64_t stride; // floats from row to row; one block more than the columns need

  float* row(int y) const {
    return data + y * stride;
  }
};

template <int count>
HOST_DEVICE int64_t packed_stride(int width) {
  return static_cast<int64_t>(count) * (round_up(width) + kPad);
}

template <int count>
HOST_DEVICE Packed<count> make_packed(float* memory, int width, int height) {
  return {memory, width, height, packed_stride<count>(width)};
}

// kLanes values of a field from column x on, in a row of a Packed; x is a multiple of kLanes.
template <int count>
HOST_DEVICE float* at(float* row, int x, int field) {
  return row + count * x + field * kLanes;
}

template <int count>
HOST_DEVICE const float* at(const float* row, int x, int field) {
  return row + count * x + field * kLanes;
}

// One value of any column.
template <int count>
HOST_DEVICE float& value_at(float* row, int x, int field) {
  return at<count>(row, x / kLanes * kLanes, field)[x % kLanes];
}

// Rows [begin, end) of a field, as a plane.
template <int count>
HOST_DEVICE void unpack_rows(const Packed<count>& packed, int field, const Plane& plane, int begin, int end) {
  for (int y = begin; y < end; ++y) {
    for (int x = 0; x < plane.width; x += kLanes) {
      store(plane.row(y) + x, load(at<count>(packed.row(y), x, field)));
    }
  }
}

template <int count>
HOST_DEVICE void pack_rows(const Plane& plane, const Packed<count>& packed, int field) {
  for (int y = 0; y < plane.height; ++y) {
    for (int x = 0; x < plane.width; x += kLanes) {
      store(at<count>(packed.row(y), x, field), load(plane.row(y) + x));
    }
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
