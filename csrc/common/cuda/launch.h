#pragma once
// The one way in which a kernel is launched: current stream, checked afterwards.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cuda_runtime.h>

#include <cstdint>

// The only symbol that lives in libtorch_cuda. Weak, so that one binary also loads under a CPU-only torch, which
// never calls it.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);

namespace pyaction {

constexpr int kThreads = 256;           // per block, for the kernels without a tile
constexpr int64_t kMostBlocksY = 65535; // that CUDA launches along y, and along z

inline cudaStream_t current_stream(const torch::stable::Tensor& tensor) {
  void* stream = nullptr;
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream) == AOTI_TORCH_SUCCESS,
                  "pyaction: torch has no current CUDA stream");
  return static_cast<cudaStream_t>(stream);
}

inline void check_cuda(cudaError_t error, const char* what) {
  STD_TORCH_CHECK(error == cudaSuccess, "pyaction: ", what, " failed: ", cudaGetErrorString(error));
}

// Number of the calling thread in a launch along x.
__device__ inline int64_t thread_index() {
  return int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
}

// Blocks of `per_block` that cover `count` elements.
inline unsigned blocks_for(int64_t count, int64_t per_block) {
  const int64_t blocks = (count + per_block - 1) / per_block;
  STD_TORCH_CHECK(blocks <= 0x7fffffff, "pyaction: ", count, " elements are too many for one launch");
  return static_cast<unsigned>(blocks);
}

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, cudaStream_t stream, Arguments... arguments) {
  kernel<<<grid, block, 0, stream>>>(arguments...);
  check_cuda(cudaGetLastError(), "kernel launch");
}

} // namespace pyaction
