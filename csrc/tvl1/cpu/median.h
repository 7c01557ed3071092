#pragma once
#include "tvl1/cpu/plane.h"
#include "tvl1/tvl1_math.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

// Repeats the edge columns of a row in its padding.
void pad_row(float* row, int width, int radius) {
  for (int i = 1; i <= radius; ++i) {
    row[-i] = row[0];
    row[width - 1 + i] = row[width - 1];
  }
}

// Rows [begin, end) of a field = size x size median of source, whose rows are padded; rows outside the image repeat the
// nearest one.
template <int size, int count>
void median_rows(const Plane& source, const Packed<count>& target, int field, int begin, int end) {
  constexpr int radius = size / 2;
  for (int y = begin; y < end; ++y) {
    const float* rows[size];
    for (int i = 0; i < size; ++i) {
      const int from = y + i - radius;
      rows[i] = source.row(from < 0 ? 0 : from < source.height ? from : source.height - 1) - radius;
    }
    for (int x = 0; x < source.width; x += kLanes) {
      store(at<count>(target.row(y), x, field),
            median_of<size * size, Vec>([&](int i) { return load(rows[i / size] + i % size + x); }));
    }
  }
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
