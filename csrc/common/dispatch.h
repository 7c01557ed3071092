#pragma once
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

namespace pyaction {

// Calls body(scalar_t{}) with the C++ type of a floating dtype: float or double.
template <typename Body>
void dispatch_floating(torch::headeronly::ScalarType dtype, const char* op, Body&& body) {
  if (dtype == torch::headeronly::ScalarType::Float) {
    body(float{});
  } else if (dtype == torch::headeronly::ScalarType::Double) {
    body(double{});
  } else {
    STD_TORCH_CHECK(false, op, ": dtype must be float32 or float64; got ", torch::headeronly::toString(dtype));
  }
}

} // namespace pyaction
