// The CPU kernels of warp, compiled once per instruction set (common/simd.h).
#include "common/sampling.h"
#include "warp/warp.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

template <typename scalar_t>
PlaneSize size_of(const WarpArguments<scalar_t>& a) {
  return {a.height, a.width};
}

// Where channel c of the first pixel of image n is, in the image, the output and its gradient.
template <typename scalar_t>
HOST_DEVICE int64_t plane_start(const WarpArguments<scalar_t>& a, int64_t n, int64_t c) {
  return n * a.channels * a.height * a.width + c * a.channel_stride;
}

// Calls body(taps, x) for each block of pixels of row `row` (of batch * height rows).
template <bool border, typename scalar_t, typename Body>
HOST_DEVICE void for_each_sample(const WarpArguments<scalar_t>& a, int64_t row, const Body& body) {
  const PlaneSize size = size_of(a);
  const int y = static_cast<int>(row % a.height);
  const scalar_t* flow_x = a.flow + row / a.height * 2 * size.pixels() + int64_t{y} * a.width;
  const scalar_t* flow_y = flow_x + size.pixels();
  for_each_block<scalar_t>(
      a.width, [&](auto zero, int x) { body(sample_taps<border, decltype(zero)>(flow_x, flow_y, x, y, size), x); });
}

// --- planes: neighbouring pixels in a register ------------------------------------------------------------

template <bool border, typename scalar_t>
void forward_planes(const WarpArguments<scalar_t>& a, int64_t row) {
  const int64_t n = row / a.height, in_plane = row % a.height * a.width;
  for_each_sample<border>(a, row, [&](const auto& taps, int x) {
    for (int64_t c = 0; c < a.channels; ++c) {
      const int64_t plane = plane_start(a, n, c);
      store(a.result + plane + in_plane + x, sample(a.image + plane, size_of(a), taps).value);
    }
  });
}

template <bool border, typename scalar_t>
void grad_flow_planes(const WarpArguments<scalar_t>& a, int64_t row) {
  const int64_t n = row / a.height, in_plane = row % a.height * a.width, pixels = size_of(a).pixels();
  scalar_t* result = a.result + 2 * n * pixels + in_plane;
  for_each_sample<border>(a, row, [&](const auto& taps, int x) {
    auto grad_x = taps.zero, grad_y = taps.zero, grad = taps.zero;
    for (int64_t c = 0; c < a.channels; ++c) {
      const int64_t plane = plane_start(a, n, c);
      const auto s = sample(a.image + plane, size_of(a), taps);
      load_block(a.grad + plane + in_plane + x, grad);
      grad_x = grad_x + grad * s.slope_x;
      grad_y = grad_y + grad * s.slope_y;
    }
    store(result + x, grad_x);
    store(result + pixels + x, grad_y);
  });
}

// --- interleaved: the channels of a pixel lie side by side ---------------------------------------------------

// The four pixels of one sample: top left, top right, bottom left, bottom right.
template <typename scalar_t>
struct PixelTaps {
  int64_t offset[4]; // in an image
  scalar_t weight[4];
  scalar_t slope_x[4], slope_y[4]; // d weight / d flow
};

// Calls body(taps, x) for each pixel of row `row`; for some twice.
template <bool border, typename scalar_t, typename Body>
HOST_DEVICE void for_each_pixel(const WarpArguments<scalar_t>& a, int64_t row, const Body& body) {
  const int right = a.width > 1, down = a.height > 1 ? a.width : 0;
  for_each_sample<border>(a, row, [&](const auto& block, int x) {
    int offset[block.kLanes];
    offsets_of(block.x.first, block.y.first, a.width, offset);
    for (int i = 0; i < block.kLanes; ++i) {
      PixelTaps<scalar_t> taps;
      UNROLL
      for (int corner = 0; corner < 4; ++corner) {
        const int h = corner % 2, v = corner / 2;
        taps.offset[corner] = (int64_t{offset[i]} + h * right + v * down) * a.pixel_stride;
        const scalar_t weight_x = lane_of(block.x.weight[h], i), weight_y = lane_of(block.y.weight[v], i);
        taps.weight[corner] = weight_x * weight_y;
        taps.slope_x[corner] = lane_of(block.x.slope[h], i) * weight_y;
        taps.slope_y[corner] = weight_x * lane_of(block.y.slope[v], i);
      }
      body(taps, x + i);
    }
  });
}

template <typename scalar_t>
HOST_DEVICE scalar_t weighted(const scalar_t* image, const int64_t* offset, const scalar_t* weight) {
  return weight[0] * image[offset[0]] + weight[1] * image[offset[1]] + weight[2] * image[offset[2]] +
         weight[3] * image[offset[3]];
}

template <bool border, typename scalar_t>
void forward_interleaved(const WarpArguments<scalar_t>& a, int64_t row) {
  const scalar_t* image = a.image + plane_start(a, row / a.height, 0);
  scalar_t* result = a.result + row * a.width * a.pixel_stride;
  for_each_pixel<border>(a, row, [&](const auto& taps, int x) {
    for (int64_t c = 0; c < a.channels; ++c) {
      result[x * a.pixel_stride + c] = weighted(image + c, taps.offset, taps.weight);
    }
  });
}

template <bool border, typename scalar_t>
void grad_flow_interleaved(const WarpArguments<scalar_t>& a, int64_t row) {
  const int64_t n = row / a.height, pixels = size_of(a).pixels();
  const scalar_t* image = a.image + plane_start(a, n, 0);
  const scalar_t* grad = a.grad + row * a.width * a.pixel_stride;
  scalar_t* result = a.result + 2 * n * pixels + row % a.height * a.width;
  for_each_pixel<border>(a, row, [&](const auto& taps, int x) {
    scalar_t grad_x = 0, grad_y = 0;
    for (int64_t c = 0; c < a.channels; ++c) {
      grad_x += grad[x * a.pixel_stride + c] * weighted(image + c, taps.offset, taps.slope_x);
      grad_y += grad[x * a.pixel_stride + c] * weighted(image + c, taps.offset, taps.slope_y);
    }
    result[x] = grad_x;
    result[pixels + x] = grad_y;
  });
}

// --- sums that pixels share -----------------------------------------------------------------------------------

template <bool border, typename scalar_t>
void grad_image_plane(const WarpArguments<scalar_t>& a, int64_t plane) {
  const int64_t n = plane / a.channels, start = plane_start(a, n, plane % a.channels), step = a.pixel_stride;
  const int64_t right = a.width > 1 ? step : 0, down = a.height > 1 ? a.width * step : 0;
  for (int64_t y = 0; y < a.height; ++y) {
    const scalar_t* grad = a.grad + start + y * a.width * step;
    int done = 0; // the last block may overlap its neighbour
    for_each_sample<border>(a, n * a.height + y, [&](const auto& taps, int x) {
      int offset[taps.kLanes];
      offsets_of(taps.x.first, taps.y.first, a.width, offset);
      scalar_t parts[4][taps.kLanes];
      for (int i = 0; i < taps.kLanes; ++i) {
        parts[0][i] = grad[(x + i) * step];
      }
      auto whole = taps.zero;
      load_block(parts[0], whole);
      UNROLL
      for (int corner = 0; corner < 4; ++corner) {
        store(parts[corner], taps.y.weight[corner / 2] * (taps.x.weight[corner % 2] * whole));
      }
      // Every other sample, then the rest: neighbours share pixels, and a sum that has just been stored is slow to
      // load.
      for (int turn = 0; turn < taps.kLanes; ++turn) {
        const int i = taps.kLanes == 1 ? 0 : 2 * turn % taps.kLanes + 2 * turn / taps.kLanes;
        if (x + i >= done) {
          scalar_t* sums = a.sums + start + offset[i] * step;
          sums[0] += parts[0][i];
          sums[right] += parts[1][i];
          sums[down] += parts[2][i];
          sums[down + right] += parts[3][i];
        }
      }
      done = x + taps.kLanes;
    });
  }
}

// --- the table --------------------------------------------------------------------------------------------

template <typename scalar_t>
using Work = void (*)(const WarpArguments<scalar_t>&, int64_t index);

// Runs the work for the padding on [begin, end).
template <typename scalar_t>
void for_range(const WarpArguments<scalar_t>& a, int64_t begin, int64_t end, Work<scalar_t> zeros,
               Work<scalar_t> border) {
  for (int64_t i = begin; i < end; ++i) {
    (a.border ? border : zeros)(a, i);
  }
}

template <typename scalar_t>
void forward(const WarpArguments<scalar_t>& a, int64_t begin, int64_t end) {
  if (a.pixel_stride == 1) {
    for_range(a, begin, end, forward_planes<false, scalar_t>, forward_planes<true, scalar_t>);
  } else {
    for_range(a, begin, end, forward_interleaved<false, scalar_t>, forward_interleaved<true, scalar_t>);
  }
}

template <typename scalar_t>
void grad_flow(const WarpArguments<scalar_t>& a, int64_t begin, int64_t end) {
  if (a.pixel_stride == 1) {
    for_range(a, begin, end, grad_flow_planes<false, scalar_t>, grad_flow_planes<true, scalar_t>);
  } else {
    for_range(a, begin, end, grad_flow_interleaved<false, scalar_t>, grad_flow_interleaved<true, scalar_t>);
  }
}

template <typename scalar_t>
void grad_image(const WarpArguments<scalar_t>& a, int64_t begin, int64_t end) {
  for_range(a, begin, end, grad_image_plane<false, scalar_t>, grad_image_plane<true, scalar_t>);
}

} // namespace

extern const WarpKernels<float> warp_float = {forward<float>, grad_flow<float>, grad_image<float>};
extern const WarpKernels<double> warp_double = {forward<double>, grad_flow<double>, grad_image<double>};

} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction
