#pragma once
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

#include "common/compute.h"

namespace pyaction {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

// The dtypes of an op on one device.
template <typename... scalar_t>
struct Types {};

using FullTypes = Types<float, double>;
using HalfTypes = Types<float, double, Half, BFloat16>; // of CUDA kernels that also take half precision

inline const char* names_of(FullTypes) {
  return "float32 or float64";
}

inline const char* names_of(HalfTypes) {
  return "float32, float64, float16 or bfloat16";
}

// Calls body(scalar_t{}) with the C++ type of a dtype, which must be one of the listed.
template <typename... scalar_t, typename Body>
void dispatch(Types<scalar_t...> types, torch::headeronly::ScalarType dtype, const char* op, Body&& body) {
  const auto call = [&](auto zero) {
    const bool matches = dtype == torch::headeronly::CppTypeToScalarType<decltype(zero)>::value;
    if (matches) {
      body(zero);
    }
    return matches;
  };
  STD_TORCH_CHECK((call(scalar_t{}) || ...), op, ": dtype must be ", names_of(types), "; got ",
                  torch::headeronly::toString(dtype));
}

} // namespace pyaction
