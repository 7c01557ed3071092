#pragma once
// The median filter of the flow, the primal-dual iterations, and the rule that stops them.
#include "tvl1/cuda/pyramid.cuh"

namespace pyaction {
namespace {

// Tile of iterate_kernel, halo included; a block is kTileWidth x (kTileHeight / kRowsPerThread) threads. Six planes
// of it fill the 48 KB of shared memory that every GPU has.
constexpr int kTileWidth = 64, kTileHeight = 32, kRowsPerThread = 8;
constexpr int kTileIterations = 4; // per launch: each costs a ring of the tile, and saves a trip through memory

// The status of a sequence: what a warp's stopping rule has decided. One that stopped is copied once more, after which
// both copies of its fields are equal and launches can pass it by.
constexpr uint8_t kResting = 0, kStopped = 1, kMoving = 2;

// size x size median; pixels outside the image repeat the nearest edge pixel. Planes are (sequence, component).
template <int size>
__global__ void median_kernel(const float* flow, float* filtered, Level level, const uint8_t* statuses) {
  const int x = pixel_x(), y = pixel_y();
  const uint8_t status = statuses[blockIdx.z / 2];
  if (!level.holds(x, y) || status == kResting) {
    return;
  }
  flow += blockIdx.z * level.plane();
  float& result = filtered[blockIdx.z * level.plane() + level.at(x, y)];
  if (status == kStopped) {
    result = flow[level.at(x, y)];
    return;
  }
  result = median_of<size * size, float>(
      [&](int i) { return flow[level.nearest(x + i % size - size / 2, y + i / size - size / 2)]; });
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
  const float *flow, *dual; // [sequences, 2, H, W] and [sequences, 4, H, W]: (p11, p12) of u1, (p21, p22) of u2
  float *new_flow, *new_dual;
  const float4* term; // [sequences, H, W], see data_term.cuh
  Level level;
  int iterations;            // at most kTileIterations; 1 where changes are wanted
  float limit, theta, ratio; // attachment * theta, theta, tau / theta
  const uint8_t* statuses;   // [sequences]
  float* changes;            // [sequences, tiles], or null
};

// A block loads a tile with a halo of `iterations` pixels, iterates on it in shared memory, and stores what is
// inside the halo: each iteration makes one more ring of the tile wrong, because it needs neighbours that are not
// there. A thread works on kRowsPerThread neighbouring rows of one column.
template <bool as_opencv>
__global__ void __launch_bounds__(kTileWidth* kTileHeight / kRowsPerThread) iterate_kernel(IterateArguments a) {
  __shared__ float u1[kTileHeight][kTileWidth], u2[kTileHeight][kTileWidth];
  __shared__ float p11[kTileHeight][kTileWidth], p12[kTileHeight][kTileWidth];
  __shared__ float p21[kTileHeight][kTileWidth], p22[kTileHeight][kTileWidth];
  const uint8_t status = a.statuses[blockIdx.z];
  if (status == kResting) {
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
  for (int iteration = 0; iteration < (status == kMoving ? a.iterations : 0); ++iteration) {
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
      const bool reordered = as_opencv && x == 0;
      const float divergence1 = reordered ? (p11[row][column] + p12[row][column]) - above1
                                          : (p11[row][column] - left1) + (p12[row][column] - above1);
      const float divergence2 = reordered ? (p21[row][column] + p22[row][column]) - above2
                                          : (p21[row][column] - left2) + (p22[row][column] - above2);
      const float old1 = u1[row][column], old2 = u2[row][column];
      float new1 = old1, new2 = old2;
      primal_step<as_opencv>(new1, new2, term[r].x, term[r].y, term[r].z, term[r].w, divergence1, divergence2, a.limit,
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
      const DualStep<float> step = begin_dual_step<as_opencv>(
          p11[row][column], p12[row][column], p21[row][column], p22[row][column], u1[row][right] - center1,
          u1[below][column] - center1, u2[row][right] - center2, u2[below][column] - center2, a.ratio);
      end_dual_step<as_opencv>(step, p11[row][column], p12[row][column], p21[row][column], p22[row][column], a.ratio);
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

// One block per sequence: decides whether it goes on after an iteration.
__global__ void update_status_kernel(const float* changes, int tiles, float threshold, uint8_t* statuses) {
  __shared__ float scratch[1024];
  float change = 0.0f;
  for (int i = threadIdx.x; i < tiles; i += blockDim.x) {
    change += changes[int64_t{blockIdx.x} * tiles + i];
  }
  __shared__ float total;
  store_block_sum(change, scratch, &total);
  if (threadIdx.x == 0) {
    uint8_t& status = statuses[blockIdx.x];
    status = status == kMoving ? (total > threshold ? kMoving : kStopped) : kResting;
  }
}

} // namespace
} // namespace pyaction
