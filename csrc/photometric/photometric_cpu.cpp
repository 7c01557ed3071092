// The CPU kernels of the photometric losses, compiled once per instruction set (common/simd.h).
//
// A band, one row of patches, is worked on at a time: small enough to stay in the cache, it is all that is ever stored
// of the warped frame.
#include "common/sampling.h"
#include "common/vec_power.h"
#include "photometric/photometric_math.h"
#include "ssim/ssim_math.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

// One band of one image, and the workspace for it.
template <typename scalar_t>
struct Band {
  const PhotometricArguments<scalar_t>& a;
  int64_t image;
  int begin, end; // rows
  // [channels, patch, width] each: the warped frame and its slopes along the flow
  scalar_t *warped, *slope_x, *slope_y;
  scalar_t* moments;    // [5, width] of columns, then of the patch that a column is in
  scalar_t* patch_grad; // [channels, 4, width] of the patch that a column is in: WindowGrad
  scalar_t* row;        // [6, width + 1] of the loop that runs

  int64_t pixels() const {
    return int64_t{a.height} * a.width;
  }
  // Offset of a row in tensors of the frames' shape.
  int64_t frame_row(int64_t channel, int y) const {
    return (image * a.channels + channel) * pixels() + int64_t{y} * a.width;
  }
  const scalar_t* flow_row(int component, int y) const {
    return a.flow + (image * 2 + component) * pixels() + int64_t{y} * a.width;
  }
  // Offset of a row in warped, slope_x and slope_y.
  int64_t own_row(int64_t channel, int y) const {
    return (channel * a.patch + y - begin) * a.width;
  }
  scalar_t* grads_of(int64_t channel) const {
    return patch_grad + channel * 4 * a.width;
  }
  // The inside of a row: [margin, margin + inside_width), in rows in [margin, height - margin).
  int inside_width() const {
    return a.width - 2 * a.margin;
  }
  bool has_inside(int y) const {
    return y >= a.margin && y < a.height - a.margin;
  }
};

template <typename scalar_t>
int64_t workspace(const PhotometricArguments<scalar_t>& a) {
  return a.width * (a.channels * (3 * int64_t{a.patch} + 4) + 5) + 6 * (int64_t{a.width} + 1);
}

template <typename scalar_t>
Band<scalar_t> band_of(const PhotometricArguments<scalar_t>& a, int64_t number, scalar_t* workspace) {
  const int64_t plane = a.channels * a.patch * int64_t{a.width};
  const int begin = static_cast<int>(number % a.bands()) * a.patch;
  const int end = begin + a.patch < a.height ? begin + a.patch : a.height;
  scalar_t* moments = workspace + 3 * plane;
  scalar_t* patch_grad = moments + 5 * int64_t{a.width};
  return {a,
          number / a.bands(),
          begin,
          end,
          workspace,
          workspace + plane,
          workspace + 2 * plane,
          moments,
          patch_grad,
          patch_grad + 4 * a.channels * a.width};
}

// In an order that does not depend on the instruction set.
template <typename scalar_t>
HOST_DEVICE double sum_of_row(const scalar_t* row, int size) {
  scalar_t sums[16] = {};
  int x = 0;
  for (; x + 16 <= size; x += 16) {
    for (int i = 0; i < 16; ++i) {
      sums[i] += row[x + i];
    }
  }
  for (; x < size; ++x) {
    sums[x % 16] += row[x];
  }
  double sum = 0;
  for (int i = 0; i < 16; ++i) {
    sum += static_cast<double>(sums[i]);
  }
  return sum;
}

// --- the warped frame -----------------------------------------------------------------------------------------

template <bool slopes, bool border, typename scalar_t>
void warp_band(const Band<scalar_t>& band) {
  const PlaneSize size = {band.a.height, band.a.width};
  for (int y = band.begin; y < band.end; ++y) {
    const scalar_t *flow_x = band.flow_row(0, y), *flow_y = band.flow_row(1, y);
    for_each_block<scalar_t>(size.width, [&](auto zero, int x) {
      const auto taps = sample_taps<border, decltype(zero)>(flow_x, flow_y, x, y, size);
      for (int64_t c = 0; c < band.a.channels; ++c) {
        const auto s = sample(band.a.frame1 + band.frame_row(c, 0), size, taps);
        const int64_t at = band.own_row(c, y) + x;
        store(band.warped + at, s.value);
        if (slopes) {
          store(band.slope_x + at, s.slope_x);
          store(band.slope_y + at, s.slope_y);
        }
      }
    });
  }
}

template <bool slopes, typename scalar_t>
void warp_band(const Band<scalar_t>& band) {
  band.a.border ? warp_band<slopes, true>(band) : warp_band<slopes, false>(band);
}

// --- patches --------------------------------------------------------------------------------------------------

// Calls body(first, end) for the columns of each patch.
template <typename scalar_t, typename Body>
HOST_DEVICE void for_each_patch(const PhotometricArguments<scalar_t>& a, const Body& body) {
  for (int first = 0; first < a.width; first += a.patch) {
    body(first, first + a.patch < a.width ? first + a.patch : a.width);
  }
}

// Of a patch, from the sums of its columns over so many rows.
template <typename scalar_t>
HOST_DEVICE scalar_t mean_of(const scalar_t* columns, int first, int end, int rows) {
  scalar_t sum = 0;
  for (int x = first; x < end; ++x) {
    sum += columns[x];
  }
  return sum / static_cast<scalar_t>(rows * (end - first));
}

// Calls body(moments, first, end) for each patch of a channel. Means come first, and squares are taken about them:
// nothing cancels.
template <typename scalar_t, typename Body>
HOST_DEVICE void for_each_moments(const Band<scalar_t>& band, int64_t channel, const Body& body) {
  const auto& a = band.a;
  const int width = a.width, rows = band.end - band.begin;
  const scalar_t* frame0 = a.frame0 + band.frame_row(channel, band.begin);
  const scalar_t* warped = band.warped + band.own_row(channel, band.begin);
  scalar_t *mean0 = band.moments, *mean1 = mean0 + width, *squares0 = mean1 + width, *squares1 = squares0 + width,
           *products = squares1 + width;
  for_each_block<scalar_t>(width, [&](auto zero, int x) {
    auto sum0 = zero, sum1 = zero, value0 = zero, value1 = zero;
    for (int y = 0; y < rows; ++y) {
      load_block(frame0 + y * width + x, value0);
      load_block(warped + y * width + x, value1);
      sum0 = sum0 + value0;
      sum1 = sum1 + value1;
    }
    store(mean0 + x, sum0);
    store(mean1 + x, sum1);
  });
  for_each_patch(a, [&](int first, int end) {
    const scalar_t own0 = mean_of(mean0, first, end, rows), own1 = mean_of(mean1, first, end, rows);
    for (int x = first; x < end; ++x) {
      mean0[x] = own0;
      mean1[x] = own1;
    }
  });
  for_each_block<scalar_t>(width, [&](auto zero, int x) {
    auto square0 = zero, square1 = zero, product = zero, own0 = zero, own1 = zero, value0 = zero, value1 = zero;
    load_block(mean0 + x, own0);
    load_block(mean1 + x, own1);
    for (int y = 0; y < rows; ++y) {
      load_block(frame0 + y * width + x, value0);
      load_block(warped + y * width + x, value1);
      const auto off0 = value0 - own0, off1 = value1 - own1;
      square0 = square0 + off0 * off0;
      square1 = square1 + off1 * off1;
      product = product + off0 * off1;
    }
    store(squares0 + x, square0);
    store(squares1 + x, square1);
    store(products + x, product);
  });
  for_each_patch(a, [&](int first, int end) {
    body(WindowMoments<scalar_t>{mean0[first], mean1[first], mean_of(squares0, first, end, rows),
                                 mean_of(squares1, first, end, rows), mean_of(products, first, end, rows)},
         first, end);
  });
}

// What each patch of a channel adds to the gradients of its pixels, written to all its columns.
template <typename scalar_t>
void patch_grads(const Band<scalar_t>& band, int64_t channel) {
  const auto& a = band.a;
  scalar_t* grads = band.grads_of(channel);
  for_each_moments(band, channel, [&](const WindowMoments<scalar_t>& moments, int first, int end) {
    const scalar_t rows = static_cast<scalar_t>(band.end - band.begin);
    const scalar_t grad = -a.grad[kSsimTerm] * a.share[kSsimTerm] / (rows * static_cast<scalar_t>(end - first));
    const WindowGrad<scalar_t> g = window_grad(moments, a.c1, a.c2, grad);
    for (int x = first; x < end; ++x) {
      grads[x] = g.constant0;
      grads[a.width + x] = g.constant1;
      grads[2 * a.width + x] = g.own;
      grads[3 * a.width + x] = g.other;
    }
  });
}

// --- losses ---------------------------------------------------------------------------------------------------

template <typename scalar_t>
double pixel_loss(const Band<scalar_t>& band, int y) {
  const auto& a = band.a;
  for_each_block<scalar_t>(band.inside_width(), [&](auto zero, int x) {
    auto cost = zero, value0 = zero, value1 = zero;
    for (int64_t c = 0; c < a.channels; ++c) {
      load_block(a.frame0 + band.frame_row(c, y) + a.margin + x, value0);
      load_block(band.warped + band.own_row(c, y) + a.margin + x, value1);
      cost = cost + charbonnier(a.frames, value0 - value1);
    }
    store(band.row + x, cost);
  });
  return sum_of_row(band.row, band.inside_width());
}

// The row below, or the last row itself: its slopes are zero.
template <typename scalar_t>
HOST_DEVICE const scalar_t* row_below(const Band<scalar_t>& band, int component, int y) {
  return band.flow_row(component, y + 1 < band.a.height ? y + 1 : y);
}

// The pixels to the right, the last one twice.
template <typename scalar_t>
HOST_DEVICE void shift_left(const scalar_t* row, int width, scalar_t* shifted) {
  for (int x = 0; x + 1 < width; ++x) {
    shifted[x] = row[x + 1];
  }
  shifted[width - 1] = row[width - 1];
}

template <typename scalar_t>
double smoothness_loss(const Band<scalar_t>& band, int y) {
  const auto& a = band.a;
  scalar_t *costs = band.row, *right = costs + a.width;
  double sum = 0;
  for (int component = 0; component < 2; ++component) {
    const scalar_t *here = band.flow_row(component, y), *below = row_below(band, component, y);
    shift_left(here, a.width, right);
    for_each_block<scalar_t>(band.inside_width(), [&](auto zero, int x) {
      auto own = zero, next = zero, lower = zero;
      load_block(here + a.margin + x, own);
      load_block(right + a.margin + x, next);
      load_block(below + a.margin + x, lower);
      store(costs + x, charbonnier(a.slopes, next - own) + charbonnier(a.slopes, lower - own));
    });
    sum += sum_of_row(costs, band.inside_width());
  }
  return sum;
}

template <typename scalar_t>
void losses(const PhotometricArguments<scalar_t>& a, int64_t begin, int64_t end, scalar_t* workspace) {
  for (int64_t number = begin; number < end; ++number) {
    const Band<scalar_t> band = band_of(a, number, workspace);
    double pixel = 0, smoothness = 0, ssim = 0;
    warp_band<false>(band);
    for (int y = band.begin; y < band.end; ++y) {
      if (band.has_inside(y)) {
        pixel += pixel_loss(band, y);
        smoothness += smoothness_loss(band, y);
      }
    }
    for (int64_t c = 0; c < a.channels; ++c) {
      for_each_moments(band, c, [&](const WindowMoments<scalar_t>& moments, int, int) {
        ssim += 1 - static_cast<double>(window_similarity(moments, a.c1, a.c2));
      });
    }
    double* sums = a.sums + number * kPhotometricTerms;
    sums[kPixelTerm] = pixel;
    sums[kSmoothnessTerm] = smoothness;
    sums[kSsimTerm] = ssim;
  }
}

// --- gradients ------------------------------------------------------------------------------------------------

// Of the smoothness term: how it grows with the slopes of a component in row y. All have width + 1 elements, the first
// of which, left of the row, is zero.
template <typename scalar_t>
void slope_grads(const Band<scalar_t>& band, int component, int y, scalar_t* along_x, scalar_t* along_y) {
  const auto& a = band.a;
  for (int x = 0; x <= a.width; ++x) {
    along_x[x] = along_y[x] = 0;
  }
  if (y < 0 || !band.has_inside(y)) {
    return;
  }
  const scalar_t *here = band.flow_row(component, y), *below = row_below(band, component, y);
  scalar_t* right = band.row + 5 * (a.width + 1);
  shift_left(here, a.width, right);
  const scalar_t factor = a.grad[kSmoothnessTerm] * a.share[kSmoothnessTerm];
  for_each_block<scalar_t>(band.inside_width(), [&](auto zero, int x) {
    auto own = zero, next = zero, lower = zero;
    load_block(here + a.margin + x, own);
    load_block(right + a.margin + x, next);
    load_block(below + a.margin + x, lower);
    store(along_x + 1 + a.margin + x, factor * charbonnier_slope(a.slopes, next - own));
    store(along_y + 1 + a.margin + x, factor * charbonnier_slope(a.slopes, lower - own));
  });
}

// Writes the gradient of the smoothness term to the band's rows of grad_flow: a pixel is the end of two slopes and the
// start of two.
template <typename scalar_t>
void smoothness_grad(const Band<scalar_t>& band, int component) {
  const auto& a = band.a;
  scalar_t *along_x = band.row, *along_y = along_x + a.width + 1, *above = along_y + a.width + 1;
  slope_grads(band, component, band.begin - 1, along_x, above);
  for (int y = band.begin; y < band.end; ++y) {
    slope_grads(band, component, y, along_x, along_y);
    scalar_t* grad = a.grad_flow + (band.image * 2 + component) * band.pixels() + int64_t{y} * a.width;
    for (int x = 0; x < a.width; ++x) {
      grad[x] = along_x[x] - along_x[x + 1] + above[x + 1] - along_y[x + 1];
    }
    scalar_t* const used = above;
    above = along_y;
    along_y = used;
  }
}

// Adds those of the pixel and ssim terms to row y of grad_flow, and writes those of the frames.
template <typename scalar_t>
void image_grad(const Band<scalar_t>& band, int y) {
  const auto& a = band.a;
  const int width = a.width;
  const bool inside = band.has_inside(y);
  const scalar_t factor = a.grad[kPixelTerm] * a.share[kPixelTerm];
  scalar_t *inside_factor = band.row, *total_x = inside_factor + width, *total_y = total_x + width;
  for (int x = 0; x < width; ++x) {
    inside_factor[x] = inside && x >= a.margin && x < width - a.margin ? factor : scalar_t(0);
  }
  for_each_block<scalar_t>(width, [&](auto zero, int x) {
    auto grad_x = zero, grad_y = zero, pixel_factor = zero, value0 = zero, value1 = zero, slope = zero;
    auto constant = zero, own = zero, other = zero;
    load_block(inside_factor + x, pixel_factor);
    for (int64_t c = 0; c < a.channels; ++c) {
      const int64_t at = band.own_row(c, y) + x, in_frame = band.frame_row(c, y) + x;
      const scalar_t* grads = band.grads_of(c) + x;
      load_block(a.frame0 + in_frame, value0);
      load_block(band.warped + at, value1);
      load_block(grads + 2 * width, own);
      load_block(grads + 3 * width, other);
      const auto pixel_grad = pixel_factor * charbonnier_slope(a.frames, value0 - value1);
      load_block(grads + width, constant);
      const auto warped_grad = constant + own * value1 + other * value0 - pixel_grad;
      load_block(band.slope_x + at, slope);
      grad_x = grad_x + warped_grad * slope;
      load_block(band.slope_y + at, slope);
      grad_y = grad_y + warped_grad * slope;
      if (a.grad_warped != nullptr) {
        load_block(grads, constant);
        store(a.grad_warped + in_frame, warped_grad);
        store(a.grad_frame0 + in_frame, constant + own * value0 + other * value1 + pixel_grad);
      }
    }
    store(total_x + x, grad_x);
    store(total_y + x, grad_y);
  });
  scalar_t* grad = a.grad_flow + band.image * 2 * band.pixels() + int64_t{y} * width;
  for (int x = 0; x < width; ++x) {
    grad[x] += total_x[x];
    grad[band.pixels() + x] += total_y[x];
  }
}

template <typename scalar_t>
void grad(const PhotometricArguments<scalar_t>& a, int64_t begin, int64_t end, scalar_t* workspace) {
  for (int64_t number = begin; number < end; ++number) {
    const Band<scalar_t> band = band_of(a, number, workspace);
    warp_band<true>(band);
    for (int64_t c = 0; c < a.channels; ++c) {
      patch_grads(band, c);
    }
    smoothness_grad(band, 0);
    smoothness_grad(band, 1);
    for (int y = band.begin; y < band.end; ++y) {
      image_grad(band, y);
    }
  }
}

} // namespace

extern const PhotometricKernels<float> photometric_float = {workspace<float>, losses<float>, grad<float>};
extern const PhotometricKernels<double> photometric_double = {workspace<double>, losses<double>, grad<double>};

} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
