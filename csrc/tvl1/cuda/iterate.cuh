#pragma once
// The median filter of the flow, the primal-dual iterations, and the rule that stops them.
#include "tvl1/cuda/pyramid.cuh"

namespace pyaction {
namespace {

// Tile of iterate_kernel, halo included; a block is kTileWidth x kThreadRows threads.
constexpr int kTileWidth = 64, kTileHeight = 32, kRowsPerThread = 8, kThreadRows = kTileHeight / kRowsPerThread;
constexpr int kTileIterations = 4; // per launch: each costs a ring of the tile, and saves a trip through memory
// Not built yet, for want of a GPU to prove it on: from sm_90 on, a cluster of 8 blocks can hold a level of 320 x 240
// (p in registers, u and the term in shared memory) and read its neighbours' edges there, cluster.sync() in the place
// of __syncthreads(). All iterations of a round are one launch then, without halo.

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
  // [sequences, 2, H, W] and [sequences, 4, H, W]: (p11, p12) of u1, (p21, p22) of u2. Duals in half precision would
  // move the mean end-point error by less than 0.001 px (Middlebury), but save a quarter of the bytes of a kernel that
  // waits for instructions, and end its equality with the CPU's.
  const float *flow, *dual;
  float *new_flow, *new_dual;
  const float4* term; // [sequences, H, W], see data_term.cuh
  Level level;
  int iterations;            // at most kTileIterations; 1 where changes are measured
  float limit, theta, ratio; // attachment * theta, theta, tau / theta
  const uint8_t* statuses;   // [sequences]
  float* changes;            // [sequences, tiles], where they are measured
};

// A block loads a tile with a halo of `iterations` pixels, iterates on it, and stores what is inside the halo: each
// iteration makes one more ring of the tile wrong, because it needs neighbours that are not there. A thread keeps
// kRowsPerThread neighbouring rows of one column in registers; shared memory holds what threads beside, above and below
// read: u1, u2, p11 and p21 of every pixel, p12 and p22 of each thread's last row.
//
// The edges of the image need no case of their own but one: outside of it u and p are zero, and stay zero, because
// there is no data term and the forward gradient across an edge is taken as zero on both of its sides.
template <bool as_opencv, bool measures>
__global__ void __launch_bounds__(kTileWidth* kThreadRows, 2) iterate_kernel(IterateArguments a) {
  __shared__ float shared_u1[kTileHeight][kTileWidth], shared_u2[kTileHeight][kTileWidth];
  __shared__ float shared_p11[kTileHeight][kTileWidth], shared_p21[kTileHeight][kTileWidth];
  __shared__ float shared_p12[kThreadRows][kTileWidth], shared_p22[kThreadRows][kTileWidth];
  const uint8_t status = a.statuses[blockIdx.z];
  if (status == kResting) {
    return;
  }
  const Level level = a.level;
  const int64_t plane = level.plane();
  const int column = threadIdx.x, first_row = threadIdx.y * kRowsPerThread;
  const int halo = measures ? 1 : a.iterations;
  const int x = blockIdx.x * (kTileWidth - 2 * halo) - halo + column;
  const int first_y = blockIdx.y * (kTileHeight - 2 * halo) - halo + first_row;

  float u1[kRowsPerThread], u2[kRowsPerThread];
  float p11[kRowsPerThread], p12[kRowsPerThread], p21[kRowsPerThread], p22[kRowsPerThread];
  float4 term[kRowsPerThread];
  UNROLL
  for (int r = 0; r < kRowsPerThread; ++r) {
    const bool inside = level.holds(x, first_y + r);
    const int64_t pixel = inside ? level.at(x, first_y + r) : 0;
    const float *flow = a.flow + 2 * blockIdx.z * plane + pixel, *dual = a.dual + 4 * blockIdx.z * plane + pixel;
    u1[r] = inside ? flow[0] : 0.0f;
    u2[r] = inside ? flow[plane] : 0.0f;
    p11[r] = inside ? dual[0] : 0.0f;
    p12[r] = inside ? dual[plane] : 0.0f;
    p21[r] = inside ? dual[2 * plane] : 0.0f;
    p22[r] = inside ? dual[3 * plane] : 0.0f;
    term[r] = inside ? a.term[blockIdx.z * plane + pixel] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    shared_p11[first_row + r][column] = p11[r];
    shared_p21[first_row + r][column] = p21[r];
  }
  constexpr int last = kRowsPerThread - 1;
  shared_p12[threadIdx.y][column] = p12[last];
  shared_p22[threadIdx.y][column] = p22[last];
  __syncthreads();

  const auto owned = [=](int r) {
    const int row = first_row + r;
    return column >= halo && column < kTileWidth - halo && row >= halo && row < kTileHeight - halo;
  };
  // At the edges of the tile a thread is its own neighbour, which is as wrong as any other.
  const int left = max(column - 1, 0), above = max(static_cast<int>(threadIdx.y) - 1, 0);
  const int right = x >= 0 && x < level.width - 1 && column < kTileWidth - 1 ? column + 1 : column;
  const int below = min(first_row + kRowsPerThread, kTileHeight - 1);
  // OpenCV adds up the first column in another order.
  const bool reordered = as_opencv && x == 0;
  float change = 0.0f;
  for (int iteration = 0; iteration < (status == kMoving ? halo : 0); ++iteration) {
    UNROLL
    for (int r = 0; r < kRowsPerThread; ++r) {
      const int row = first_row + r;
      const float above1 = r > 0 ? p12[r - 1] : shared_p12[above][column];
      const float above2 = r > 0 ? p22[r - 1] : shared_p22[above][column];
      const float left1 = shared_p11[row][left], left2 = shared_p21[row][left];
      const float divergence1 = reordered ? (p11[r] + p12[r]) - above1 : (p11[r] - left1) + (p12[r] - above1);
      const float divergence2 = reordered ? (p21[r] + p22[r]) - above2 : (p21[r] - left2) + (p22[r] - above2);
      const float old1 = u1[r], old2 = u2[r];
      // OpenCV's norm is cheap to make again, and registers are dear.
      const float norm = as_opencv ? data_norm<true>(term[r].x, term[r].y) : term[r].w;
      primal_step<as_opencv>(u1[r], u2[r], term[r].x, term[r].y, term[r].z, norm, divergence1, divergence2, a.limit,
                             a.theta);
      shared_u1[row][column] = u1[r];
      shared_u2[row][column] = u2[r];
      if (measures) {
        change += owned(r) ? (u1[r] - old1) * (u1[r] - old1) + (u2[r] - old2) * (u2[r] - old2) : 0.0f;
      }
    }
    __syncthreads();
    UNROLL
    for (int r = 0; r < kRowsPerThread; ++r) {
      const int row = first_row + r, y = first_y + r;
      const bool has_below = y >= 0 && y < level.height - 1;
      const float below1 = r < last ? u1[r + 1] : shared_u1[below][column];
      const float below2 = r < last ? u2[r + 1] : shared_u2[below][column];
      const DualStep<float> step = begin_dual_step<as_opencv>(
          p11[r], p12[r], p21[r], p22[r], shared_u1[row][right] - u1[r], has_below ? below1 - u1[r] : 0.0f,
          shared_u2[row][right] - u2[r], has_below ? below2 - u2[r] : 0.0f, a.ratio);
      end_dual_step<as_opencv>(step, p11[r], p12[r], p21[r], p22[r], a.ratio);
      shared_p11[row][column] = p11[r];
      shared_p21[row][column] = p21[r];
    }
    shared_p12[threadIdx.y][column] = p12[last];
    shared_p22[threadIdx.y][column] = p22[last];
    __syncthreads();
  }

  UNROLL
  for (int r = 0; r < kRowsPerThread; ++r) {
    if (!owned(r) || !level.holds(x, first_y + r)) {
      continue;
    }
    const int64_t pixel = level.at(x, first_y + r);
    float *new_flow = a.new_flow + 2 * blockIdx.z * plane + pixel,
          *new_dual = a.new_dual + 4 * blockIdx.z * plane + pixel;
    new_flow[0] = u1[r];
    new_flow[plane] = u2[r];
    new_dual[0] = p11[r];
    new_dual[plane] = p12[r];
    new_dual[2 * plane] = p21[r];
    new_dual[3 * plane] = p22[r];
  }
  if (measures) {
    store_block_sum(change, &shared_u1[0][0],
                    a.changes + (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x);
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
