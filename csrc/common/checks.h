#pragma once
// Checks that the CPU and CUDA entries of every op share. Python checks first and raises ValueError with the
// user's words; these keep a direct call of torch.ops.pyaction.* from reading out of bounds.
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <limits>

namespace pyaction {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check_rank(const char* op, const char* name, const Tensor& tensor, int64_t rank) {
  STD_TORCH_CHECK(tensor.dim() == rank, op, ": ", name, " must have ", rank, " dimensions; got ", tensor.dim());
}

inline void check_size(const char* op, const char* name, const Tensor& tensor, int64_t dim, int64_t expected) {
  STD_TORCH_CHECK(tensor.size(dim) == expected, op, ": ", name, " must have size ", expected, " in dimension ", dim,
                  "; got ", tensor.size(dim));
}

// Same device and dtype; sizes are each op's own matter.
inline void check_alike(const char* op, const char* name, const Tensor& tensor, const Tensor& other) {
  STD_TORCH_CHECK(tensor.scalar_type() == other.scalar_type() && tensor.is_cuda() == other.is_cuda() &&
                      tensor.get_device_index() == other.get_device_index(),
                  op, ": ", name, " must have the dtype and device of the first argument");
}

inline void check_same_shape(const char* op, const char* name, const Tensor& tensor, const Tensor& other) {
  check_alike(op, name, tensor, other);
  check_rank(op, name, tensor, other.dim());
  for (int64_t dim = 0; dim < other.dim(); ++dim) {
    check_size(op, name, tensor, dim, other.size(dim));
  }
}

// Kernels index inside one image with 32 bits.
inline void check_plane(const char* op, int64_t height, int64_t width) {
  STD_TORCH_CHECK(height < (int64_t{1} << 24) && width < (int64_t{1} << 24) &&
                      height * width <= std::numeric_limits<int32_t>::max() / 8,
                  op, ": images of ", height, " x ", width, " are too large");
}

} // namespace pyaction
