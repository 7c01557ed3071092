// The CPU kernels of ssim, compiled once per instruction set (common/simd.h).
//
// Both axes are weighted separately. First every column of a row of windows gets its own moments, then the columns of
// a window are joined by the law of total variance:
//
//   variance = sum_k w_k (variance_k + (mean_k - mean)^2)
//
// Nothing cancels, unlike in E[x^2] - E[x]^2, which in float32 loses a small variance beside a large mean.
#include "ssim/ssim.h"
#include "ssim/ssim_math.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

constexpr int kMoments = 5; // rows of WindowMoments
constexpr int kGrads = 4;   // rows of WindowGrad

// A register of neighbours. Loops over small arrays would say the same, but gcc 12 keeps such sums in memory or
// vectorises along the window: with AVX-512 the gaussian forward took twice as long, its gradient four times.
template <typename scalar_t>
struct Register {
  typedef scalar_t type __attribute__((vector_size(kVectorBytes)));
};

// Calls body(lanes, first) until all of [0, size) is done; `lanes` is zero, of the type to work in: a register, the
// last of which may overlap its neighbour (so body must not add to what it finds), or one number in rows shorter than
// that.
template <typename scalar_t, typename Body>
HOST_DEVICE void for_each_block(int size, const Body& body) {
  using Lanes = typename Register<scalar_t>::type;
  constexpr int kLanes = sizeof(Lanes) / sizeof(scalar_t);
  if (size < kLanes) {
    for (int first = 0; first < size; ++first) {
      body(scalar_t(0), first);
    }
    return;
  }
  for (int first = 0; first < size; first += kLanes) {
    body(Lanes{}, first + kLanes <= size ? first : size - kLanes);
  }
}

template <typename Lanes, typename scalar_t>
HOST_DEVICE Lanes load(const scalar_t* from) {
  Lanes lanes;
  __builtin_memcpy(&lanes, from, sizeof(Lanes));
  return lanes;
}

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

template <typename Lanes, typename scalar_t>
HOST_DEVICE void store(scalar_t* to, const Lanes& lanes) {
  __builtin_memcpy(to, &lanes, sizeof(Lanes));
}

// The moments of each column of a row of windows, down the rows that begin at image0 and image1.
template <typename scalar_t>
void column_moments(const SsimArguments<scalar_t>& a, const scalar_t* image0, const scalar_t* image1,
                    scalar_t* columns) { // [kMoments, width]
  const int64_t width = a.width;
  for_each_block<scalar_t>(a.width, [&](auto zero, int first) {
    using Lanes = decltype(zero);
    Lanes mean0 = zero, mean1 = zero, variance0 = zero, variance1 = zero, covariance = zero;
    for (int k = 0; k < a.window; ++k) {
      mean0 += a.weights[k] * load<Lanes>(image0 + k * width + first);
      mean1 += a.weights[k] * load<Lanes>(image1 + k * width + first);
    }
    for (int k = 0; k < a.window; ++k) {
      const Lanes off0 = load<Lanes>(image0 + k * width + first) - mean0;
      const Lanes off1 = load<Lanes>(image1 + k * width + first) - mean1;
      const Lanes weighted0 = a.weights[k] * off0;
      variance0 += weighted0 * off0;
      variance1 += a.weights[k] * off1 * off1;
      covariance += weighted0 * off1;
    }
    store(columns + first, mean0);
    store(columns + width + first, mean1);
    store(columns + 2 * width + first, variance0);
    store(columns + 3 * width + first, variance1);
    store(columns + 4 * width + first, covariance);
  });
}

// The moments of each window of a row, from those of its columns. kStride 0: a.stride.
template <int kStride, typename scalar_t>
void join_columns(const SsimArguments<scalar_t>& a, const scalar_t* columns,
                  scalar_t* windows) { // [kMoments, map_width]
  const int stride = kStride == 0 ? a.stride : kStride;
  const int64_t width = a.width, map_width = a.map_width;
  for_each_block<scalar_t>(a.map_width, [&](auto zero, int first) {
    using Lanes = decltype(zero);
    Lanes mean0 = zero, mean1 = zero, variance0 = zero, variance1 = zero, covariance = zero;
    const scalar_t* start = columns + int64_t{first} * stride;
    for (int k = 0; k < a.window; ++k) {
      mean0 += a.weights[k] * load_strided<Lanes>(start + k, stride);
      mean1 += a.weights[k] * load_strided<Lanes>(start + width + k, stride);
    }
    for (int k = 0; k < a.window; ++k) {
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

// The moments of row `map_row` of the windows of a plane.
template <typename scalar_t>
void window_moments(const SsimArguments<scalar_t>& a, int64_t plane, int map_row, scalar_t* columns,
                    scalar_t* windows) {
  const int64_t top = (plane * a.height + int64_t{map_row} * a.stride) * a.width;
  column_moments(a, a.image0 + top, a.image1 + top, columns);
  if (a.stride == 1) {
    join_columns<1>(a, columns, windows);
  } else {
    join_columns<0>(a, columns, windows);
  }
}

template <typename scalar_t>
HOST_DEVICE WindowMoments<scalar_t> moments_at(const scalar_t* windows, int64_t map_width, int64_t i) {
  return {windows[i], windows[map_width + i], windows[2 * map_width + i], windows[3 * map_width + i],
          windows[4 * map_width + i]};
}

template <typename scalar_t>
int64_t forward_workspace(const SsimArguments<scalar_t>& a) {
  return kMoments * (int64_t{a.width} + a.map_width);
}

template <typename scalar_t>
void forward(const SsimArguments<scalar_t>& a, int64_t begin, int64_t end, scalar_t* workspace) {
  scalar_t* columns = workspace;                             // [kMoments, width]
  scalar_t* windows = columns + kMoments * int64_t{a.width}; // [kMoments, map_width]
  for (int64_t row = begin; row < end; ++row) {
    window_moments(a, row / a.map_height, static_cast<int>(row % a.map_height), columns, windows);
    scalar_t* map = a.map + row * a.map_width;
    for (int i = 0; i < a.map_width; ++i) {
      map[i] = window_similarity(moments_at(windows, a.map_width, i), a.c1, a.c2);
    }
  }
}

// A row of window gradients spread out to one number per pixel, and beyond to the left: see spread_windows.
template <typename scalar_t>
HOST_DEVICE int64_t sparse_width(const SsimArguments<scalar_t>& a) {
  return int64_t{a.width} + a.window - 1;
}

template <typename scalar_t>
int64_t grad_workspace(const SsimArguments<scalar_t>& a) {
  return forward_workspace(a) + kGrads * (sparse_width(a) + int64_t{ssim_overlap(a.window, a.stride)} * a.width);
}

// The gradients of each window of a row, put where the window begins: window i at window - 1 + i * stride, with zeros
// (which the caller wrote) in between. Overwrites the moments.
template <typename scalar_t>
void window_grads(const SsimArguments<scalar_t>& a, const scalar_t* grad, scalar_t* windows,
                  scalar_t* sparse) { // [kGrads, sparse_width]
  const int64_t map_width = a.map_width;
#pragma GCC ivdep
  for (int64_t i = 0; i < map_width; ++i) {
    const WindowGrad<scalar_t> g = window_grad(moments_at(windows, map_width, i), a.c1, a.c2, grad[i]);
    windows[i] = g.constant0;
    windows[map_width + i] = g.constant1;
    windows[2 * map_width + i] = g.own;
    windows[3 * map_width + i] = g.other;
  }
  for (int64_t g = 0; g < kGrads; ++g) {
    scalar_t* start = sparse + g * sparse_width(a) + a.window - 1;
    for (int64_t i = 0; i < map_width; ++i) {
      start[i * a.stride] = windows[g * map_width + i];
    }
  }
}

// Sums, for each column, the gradients of the windows of a row that cover it. Where windows are `stride` apart this
// also adds zeros: that costs less than finding the windows of every column.
template <typename scalar_t>
void spread_windows(const SsimArguments<scalar_t>& a, const scalar_t* sparse, scalar_t* spread) { // [kGrads, width]
  const int64_t width = a.width;
  const scalar_t* start0 = sparse + a.window - 1;
  const scalar_t* start1 = start0 + sparse_width(a);
  const scalar_t* start2 = start1 + sparse_width(a);
  const scalar_t* start3 = start2 + sparse_width(a);
  for_each_block<scalar_t>(a.width, [&](auto zero, int first) {
    using Lanes = decltype(zero);
    Lanes constant0 = zero, constant1 = zero, own = zero, other = zero;
    for (int k = 0; k < a.window; ++k) {
      constant0 += a.weights[k] * load<Lanes>(start0 + first - k);
      constant1 += a.weights[k] * load<Lanes>(start1 + first - k);
      own += a.weights[k] * load<Lanes>(start2 + first - k);
      other += a.weights[k] * load<Lanes>(start3 + first - k);
    }
    store(spread + first, constant0);
    store(spread + width + first, constant1);
    store(spread + 2 * width + first, own);
    store(spread + 3 * width + first, other);
  });
}

// The gradients of row `y` of a plane, row `row` of all planes, which rows [map_begin, map_end) of the windows cover.
template <typename scalar_t>
void pixel_grads(const SsimArguments<scalar_t>& a, int64_t row, int y, int map_begin, int map_end,
                 const scalar_t* ring) { // [overlap, kGrads, width], map row m at m % overlap
  const int overlap = ssim_overlap(a.window, a.stride);
  const int64_t width = a.width;
  for_each_block<scalar_t>(a.width, [&](auto zero, int first) {
    using Lanes = decltype(zero);
    Lanes constant0 = zero, constant1 = zero, own = zero, other = zero;
    for (int m = map_begin; m < map_end; ++m) {
      const scalar_t weight = a.weights[y - m * a.stride];
      const scalar_t* spread = ring + m % overlap * kGrads * width + first;
      constant0 += weight * load<Lanes>(spread);
      constant1 += weight * load<Lanes>(spread + width);
      own += weight * load<Lanes>(spread + 2 * width);
      other += weight * load<Lanes>(spread + 3 * width);
    }
    const int64_t offset = row * width + first;
    const Lanes pixel0 = load<Lanes>(a.image0 + offset), pixel1 = load<Lanes>(a.image1 + offset);
    store(a.grad0 + offset, pixel_grad(constant0, own, other, pixel0, pixel1));
    store(a.grad1 + offset, pixel_grad(constant1, own, other, pixel1, pixel0));
  });
}

// Goes down the rows of pixels and keeps, in a ring, the rows of windows that cover the present one.
template <typename scalar_t>
void grad(const SsimArguments<scalar_t>& a, int64_t begin, int64_t end, scalar_t* workspace) {
  const int overlap = ssim_overlap(a.window, a.stride);
  scalar_t* columns = workspace;
  scalar_t* windows = columns + kMoments * int64_t{a.width};
  scalar_t* sparse = windows + kMoments * int64_t{a.map_width};
  scalar_t* ring = sparse + kGrads * sparse_width(a);
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
      window_moments(a, plane, ready, columns, windows);
      window_grads(a, a.grad + (plane * a.map_height + ready) * a.map_width, windows, sparse);
      spread_windows(a, sparse, ring + ready % overlap * kGrads * int64_t{a.width});
    }
    pixel_grads(a, row, y, map_begin, map_end, ring);
  }
}

} // namespace

extern const SsimKernels<float> ssim_float = {forward_workspace<float>, grad_workspace<float>, forward<float>,
                                              grad<float>};
extern const SsimKernels<double> ssim_double = {forward_workspace<double>, grad_workspace<double>, forward<double>,
                                                grad<double>};

} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
