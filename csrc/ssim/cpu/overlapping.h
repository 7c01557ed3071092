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
  for_each_block<scalar_t, RegisterOf<scalar_t>>(a.map_width, [&](auto zero, int first) {
    using Lanes = decltype(zero);
    const scalar_t* start = columns + int64_t{first} * stride;
    // All is taken relative to the column in the middle of the window.
    const Lanes middle0 = load_strided<Lanes>(start + window / 2, stride);
    const Lanes middle1 = load_strided<Lanes>(start + width + window / 2, stride);
    Lanes mean0 = zero, mean1 = zero, square0 = zero, square1 = zero, product = zero;
    for (int k = 0; k < window; ++k) {
      const Lanes off0 = load_strided<Lanes>(start + k, stride) - middle0;
      const Lanes off1 = load_strided<Lanes>(start + width + k, stride) - middle1;
      mean0 += a.weights[k] * off0;
      mean1 += a.weights[k] * off1;
      square0 += a.weights[k] * (load_strided<Lanes>(start + 2 * width + k, stride) + off0 * off0);
      square1 += a.weights[k] * (load_strided<Lanes>(start + 3 * width + k, stride) + off1 * off1);
      product += a.weights[k] * (load_strided<Lanes>(start + 4 * width + k, stride) + off0 * off1);
    }
    store(windows + first, middle0 + mean0);
    store(windows + map_width + first, middle1 + mean1);
    store(windows + 2 * map_width + first, square0 - mean0 * mean0);
    store(windows + 3 * map_width + first, square1 - mean1 * mean1);
    store(windows + 4 * map_width + first, product - mean0 * mean1);
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

// A row of window gradients spread out to one number per pixel, and beyond on both sides: see put_windows.
template <typename scalar_t>
HOST_DEVICE int64_t sparse_width(const SsimArguments<scalar_t>& a) {
  return int64_t{a.width} + a.window - 1;
}

template <typename scalar_t>
HOST_DEVICE int64_t overlapping_grad_workspace(const SsimArguments<scalar_t>& a) {
  return kGrads * (sparse_width(a) + int64_t{a.width} * ssim_overlap(a.window, a.stride));
}

// The gradients of a row of windows put where each begins: window i at window - 1 + i * stride, with zeros (which the
// caller wrote) all around. Overwrites the moments.
template <typename scalar_t>
void put_windows(const SsimArguments<scalar_t>& a, const scalar_t* grad, scalar_t* windows,
                 scalar_t* sparse) { // [kGrads, sparse_width]
  const int64_t map_width = a.map_width;
  if (a.stride == 1) {
    window_grads(a, grad, windows, sparse + a.window - 1, sparse_width(a));
    return;
  }
  window_grads(a, grad, windows, windows, map_width);
  for (int g = 0; g < kGrads; ++g) {
    scalar_t* start = sparse + g * sparse_width(a) + a.window - 1;
    for (int64_t i = 0; i < map_width; ++i) {
      start[i * a.stride] = windows[g * map_width + i];
    }
  }
}

// Sums, for each column, the gradients of the windows of a row that cover it. Where windows are `stride` apart this
// also adds zeros: that costs less than finding the windows of every column.
template <int kWindow, typename scalar_t>
void spread_windows(const SsimArguments<scalar_t>& a, const scalar_t* sparse, scalar_t* spread) { // [kGrads, width]
  const int window = kWindow == 0 ? a.window : kWindow;
  const int64_t width = a.width, pitch = sparse_width(a);
  const scalar_t* start = sparse + window - 1;
  const bool need0 = a.grad0 != nullptr, need1 = a.grad1 != nullptr;
  for_each_block<scalar_t, RegisterOf<scalar_t>>(a.width, [&](auto zero, int first) {
    const auto sum_of = [&](int g) {
      auto sum = zero;
      for (int k = 0; k < window; ++k) {
        sum += a.weights[k] * load<decltype(zero)>(start + g * pitch + first - k);
      }
      store(spread + g * width + first, sum);
    };
    if (need0) {
      sum_of(0);
    }
    if (need1) {
      sum_of(1);
    }
    sum_of(2);
    sum_of(3);
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
  const bool need0 = a.grad0 != nullptr, need1 = a.grad1 != nullptr;
  const int64_t constant = need0 ? 0 : width; // that of the only gradient, or of the first
  for_each_block<scalar_t, RegisterOf<scalar_t>>(a.width, [&](auto zero, int first) {
    using Lanes = decltype(zero);
    Lanes sum = zero, own = zero, other = zero;
    for (int m = 0; m < cover.size; ++m) {
      const scalar_t* row = cover.rows[m] + first;
      sum += cover.weights[m] * load<Lanes>(row + constant);
      own += cover.weights[m] * load<Lanes>(row + 2 * width);
      other += cover.weights[m] * load<Lanes>(row + 3 * width);
    }
    const Lanes pixel0 = load<Lanes>(a.image0 + offset + first), pixel1 = load<Lanes>(a.image1 + offset + first);
    if (need0) {
      store(a.grad0 + offset + first, pixel_grad(sum, own, other, pixel0, pixel1));
    }
    if (need0 && need1) {
      sum = zero;
      for (int m = 0; m < cover.size; ++m) {
        sum += cover.weights[m] * load<Lanes>(cover.rows[m] + first + width);
      }
    }
    if (need1) {
      store(a.grad1 + offset + first, pixel_grad(sum, own, other, pixel1, pixel0));
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
  scalar_t* ring = sparse + kGrads * sparse_width(a); // [overlap, kGrads, width], row m of windows at m % overlap
  for (int64_t i = 0; i < kGrads * sparse_width(a); ++i) {
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
      put_windows(a, a.grad + (plane * a.map_height + ready) * map_width, windows, sparse);
      spread_windows<kWindow>(a, sparse, ring + ready % overlap * kGrads * width);
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
