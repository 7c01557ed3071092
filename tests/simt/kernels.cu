// Kernels that test the emulator: right ones, and ones with the mistakes that it is there to find.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "common/cuda/launch.h"

namespace simt_test {
namespace {

using torch::stable::Tensor;

constexpr int kRows = 8; // of the result
constexpr unsigned kFull = 0xffffffffu;

template <bool barrier>
__global__ void reverse(const int64_t* in, int64_t* out) {
  __shared__ int64_t values[1024];
  values[threadIdx.x] = in[threadIdx.x];
  if (barrier) {
    __syncthreads();
  }
  out[threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
}

// The sum of the block, by shuffles within warps and shared memory between them.
__global__ void sum(const int64_t* in, int64_t* out) {
  __shared__ int64_t warps[32];
  int64_t value = in[threadIdx.x];
  for (int delta = 16; delta > 0; delta /= 2) {
    value += __shfl_down_sync(kFull, value, delta);
  }
  if (threadIdx.x % 32 == 0) {
    warps[threadIdx.x / 32] = value;
  }
  __syncthreads();
  value = threadIdx.x < blockDim.x / 32 ? warps[threadIdx.x] : 0;
  for (int flips = 16; flips > 0; flips /= 2) {
    value += __shfl_xor_sync(kFull, value, flips);
  }
  out[threadIdx.x] = value; // of warp 0
}

__global__ void shuffle(const int64_t* in, int64_t* out) {
  const int64_t value = in[threadIdx.x];
  int64_t* own = out + threadIdx.x;
  const unsigned n = blockDim.x;
  own[0 * n] = __shfl_sync(kFull, value, 5);
  own[1 * n] = __shfl_sync(kFull, value, 9, 8);
  own[2 * n] = __shfl_up_sync(kFull, value, 3);
  own[3 * n] = __shfl_down_sync(kFull, value, 3, 16);
  own[4 * n] = __shfl_xor_sync(kFull, value, 6);
  // Two halves that go different ways; the float is as wide as a shuffle has to be.
  const unsigned half = threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  if (threadIdx.x % 32 < 16) {
    own[5 * n] = static_cast<int64_t>(__shfl_xor_sync(half, static_cast<float>(value), 1));
  } else {
    own[5 * n] = -__shfl_xor_sync(half, value, 15);
  }
}

__global__ void vote(const int64_t* in, int64_t* out) {
  const int64_t value = in[threadIdx.x];
  int64_t* own = out + threadIdx.x;
  const unsigned n = blockDim.x;
  own[0 * n] = __ballot_sync(kFull, value % 3 == 0);
  own[1 * n] = __any_sync(kFull, value == 40);
  own[2 * n] = __all_sync(kFull, value < 32);
  own[3 * n] = __syncthreads_count(value % 5 == 0);
  own[4 * n] = __syncthreads_or(value == 40);
  own[5 * n] = __syncthreads_and(value != 40);
}

__global__ void add(const int64_t* in, int64_t* out) {
  atomicAdd(out, in[threadIdx.x]);
  atomicMax(out + 1, in[threadIdx.x]);
  atomicMin(out + 2, -in[threadIdx.x]);
  int64_t seen = 0, before = 0;
  while ((before = atomicCAS(out + 3, seen, seen + in[threadIdx.x])) != seen) {
    seen = before;
  }
}

// A block of half the threads sums what is left after the others have gone.
__global__ void exit_early(const int64_t* in, int64_t* out) {
  __shared__ int64_t total;
  if (threadIdx.x % 2 == 1) {
    return;
  }
  if (threadIdx.x == 0) {
    total = 0;
  }
  __syncthreads();
  atomicAdd(&total, in[threadIdx.x]);
  __syncthreads();
  out[threadIdx.x] = total;
}

// Each block reads what nobody has written, then writes it.
__global__ void read_unwritten(const int64_t*, int64_t* out) {
  __shared__ float number;
  __shared__ int64_t integer;
  out[2 * blockIdx.x] = number != number;
  out[2 * blockIdx.x + 1] = integer;
  number = 1.5f;
  integer = 15;
}

__global__ void diverge(const int64_t* in, int64_t* out) {
  if (threadIdx.x < 8) {
    __syncthreads();
    out[threadIdx.x] = in[threadIdx.x];
  } else {
    __syncthreads();
  }
}

__global__ void diverge_in_warp(const int64_t* in, int64_t* out) {
  if (threadIdx.x == 3) {
    __syncthreads();
  }
  out[threadIdx.x] = __shfl_sync(kFull, in[threadIdx.x], 0);
}

__global__ void shuffle_outside_the_mask(const int64_t* in, int64_t* out) {
  out[threadIdx.x] = __shfl_sync(0xfffffffeu, in[threadIdx.x], 1);
}

__global__ void fail(const int64_t* in, int64_t*) {
  STD_TORCH_CHECK(in[threadIdx.x] != 7, "thread ", threadIdx.x, " has had enough");
  __syncthreads();
}

__global__ void write_past_the_end(const int64_t* in, int64_t* out) {
  out[kRows * blockDim.x + threadIdx.x] = in[threadIdx.x];
}

__global__ void number_threads(const int64_t*, int64_t* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  out[block * threads + thread] = 1000 * block + 100 * threadIdx.x + 10 * threadIdx.y + threadIdx.z;
}

void launch_with(void (*kernel)(const int64_t*, int64_t*), dim3 grid, dim3 block, const Tensor& in, const Tensor& out) {
  const torch::stable::accelerator::DeviceGuard guard(in.get_device_index());
  pyaction::launch(kernel, grid, block, pyaction::current_stream(in), in.const_data_ptr<int64_t>(),
                   out.mutable_data_ptr<int64_t>());
}

// One thread for each element of in [n]; the result is [kRows, n], zeros where the kernel writes nothing.
template <void (*kernel)(const int64_t*, int64_t*)>
Tensor run(const Tensor& in, int64_t blocks) {
  const Tensor out = torch::stable::new_zeros(in, {kRows, in.size(0)});
  launch_with(kernel, static_cast<unsigned>(blocks), static_cast<unsigned>(in.size(0)), in, out);
  return out;
}

Tensor run_in_three_dimensions(const Tensor& in) {
  const Tensor out = torch::stable::new_zeros(in, {2 * 3 * 2, 4 * 3 * 2});
  launch_with(number_threads, dim3(2, 3, 2), dim3(4, 3, 2), in, out);
  return out;
}

} // namespace

STABLE_TORCH_LIBRARY(simt_test, m) {
  for (const char* schema :
       {"reverse(Tensor x, int blocks) -> Tensor", "reverse_without_barrier(Tensor x, int blocks) -> Tensor",
        "sum(Tensor x, int blocks) -> Tensor", "shuffle(Tensor x, int blocks) -> Tensor",
        "vote(Tensor x, int blocks) -> Tensor", "add(Tensor x, int blocks) -> Tensor",
        "exit_early(Tensor x, int blocks) -> Tensor", "read_unwritten(Tensor x, int blocks) -> Tensor",
        "diverge(Tensor x, int blocks) -> Tensor", "diverge_in_warp(Tensor x, int blocks) -> Tensor",
        "shuffle_outside_the_mask(Tensor x, int blocks) -> Tensor", "fail(Tensor x, int blocks) -> Tensor",
        "write_past_the_end(Tensor x, int blocks) -> Tensor", "number_threads(Tensor x) -> Tensor"}) {
    m.def(schema);
  }
}

STABLE_TORCH_LIBRARY_IMPL(simt_test, CUDA, m) {
  m.impl("reverse", TORCH_BOX(&run<reverse<true>>));
  m.impl("reverse_without_barrier", TORCH_BOX(&run<reverse<false>>));
  m.impl("sum", TORCH_BOX(&run<sum>));
  m.impl("shuffle", TORCH_BOX(&run<shuffle>));
  m.impl("vote", TORCH_BOX(&run<vote>));
  m.impl("add", TORCH_BOX(&run<add>));
  m.impl("exit_early", TORCH_BOX(&run<exit_early>));
  m.impl("read_unwritten", TORCH_BOX(&run<read_unwritten>));
  m.impl("diverge", TORCH_BOX(&run<diverge>));
  m.impl("diverge_in_warp", TORCH_BOX(&run<diverge_in_warp>));
  m.impl("shuffle_outside_the_mask", TORCH_BOX(&run<shuffle_outside_the_mask>));
  m.impl("fail", TORCH_BOX(&run<fail>));
  m.impl("write_past_the_end", TORCH_BOX(&run<write_past_the_end>));
  m.impl("number_threads", TORCH_BOX(&run_in_three_dimensions));
}

} // namespace simt_test
