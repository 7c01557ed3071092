#include "common/simd.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace pyaction {
namespace {

SimdLevel best_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return SimdLevel::kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
    return SimdLevel::kAvx2;
  }
#endif
  return SimdLevel::kBaseline;
}

SimdLevel chosen_level() {
  const SimdLevel best = best_level();
  const char* wanted = std::getenv("PYACTION_SIMD");
  if (wanted == nullptr || *wanted == '\0') {
    return best;
  }
  for (SimdLevel level : {SimdLevel::kBaseline, SimdLevel::kAvx2, SimdLevel::kAvx512}) {
    if (std::string(wanted) == simd_level_name(level)) {
      if (level > best) {
        throw std::runtime_error(std::string("PYACTION_SIMD=") + wanted + ", but this CPU has only " +
                                 simd_level_name(best));
      }
      return level;
    }
  }
  throw std::runtime_error(std::string("PYACTION_SIMD must be baseline, avx2 or avx512; got ") + wanted);
}

} // namespace

const char* simd_level_name(SimdLevel level) {
  return level == SimdLevel::kAvx512 ? "avx512" : level == SimdLevel::kAvx2 ? "avx2" : "baseline";
}

SimdLevel simd_level() {
  static const SimdLevel level = chosen_level();
  return level;
}

} // namespace pyaction
