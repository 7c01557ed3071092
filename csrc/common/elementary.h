#pragma once
// Elementary functions under one name for float, double and (common/vec.h) vectors, on host and device. C's own
// functions, because std's are inline and would enter the symbol table (common/host_device.h says why not).
#include <math.h>

#include "common/host_device.h"

namespace pyaction {

HOST_DEVICE float abs_of(float value) {
  return fabsf(value);
}

HOST_DEVICE double abs_of(double value) {
  return fabs(value);
}

HOST_DEVICE float floor_of(float value) {
  return floorf(value);
}

HOST_DEVICE double floor_of(double value) {
  return floor(value);
}

// a * b + c, rounded once where the hardware can. For sources that are compiled without contraction, where nothing
// else is fused: what is rounded where then does not depend on the compiler.
HOST_DEVICE float fma_of(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return fmaf(a, b, c);
#elif defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

// sqrt(a^2 + b^2), correctly rounded.
HOST_DEVICE float hypot_of(float a, float b) {
  return static_cast<float>(sqrt(static_cast<double>(a) * a + static_cast<double>(b) * b));
}

// a / b, on a GPU right to two units in the last place: exact division is a subroutine there, around which registers
// are spilled.
HOST_DEVICE float ratio_of(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdividef(a, b);
#else
  return a / b;
#endif
}

HOST_DEVICE double ratio_of(double a, double b) {
  return a / b;
}

HOST_DEVICE float sqrt_of(float value) {
  return sqrtf(value);
}

// a < b ? x : y
HOST_DEVICE float where_less(float a, float b, float x, float y) {
  return a < b ? x : y;
}

HOST_DEVICE double where_less(double a, double b, double x, double y) {
  return a < b ? x : y;
}

// Of NaN and a bound these give the bound, where the bound comes second.
HOST_DEVICE float min_of(float a, float b) {
  return a < b ? a : b;
}

HOST_DEVICE double min_of(double a, double b) {
  return a < b ? a : b;
}

HOST_DEVICE float max_of(float a, float b) {
  return a > b ? a : b;
}

HOST_DEVICE double max_of(double a, double b) {
  return a > b ? a : b;
}

} // namespace pyaction
