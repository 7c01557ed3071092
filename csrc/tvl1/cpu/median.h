#pragma once
#include "tvl1/cpu/plane.h"
#include "tvl1/tvl1_math.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

// target = size x size median of source; pixels outside the image repeat the nearest edge pixel.
template <int size>
void median_filter(const Plane& source, const Plane& target) {
  constexpr int radius = size / 2;
  for (int y = 0; y < source.height; ++y) {
    float* row = source.row(y);
    for (int i = 1; i <= radius; ++i) {
      row[-i] = row[0];
      row[source.width - 1 + i] = row[source.width - 1];
    }
  }
  for (int y = 0; y < source.height; ++y) {
    const float* rows[size];
    for (int i = 0; i < size; ++i) {
      const int from = y + i - radius;
      rows[i] = source.row(from < 0 ? 0 : from < source.height ? from : source.height - 1) - radius;
    }
    float* out = target.row(y);
    for (int x = 0; x < source.width; x += kLanes) {
      store(out + x, median_of<size * size, Vec>([&](int i) { return load(rows[i / size] + i % size + x); }));
    }
  }
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
