#pragma once
#include "common/elementary.h"

namespace pyaction {

// base^exponent, for bases above zero; what is not finite gives NaN or infinity.
HOST_DEVICE float power_of(float base, float exponent) {
#if defined(__CUDA_ARCH__)
  return exp2f(exponent * __log2f(base));
#else
  return powf(base, exponent);
#endif
}

HOST_DEVICE double power_of(double base, double exponent) {
#if defined(__CUDA_ARCH__)
  return exp2(exponent * log2(base)); // pow is a call, around which registers are spilled
#else
  return pow(base, exponent);
#endif
}

} // namespace pyaction
