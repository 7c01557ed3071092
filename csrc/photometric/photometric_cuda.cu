// The photometric losses on CUDA. A block works on a tile, some patches side by side, and keeps all that it needs of
// the warped frame: memory is read once, and of the gradients written once.
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "common/cuda/launch.h"
#include "common/cuda/sampling.cuh"
#include "photometric/photometric_entry.h"
#include "photometric/photometric_math.h"
#include "ssim/ssim_math.h"

namespace pyaction {
namespace {

constexpr int kTilePixels = kThreads; // one for each thread
constexpr int kTileColumns = kTilePixels / kLeastPatch;
constexpr int kTilePatches = kTilePixels / (kLeastPatch * kLeastPatch);
constexpr int kTileSlopes = (kLeastPatch + 1) * (kTileColumns + 1); // more than of any larger patch

// Tiles of one image, in rows of `across`.
struct Tiling {
  int patches; // in a tile
  int across;
  int64_t tiles;
};

template <typename scalar_t>
Tiling tiling_of(const PhotometricArguments<scalar_t>& a) {
  const int most = (a.width + a.patch - 1) / a.patch;
  const int patches = std::min(std::max(kTilePixels / (a.patch * a.patch), 1), most);
  const int across = (most + patches - 1) / patches;
  return {patches, across, int64_t{across} * a.bands()};
}

// The part of an image that a block works on.
struct Tile {
  int64_t image;
  int top, left, rows, columns;

  __device__ int pixels() const {
    return rows * columns;
  }
};

template <typename scalar_t>
__device__ Tile tile_of(const PhotometricArguments<scalar_t>& a, const Tiling& tiling, int64_t image) {
  const int band = blockIdx.x / tiling.across, place = blockIdx.x % tiling.across;
  Tile tile = {image, band * a.patch, place * tiling.patches * a.patch, 0, 0};
  tile.rows = min(a.patch, a.height - tile.top);
  tile.columns = min(tiling.patches * a.patch, a.width - tile.left);
  return tile;
}

// Shared memory of a block, row by row of its tile.
template <typename compute>
struct TileMemory {
  compute frame0[kTilePixels], warped[kTilePixels];
  WindowMoments<compute> columns[kTileColumns]; // sums over a column, relative to its patch's first pixel
  WindowGrad<compute> patches[kTilePatches];
};

// A pixel of the tile, and where it samples frame 1.
template <typename compute>
struct Place {
  int y, x;
  PixelTaps<compute, int> taps;
};

template <typename scalar_t, typename compute = compute_t<scalar_t>>
__device__ Place<compute> place_of(const PhotometricArguments<scalar_t>& a, const Tile& tile, int pixel) {
  const int y = tile.top + pixel / tile.columns, x = tile.left + pixel % tile.columns;
  const scalar_t* flow = a.flow + (tile.image * 2 * a.height + y) * a.width + x;
  return {y, x, locate(flow, y, x, a.height, a.width, a.pad_border, 1)};
}

// Calls body(patch, moments, pixels) for each patch of the tile, whose values are in memory; a patch is one thread's.
// Called by the whole block. Values are taken relative to the patch's first: squares of the values themselves would
// lose a small variance beside a large mean.
template <typename scalar_t, typename compute, typename Body>
__device__ void for_each_patch(const PhotometricArguments<scalar_t>& a, const Tile& tile, TileMemory<compute>& memory,
                               const Body& body) {
  __syncthreads(); // the values are written
  for (int x = threadIdx.x; x < tile.columns; x += kThreads) {
    const int first = x - x % a.patch;
    const compute origin0 = memory.frame0[first], origin1 = memory.warped[first];
    WindowMoments<compute> sum = {0, 0, 0, 0, 0};
    for (int y = 0; y < tile.rows; ++y) {
      const compute off0 = memory.frame0[y * tile.columns + x] - origin0;
      const compute off1 = memory.warped[y * tile.columns + x] - origin1;
      sum.mean0 += off0;
      sum.mean1 += off1;
      sum.variance0 += off0 * off0;
      sum.variance1 += off1 * off1;
      sum.covariance += off0 * off1;
    }
    memory.columns[x] = sum;
  }
  __syncthreads();
  for (int patch = threadIdx.x; patch * a.patch < tile.columns; patch += kThreads) {
    const int first = patch * a.patch, end = min(first + a.patch, tile.columns);
    WindowMoments<compute> m = {0, 0, 0, 0, 0};
    NO_UNROLL
    for (int x = first; x < end; ++x) {
      const WindowMoments<compute> column = memory.columns[x];
      m.mean0 += column.mean0;
      m.mean1 += column.mean1;
      m.variance0 += column.variance0;
      m.variance1 += column.variance1;
      m.covariance += column.covariance;
    }
    const compute pixels = static_cast<compute>(tile.rows * (end - first)), share = ratio_of(compute(1), pixels);
    m.mean0 *= share;
    m.mean1 *= share;
    m.variance0 = m.variance0 * share - m.mean0 * m.mean0;
    m.variance1 = m.variance1 * share - m.mean1 * m.mean1;
    m.covariance = m.covariance * share - m.mean0 * m.mean1;
    m.mean0 += memory.frame0[first];
    m.mean1 += memory.warped[first];
    body(patch, m, pixels);
  }
  __syncthreads();
}

// The differences of a component of the flow to the pixels on the right and below.
template <typename compute>
struct Slopes {
  compute x, y;
};

template <typename scalar_t, typename compute = compute_t<scalar_t>>
__device__ Slopes<compute> slopes_at(const PhotometricArguments<scalar_t>& a, int64_t image, int component, int y,
                                     int x) {
  const scalar_t* flow = a.flow + ((image * 2 + component) * a.height + y) * int64_t{a.width} + x;
  const compute here = static_cast<compute>(*flow);
  const compute right = x + 1 < a.width ? static_cast<compute>(flow[1]) - here : compute(0);
  const compute below = y + 1 < a.height ? static_cast<compute>(flow[a.width]) - here : compute(0);
  return {right, below};
}

// --- losses ---------------------------------------------------------------------------------------------------

// Adds up each of the threads' terms, in an order that is always the same, and writes them. Called by the whole block.
template <typename compute>
__device__ void store_sums(const compute* terms, double* sums) { // [kPhotometricTerms] each
  constexpr int kWarps = kThreads / 32;
  __shared__ double of_warp[kWarps][kPhotometricTerms];
  UNROLL
  for (int term = 0; term < kPhotometricTerms; ++term) {
    double sum = static_cast<double>(terms[term]);
    for (int distance = 16; distance > 0; distance /= 2) {
      sum += __shfl_down_sync(0xffffffffu, sum, distance);
    }
    if (threadIdx.x % 32 == 0) {
      of_warp[threadIdx.x / 32][term] = sum;
    }
  }
  __syncthreads();
  if (threadIdx.x < kPhotometricTerms) {
    double sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) {
      sum += of_warp[warp][threadIdx.x];
    }
    sums[threadIdx.x] = sum;
  }
}

// One block: the tile blockIdx.x of images blockIdx.y, blockIdx.y + gridDim.y, ... One thread: a pixel of it.
template <typename scalar_t>
__global__ void __launch_bounds__(kThreads) photometric_loss_kernel(PhotometricArguments<scalar_t> a, Tiling tiling) {
  using compute = compute_t<scalar_t>;
  __shared__ TileMemory<compute> memory;
  const int pixel = threadIdx.x;
  compute terms[kPhotometricTerms] = {0, 0, 0};
  for (int64_t image = blockIdx.y; image < a.batch; image += gridDim.y) {
    const Tile tile = tile_of(a, tiling, image);
    const bool in_tile = pixel < tile.pixels();
    const Place<compute> place = place_of(a, tile, in_tile ? pixel : 0);
    const bool counts = in_tile && is_inside(a, place.y, place.x);
    for (int component = 0; component < 2 && counts; ++component) {
      const Slopes<compute> slopes = slopes_at(a, image, component, place.y, place.x);
      terms[kSmoothnessTerm] += charbonnier(a.slopes, slopes.x) + charbonnier(a.slopes, slopes.y);
    }
    NO_UNROLL
    for (int64_t c = 0; c < a.channels; ++c) {
      const int64_t plane = (image * a.channels + c) * a.height * a.width;
      if (in_tile) {
        memory.warped[pixel] = sample(a.frame1 + plane, place.taps).value;
        memory.frame0[pixel] = static_cast<compute>(a.frame0[plane + place.y * a.width + place.x]);
      }
      terms[kPixelTerm] += counts ? charbonnier(a.frames, memory.frame0[pixel] - memory.warped[pixel]) : compute(0);
      for_each_patch(a, tile, memory, [&](int, const WindowMoments<compute>& moments, compute) {
        terms[kSsimTerm] += 1 - window_similarity(moments, a.c1, a.c2);
      });
    }
  }
  store_sums(terms, a.sums + (int64_t{blockIdx.y} * gridDim.x + blockIdx.x) * kPhotometricTerms);
}

// One block in all: the means, from what each of `count` blocks found.
template <typename scalar_t>
__global__ void __launch_bounds__(kThreads)
    photometric_mean_kernel(PhotometricArguments<scalar_t> a, int64_t count, compute_t<scalar_t>* losses) { // [3]
  __shared__ double sums[kPhotometricTerms];
  double terms[kPhotometricTerms] = {0, 0, 0};
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    UNROLL
    for (int term = 0; term < kPhotometricTerms; ++term) {
      terms[term] += a.sums[i * kPhotometricTerms + term];
    }
  }
  store_sums(terms, sums);
  if (threadIdx.x < kPhotometricTerms) { // it has stored this sum itself
    losses[threadIdx.x] =
        static_cast<compute_t<scalar_t>>(sums[threadIdx.x] * static_cast<double>(a.share[threadIdx.x]));
  }
}

// --- gradients ------------------------------------------------------------------------------------------------

// How the smoothness term grows with the slopes of a component at the tile's pixels, those above and those on its left:
// [rows + 1, columns + 1]. Called by the whole block.
template <typename scalar_t, typename compute = compute_t<scalar_t>>
__device__ void slope_grads(const PhotometricArguments<scalar_t>& a, const Tile& tile, int component,
                            Slopes<compute>* grads) {
  const compute factor = a.grad[kSmoothnessTerm] * a.share[kSmoothnessTerm];
  const int width = tile.columns + 1;
  __syncthreads(); // what was there has been read
  NO_UNROLL
  for (int i = threadIdx.x; i < (tile.rows + 1) * width; i += kThreads) {
    const int y = tile.top - 1 + i / width, x = tile.left - 1 + i % width;
    Slopes<compute> grad = {0, 0};
    if (is_inside(a, y, x)) {
      const Slopes<compute> slopes = slopes_at(a, tile.image, component, y, x);
      grad.x = factor * charbonnier_slope(a.slopes, slopes.x);
      grad.y = factor * charbonnier_slope(a.slopes, slopes.y);
    }
    grads[i] = grad;
  }
  __syncthreads();
}

// Blocks and threads as in photometric_loss_kernel.
template <typename scalar_t>
__global__ void __launch_bounds__(kThreads) photometric_grad_kernel(PhotometricArguments<scalar_t> a, Tiling tiling) {
  using compute = compute_t<scalar_t>;
  __shared__ TileMemory<compute> memory;
  __shared__ Slopes<compute> slopes[kTileSlopes];
  const int pixel = threadIdx.x;
  for (int64_t image = blockIdx.y; image < a.batch; image += gridDim.y) {
    const Tile tile = tile_of(a, tiling, image);
    const bool in_tile = pixel < tile.pixels();
    const Place<compute> place = place_of(a, tile, in_tile ? pixel : 0);
    const int row = place.y - tile.top, column = place.x - tile.left;
    const int64_t in_plane = int64_t{place.y} * a.width + place.x;
    compute grads[2]; // of the flow's components
    UNROLL
    for (int component = 0; component < 2; ++component) {
      slope_grads(a, tile, component, slopes);
      const int width = tile.columns + 1, at = (row + 1) * width + column + 1;
      grads[component] = slopes[at - 1].x - slopes[at].x + slopes[at - width].y - slopes[at].y;
    }
    const compute pixel_factor = is_inside(a, place.y, place.x) ? a.grad[kPixelTerm] * a.share[kPixelTerm] : compute(0);
    for (int64_t c = 0; c < a.channels; ++c) {
      const int64_t plane = (image * a.channels + c) * a.height * a.width;
      const Sample<compute> warped = sample(a.frame1 + plane, place.taps);
      const compute value = static_cast<compute>(a.frame0[plane + in_plane]);
      if (in_tile) {
        memory.frame0[pixel] = value;
        memory.warped[pixel] = warped.value;
      }
      for_each_patch(a, tile, memory, [&](int patch, const WindowMoments<compute>& moments, compute pixels) {
        const compute grad = -ratio_of(a.grad[kSsimTerm] * a.share[kSsimTerm], pixels);
        memory.patches[patch] = window_grad(moments, a.c1, a.c2, grad);
      });
      const WindowGrad<compute> g = memory.patches[column / a.patch];
      const compute pixel_grad = pixel_factor * charbonnier_slope(a.frames, value - warped.value);
      const compute warped_grad = g.constant1 + g.own * warped.value + g.other * value - pixel_grad;
      grads[0] += warped_grad * warped.slope_x;
      grads[1] += warped_grad * warped.slope_y;
      if (in_tile && a.grad_warped != nullptr) {
        a.grad_warped[plane + in_plane] = static_cast<scalar_t>(warped_grad);
        a.grad_frame0[plane + in_plane] =
            static_cast<scalar_t>(g.constant0 + g.own * value + g.other * warped.value + pixel_grad);
      }
    }
    if (in_tile) {
      const int64_t pixels = int64_t{a.height} * a.width;
      scalar_t* result = a.grad_flow + image * 2 * pixels + in_plane;
      result[0] = static_cast<scalar_t>(grads[0]);
      result[pixels] = static_cast<scalar_t>(grads[1]);
    }
  }
}

// --- entries --------------------------------------------------------------------------------------------------

template <typename scalar_t>
dim3 grid_of(const PhotometricArguments<scalar_t>& a, const Tiling& tiling) {
  return dim3(blocks_for(tiling.tiles, 1), static_cast<unsigned>(std::min(a.batch, kMostBlocksY)));
}

template <typename scalar_t>
void launch_losses(PhotometricArguments<scalar_t> a, const Tensor& losses) {
  const Tiling tiling = tiling_of(a);
  const dim3 grid = grid_of(a, tiling);
  const int64_t blocks = int64_t{grid.x} * grid.y;
  const Tensor sums = torch::stable::new_empty(losses, {blocks * kPhotometricTerms}, ScalarType::Double);
  a.sums = sums.mutable_data_ptr<double>();
  const cudaStream_t stream = current_stream(losses);
  launch(photometric_loss_kernel<scalar_t>, grid, kThreads, stream, a, tiling);
  launch(photometric_mean_kernel<scalar_t>, 1, kThreads, stream, a, blocks,
         losses.mutable_data_ptr<compute_t<scalar_t>>());
}

Tensor photometric_loss_cuda(const Tensor& frame0, const Tensor& frame1, const Tensor& flow,
                             std::vector<double> options, int64_t window, bool pad_border) {
  const torch::stable::accelerator::DeviceGuard guard(frame0.get_device_index());
  return photometric_loss_entry(HalfTypes{}, {frame0, frame1, flow, options, window, pad_border},
                                [](const auto& a, const Tensor& losses) { launch_losses(a, losses); });
}

std::tuple<Tensor, Tensor, Tensor> photometric_grad_cuda(const Tensor& grad, const Tensor& frame0, const Tensor& frame1,
                                                         const Tensor& flow, std::vector<double> options,
                                                         int64_t window, bool pad_border, bool of_frames) {
  const torch::stable::accelerator::DeviceGuard guard(frame0.get_device_index());
  return photometric_grad_entry(HalfTypes{}, grad, {frame0, frame1, flow, options, window, pad_border}, of_frames,
                                [](const auto& a, const Tensor& grad_flow) {
                                  const Tiling tiling = tiling_of(a);
                                  using scalar_t = std::remove_const_t<std::remove_reference_t<decltype(*a.flow)>>;
                                  launch(photometric_grad_kernel<scalar_t>, grid_of(a, tiling), kThreads,
                                         current_stream(grad_flow), a, tiling);
                                });
}

} // namespace

STABLE_TORCH_LIBRARY_IMPL(pyaction, CUDA, m) {
  m.impl("photometric_loss", TORCH_BOX(&photometric_loss_cuda));
  m.impl("photometric_grad", TORCH_BOX(&photometric_grad_cuda));
}

} // namespace pyaction
