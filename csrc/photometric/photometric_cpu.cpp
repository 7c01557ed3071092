// The CPU kernels of the photometric losses, compiled once per instruction set (common/simd.h).
#include "common/vec_power.h"
#include "photometric/cpu/band.h"
#include "photometric/cpu/patches.h"
#include "photometric/photometric_math.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

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
  const scalar_t factor = a.grad[kPixelTerm] * a.share[kPixelTerm];
  scalar_t *inside_factor = band.row, *total_x = inside_factor + width, *total_y = total_x + width;
  for (int x = 0; x < width; ++x) {
    inside_factor[x] = is_inside(a, y, x) ? factor : scalar_t(0);
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
