#pragma once

namespace pyaction {

// What kernels compute in: half precision is for memory alone.
template <typename scalar_t>
struct ComputeOf {
  using type = float;
};

template <>
struct ComputeOf<double> {
  using type = double;
};

template <typename scalar_t>
using compute_t = typename ComputeOf<scalar_t>::type;

} // namespace pyaction
