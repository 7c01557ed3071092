#pragma once
// Windows that overlap.
#include "ssim/cpu/rows.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

template <typename Lanes, typename scalar_t>
HOST_DEVICE Lanes load_strided(const scalar_t* from, int stride) {
  if (stride == 1) {
    return load<Lanes>(from);
  }
  constexpr int kLanes = sizeof(Lanes) / sizeof(scalar_t);
  scalar_t values[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    values[i] = from[i * stride];
  }
  return load<Lanes>(values);
}

// The moments of each window of a row, from those of its columns.
template <int kWindow, int kStride, typename scalar_t>
void join_columns(const SsimArguments<scalar_t>& a, const scalar_t* columns,
                  scalar_t* windows) { // [kMoments, map_width]
  const int window = kWindow == 0 ? a.window : kWindow, stride = kStride == 0 ? a.stride : kStride;
  const int64_t width = a.width, map_width = a.map_width;
  for_each_block<scalar_t>(a.map_width, [&](auto zero, int first) {
    using Lanes = decltype(zero);
    Lanes mean0 = zero, mean1 = zero, variance0 = zero, variance1 = zero, covariance = zero;
    const scalar_t* start = columns + int64_t{first} * stride;
    for (int k = 0; k < window; ++k) {
      mean0 += a.weights[k] * load_strided<Lanes>(start + k, stride);
      mean1 += a.weights[k] * load_strided<Lanes>(start + width + k, stride);
    }
    for (int k = 0; k < window; ++k) {
      const Lanes off0 = load_strided<Lanes>(start + k, stride) - mean0;
      const Lanes off1 = load_strided<Lanes>(start + width + k, stride) - mean1;
      variance0 += a.weights[k] * (load_strided<Lanes>(start + 2 * width + k, stride) + off0 * off0);
      variance1 += a.weights[k] * (load_strided<Lanes>(start + 3 * width + k, stride) + off1 * off1);
      covariance += a.weights[k] * (load_strided<Lanes>(start + 4 * width + k, stride) + off0 * off1);
    }
    store(windows + first, mean0);
    store(windows + map_width + first, mean1);
    store(windows + 2 * map_width + first, variance0);
    store(windows + 3 * map_width + first, variance1);
    store(windows + 4 * map_width + first, covariance);
  });
}

// The moments of row `map_row` of the windows of a plane. kWindow: the window where its steps are one pixel, or 0.
template <int kWindow, typename scalar_t>
void window_moments(const SsimArguments<scalar_t>& a, int64_t plane, int map_row, scalar_t* columns,
                    scalar_t* windows) {
  const int64_t top = (plane * a.height + int64_t{map_row} * a.stride) * a.width;
  column_moments<kWindow>(a, a.image0 + top, a.image1 + top, columns);
  if (a.stride == 1) {
    join_columns<kWindow, 1>(a, columns, windows);
  } else {
    join_columns<kWindow, 0>(a, columns, windows);
  }
}

template <int kWindow, typename scalar_t>
void forward_overlapping(const SsimArguments<scalar_t>& a, int64_t begin, int64_t end, scalar_t* workspace) {
  scalar_t* windows = workspace + kMoments * int64_t{a.width};
  for (int64_t row = begin; row < end; ++row) {
    window_moments<kWindow>(a, row / a.map_height, static_cast<int>(row % a.map_height), workspace, windows);
    similarities(a, windows, a.map + row * a.map_width);
  }
}

// A row of window gradients spread out to one number per pixel, and beyond to the left: see put_windows.
template <typename scalar_t>
HOST_DEVICE int64_t sparse_width(const SsimArguments<scalar_t>& a) {
  return int64_t{a.width} + a.window - 1;
}

template <typename scalar_t>
HOST_DEVICE int64_t overlapping_grad_workspace(const SsimArguments<scalar_t>& a) {
  return sparse_width(a) + kGrads * int64_t{a.width} * ssim_overlap(a.window, a.stride);
}

// One number per window put where the window begins: window i at window - 1 + i * stride, with zeros (which the caller
// wrote) in between.
template <typename scalar_t>
void put_windows(const SsimArguments<scalar_t>& a, const scalar_t* windows, scalar_t* sparse) { // [sparse_width]
  scalar_t* start = sparse + a.window - 1;
  for (int64_t i = 0; i < a.map_width; ++i) {
    start[i * a.stride] = windows[i];
  }
}

// Sums, for each column, the numbers of the windows of a row that cover it. Where windows are `stride` apart this also
// adds zeros: that costs less than finding the windows of every column.
template <int kWindow, typename scalar_t>
void spread_windows(const SsimArguments<scalar_t>& a, const scalar_t* sparse, scalar_t* spread) { // [width]
  const int window = kWindow == 0 ? a.window : kWindow;
  const scalar_t* start = sparse + window - 1;
  for_each_block<scalar_t>(a.width, [&](auto zero, int first) {
    auto sum = zero;
    for (int k = 0; k < window; ++k) {
      sum += a.weights[k] * load<decltype(zero)>(start + first - k);
    }
    store(spread + first, sum);
  });
}

// The rows of windows that cover a row of pixels: their spread gradients, [kGrads, width] each, and their weights.
template <typename scalar_t>
struct Cover {
  int size;
  const scalar_t* rows[kMaxSsimWindow];
  scalar_t weights[kMaxSsimWindow];
};

// The gradients of the row of pixels that begins at `offset`.
template <typename scalar_t>
void pixel_grads(const SsimArguments<scalar_t>& a, int64_t offset, const Cover<scalar_t>& cover) {
  const int64_t width = a.width;
  for_each_block<scalar_t>(a.width, [&](auto zero, int first) {
    using Lanes = decltype(zero);
    const auto sum_of = [&](int g) {
      Lanes sum = zero;
      for (int m = 0; m < cover.size; ++m) {
        sum += cover.weights[m] * load<Lanes>(cover.rows[m] + g * width + first);
      }
      return sum;
    };
    const Lanes own = sum_of(2), other = sum_of(3);
    const Lanes pixel0 = load<Lanes>(a.image0 + offset + first), pixel1 = load<Lanes>(a.image1 + offset + first);
    if (a.grad0 != nullptr) {
      store(a.grad0 + offset + first, pixel_grad(sum_of(0), own, other, pixel0, pixel1));
    }
    if (a.grad1 != nullptr) {
      store(a.grad1 + offset + first, pixel_grad(sum_of(1), own, other, pixel1, pixel0));
    }
  });
}

// Goes down the rows of pixels and keeps, in a ring, the rows of windows that cover the present one.
template <int kWindow, typename scalar_t>
void grad_overlapping(const SsimArguments<scalar_t>& a, int64_t begin, int64_t end, scalar_t* workspace) {
  const int overlap = ssim_overlap(a.window, a.stride);
  const int64_t width = a.width, map_width = a.map_width;
  scalar_t* windows = workspace + kMoments * width;
  scalar_t* sparse = windows + kMoments * map_width;
  scalar_t* ring = sparse + sparse_width(a); // [overlap, kGrads, width], row m of windows at m % overlap
  for (int64_t i = 0; i < sparse_width(a); ++i) {
    sparse[i] = 0;
  }
  int ready = 0; // rows of windows before this one are in the ring, or no longer needed
  for (int64_t row = begin; row < end; ++row) {
    const int64_t plane = row / a.height;
    const int y = static_cast<int>(row % a.height);
    const int map_begin = y < a.window ? 0 : (y - a.window) / a.stride + 1;
    const int map_end = y / a.stride < a.map_height ? y / a.stride + 1 : a.map_height;
    ready = y == 0 ? 0 : ready > map_begin ? ready : map_begin;
    for (; ready < map_end; ++ready) {
      window_moments<kWindow>(a, plane, ready, workspace, windows);
      window_grads(a, a.grad + (plane * a.map_height + ready) * map_width, windows);
      for (int g = 0; g < kGrads; ++g) {
        if ((g == 0 && a.grad0 == nullptr) || (g == 1 && a.grad1 == nullptr)) {
          continue;
        }
        put_windows(a, windows + g * map_width, sparse);
        spread_windows<kWindow>(a, sparse, ring + (ready % overlap * kGrads + g) * width);
      }
    }
    Cover<scalar_t> cover;
    cover.size = 0;
    for (int m = map_begin; m < map_end; ++m, ++cover.size) {
      cover.rows[cover.size] = ring + m % overlap * kGrads * width;
      cover.weights[cover.size] = a.weights[y - m * a.stride];
    }
    pixel_grads(a, row * width, cover);
  }
}

} // namespace
} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
