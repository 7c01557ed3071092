#pragma once
#include "common/power.h"
#include "photometric/photometric.h"

namespace pyaction {

// V: float, double or Vec (common/vec.h).
template <typename V, typename compute>
HOST_DEVICE V charbonnier(const Charbonnier<compute>& rho, V x) {
  const V scaled = V(rho.scale) * x;
  return power_of(scaled * scaled + V(rho.epsilon_squared), rho.alpha);
}

// d charbonnier / d x
template <typename V, typename compute>
HOST_DEVICE V charbonnier_slope(const Charbonnier<compute>& rho, V x) {
  const V scaled = V(rho.scale) * x;
  const V power = power_of(scaled * scaled + V(rho.epsilon_squared), rho.alpha - 1);
  return V(2 * rho.alpha * rho.scale) * scaled * power;
}

// Whether a pixel counts in the pixel and smoothness terms.
template <typename scalar_t>
HOST_DEVICE bool is_inside(const PhotometricArguments<scalar_t>& a, int y, int x) {
  return y >= a.margin && y < a.height - a.margin && x >= a.margin && x < a.width - a.margin;
}

} // namespace pyaction
