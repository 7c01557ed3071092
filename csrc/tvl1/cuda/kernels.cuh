#pragma once
// The kernels of TV-L1. Unless said otherwise a thread works on one pixel of one plane: blockIdx.z is the plane.
#include "tvl1/tvl1_math.h"

namespace pyaction {
namespace {

constexpr dim3 kPixelBlock(32, 8);

// Tile of iterate_kernel, halo included; a block is kTileWidth x (kTileHeight / kRowsPerThread) threads. Six planes
// of it fill the 48 KB of shared memory that every GPU has.
constexpr int kTileWidth = 64, kTileHeight = 32, kRowsPerThread = 8;
constexpr int kTileIterations = 4; // per launch: each costs a ring of the tile, and saves a trip through memory

// What a warp's stopping rule has decided about a pair. A pair that stopped is copied once more, after which both
// copies of its fields are equal and launches can pass it by.
constexpr uint8_t kResting = 0, kStopped = 1, kMoving = 2;

struct Level {
  int width, height;

  __device__ bool holds(int x, int y) const {
    return x >= 0 && y >= 0 && x < width && y < height;
  }
  __device__ int64_t plane() const {
    return int64_t{width} * height;
  }
  __device__ int64_t at(int x, int y) const {
    return int64_t{y} * width + x;
  }
};

__device__ int pixel_x() {
  return blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ int pixel_y() {
  return blockIdx.y * blockDim.y + threadIdx.y;
}

template <typename pixel_t>
__global__ void load_kernel(const pixel_t* frames, int channels, Level level, float* grey) {
  const int x = pixel_x(), y = pixel_y();
  if (level.holds(x, y)) {
    grey[blockIdx.z * level.plane() + level.at(x, y)] =
        grey_level(frames + blockIdx.z * channels * level.plane(), channels, level.plane(), level.at(x, y));
  }
}

// target = factor * source, resampled bilinearly; a step of one target pixel is `ratio` source pixels.
__global__ void resize_kernel(const float* source, Level from, float* target, Level to, double x_ratio, double y_ratio,
                              double factor) {
  const int x = pixel_x(), y = pixel_y();
  if (!to.holds(x, y)) {
    return;
  }
  const ResizeTap tx = resize_tap(x, x_ratio, from.width), ty = resize_tap(y, y_ratio, from.height);
  const int right = tx.fraction > 0 ? tx.index + 1 : tx.index, below = ty.fraction > 0 ? ty.index + 1 : ty.index;
  source += blockIdx.z * from.plane();
  const auto along_x = [&](int row) {
    const float left = source[from.at(tx.index, row)];
    return fma_of(tx.fraction, source[from.at(right, row)] - left, left);
  };
  const float top = along_x(ty.index), bottom = along_x(below);
  target[blockIdx.z * to.plane() + to.at(x, y)] = scaled(factor, fma_of(ty.fraction, bottom - top, top));
}

// Frame 1 beside its centred differences (half one-sided at the edges): one load per tap when it is sampled.
__global__ void texel_kernel(const float* frame1, Level level, float4* texels) {
  const int x = pixel_x(), y = pixel_y();
  if (!level.holds(x, y)) {
    return;
  }
  const float* image = frame1 + blockIdx.z * level.plane();
  const float left = image[level.at(max(x - 1, 0), y)], right = image[level.at(min(x + 1, level.width - 1), y)];
  const float above = image[level.at(x, max(y - 1, 0))], below = image[level.at(x, min(y + 1, level.height - 1))];
  texels[blockIdx.z * level.plane() + level.at(x, y)] =
      make_float4(image[level.at(x, y)], 0.5f * (right - left), 0.5f * (below - above), 0.0f);
}

// Warping. term = (wx, wy: warped gradient; warped value - (wx, wy) . u - frame 0; data_norm).
template <bool exact>
__global__ void data_term_kernel(const float* frame0, const float4* texels, const float* flow, Level level,
                                 float4* term) {
  const int x = pixel_x(), y = pixel_y();
  if (!level.holds(x, y)) {
    return;
  }
  const int64_t pixel = level.at(x, y), plane = level.plane();
  const float u1 = flow[2 * blockIdx.z * plane + pixel], u2 = flow[(2 * blockIdx.z + 1) * plane + pixel];
  texels += blockIdx.z * plane;
  const CubicTap tx = cubic_tap(static_cast<float>(x) + u1, level.width);
  const CubicTap ty = cubic_tap(static_cast<float>(y) + u2, level.height);
  float x_weight[4], y_weight[4];
  cubic_weights(tx.fraction, x_weight[0], x_weight[1], x_weight[2], x_weight[3]);
  cubic_weights(ty.fraction, y_weight[0], y_weight[1], y_weight[2], y_weight[3]);
  float value = 0.0f, wx = 0.0f, wy = 0.0f;
  UNROLL
  for (int j = 0; j < 4; ++j) {
    float row_value = 0.0f, row_wx = 0.0f, row_wy = 0.0f;
    UNROLL
    for (int i = 0; i < 4; ++i) {
      const int tap_x = tx.base - 1 + i, tap_y = ty.base - 1 + j;
      const bool inside = level.holds(tap_x, tap_y);
      const float4 texel = inside ? texels[level.at(tap_x, tap_y)] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      row_value = fma_of(x_weight[i], texel.x, row_value);
      row_wx = fma_of(x_weight[i], texel.y, row_wx);
      row_wy = fma_of(x_weight[i], texel.z, row_wy);
    }
    value = fma_of(y_weight[j], row_value, value);
    wx = fma_of(y_weight[j], row_wx, wx);
    wy = fma_of(y_weight[j], row_wy, wy);
  }
  const float reference = frame0[blockIdx.z * plane + pixel];
  term[blockIdx.z * plane + pixel] =
      make_float4(wx, wy, value - wx * u1 - wy * u2 - reference, data_norm<exact>(wx, wy));
}

// size x size median; pixels outside the image repeat the nearest edge pixel. Planes are (pair, component).
template <int size>
__global__ void median_kernel(const float* flow, float* filtered, Level level, const uint8_t* state) {
  const int x = pixel_x(), y = pixel_y();
  const uint8_t pair_state = state[blockIdx.z / 2];
  if (!level.holds(x, y) || pair_state == kResting) {
    return;
  }
  flow += blockIdx.z * level.plane();
  float& result = filtered[blockIdx.z * level.plane() + level.at(x, y)];
  if (pair_state == kStopped) {
    result = flow[level.at(x, y)];
    return;
  }
  result = median_of<size * size, float>([&](int i) {
    const int from_x = min(max(x + i % size - size / 2, 0), level.width - 1);
    const int from_y = min(max(y + i / size - size / 2, 0), level.height - 1);
    return flow[level.at(from_x, from_y)];
  });
}

// Writes the sum of `value` over the block's threads to *result, in an order that is always the same. `scratch` holds
// one float per thread, a power of two of them, and may hold anything before.
__device__ void store_block_sum(float value, float* scratch, float* result) {
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  __syncthreads();
  scratch[thread] = value;
  for (int half = blockDim.x * blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) {
      scratch[thread] += scratch[thread + half];
    }
  }
  if (thread == 0) {
    *result = scratch[0];
  }
}

struct IterateArguments {
  const float *flow, *dual; // [pairs, 2, H, W] and [pairs, 4, H, W]: (p11, p12) dual of u1, (p21, p22) dual of u2
  float *new_flow, *new_dual;
  const float4* term; // [pairs, H, W], see data_term_kernel
  Level level;
  int iterations;            // at most kTileIterations; 1 where changes are wanted
  float limit, theta, ratio; // attachment * theta, theta, tau / theta
  const uint8_t* state;      // [pairs]
  float* changes;            // [pairs, tiles], or null
};

// A block loads a tile with a halo of `iterations` pixels, iterates on it in shared memory, and stores what is
// inside the halo: each iteration makes one more ring of the tile wrong, because it needs neighbours that are not
// there. A thread works on kRowsPerThread neighbouring rows of one column.
template <bool exact>
__global__ void __launch_bounds__(kTileWidth* kTileHeight / kRowsPerThread) iterate_kernel(IterateArguments a) {
  __shared__ float u1[kTileHeight][kTileWidth], u2[kTileHeight][kTileWidth];
  __shared__ float p11[kTileHeight][kTileWidth], p12[kTileHeight][kTileWidth];
  __shared__ float p21[kTileHeight][kTileWidth], p22[kTileHeight][kTileWidth];
  const uint8_t state = a.state[blockIdx.z];
  if (state == kResting) {
    return;
  }
  const Level level = a.level;
  const int64_t plane = level.plane();
  const float *flow = a.flow + 2 * blockIdx.z * plane, *dual = a.dual + 4 * blockIdx.z * plane;
  const int column = threadIdx.x, first_row = threadIdx.y * kRowsPerThread, halo = a.iterations;
  const int x = blockIdx.x * (kTileWidth - 2 * halo) - halo + column;
  const int first_y = blockIdx.y * (kTileHeight - 2 * halo) - halo + first_row;

  float4 term[kRowsPerThread];
  UNROLL
  for (int r = 0; r < kRowsPerThread; ++r) {
    const int row = first_row + r, y = first_y + r;
    const bool inside = level.holds(x, y);
    const int64_t pixel = inside ? level.at(x, y) : 0;
    u1[row][column] = inside ? flow[pixel] : 0.0f;
    u2[row][column] = inside ? flow[plane + pixel] : 0.0f;
    p11[row][column] = inside ? dual[pixel] : 0.0f;
    p12[row][column] = inside ? dual[plane + pixel] : 0.0f;
    p21[row][column] = inside ? dual[2 * plane + pixel] : 0.0f;
    p22[row][column] = inside ? dual[3 * plane + pixel] : 0.0f;
    term[r] = inside ? a.term[blockIdx.z * plane + pixel] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }
  __syncthreads();

  float change = 0.0f;
  const bool last_column = x == level.width - 1 || column == kTileWidth - 1;
  for (int iteration = 0; iteration < (state == kMoving ? a.iterations : 0); ++iteration) {
    UNROLL
    for (int r = 0; r < kRowsPerThread; ++r) {
      const int row = first_row + r, y = first_y + r;
      if (!level.holds(x, y)) {
        continue; // p stays zero outside the image
      }
      const int left = max(column - 1, 0), above = max(row - 1, 0);
      const float above1 = y > 0 ? p12[above][column] : 0.0f, above2 = y > 0 ? p22[above][column] : 0.0f;
      const float left1 = x > 0 ? p11[row][left] : 0.0f, left2 = x > 0 ? p21[row][left] : 0.0f;
      // OpenCV adds up the first column in another order.
      const bool reordered = exact && x == 0;
      const float divergence1 = reordered ? (p11[row][column] + p12[row][column]) - above1
                                          : (p11[row][column] - left1) + (p12[row][column] - above1);
      const float divergence2 = reordered ? (p21[row][column] + p22[row][column]) - above2
                                          : (p21[row][column] - left2) + (p22[row][column] - above2);
      const float old1 = u1[row][column], old2 = u2[row][column];
      float new1 = old1, new2 = old2;
      primal_step<exact>(new1, new2, term[r].x, term[r].y, term[r].z, term[r].w, divergence1, divergence2, a.limit,
                         a.theta);
      u1[row][column] = new1;
      u2[row][column] = new2;
      const bool owned = column >= halo && column < kTileWidth - halo && row >= halo && row < kTileHeight - halo;
      change += owned ? (new1 - old1) * (new1 - old1) + (new2 - old2) * (new2 - old2) : 0.0f;
    }
    __syncthreads();
    UNROLL
    for (int r = 0; r < kRowsPerThread; ++r) {
      const int row = first_row + r, y = first_y + r;
      if (!level.holds(x, y)) {
        continue;
      }
      const bool last_row = y == level.height - 1 || row == kTileHeight - 1;
      const int right = last_column ? column : column + 1, below = last_row ? row : row + 1;
      const float center1 = u1[row][column], center2 = u2[row][column];
      dual_step<exact>(p11[row][column], p12[row][column], u1[row][right] - center1, u1[below][column] - center1,
                       a.ratio);
      dual_step<exact>(p21[row][column], p22[row][column], u2[row][right] - center2, u2[below][column] - center2,
                       a.ratio);
    }
    __syncthreads();
  }

  UNROLL
  for (int r = 0; r < kRowsPerThread; ++r) {
    const int row = first_row + r, y = first_y + r;
    if (column < halo || column >= kTileWidth - halo || row < halo || row >= kTileHeight - halo || !level.holds(x, y)) {
      continue;
    }
    float* new_flow = a.new_flow + 2 * blockIdx.z * plane + level.at(x, y);
    float* new_dual = a.new_dual + 4 * blockIdx.z * plane + level.at(x, y);
    new_flow[0] = u1[row][column];
    new_flow[plane] = u2[row][column];
    new_dual[0] = p11[row][column];
    new_dual[plane] = p12[row][column];
    new_dual[2 * plane] = p21[row][column];
    new_dual[3 * plane] = p22[row][column];
  }
  if (a.changes != nullptr) {
    store_block_sum(change, &u1[0][0], a.changes + (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x);
  }
}

// One block per pair: decides whether the pair goes on after an iteration.
__global__ void update_state_kernel(const float* changes, int tiles, float threshold, uint8_t* state) {
  __shared__ float scratch[1024];
  float change = 0.0f;
  for (int i = threadIdx.x; i < tiles; i += blockDim.x) {
    change += changes[int64_t{blockIdx.x} * tiles + i];
  }
  __shared__ float total;
  store_block_sum(change, scratch, &total);
  if (threadIdx.x == 0) {
    const uint8_t before = state[blockIdx.x];
    state[blockIdx.x] = before == kMoving ? (total > threshold ? kMoving : kStopped) : kResting;
  }
}

} // namespace
} // namespace pyaction
